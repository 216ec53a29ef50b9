"""AdapterHub's library `adapters`: its files, read and written."""

from .export import export_adapter as export_adapter
from .files import read_adapter as read_adapter
from .fusion import read_fusion as read_fusion
