"""The tables of a report: rows of text, which the page and the Markdown file both show."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import wording as say
from .analysis import TIMES, Analysis, pair_of
from .blocks import Block, Entry, key_of, named, where
from .results import Record
from .scores import metric_named
from .statistics import Difference

Row = dict[str, str]  # what stands in a row, by column


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    folded: bool = False  # the page shows it on demand
    wordy: bool = False  # sentences, not figures

    @classmethod
    def of(cls, title: str, rows: Sequence[Row], note: str = "", *, folded: bool = False) -> Table:
        """Of rows with the same columns."""
        columns = tuple(rows[0]) if rows else ()
        return cls(title, columns, tuple(tuple(row.values()) for row in rows), note, folded)

    def pruned(self) -> Table:
        """Without the columns in which nothing stands."""
        full = [i for i in range(len(self.columns)) if any(row[i] != say.NOTHING for row in self.rows)]
        rows = tuple(tuple(row[i] for i in full) for row in self.rows)
        return dataclasses.replace(self, columns=tuple(self.columns[i] for i in full), rows=rows)

    @property
    def size(self) -> int:
        """Characters that it takes on a page, about."""
        return sum(len(cell) + 10 for row in (self.columns, *self.rows) for cell in row)

    def markdown(self) -> str:
        """Padded, so that it is a table on a console too."""
        cells = [[escaped(cell) for cell in row] for row in (self.columns, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]
        lines.insert(1, ["-" * width for width in widths])
        rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"**{escaped(self.title)}**\n\n{rows}" + (f"\n\n{escaped(self.note)}" if self.note else "")


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no markup, links, cells or tags come out of it."""
    text = re.sub(r"[\\`*|]|(?<!\w)_|_(?!\w)|(?<=\])[(\[]", r"\\\g<0>", text)
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())


#: Columns of costs and checks: a field of `Record`, its heading, how it is shown.
_COSTS = (
    ("parameters", "parameters", say.count),
    ("file_bytes", "file", lambda n: say.scaled(n, "B")),
    ("step_seconds", "step, ms", say.milliseconds),
    ("seconds", "training, s", say.seconds),
    ("compile_seconds", "compiling, s", say.seconds),
    ("memory_bytes", "memory", lambda n: say.scaled(n, "B")),
    ("flops", "FLOPs", lambda n: say.scaled(n, "")),
)
_CHECKS = (("forgetting", "forgetting", say.points), ("ece", "ECE, %", say.per_cent))


def main_table(a: Analysis) -> Table:
    """A row per method, best first; a column per block; what it costs, as means over the blocks."""
    note = "Values with 95% intervals, in per cent but for perplexities. Costs and checks are means over the tasks."
    if any(e.doubts for block in a.blocks for e in block.entries if e.runs):
        note += " Not converged, lowest rate, highest rate: the search ended there, and the value is no recommendation."
    if any(e.busy for block in a.blocks for e in block.entries):
        note += " Busy: timed while other processes used the cores, or may have."
    if a.left_out:
        note += " † some runs failed or are missing: in no comparison."
    return Table.of("Methods and tasks", [_main_row(a, method) for method in (*a.methods, *a.left_out)], note).pruned()


def _main_row(a: Analysis, method: str) -> Row:
    entries = {block.key: entry for block in a.blocks if (entry := block.entry(method)) is not None}
    row = {"method": method}
    for block in a.blocks:
        row[f"{where(block.key, a.keys)}, {metric_name(block)}"] = _marked(block, entries.get(block.key))
    if len(a.compared) > 1:
        if a.one_metric is not None:
            row["mean"] = say.value(a.one_metric, a.mean(method))
        row["rank"] = f"{a.ranks.mean[method]:.1f}" if method in a.ranks.mean else say.NOTHING
    for field, title, show in _COSTS:
        row[title] = _timed(show(a.cost(method, field)), a.busy(method, field))
    row["energy, J"] = _with_source(a.cost(method, "energy_joules"), [run for e in entries.values() for run in e.runs])
    for field, title, show in _CHECKS:
        row[title] = show(a.cost(method, field))
    shares = a.one_metric is not None and a.one_metric.name != "perplexity"
    row["worst slice"] = say.per_cent(a.cost(method, "worst_slice")) if shares else say.NOTHING
    return row


def block_table(a: Analysis, block: Block) -> Table:
    """Everything that was measured on a block, peers included."""
    rows = [_block_row(block, entry) for entry in block.entries if entry.runs]
    return Table.of(f"All of {where(block.key, a.keys)}", rows, folded=True).pruned()


def _block_row(block: Block, entry: Entry) -> Row:
    row = {
        "method": entry.name,
        metric_name(block): _marked(block, entry),
        "seeds": str(len(entry.runs)),
        "learning rate": ", ".join(f"{rate:g}" for rate in sorted({run.lr for run in entry.runs}) if rate) or say.NOTHING,
        "rows": say.count(entry.mean("rows")),
        "steps": say.count(entry.mean("steps")),
    }
    for field, title, show in _COSTS:
        row[title] = _timed(show(entry.mean(field)), entry.busy and field in TIMES)
    row["head's parameters"] = say.count(entry.mean("head_parameters"))
    row["energy, J"] = _with_source(entry.mean("energy_joules"), entry.runs)
    for field, title, show in _CHECKS:
        row[title] = show(entry.mean(field))
    brier, worst = entry.mean("brier"), entry.mean("worst_slice")
    names = sorted({run.worst_slice_name for run in entry.runs if run.worst_slice_name})
    row["Brier"] = say.NOTHING if brier is None else f"{brier:.3f}"
    row["worst slice"] = say.NOTHING if worst is None else f"{say.unit(block.metric) * worst:.1f} ({', '.join(names)})"
    row["change in a pack"] = say.points(entry.mean("interference"))
    return row


def metric_name(block: Block) -> str:
    return block.metric.name.replace("_", " ") + (" (lower is better)" if block.metric.better < 0 else "")


def _marked(block: Block, entry: Entry | None) -> str:
    if entry is None:
        return say.NOTHING
    shown = say.value(block.metric, block.value(entry.name)) + (" †" if entry.trouble else "")
    return f"{shown} ({', '.join(entry.doubts)})" if entry.runs and entry.doubts else shown


def _timed(shown: str, busy: bool) -> str:
    return f"{shown} (busy)" if busy and shown != say.NOTHING else shown


def _with_source(joules: float | None, runs: Iterable[Record]) -> str:
    sources = sorted({run.energy_source for run in runs if run.energy_source})
    return say.NOTHING if joules is None else f"{say.scaled(joules, '')} ({', '.join(sources)})"


def matrix(title: str, methods: Sequence[str], differences: Sequence[Difference]) -> Table:
    """Gains of the row's method over the column's."""
    rows = []
    for first in methods:
        cells = []
        for second in methods:
            d = pair_of(differences, first, second)
            shown = say.NOTHING if d is None else f"{say.points(d.gain.value)} (p {say.p_value(d.adjusted)})"
            cells.append("" if first == second else shown + (" *" if d is not None and d.told_apart else ""))
        rows.append((first, *cells))
    note = "What the row's method gains over the column's, in points, with Holm's adjusted p. * told apart."
    return Table(title, ("", *methods), tuple(rows), note)


def pair_table(title: str, differences: Sequence[Difference]) -> Table:
    rows = tuple(
        (d.first, d.second, say.gain(d.gain), say.p_value(d.p), say.p_value(d.adjusted), "yes" if d.told_apart else "no")
        for d in sorted(differences, key=lambda d: d.adjusted)
    )
    return Table(title, ("first", "second", "first gains, points", "p", "adjusted p", "told apart"), rows, folded=True)


def peer_table(a: Analysis) -> Table:
    columns = (
        "task",
        "peer",
        "peer's value",
        "graftax",
        "graftax gains, points",
        "step time",
        "total time",
        "peer's process, s",
    )
    rows = []
    for peer in a.peers:
        values = [
            say.NOTHING if v is None else f"{say.unit(metric_named(peer.metric)) * v:.2f}" for v in (peer.theirs, peer.mine)
        ]
        rows.append(
            (
                where(peer.key, a.keys),
                peer.name,
                *values,
                say.gain(peer.gain),
                _timed(say.times(peer.step_ratio), peer.busy),
                _timed(say.times(peer.total_ratio), peer.busy),
                say.seconds(peer.process_seconds),
            )
        )
    note = (
        "Equal cells of both: same rows, rate, schedule, length and seed. Times are the peer's over graftax's: above 1, "
        "graftax is faster. The step time is the median step, the total that of all steps with compiling, without a start."
    )
    return Table("Peers", columns, tuple(rows), note)


def error_table(a: Analysis) -> Table:
    rows = tuple(
        (where(key_of(r), a.keys), named(r), r.stage, f"{r.lr:g}", str(r.seed), r.error or "its value is no number")
        for r in a.failed
    )
    return Table("Runs that failed", ("task", "method", "stage", "learning rate", "seed", "error"), rows, wordy=True)


def provenance(a: Analysis) -> Table:
    """Which program, machine and data the results are of."""

    def distinct(values: Iterable[str]) -> str:
        return ", ".join(sorted(set(values) - {""})) or say.NOTHING

    dates = sorted(r.date for r in a.records if r.date)
    rows = [
        ("suite", distinct(r.suite for r in a.records)),
        ("dates", say.NOTHING if not dates else dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"),
        ("commit", distinct(r.commit for r in a.records)),
        ("device", distinct(r.device for r in a.records)),
        ("backbones", distinct(r.backbone for r in a.records)),
        ("libraries", distinct(r.library for r in a.records)),
        ("versions", "; ".join(sorted({versions(r) for r in a.records if r.versions})) or say.NOTHING),
        ("runs", f"{len(a.records)}, of these {len(a.failed)} failed"),
        ("training seconds", say.seconds(sum(r.seconds or 0.0 for r in a.records))),
    ]
    tasks = dict.fromkeys(r.task for r in a.records)
    rows += [(f"sha256 of {task}", distinct(r.data for r in a.records if r.task == task)) for task in tasks]
    return Table("Where the results come from", ("what", "value"), tuple(rows), wordy=True)


def versions(record: Record) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items()))
