"""The search for a method's setting on one task: its learning rate, schedule, and how long it has to be trained.

A setting is a point on a grid of rates (a geometric series) and lengths, and every run is whole: its learning rate falls to
zero at its own end. So the runs that are compared are what the final ones will be, and none is judged in the middle of its
schedule. A method may have choices beside its rate, such as the scale of its change. A protocol that fixes the rate has one,
and no others are looked for.

There are two ways through the grid: `widening.py`, which goes on from the best run so far to its neighbours, and `halving.py`,
which begins with all rates and drops most of them, round by round. Here is what both have in common.

What is run next depends on the records alone, so a search needs no memory of its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .results import Record, came_through
from .scores import metric_named
from .statistics import score

_BRINK = 0.1  # a rate has learnt little if its value is by more than this below that of the next lower one
_POINTS = 0.002  # a value is better if it is so by more than this: a fifth of a point


class Setting(NamedTuple):
    lr: float
    schedule: str
    epochs: int
    choice: str = ""  # as of a `Cell`


Tried = Mapping[Setting, Record]


@dataclass(frozen=True)
class Found:
    """What a search came to; `edge` is "lowest" or "highest" where it was not allowed to look beyond the best rate."""

    setting: Setting
    converged: bool
    edge: str | None


@dataclass(frozen=True)
class Search(ABC):
    """One method on one task: where it begins and how far it may go."""

    first: Sequence[float]  # rates, ascending
    schedules: Sequence[str]
    epochs: int  # of the first length
    widen: int  # rates that may be run beyond either end of the first ones
    doublings: int  # of the length
    choices: Sequence[str] = ("",)

    @property
    def rates(self) -> list[float]:
        """All rates that may be run, ascending: the first ones and those that go on by their ratio, to two digits."""
        if len(self.first) == 1:
            return [*self.first]
        below = _going_on(self.first[0], self.first[0] / self.first[1], self.widen)
        above = _going_on(self.first[-1], self.first[-1] / self.first[-2], self.widen)
        return [*reversed(below), *self.first, *above]

    @property
    def longest(self) -> int:
        return self.epochs << self.doublings

    def wanted(self, tried: Tried) -> list[Setting]:
        """What is to be run next; nothing where the search is over."""
        return self._gone_through(tried)[1]

    def _gone_through(self, tried: Tried) -> tuple[Tried, list[Setting]]:
        """What the search has asked for and got, and what it wants next; other records are not looked at.

        It is gone through from its beginning, round by round: a round of which a part was run before a crash is run to its
        end, as it would have been.
        """
        known: dict[Setting, Record] = {}
        while of_round := self._round(known):
            if missing := [setting for setting in of_round if setting not in tried]:
                return known, missing
            known |= {setting: tried[setting] for setting in of_round}
        return known, []

    @abstractmethod
    def _round(self, tried: Tried) -> list[Setting]:
        """What is run after whole rounds; nothing where the search is over."""

    @abstractmethod
    def _best(self, tried: Tried) -> Setting | None:
        """The best run of whole rounds; None: all of them failed."""

    def found(self, tried: Tried) -> Found | None:
        """The outcome of a search that is over; None: all of it failed."""
        known, _ = self._gone_through(tried)
        setting = self._best(known)
        if setting is None:
            return None
        ends = (("lowest", -1), ("highest", 1)) if len(self.rates) > 1 else ()
        at_edge = [name for name, step in ends if self.beside(setting, step) is None]
        return Found(setting, length(setting, known)[1], at_edge[0] if at_edge else None)

    def beside(self, setting: Setting, step: int) -> Setting | None:
        """The neighbour with the next lower (-1) or higher (1) rate; None beyond the bounds."""
        index = self.rates.index(setting.lr) + step
        return setting._replace(lr=self.rates[index]) if 0 <= index < len(self.rates) else None


def _going_on(rate: float, ratio: float, count: int) -> list[float]:
    """The rates that follow one by a ratio, to two digits."""
    rates = []
    for _ in range(count):
        rate *= ratio
        rates.append(float(f"{rate:.2g}"))
    return rates


def length(setting: Setting, tried: Tried) -> tuple[Setting, bool]:
    """The longest run at a setting's rate, and whether a shorter one has converged.

    It has where the next longer run brought neither a better value nor a lower loss, or the next two no better value. A run
    that failed brought nothing.
    """
    runs = sorted(s for s in tried if alike_but_for_length(s, setting))
    scores = [_score(tried[s]) if came_through(tried[s]) else -math.inf for s in runs]
    losses = [_loss(tried[s]) if came_through(tried[s]) else math.inf for s in runs]
    enough = next(i for i, found in enumerate(scores) if found >= max(scores) - _POINTS)
    longer = len(runs) - 1 - enough
    return runs[-1], longer >= 2 or (longer == 1 and losses[-1] >= min(losses[:-1]))


def alike_but_for_length(setting: Setting, other: Setting) -> bool:
    """Whether two settings are the same but for their lengths."""
    return setting._replace(epochs=other.epochs) == other


def best(tried: Tried) -> list[Setting]:
    """Settings, the best value on the validation rows first. Those that failed are left out.

    Few rows give many equal values. Of these a rate comes last whose next higher one has learnt little: at that brink another
    seed may fall. Then the likelier run is first, the shorter, the lower rate.
    """
    scores = {setting: _score(record) for setting, record in tried.items() if came_through(record)}

    def order(setting: Setting) -> tuple[float, ...]:
        higher = [s for s in tried if (s.schedule, s.choice) == (setting.schedule, setting.choice) and s.lr > setting.lr]
        above = max((scores.get(s, -math.inf) for s in higher if s.lr == min(higher).lr), default=scores[setting])
        at_brink = above < scores[setting] - _BRINK
        return -scores[setting], at_brink, _loss(tried[setting]), setting.epochs, setting.lr

    return sorted(scores, key=order)


def _score(record: Record) -> float:
    """The value on a scale where more is better: a share, or of a perplexity the logarithm."""
    assert record.value is not None
    return float(score(metric_named(record.metric), np.array(record.value)))


def _loss(record: Record) -> float:
    """To two digits: what is lost behind them is no reason to train longer."""
    loss = record.metrics.get("nll")
    return math.inf if loss is None else float(f"{loss:.2g}")
