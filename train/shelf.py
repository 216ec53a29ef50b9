"""Where the adapters of a run are put as they finish, beside their directories: a shelf, such as names on a hub.

Nothing in `train/` knows of hubs. What a run asks of a shelf is this, and `Hub.under` makes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Shelf(Protocol):
    """Takes finished adapters. What it cannot do is a GraftaxError."""

    def expect(self, names: Sequence[str]) -> None:
        """An error where adapters of these names could not be put here; asked before anything is trained."""

    def put(self, name: str, directory: Path) -> str:
        """Put an adapter here; returns what it is called from now on. What is here already may be put again."""

    def later(self, out: Path) -> str:
        """The command that puts every adapter of a run's directory here."""
