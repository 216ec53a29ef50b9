"""A text that is being written, as text: a request of the engine, and what its tokens say so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .detokeniser import Detokeniser
from .handles import Handle
from .request import Request


@dataclass(frozen=True)
class Continuation:
    """What was generated behind one prompt."""

    adapter: str | None  # a composition as it prints
    text: str  # without the stop text that ended it
    tokens: tuple[int, ...] = field(repr=False)  # with the one that ended it
    finished: str  # what ended it: "stop" (a stop text), "eos" (a token that ends texts) or "length"


class Writing:
    """A prompt's continuation, while it comes. Made by `Generator.begin`; for one thread."""

    def __init__(self, request: Request, detokeniser: Detokeniser, adapter: str | None):
        self.request, self._detokeniser, self.adapter = request, detokeniser, adapter
        self.end: Continuation | None = None  # the whole, once it has ended

    @property
    def handles(self) -> list[Handle]:
        """Which adapters it is written with."""
        return self.request.handles

    @property
    def tokens(self) -> Sequence[int]:
        """Those that were heard."""
        return self._detokeniser.tokens

    @property
    def said(self) -> str:
        """The text that they make, as far as nothing of it could be taken back."""
        return self._detokeniser.said

    def hear(self) -> tuple[str, Continuation | None]:
        """The piece of text that came since the last call, and with the last piece the whole continuation.

        Raises whatever ended it before its time, such as a GraftaxError where its adapter could not be read.
        """
        if self.end is not None:
            return "", self.end
        piece, finished = self._detokeniser.hear(self.request.hear())
        if finished:
            self.cancel()  # behind a stop text nothing is wanted
            self.end = Continuation(self.adapter, self.said, tuple(self.tokens), finished)
        elif self.request.error is not None:
            raise self.request.error
        return piece, self.end

    def cancel(self) -> None:
        """Have nothing more written; what was written can be heard."""
        self.request.cancelled = True
