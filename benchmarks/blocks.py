"""Records sorted for comparing: a *block* is a task at a size on a backbone, an *entry* is what one method did there.

Nothing missing is filled. A method with a run that failed on a block is shown there with the runs it has, and takes no part
in comparisons; `Entry.trouble` says why. Peers' runs (PEFT's, AdapterHub's) are entries of their own, compared with graftax's
alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..counted import counted
from ..errors import GraftaxError
from .results import Predictions, Record, came_through
from .scores import Metric, metric_named
from .statistics import Difference, Interval, Resampled, pairs, replicates_for


class BlockId(NamedTuple):
    """What tells a block from others."""

    backbone: str
    task: str
    size: int | None


@dataclass(frozen=True)
class Entry:
    """A method's final runs on a block."""

    name: str  # the method's label; a peer's with the library in brackets
    method: str
    library: str
    runs: tuple[Record, ...]  # with a value, by seed
    trouble: str | None  # why it is in no comparison

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why its value is not the method's best: how its search ended. Such a value is never a reason to recommend it."""
        found = ["not converged"] if not all(run.converged for run in self.runs) else []
        return (*found, *(f"{edge} rate" for edge in sorted({run.edge for run in self.runs if run.edge})))

    @property
    def busy(self) -> bool:
        """Whether some of its times were taken while others used the cores, or may have been."""
        return any(run.busy for run in self.runs)

    def mean(self, field: str) -> float | None:
        """Mean of a number over the runs that have it; None: none has."""
        return mean_of(self.runs, field)


@dataclass(frozen=True)
class Block:
    id: BlockId
    metric: Metric
    entries: tuple[Entry, ...]
    resampled: Resampled  # of all entries whose predictions are there
    differences: tuple[Difference, ...]  # of all pairs of graftax's methods that have no trouble

    @property
    def methods(self) -> tuple[str, ...]:
        """Those that are compared."""
        return tuple(e.name for e in self.entries if e.trouble is None and e.library == "graftax")

    def entry(self, name: str) -> Entry | None:
        return next((e for e in self.entries if e.name == name), None)

    def value(self, name: str) -> Interval | None:
        """Without predictions the interval is unknown: its ends are NaN."""
        if name in self.resampled.methods:
            return self.resampled.value(name)
        entry = self.entry(name)
        mean = entry.mean("value") if entry else None
        return None if mean is None else Interval(mean, float("nan"), float("nan"))


def latest(records: Iterable[Record]) -> list[Record]:
    """The last record of every cell and stage: what ran again replaces what failed or was measured before."""
    return list({(record.cell, record.stage): record for record in records}.values())


def blocks_of(records: Iterable[Record], folder: Path) -> list[Block]:
    """The final results of a benchmark in `folder`, in the order in which blocks first appear."""
    finals: dict[BlockId, list[Record]] = {}
    for record in latest(records):
        if record.stage == "final":
            finals.setdefault(block_id_of(record), []).append(record)
    replicates = replicates_for(len({named(r) for of_block in finals.values() for r in of_block}))
    return [_block(block_id, of_block, folder, replicates) for block_id, of_block in finals.items()]


def _block(block_id: BlockId, records: list[Record], folder: Path, replicates: int) -> Block:
    """What was measured on a block. Runs on other data than the newest, or on fewer examples, are shown and not compared."""
    measured = [record for record in records if came_through(record)]
    metric, data = _metric_of(block_id, measured), measured[-1].data if measured else ""
    predictions = _of_most_examples(
        {
            (named(record), record.seed): found
            for record in measured
            if record.data == data and (found := _predictions(record, folder)) is not None
        }
    )
    by_name: dict[str, list[Record]] = {}
    for record in records:
        by_name.setdefault(named(record), []).append(record)
    entries = tuple(_entry(name, runs, data, predictions) for name, runs in by_name.items())
    resampled = Resampled.of(predictions, metric, block_id.task, replicates)
    compared = [e.name for e in entries if e.trouble is None and e.library == "graftax"]
    return Block(block_id, metric, entries, resampled, tuple(pairs(compared, [resampled])))


def _metric_of(block_id: BlockId, measured: Sequence[Record]) -> Metric:
    names = {record.metric for record in measured} or {"accuracy"}
    if len(names) > 1:
        raise GraftaxError(
            f"{where(block_id)} was measured by {', '.join(sorted(names))}; run the benchmark into a fresh directory."
        )
    return metric_named(names.pop())


def _of_most_examples(predictions: Mapping[tuple[str, int], Predictions]) -> dict[tuple[str, int], Predictions]:
    """Those that can be paired by example."""
    most = max((len(found.top) for found in predictions.values()), default=0)
    return {run: found for run, found in predictions.items() if len(found.top) == most}


def _entry(name: str, records: list[Record], data: str, predictions: Mapping[tuple[str, int], Predictions]) -> Entry:
    runs = {r.seed: r for r in records if came_through(r)}
    failed = [r for r in records if not came_through(r) and r.seed not in runs]
    trouble = None
    if failed:
        trouble = f"{len(failed)} of {counted(len(failed) + len(runs), 'run')} failed"
    elif any(run.data != data for run in runs.values()):
        trouble = "its runs are on another version of the task's data"
    elif any((name, seed) not in predictions for seed in runs):
        trouble = "the predictions of some of its runs are missing, or are of other examples"
    return Entry(name, records[0].method, records[0].library, tuple(runs[s] for s in sorted(runs)), trouble)


def _predictions(record: Record, folder: Path) -> Predictions | None:
    if not came_through(record) or record.predictions is None:
        return None
    file = folder / record.predictions
    if not _lies_in(folder, file):
        raise GraftaxError(f"{folder}: a result names predictions outside of this directory ({record.predictions}).")
    return Predictions.load(file) if os.path.isfile(file) else None


def _lies_in(folder: Path, file: Path) -> bool:
    try:
        return file.resolve().is_relative_to(folder.resolve())
    except ValueError:  # a name that no file can have
        return False


def paired_gain(mine: Sequence[Record], theirs: Sequence[Record], folder: Path, their_folder: Path) -> Interval | None:
    """Of `mine` over `theirs` on one block, by the seeds that both have; None where their examples cannot be paired."""
    runs = {("mine", r.seed): p for r in mine if (p := _predictions(r, folder)) is not None}
    runs |= {("theirs", r.seed): p for r in theirs if (p := _predictions(r, their_folder)) is not None}
    alike = {(r.data, r.metric) for r in [*mine, *theirs]}
    if len(alike) > 1 or len({len(p.top) for p in runs.values()}) != 1 or len({name for name, _ in runs}) < 2:
        return None
    resampled = Resampled.of(runs, metric_named(mine[0].metric), mine[0].task)
    return next((d.gain for d in pairs(["mine", "theirs"], [resampled])), None)


def mean_of(records: Iterable[Record], field: str) -> float | None:
    """Mean of a number over the records that have it; None: none has."""
    values = [value for record in records if (value := getattr(record, field)) is not None]
    return float(np.mean(values)) if values else None


def block_id_of(record: Record) -> BlockId:
    return BlockId(record.backbone, record.task, record.size)


def named(record: Record) -> str:
    return record.method if record.library == "graftax" else f"{record.method} ({record.library})"


def where(block_id: BlockId, among: Iterable[BlockId] = ()) -> str:
    """A block in words: no more of them than tell it from `among`."""
    backbone, task, size = block_id
    others = list(among)
    words = [task]
    if size is not None:
        words += [f"size {size}"] if len({other.size for other in others}) != 1 else []
    elif any(other.task == task and other.size is not None for other in others):
        words.append("all rows")
    if len({other.backbone for other in others}) != 1:
        words.append(backbone)
    return ", ".join(words)
