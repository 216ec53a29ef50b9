"""The tables of a report: lines of text, which the page and the Markdown file both show."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import wording as say
from .analysis import TIMES, Analysis, pair_of
from .blocks import Block, Entry, block_id_of, named, where
from .published import Averages
from .results import Record
from .rungs import HalvedSearch
from .scores import metric_named
from .search import Setting
from .statistics import Difference
from .suite import Published

Line = dict[str, str]  # what stands in a line of a table, by column


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""
    folded: bool = False  # the page shows it on demand
    wordy: bool = False  # sentences, not figures

    @classmethod
    def of(cls, title: str, lines: Sequence[Line], note: str = "", *, folded: bool = False) -> Table:
        """Of lines with the same columns."""
        columns = tuple(lines[0]) if lines else ()
        return cls(title, columns, tuple(tuple(line.values()) for line in lines), note, folded)

    def pruned(self) -> Table:
        """Without the columns in which nothing stands."""
        full = [i for i in range(len(self.columns)) if any(line[i] != say.NOTHING for line in self.lines)]
        lines = tuple(tuple(line[i] for i in full) for line in self.lines)
        return dataclasses.replace(self, columns=tuple(self.columns[i] for i in full), lines=lines)

    @property
    def size(self) -> int:
        """Characters that it takes on a page, about."""
        return sum(len(text) + 10 for line in (self.columns, *self.lines) for text in line)

    def markdown(self) -> str:
        """Padded, so that it is a table on a console too."""
        texts = [[escaped(text) for text in line] for line in (self.columns, *self.lines)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        padded = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in texts]
        padded.insert(1, ["-" * width for width in widths])
        drawn = "\n".join(f"| {' | '.join(line)} |" for line in padded)
        return f"**{escaped(self.title)}**\n\n{drawn}" + (f"\n\n{escaped(self.note)}" if self.note else "")


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
    """A line per method, best first; a column per block; what it costs, as means over the blocks."""
    note = "Values with 95% intervals, in per cent but for perplexities. Costs and checks are means over the tasks."
    if any(e.doubts for block in a.blocks for e in block.entries if e.runs):
        note += " Not converged, lowest rate, highest rate: the search ended there, and the value is no recommendation."
    if any(e.busy for block in a.blocks for e in block.entries):
        note += " Busy: timed while other processes used the cores, or may have."
    if a.left_out:
        note += " † some runs failed or are missing: in no comparison."
    return Table.of("Methods and tasks", [_main_line(a, method) for method in (*a.methods, *a.left_out)], note).pruned()


def _main_line(a: Analysis, method: str) -> Line:
    entries = {block.id: entry for block in a.blocks if (entry := block.entry(method)) is not None}
    line = {"method": method}
    for block in a.blocks:
        line[f"{where(block.id, a.block_ids)}, {metric_name(block)}"] = _marked(block, entries.get(block.id))
    if len(a.compared) > 1:
        if a.one_metric is not None:
            line["mean"] = say.value(a.one_metric, a.mean(method))
        line["rank"] = f"{a.ranks.mean[method]:.1f}" if method in a.ranks.mean else say.NOTHING
    for field, title, show in _COSTS:
        line[title] = _timed(show(a.cost(method, field)), a.busy(method, field))
    line["energy, J"] = _with_source(a.cost(method, "energy_joules"), [run for e in entries.values() for run in e.runs])
    for field, title, show in _CHECKS:
        line[title] = show(a.cost(method, field))
    shares = a.one_metric is not None and a.one_metric.name != "perplexity"
    line["worst slice"] = say.per_cent(a.cost(method, "worst_slice")) if shares else say.NOTHING
    return line


def block_table(a: Analysis, block: Block) -> Table:
    """Everything that was measured on a block, peers included."""
    lines = [_block_line(block, entry) for entry in block.entries if entry.runs]
    return Table.of(f"All of {where(block.id, a.block_ids)}", lines, folded=True).pruned()


def _block_line(block: Block, entry: Entry) -> Line:
    line = {
        "method": entry.name,
        metric_name(block): _marked(block, entry),
        "seeds": str(len(entry.runs)),
        "learning rate": ", ".join(f"{rate:g}" for rate in sorted({run.lr for run in entry.runs}) if rate) or say.NOTHING,
        "rows": say.count(entry.mean("rows")),
        "steps": say.count(entry.mean("steps")),
    }
    for field, title, show in _COSTS:
        line[title] = _timed(show(entry.mean(field)), entry.busy and field in TIMES)
    line["head's parameters"] = say.count(entry.mean("head_parameters"))
    line["energy, J"] = _with_source(entry.mean("energy_joules"), entry.runs)
    for field, title, show in _CHECKS:
        line[title] = show(entry.mean(field))
    brier, worst = entry.mean("brier"), entry.mean("worst_slice")
    names = sorted({run.worst_slice_name for run in entry.runs if run.worst_slice_name})
    line["Brier"] = say.NOTHING if brier is None else f"{brier:.3f}"
    line["worst slice"] = say.NOTHING if worst is None else f"{say.unit(block.metric) * worst:.1f} ({', '.join(names)})"
    line["change in a pack"] = say.points(entry.mean("interference"))
    return line


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
    """Gains of the line's method over the column's."""
    lines = []
    for first in methods:
        texts = []
        for second in methods:
            d = pair_of(differences, first, second)
            shown = say.NOTHING if d is None else f"{say.points(d.gain.value)} (p {say.p_value(d.adjusted)})"
            texts.append("" if first == second else shown + (" *" if d is not None and d.told_apart else ""))
        lines.append((first, *texts))
    note = "What the row's method gains over the column's, in points, with Holm's adjusted p. * told apart."
    return Table(title, ("", *methods), tuple(lines), note)


def pair_table(title: str, differences: Sequence[Difference]) -> Table:
    lines = tuple(
        (d.first, d.second, say.gain(d.gain), say.p_value(d.p), say.p_value(d.adjusted), "yes" if d.told_apart else "no")
        for d in sorted(differences, key=lambda d: d.adjusted)
    )
    return Table(title, ("first", "second", "first gains, points", "p", "adjusted p", "told apart"), lines, folded=True)


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
    lines = []
    for peer in a.peers:
        values = [
            say.NOTHING if v is None else f"{say.unit(metric_named(peer.metric)) * v:.2f}" for v in (peer.theirs, peer.mine)
        ]
        lines.append(
            (
                where(peer.block_id, a.block_ids),
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
    return Table("Peers", columns, tuple(lines), note)


def halving_table(a: Analysis, searches: Sequence[HalvedSearch]) -> Table:
    """How many settings were on each rung, and what that took beside a grid."""
    lines = []
    for search in searches:
        spent, grid = search.epochs, search.epochs_of_grid
        lines.append(
            {
                "task": where(search.block_id, a.block_ids),
                "method": search.method,
                "settings": " → ".join(str(rung.runs) for rung in search.rungs),
                "of epochs": " → ".join(str(rung.epochs) for rung in search.rungs),
                "epochs in all": say.count(spent),
                "of a grid": say.count(grid),
                "share, %": say.per_cent(spent / grid),
            }
        )
    note = "A grid: every setting of the first rung, trained as long as those of the last."
    return Table.of("What halving has cost", lines, note)


def rungs_table(a: Analysis, searches: Sequence[HalvedSearch]) -> Table:
    """Who was kept for the next rung, and who was not."""
    lines = []
    for search in searches:
        for number, rung in enumerate(search.rungs, 1):
            best = say.NOTHING if rung.value is None else f"{say.unit(metric_named(search.metric)) * rung.value:.1f}"
            line = {"task": where(search.block_id, a.block_ids), "method": search.method, "rung": str(number)}
            line |= {"epochs": str(rung.epochs), "best value": best}
            line |= {"kept": _settings(rung.kept), "dropped": _settings(rung.dropped), "failed": _settings(rung.failed)}
            lines.append(line)
    note = "Learning rates, the best on the validation rows first. On the last rung there is nothing to drop them for."
    return Table.of("Rungs", lines, note, folded=True).pruned()


def _settings(settings: Sequence[Setting]) -> str:
    """A rate each, with what else tells them apart."""
    words = [
        " ".join([f"{s.lr:g}", *([s.schedule] if s.schedule != "linear" else []), *([s.choice] if s.choice else [])])
        for s in settings
    ]
    return ", ".join(words) or say.NOTHING


def error_table(a: Analysis) -> Table:
    lines = tuple(
        (where(block_id_of(r), a.block_ids), named(r), r.stage, f"{r.lr:g}", str(r.seed), r.error or "its value is no number")
        for r in a.failed
    )
    return Table("Runs that failed", ("task", "method", "stage", "learning rate", "seed", "error"), lines, wordy=True)


def averages_table(found: Sequence[Averages]) -> Table:
    """Both averages of tasks that are of groups."""
    groups = dict.fromkeys(group for one in found for group in one.groups)
    lines = []
    for one in found:
        rows = "all" if one.size is None else str(one.size)
        line = {"backbone": one.backbone, "rows per class": rows, "method": one.method}
        line |= {group: say.value(metric_named("accuracy"), one.groups.get(group)) for group in groups}
        line |= {"mean of groups": say.value(metric_named("accuracy"), one.of_groups)}
        line |= {"flat mean": say.value(metric_named("accuracy"), one.flat), "tasks": str(one.tasks)}
        lines.append(line)
    note = "With 95% intervals, over the tasks at hand. Means over other tasks than a published table's are no match for it."
    return Table.of("Averages", lines, note)


def published_table(published: Published) -> Table:
    """As others have it."""
    lines = tuple((name, *map(str, row)) for name, row in published.rows.items())
    return Table(published.title, ("method", *published.columns), lines, f"Source: {published.source}.")


def provenance(a: Analysis) -> Table:
    """Which program, machine and data the results are of."""

    def distinct(values: Iterable[str]) -> str:
        return ", ".join(sorted(set(values) - {""})) or say.NOTHING

    dates = sorted(r.date for r in a.records if r.date)
    lines = [
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
    lines += [(f"sha256 of {task}", distinct(r.data for r in a.records if r.task == task)) for task in tasks]
    return Table("Where the results come from", ("what", "value"), tuple(lines), wordy=True)


def versions(record: Record) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items()))
