"""What is asked of the engine beside texts to be written: items to be read, each of them once; and what they become.

A predictor makes pieces of its rows (a row is one piece, or several where its task reads it so), and what the model makes of
each piece is an array: the logits of an adapter's head, or a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from ..adapters.methods.head import POOLED
from ..data.prepared import Item
from .composition import Plan
from .handles import Handle
from .turns import TENANT


class Wanted(Enum):
    """What is made of an item."""

    LOGITS = "logits"
    VECTORS = "vectors"
    CHANCES = "chances"  # of the tokens of texts (`text_chances.py`)


@dataclass(frozen=True)
class Piece:
    """An item to be read, by the adapters of a plan."""

    item: Item
    plan: Plan  # each of its adapters is a `Handle`
    answering: Handle | None = None  # the adapter whose head answers, which is in the plan; None where none has a head
    reads: str = POOLED  # the site at which that head reads

    @property
    def handles(self) -> list[Handle]:
        """The adapters that it asks for; one that it asks for twice is there twice."""
        return [term.name for stage in self.plan for term in stage]


class Reading:
    """A request: pieces to be read in the rounds to come. Whoever does not want it any longer sets `cancelled`.

    Attributes:
        tenant: who asks (`turns.py`).
        adapters: what those are called that it asks for.
        alone: whether no batch has others' pieces beside its own. What a piece becomes does not depend on its neighbours beyond
            the rounding of sums, which the number of batch rows decides; alone it is the same to the last bit every time.
        future: done when all is read: for each piece a float32 array: logits `[classes]`, `[positions, classes]` or
            `[high, wide, classes]`, a vector `[size]`, chances `[positions - 1, numbers]`; None where no head answers it.
    """

    def __init__(self, pieces: Sequence[Piece], wanted: Wanted, *, alone: bool):
        self.pieces, self.wanted, self.alone = pieces, wanted, alone
        self.future: Future[list[np.ndarray | None]] = Future()
        self.cancelled = False
        self.tenant = TENANT.get()
        self.adapters = frozenset(str(handle) for piece in pieces for handle in piece.handles)
        #: pieces that are not read yet, those of few positions first, so that a batch has pieces of like length
        self._left = sorted(range(len(pieces)), key=lambda index: len(pieces[index].item))
        self._made: list[Any] = [None] * len(pieces)
        if not pieces:
            self.future.set_result([])

    # -- for the engine ---------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether nothing more is to be done for it."""
        return self.cancelled or self.future.done()

    def joins(self, other: Reading) -> bool:
        """Whether it may be read in one batch with another."""
        return self is other or (self.wanted is other.wanted and not (self.alone or other.alone))

    @property
    def left(self) -> list[int]:
        """The indices of pieces that are not read yet, in the order in which they are to be."""
        return self._left

    def give(self, made: dict[int, np.ndarray | None]) -> None:
        """What pieces became, by their indices."""
        for index, array in made.items():
            self._made[index] = array
        self._left = [index for index in self._left if index not in made]
        if not self._left and self.future.set_running_or_notify_cancel():
            self.future.set_result(self._made)

    def fail(self, error: BaseException) -> None:
        """End it before its time."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
