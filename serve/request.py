"""What is asked of the engine: a prompt to be continued; and how far that has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from ..errors import GraftaxError
from .chances import Chance, Drawn
from .composition import Plan
from .grammars import Guide
from .handles import Handle
from .sampling import Sampling
from .soundness import NO_NUMBER, NotFinite
from .turns import TENANT

T = TypeVar("T")


@dataclass(eq=False)
class Request:
    """A prompt in tokens, the adapters that it asks for, and the tokens that were written behind it.

    The engine writes the tokens, from whichever thread calls it; another hears them. Whoever has heard enough sets
    `cancelled`, and from the next round on there are no more.
    """

    ids: np.ndarray  # the prompt's tokens, one at least; int32
    plan: Plan  # its adapters, each of which is a `Handle`
    sampling: Sampling  # under the backbone's rules
    least: int = 0  # how many tokens the text must have before one may end it (`Written.least`)
    told: int | None = None  # the number of the likeliest tokens whose chances are told beside each token's own; None: none are
    guide: Guide | None = None  # which tokens may come next; None: any. The engine goes on with it
    cancelled: bool = False
    tenant: str | None = field(default_factory=TENANT.get)  # who asks (`turns.py`)
    passed: int = field(default=0, init=False)  # others that have begun since it could have, but for a slot. For the engine
    done: bool = field(default=False, init=False)  # no token follows those that can be heard
    error: BaseException | None = field(default=None, init=False)  # why it ended before its time
    count: int = field(default=0, init=False)  # tokens written
    chances: list[Chance] = field(default_factory=list, init=False, repr=False)  # of all that can be heard, where they are told
    _tokens: deque[int] = field(default_factory=deque, init=False, repr=False)

    @property
    def handles(self) -> list[Handle]:
        """The adapters that it asks for; one that it asks for twice is there twice."""
        return [term.name for stage in self.plan for term in stage]

    @property
    def adapters(self) -> frozenset[str]:
        """What they are called."""
        return frozenset(map(str, self.handles))

    @property
    def most_tokens(self) -> int:
        """Those that it may cost; one to be written as much as two that are read."""
        return len(self.ids) + 2 * self.sampling.max_new_tokens

    def hear(self) -> list[int]:
        """The tokens that were written since the last call."""
        return [self._tokens.popleft() for _ in range(len(self._tokens))]

    def say(self, tokens: Iterable[int], ends: frozenset[int], chances: Iterator[Chance] | None = None) -> None:
        """Further tokens, up to the first that is below zero; `ends` are those that end a text. For the engine."""
        for token in tokens:
            if token == NO_NUMBER and not self.done:
                self.fail(NotFinite(self.adapters))
            if token < 0 or self.done:
                return
            if chances is not None:
                self.chances.append(next(chances))
            self._tokens.append(token)
            self.count += 1
            self.done = token in ends or self.count == self.sampling.max_new_tokens
            if self.guide is not None and not self.done:
                self._guided(partial(self.guide.take, token))

    def allowed(self) -> np.ndarray | None:
        """The tokens that its guide lets come next, as of `Guide.allowed`; None where it is done. For the engine."""
        return None if self.guide is None or self.done else self._guided(self.guide.allowed)

    def _guided(self, call: Callable[[], T]) -> T | None:
        """What a call of the guide gives; where that fails, which is nobody else's affair, the request does."""
        try:
            return call()
        except GraftaxError as error:
            self.fail(error)
            return None

    def fail(self, error: BaseException) -> None:
        """End it before its time. For the engine."""
        self.error, self.done = error, True


def say_all(requests: Sequence[Request], drawn: Drawn, ends: frozenset[int]) -> list[list[int]]:
    """Tell each request its tokens, which are returned; the requests have the first of the rows."""
    tokens, chances = drawn
    said = np.asarray(tokens).T.tolist()[: len(requests)]
    for row, (request, own) in enumerate(zip(requests, said, strict=True)):
        told = None if chances is None or request.told is None else chances.of(row, own, request.told)
        request.say(own, ends, told)
    return said
