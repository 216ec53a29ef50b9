"""AdapterHub's library `adapters`: its files, read and written."""

from .fusions import read_fusion
from .reading import read_adapter
from .writing import export_adapter

__all__ = ["export_adapter", "read_adapter", "read_fusion"]
