"""Training many adapters on one frozen backbone."""

from ..data.columns import Columns
from ..data.examples import Examples
from .queue import Interrupted
from .recipe import Recipe
from .result import Result
from .run import train, train_many

__all__ = ["Columns", "Examples", "Interrupted", "Recipe", "Result", "train", "train_many"]
