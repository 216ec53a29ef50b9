"""How much each API key may ask: requests and tokens a minute, and requests at once, in LiteLLM's words, with OpenAI's headers.

    rpm=60 tpm=20000 max_parallel_requests=4

What a minute allows comes back evenly, a sixtieth with every second, and is saved up for a minute at most. Nobody knows
beforehand how many tokens an answer will have: who has some left may ask, and what it comes to is counted as it is read and
written, so a key may owe tokens, and waits until it owes none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, fields
from math import ceil

from .complaints import Refused

_MINUTE = 60.0


@dataclass(frozen=True)
class Quota:
    """What a key may ask; None: as much as it likes."""

    rpm: int | None = None  # requests in a minute
    tpm: int | None = None  # tokens in a minute, read and written
    max_parallel_requests: int | None = None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))


@dataclass(frozen=True)
class TrainingQuota:
    """What jobs of a key may cost in all, on a server that trains (`graftax/tuning`); None: as much as they like."""

    training_seconds: int | None = None  # of the device
    training_steps: int | None = None
    training_tokens: int | None = None  # that they learn from, each as often as they do
    training_jobs: int | None = None  # that have not ended, at once
    training_priority: int = 0  # the highest that a job may have

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))


class _Budget:
    """So much a minute."""

    def __init__(self, most: int, clock: Callable[[], float]):
        self.most, self._clock = most, clock
        self._left, self._at = float(most), clock()

    @property
    def left(self) -> float:
        """Below zero: so much is owed."""
        now = self._clock()
        self._left, self._at = min(self.most, self._left + (now - self._at) * self.most / _MINUTE), now
        return self._left

    def spend(self, count: int) -> None:
        self._left = self.left - count

    def seconds_to(self, left: float) -> float:
        """Until so much will be left."""
        return max(0.0, (left - self.left) * _MINUTE / self.most)


class Meter:
    """What a key has asked so far. Belongs to one event loop."""

    def __init__(self, quota: Quota, clock: Callable[[], float]):
        """`clock`: seconds since whenever."""
        self._requests = None if quota.rpm is None else _Budget(quota.rpm, clock)
        self._tokens = None if quota.tpm is None else _Budget(quota.tpm, clock)
        self._most_at_once, self._at_once = quota.max_parallel_requests, 0

    def begin(self) -> Refused | None:
        """Count a request; or the refusal of one that is too much, which is not counted."""
        if self._requests is not None and self._requests.left < 1:
            said = f"this key may send {self._requests.most} requests a minute (rpm)"
            return self._refused(said, "requests", self._requests.seconds_to(1))
        if self._tokens is not None and self._tokens.left <= 0:
            said = f"this key may have {self._tokens.most} tokens a minute read and written (tpm)"
            return self._refused(said, "tokens", self._tokens.seconds_to(1))
        if self._most_at_once is not None and self._at_once >= self._most_at_once:
            said = f"this key may have {self._most_at_once} requests under way at once (max_parallel_requests)"
            return self._refused(said, "requests", 1.0)
        if self._requests is not None:
            self._requests.spend(1)
        self._at_once += 1
        return None

    def end(self) -> None:
        """A request that was counted is answered, or given up."""
        self._at_once -= 1

    def spend(self, tokens: int) -> None:
        """Count tokens that were read or written."""
        if self._tokens is not None:
            self._tokens.spend(tokens)

    def headers(self) -> dict[str, str]:
        """What is left, in OpenAI's headers; `reset` is when all of it will be there again."""
        said: dict[str, str] = {}
        for name, budget in (("requests", self._requests), ("tokens", self._tokens)):
            if budget is not None:
                said[f"x-ratelimit-limit-{name}"] = str(budget.most)
                said[f"x-ratelimit-remaining-{name}"] = str(max(0, int(budget.left)))
                said[f"x-ratelimit-reset-{name}"] = f"{budget.seconds_to(budget.most):.3f}s"
        return said

    def _refused(self, said: str, kind: str, seconds: float) -> Refused:
        wait = ceil(seconds)
        headers: Mapping[str, str] = {"Retry-After": str(wait), **self.headers()}
        return Refused(429, f"{said}; try again in {wait} s.", kind=kind, code="rate_limit_exceeded", headers=headers)


#: The meter of the key by which the request came that is being answered; None: it has no quota.
METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


def spend(tokens: int) -> None:
    """Count tokens that were read or written for the request that is being answered."""
    if (meter := METER.get()) is not None:
        meter.spend(tokens)
