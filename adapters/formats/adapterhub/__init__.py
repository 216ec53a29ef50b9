"""AdapterHub's library `adapters`: its files, read and written."""

from .fusions import read_fusion
from .reading import read_adapter
from .writing import files_of

__all__ = ["files_of", "read_adapter", "read_fusion"]
