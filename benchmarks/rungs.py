"""What successive halvings did, read off their records: who was tried on which rung, who was dropped, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .analysis import searches_in
from .blocks import BlockId
from .results import Record, came_through
from .search import Setting, Tried, alike_but_for_length, best


@dataclass(frozen=True)
class Rung:
    epochs: int  # of each run
    kept: tuple[Setting, ...]  # for the next rung, the best first; of the last one all that came through
    dropped: tuple[Setting, ...]  # the others that came through, likewise
    failed: tuple[Setting, ...]
    value: float | None  # of the best run

    @property
    def runs(self) -> int:
        return len(self.kept) + len(self.dropped) + len(self.failed)


@dataclass(frozen=True)
class HalvedSearch:
    """A method's search on a block."""

    block_id: BlockId
    method: str
    metric: str
    rungs: tuple[Rung, ...]  # the first, of the shortest runs, first

    @property
    def epochs(self) -> int:
        """Of all runs together."""
        return sum(rung.runs * rung.epochs for rung in self.rungs)

    @property
    def epochs_of_grid(self) -> int:
        """What it would have taken to train every setting of the first rung as long as the last ones were."""
        return self.rungs[0].runs * self.rungs[-1].epochs


def halved_searches(records: Iterable[Record]) -> list[HalvedSearch]:
    """Of a benchmark whose searches are halvings, by its records."""
    return [_halved(block_id, method, tried) for (block_id, method), tried in searches_in(records).items()]


def _halved(block_id: BlockId, method: str, tried: Tried) -> HalvedSearch:
    lengths = sorted({setting.epochs for setting in tried})
    metrics = {record.metric for record in tried.values()}
    return HalvedSearch(block_id, method, metrics.pop(), tuple(_rung(epochs, tried) for epochs in lengths))


def _rung(epochs: int, tried: Tried) -> Rung:
    runs = {setting: record for setting, record in tried.items() if setting.epochs == epochs}
    longer = [setting for setting in tried if setting.epochs > epochs]
    ranked = best(runs)
    kept = tuple(s for s in ranked if not longer or any(alike_but_for_length(s, other) for other in longer))
    dropped = tuple(s for s in ranked if s not in kept)
    failed = tuple(s for s in runs if not came_through(runs[s]))
    return Rung(epochs, kept, dropped, failed, runs[ranked[0]].value if ranked else None)
