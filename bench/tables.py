"""The tables of a report: rows of text, which the page and the Markdown file both show."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import wording as say
from .analysis import Analysis, pair_of
from .blocks import Block, Entry, key_of, named, where
from .metrics import metric_named
from .results import Record
from .statistics import Difference


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    folded: bool = False  # the page shows it on demand
    wordy: bool = False  # sentences, not figures

    def pruned(self) -> Table:
        """Without the columns in which nothing stands."""
        full = [i for i in range(len(self.columns)) if any(row[i] != say.NOTHING for row in self.rows)]
        rows = tuple(tuple(row[i] for i in full) for row in self.rows)
        return dataclasses.replace(self, columns=tuple(self.columns[i] for i in full), rows=rows)

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
_TIMES = ("step_seconds", "seconds")  # of these, those that are marked where the cores were busy
_CHECKS = (("forgetting", "forgetting", say.points), ("ece", "ECE, %", say.per_cent))


def main_table(a: Analysis) -> Table:
    """A row per method, best first; a column per block; what it costs, as means over the blocks."""
    keys = a.keys
    mean = a.one_metric is not None and len(a.compared) > 1
    columns = ["method", *(f"{where(b.key, keys)}, {metric_name(b)}" for b in a.blocks), *(["mean"] if mean else [])]
    columns += [*(["rank"] if len(a.compared) > 1 else []), *(title for _, title, _ in _COSTS), "energy, J"]
    columns += [*(title for _, title, _ in _CHECKS), "worst slice"]
    rows = []
    for method in [*a.methods, *a.left_out]:
        entries = [block.entry(method) for block in a.blocks]
        row = [method, *(_marked(block, entry) for block, entry in zip(a.blocks, entries, strict=True))]
        row += [say.value(a.one_metric, a.mean(method))] if mean and a.one_metric else []
        row += [f"{a.ranks.mean[method]:.1f}" if method in a.ranks.mean else say.NOTHING] if len(a.compared) > 1 else []
        row += [_timed(field, show(a.cost(method, field)), a.busy(method)) for field, _, show in _COSTS]
        row += [_with_source(a.cost(method, "energy_joules"), [run for e in entries if e for run in e.runs])]
        row += [show(a.cost(method, field)) for field, _, show in _CHECKS]
        row += [
            say.per_cent(a.cost(method, "worst_slice")) if a.one_metric and a.one_metric.name != "perplexity" else say.NOTHING
        ]
        rows.append(tuple(row))
    note = "Values with 95% intervals, in per cent but for perplexities. Costs and checks are means over the tasks."
    if any(e.doubts for block in a.blocks for e in block.entries if e.runs):
        note += " Not converged, lowest rate, highest rate: the search ended there, and the value is no recommendation."
    if any(e.busy for block in a.blocks for e in block.entries):
        note += " Busy: timed while other processes used the cores, or may have."
    if a.left_out:
        note += " † some runs failed or are missing: in no comparison."
    return Table("Methods and tasks", tuple(columns), tuple(rows), note).pruned()


def block_table(a: Analysis, block: Block) -> Table:
    """Everything that was measured on a block, peers included."""
    columns = ("method", metric_name(block), "seeds", "learning rate", "rows", "steps", *(title for _, title, _ in _COSTS))
    columns += (
        "head's parameters",
        "energy, J",
        *(title for _, title, _ in _CHECKS),
        "Brier",
        "worst slice",
        "change in a pack",
    )
    rows = []
    for entry in block.entries:
        if not entry.runs:
            continue
        brier, slice_value = entry.mean("brier"), entry.mean("worst_slice")
        names = sorted({run.worst_slice_name for run in entry.runs if run.worst_slice_name})
        rows.append(
            (
                entry.name,
                _marked(block, entry),
                str(len(entry.runs)),
                ", ".join(f"{rate:g}" for rate in sorted({run.lr for run in entry.runs}) if rate) or say.NOTHING,
                say.count(entry.mean("rows")),
                say.count(entry.mean("steps")),
                *(_timed(field, show(entry.mean(field)), entry.busy) for field, _, show in _COSTS),
                say.count(entry.mean("head_parameters")),
                _with_source(entry.mean("energy_joules"), entry.runs),
                *(show(entry.mean(field)) for field, _, show in _CHECKS),
                say.NOTHING if brier is None else f"{brier:.3f}",
                say.NOTHING if slice_value is None else f"{say.unit(block.metric) * slice_value:.1f} ({', '.join(names)})",
                say.points(entry.mean("interference")),
            )
        )
    return Table(f"All of {where(block.key, a.keys)}", columns, tuple(rows), folded=True).pruned()


def metric_name(block: Block) -> str:
    return block.metric.name.replace("_", " ") + (" (lower is better)" if block.metric.better < 0 else "")


def _marked(block: Block, entry: Entry | None) -> str:
    if entry is None:
        return say.NOTHING
    shown = say.value(block.metric, block.value(entry.name)) + (" †" if entry.trouble else "")
    return f"{shown} ({', '.join(entry.doubts)})" if entry.runs and entry.doubts else shown


def _timed(field: str, shown: str, busy: bool) -> str:
    return f"{shown} (busy)" if busy and field in _TIMES and shown != say.NOTHING else shown


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
                say.times(peer.step_ratio),
                say.times(peer.total_ratio),
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
        (where(key_of(r), a.keys), named(r), r.stage, f"{r.lr:g}", str(r.seed), r.error or f"the value is {r.value}")
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
