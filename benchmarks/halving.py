"""Successive halving: all settings begin with short runs, and those that go on to longer ones are fewer on every rung.

On the first rung every rate that may be run, with every schedule and choice, is trained for the first length. The next rung has
the best 1 / eta of them, rounded down but never none, trained eta times as long; and so on. The longest runs, which cost most,
are left to few settings, so a rung costs about as much as the one before, however many settings began (Jamieson and Talwalkar
2016, arXiv:1502.07943; one bracket of Hyperband, Li et al. 2018, arXiv:1603.06560).

Two things are ours. What is run on a rung is no continuation of the rung before but a run of its own, whole: what is compared
are learning rates that have fallen to zero, as in the final runs. And the one setting that is left goes on alone, eta times as
long, until this brings nothing or the longest length is reached, for a search that did not see its best setting converge is
never a recommendation.

A setting is compared with those of its own rung alone. One that failed is not among the best, so it goes no further; where
fewer came through than may go on, the next rung is smaller, and where none did, the search is over. Of equal ones `best` says
which is first, by their values and by what they are, so neither the machines nor the order of the records have a part in it.

A rung is one round. All tasks of a method go through it together, as one run of `train_many`: over a fleet the settings that
were dropped leave their slots, on whichever machine, to those that go on.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from .search import Search, Setting, Tried, best, length


@dataclass(frozen=True)
class Halving(Search):
    eta: int = 3  # of so many settings one goes on, for so many times the length

    @property
    def settings(self) -> list[Setting]:
        """Those of the first rung."""
        every = itertools.product(self.rates, self.schedules, self.choices)
        return [Setting(lr, schedule, self.epochs, choice) for lr, schedule, choice in every]

    def _round(self, tried: Tried) -> list[Setting]:
        rungs = _rungs(tried)
        if not rungs:
            return self.settings
        ranked = best(rungs[-1])
        going_on = ranked[: max(1, len(rungs[-1]) // self.eta)]
        settled = len(going_on) == 1 and length(going_on[0], tried)[1]
        longer = [setting._replace(epochs=self.eta * setting.epochs) for setting in going_on]
        return [] if settled else [setting for setting in longer if setting.epochs <= self.longest]

    def _best(self, tried: Tried) -> Setting | None:
        """Of each rung's first. A setting that was dropped was behind one of these, at the same length."""
        firsts = [ranked[0] for rung in _rungs(tried) if (ranked := best(rung))]
        return next(iter(best({setting: tried[setting] for setting in firsts})), None)


def _rungs(tried: Tried) -> list[Tried]:
    """The runs by their length, the shortest first."""
    lengths = sorted({setting.epochs for setting in tried})
    return [{setting: tried[setting] for setting in tried if setting.epochs == epochs} for epochs in lengths]
