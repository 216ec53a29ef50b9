"""What a benchmark says: the methods over all its blocks, the search for learning rates, the peers, and which method to take.

Only methods that came through on every block are compared over the blocks (`Analysis.methods`); the others are in `left_out`
with the reason. Peers stand in a table of their own, next to the cells of graftax that they repeat.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import GraftaxError
from .blocks import Block, BlockId, block_id_of, blocks_of, latest, mean_of, named, paired_gain, where
from .results import Record, came_through, read
from .scores import Metric
from .search import Setting, alike_but_for_length, best
from .statistics import Difference, Interval, Ranks, in_unit, pairs, pareto, ranks
from .suite import NEAREST_MEAN

#: What a method costs: field of `Record`, and what it is called.
COSTS = {
    "parameters": "trainable parameters",
    "seconds": "training seconds",
    "memory_bytes": "memory of a step",
    "file_bytes": "bytes of the file",
}
TIMES = ("seconds", "step_seconds")  # of the costs those that say little where other processes used the cores


@dataclass(frozen=True)
class Curve:
    """A method's search on a block, on validation rows: of every rate its best run, and of the best rate the runs by length."""

    block_id: BlockId
    method: str
    metric: str
    by_rate: tuple[tuple[float, float], ...]  # (rate, value), ascending, of the runs that have a value
    by_steps: tuple[tuple[int, float], ...]  # (steps, value), likewise


@dataclass(frozen=True)
class Peer:
    """A peer against graftax on the same cells."""

    block_id: BlockId
    name: str
    gain: Interval | None  # of graftax over the peer, as in `Difference`; None: the examples cannot be paired
    metric: str
    mine: float | None  # means over the cells
    theirs: float | None
    step_ratio: float | None  # the peer's over graftax's: above 1, graftax is faster
    total_ratio: float | None  # of all steps with compiling
    process_seconds: float | None  # of the peer's process
    busy: bool  # whether some of these times were taken while others used the cores, or may have been


@dataclass(frozen=True)
class Recommendation:
    """The cheapest of the methods that lie within one standard error of the best, among those that may be recommended.

    The one-standard-error rule (Breiman et al. 1984, section 3.4.3), with the error of the best one's score. Those that cannot
    be told from the best are often many more: that a few seeds do not prove a loss of ten points is no reason to take it.
    """

    candidates: tuple[str, ...]  # those that may be, by score
    best: str
    alike: tuple[str, ...]  # with `best`, by score: not told apart from it
    close: tuple[str, ...]  # with `best`, by score: within one standard error
    choice: str
    loss: Difference | None  # what the best gains over the choice; None: they are one
    passed_over: dict[str, str]  # methods of a better score that may not be recommended, and why


@dataclass(frozen=True)
class Analysis:
    records: tuple[Record, ...]  # the last of every cell
    blocks: tuple[Block, ...]
    methods: tuple[str, ...]  # without trouble on every block, best first
    left_out: dict[str, str]  # the others, and why
    pairs: tuple[Difference, ...]  # of `methods`, over all blocks
    ranks: Ranks
    curves: tuple[Curve, ...]
    peers: tuple[Peer, ...]

    @property
    def block_ids(self) -> tuple[BlockId, ...]:
        return tuple(block.id for block in self.blocks)

    @property
    def compared(self) -> tuple[Block, ...]:
        """The blocks on which some method came through: those that means, ranks and pairs are over."""
        return tuple(block for block in self.blocks if block.methods)

    @property
    def failed(self) -> list[Record]:
        return [record for record in self.records if not came_through(record)]

    def pair(self, first: str, second: str) -> Difference | None:
        """The difference of two methods over all blocks, seen from `first`."""
        return pair_of(self.pairs, first, second)

    def cost(self, method: str, field: str) -> float | None:
        """Mean over the blocks, of a method in `methods`; None where a block has none."""
        of_blocks = [entry.mean(field) for block in self.compared if (entry := block.entry(method)) is not None]
        known = [c for c in of_blocks if c is not None]
        return float(np.mean(known)) if method in self.methods and len(known) == len(of_blocks) else None

    def busy(self, method: str, field: str = "seconds") -> bool:
        """Whether a cost of a method is a time, and some of it was taken while others used the cores."""
        return field in TIMES and any(entry.busy for block in self.compared if (entry := block.entry(method)) is not None)

    def score(self, method: str) -> Interval:
        """Mean over the blocks, in the unit of `statistics.score`; of a method in `methods`."""
        values, replicates = zip(*(block.resampled.score(method) for block in self.compared), strict=True)
        return Interval.of(float(np.mean(values)), np.mean(replicates, axis=0))

    @property
    def one_metric(self) -> Metric | None:
        """A metric in whose unit the blocks have a mean: all are shares of which more is better, or errors, or perplexities."""
        scales = {(block.metric.name == "perplexity", block.metric.better) for block in self.compared}
        return self.compared[0].metric if len(scales) == 1 else None

    def mean(self, method: str) -> Interval | None:
        """Mean over the blocks in the metrics' unit, of perplexities the geometric one; None where there is no such mean."""
        if method not in self.methods or self.one_metric is None:
            return None
        return in_unit(self.one_metric, self.score(method))

    def front(self, field: str) -> list[str]:
        """Of the methods whose cost is known, those that no other beats in both score and cost."""
        known = [m for m in self.methods if self.cost(m, field) is not None]
        kept = pareto([self.score(m).value for m in known], [self.cost(m, field) or 0.0 for m in known])
        return [method for method, stays in zip(known, kept, strict=True) if stays]

    def doubts(self, method: str, block: Block | None = None) -> str | None:
        """Why a method may not be recommended, on one block or over all; None: it may."""
        if method == NEAREST_MEAN:
            return "trains nothing"
        if block is not None:
            entry = block.entry(method)
            return " and ".join(entry.doubts) or None if entry else None
        found: dict[str, list[str]] = {}
        for of in self.compared:
            if said := self.doubts(method, of):
                found.setdefault(said, []).append(where(of.id, self.block_ids))
        return "; ".join(f"{said} on {', '.join(on)}" for said, on in found.items()) or None

    def recommend(self, block: Block | None = None) -> Recommendation | None:
        """On one block, or over all; None: there is no method that could be."""
        blocks, differences, ranked = self.compared, self.pairs, list(self.methods)
        if block is not None:
            blocks, differences = (block,), block.differences
            ranked = sorted(block.methods, key=lambda m: -self._score(m, block))
        doubts = {method: said for method in ranked if (said := self.doubts(method, block))}
        candidates = [method for method in ranked if method not in doubts]
        if not candidates:
            return None
        best, *others = candidates
        alike, close, losses = [best], [best], dict[str, Difference]()
        error = np.mean([of.resampled.score(best)[1] for of in blocks], axis=0).std()
        for other in others:
            loss = pair_of(differences, best, other)
            if loss is None:  # no seed in common: nothing tells them apart, and nothing says that it is as good
                alike.append(other)
                continue
            losses[other] = loss
            if not loss.told_apart:
                alike.append(other)
            if loss.gain.value <= error:
                close.append(other)
        choice = min(close, key=lambda method: self._price(method, block))  # of equally cheap ones the better: the first
        passed_over = {m: said for m, said in doubts.items() if self._score(m, block) > self._score(best, block)}
        return Recommendation(tuple(candidates), best, tuple(alike), tuple(close), choice, losses.get(choice), passed_over)

    def _score(self, method: str, block: Block | None) -> float:
        """On one block, or the mean over all; more is better."""
        return float(block.resampled.score(method)[0]) if block else self.score(method).value

    def _price(self, method: str, block: Block | None) -> tuple[float, float]:
        """What decides between methods that are about as good: parameters, then seconds, if they are a quiet machine's."""
        entry = block.entry(method) if block else None
        busy = entry.busy if entry else self.busy(method)
        costs = [entry.mean(field) if entry else self.cost(method, field) for field in ("parameters", "seconds")]
        parameters, seconds = (float("inf") if cost is None else cost for cost in costs)
        return parameters, float("inf") if busy else seconds


def analyse(folder: Path) -> Analysis:
    """Read a benchmark's directory; raises `GraftaxError` where there is none."""
    records = results_of(folder)
    blocks = tuple(blocks_of(records, folder))
    labels = dict.fromkeys(named(r) for r in records if r.stage == "final" and r.library == "graftax")
    compared = [block for block in blocks if block.methods]
    left_out = {label: reason for label in labels if (reason := _why_left_out(label, compared))}
    methods = [label for label in labels if label not in left_out]
    scores = {m: [block.resampled.score(m)[0] for block in compared] for m in methods}
    methods.sort(key=lambda m: -float(np.mean(scores[m])))
    ranked = ranks(methods, np.array([scores[m] for m in methods]).T)
    over_all = pairs(methods, [block.resampled for block in compared])
    return Analysis(
        tuple(records),
        blocks,
        tuple(methods),
        left_out,
        tuple(over_all),
        ranked,
        tuple(_curves(records)),
        tuple(_peers(records, folder)),
    )


def results_of(folder: Path) -> list[Record]:
    """The last record of every cell in a benchmark's directory."""
    records = latest(read(folder))
    if not records:
        raise GraftaxError(f"{folder}: no results of a benchmark here (results.jsonl); give the directory that --out named.")
    return records


def pair_of(differences: Sequence[Difference], first: str, second: str) -> Difference | None:
    """The difference of two methods, seen from `first`."""
    for d in differences:
        if (d.first, d.second) == (first, second):
            return d
        if (d.first, d.second) == (second, first):
            gain = Interval(-d.gain.value, -d.gain.high, -d.gain.low)
            return dataclasses.replace(d, first=first, second=second, gain=gain)
    return None


def _why_left_out(method: str, blocks: Sequence[Block]) -> str | None:
    if not blocks:
        return "no method came through anywhere"
    block_ids = [block.id for block in blocks]
    reasons: dict[str, list[str]] = {}
    for block in blocks:
        entry = block.entry(method)
        reason = "no run there" if entry is None else entry.trouble
        if reason:
            reasons.setdefault(reason, []).append(where(block.id, block_ids))
    return "; ".join(f"{reason} ({', '.join(on)})" for reason, on in reasons.items()) or None


def searches_in(records: Iterable[Record]) -> dict[tuple[BlockId, str], dict[Setting, Record]]:
    """What was tried in each search: of a method on a block."""
    searches: dict[tuple[BlockId, str], dict[Setting, Record]] = {}
    for r in records:
        if r.stage == "search":
            searches.setdefault((block_id_of(r), named(r)), {})[Setting(r.lr, r.schedule, r.epochs, r.choice)] = r
    return searches


def _curves(records: Sequence[Record]) -> list[Curve]:
    curves = []
    for (block_id, method), tried in searches_in(records).items():
        if ranked := best(tried):
            values = {setting: tried[setting].value or 0.0 for setting in ranked}
            by_rate = sorted({s.lr: values[s] for s in reversed(ranked)}.items())  # of each rate's runs the best comes last
            by_steps = sorted((tried[s].steps or 0, values[s]) for s in ranked if alike_but_for_length(s, ranked[0]))
            curves.append(Curve(block_id, method, tried[ranked[0]].metric, tuple(by_rate), tuple(by_steps)))
    return curves


def _peers(records: Sequence[Record], folder: Path) -> list[Peer]:
    """Each peer's method on each block, over the cells that graftax has too."""
    finals = [r for r in records if r.stage == "final" and came_through(r)]
    own = {r.cell: r for r in finals if r.library == "graftax"}
    matched: dict[tuple[BlockId, str], list[tuple[Record, Record]]] = {}
    for r in finals:
        mine = own.get(dataclasses.replace(r.cell, library="graftax"))
        if r.library != "graftax" and mine is not None:
            matched.setdefault((block_id_of(r), named(r)), []).append((mine, r))
    return [_peer(block_id, name, cells, folder) for (block_id, name), cells in matched.items()]


def _peer(block_id: BlockId, name: str, cells: Sequence[tuple[Record, Record]], folder: Path) -> Peer:
    mine, theirs = zip(*cells, strict=True)
    return Peer(
        block_id,
        name,
        paired_gain(mine, theirs, folder, folder),
        mine[0].metric,
        mean_of(mine, "value"),
        mean_of(theirs, "value"),
        ratio(mean_of(theirs, "step_seconds"), mean_of(mine, "step_seconds")),
        ratio(_total_seconds(theirs), _total_seconds(mine)),
        mean_of(theirs, "process_seconds"),
        any(record.busy for record in (*mine, *theirs)),
    )


def _total_seconds(records: Sequence[Record]) -> float | None:
    """Of all steps, with compiling where there is such a thing."""
    seconds = mean_of(records, "seconds")
    return None if seconds is None else seconds + (mean_of(records, "compile_seconds") or 0.0)


def ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below
