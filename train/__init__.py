"""Training many adapters on one frozen backbone."""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from ..data.columns import Columns
    from ..data.examples import Examples
    from .learned_words import learned_context
    from .queue import Interrupted
    from .recipe import Recipe
    from .result import Result
    from .run import train, train_many

__all__ = ["Columns", "Examples", "Interrupted", "Recipe", "Result", "learned_context", "train", "train_many"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "..data.columns": "Columns",
        "..data.examples": "Examples",
        ".learned_words": "learned_context",
        ".queue": "Interrupted",
        ".recipe": "Recipe",
        ".result": "Result",
        ".run": "train train_many",
    },
)
