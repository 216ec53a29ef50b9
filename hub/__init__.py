"""The hub: a store of adapters, with what only adapters have: what they fit, how they did, how two of them differ."""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["Hub"]

__getattr__, __dir__ = lazily(__name__, {".hub": "Hub"})
