"""Training many adapters on one frozen backbone."""

from .data import Columns, Examples
from .recipe import Recipe
from .run import Interrupted, Result, train, train_many

__all__ = ["Columns", "Examples", "Interrupted", "Recipe", "Result", "train", "train_many"]
