"""The search that goes on from the best run to its neighbours, until none of them is better.

All rates of the suite are run at the first length. From then on the neighbours of the best run so far are run: the next lower
and the next higher rate, be they beyond the suite's, and then twice the length. The search is over when both rates were run
(the best is *inside* them) and longer runs brought nothing (it has *converged*): neither a better value on the validation
rows nor a likelihood that is clearly better, as that of a method is which has only begun to learn. Bounds are a safety net: a
search that runs into one says so, and its result is never recommended.

Where a method has choices beside its rate, all of them are run at the first rates and length, and the search goes on from the
best.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from .search import Search, Setting, Tried, best, length


@dataclass(frozen=True)
class Widening(Search):
    def _round(self, tried: Tried) -> list[Setting]:
        every = itertools.product(self.first, self.schedules, self.choices)
        first = [Setting(lr, schedule, self.epochs, choice) for lr, schedule, choice in every]
        if missing := [setting for setting in first if setting not in tried]:
            return missing
        leader = self._best(tried)
        if leader is None:
            return []
        beside = [s for s in (self.beside(leader, -1), self.beside(leader, 1)) if s is not None and s not in tried]
        if beside:
            return beside
        last, plateau = length(leader, tried)
        return [] if plateau or last.epochs >= self.longest else [last._replace(epochs=2 * last.epochs)]

    def _best(self, tried: Tried) -> Setting | None:
        return next(iter(best(tried)), None)
