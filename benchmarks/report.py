"""The report of a benchmark: one page that opens without a network, the same in Markdown, pictures for papers, the data.

`write_report(folder)` reads what the benchmark wrote there and adds

    report.html       everything, the plots in it as SVG
    report.md         the answer and the tables
    plots/*.png       the plots, 200 dpi
    results.parquet   every record; dictionaries as JSON

Page and Markdown show the same sections. All text of results is escaped in both.
"""

from __future__ import annotations

import dataclasses
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import disk
from . import charts, tables, wording
from .analysis import COSTS, Analysis, analyse
from .blocks import where
from .charts import Chart
from .draw import figure, picture
from .published import averages, groups_in, reproduced
from .results import Record, origins, read
from .rungs import halved_searches
from .tables import Table, escaped

_FIGURES_ROOM = 400_000  # characters of a page's figures: some thirty; and
_TABLES_ROOM = 300_000  # of its folded tables: with all else it is under a megabyte
_CELLS = (
    "Every cell is a training of one method on one task with one learning rate, schedule, length and seed. Rates and lengths "
    "are searched on validation rows {search}; the best setting is trained anew with every seed, on all training rows, and "
    "measured once on the test rows. Where a search was ended before, its cell says so (not converged; lowest rate, highest "
    "rate), and it is no recommendation."
)
_WIDENING = "until neither the next lower nor the next higher rate is better and twice the length brings nothing"
_HALVING = (
    "by successive halving: all settings are trained for the first length, the best 1/{eta} of them {eta} times as long, and "
    "so on, each run whole, and the one that is left ever longer until this brings nothing"
)
_PROTOCOL = (
    "nearest-mean is no method but a yardstick: the nearest class mean over frozen, mean-pooled features. probe is a linear "
    "classifier on the features that the methods' heads read.",
    "Intervals hold 95% of a bootstrap that draws seeds and test examples anew, the same examples for all methods and seeds. "
    "Differences are paired: of two methods in the same replicate. p is adjusted by Holm's procedure over a table's pairs.",
    "Over several tasks, gains are averaged: of shares in points, of perplexities as differences of logarithms, which is about "
    "per cent. Ranks are tested by Friedman's test and Nemenyi's critical difference (Demšar 2006).",
    "Forgetting is the change on the suite's general task, in points. The worst slice has at least 10 examples. "
    "The change in a pack is that of the value when trained among others instead of alone. Memory is that "
    "of the step's program. Times are marked as busy where other processes kept more than a tenth of a core busy meanwhile, or "
    "where that is not known. Energy is read from the machine (rapl, nvml) or estimated (flops), as its source says.",
    "The whole protocol is in docs/benchmark.md of graftax's sources.",
)


@dataclass(frozen=True)
class Section:
    title: str
    words: tuple[str, ...] = ()  # paragraphs
    points: tuple[str, ...] = ()  # of a list
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()


def write_report(folder: Path) -> str:
    """Write the four parts into a benchmark's directory and return the answer; GraftaxError where there are no results."""
    from jinja2 import Environment, FileSystemLoader

    analysis = analyse(folder)
    halving_by = next((origin.halving_by for origin in origins(folder)), None)
    content = sections(analysis, _published(analysis, folder), halving_by)
    title = f"Benchmark {', '.join(sorted({r.suite for r in analysis.records if r.suite})) or folder.name}"
    _write_parquet(folder / "results.parquet", read(folder))
    with disk.new_directory(folder / "plots", overwrite=True) as plots:
        for name, chart in _named(content):
            (plots / name).write_bytes(picture(chart))
    disk.write_text(folder / "report.md", markdown(title, content))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page, figures = environment.get_template("report.html.jinja"), _figures(content)
    disk.write_text(
        folder / "report.html",
        page.render(title=title, sections=_within_room(content), figure=lambda chart: figures[id(chart)]),
    )
    return "\n".join(content[0].words)


def sections(a: Analysis, published: Sequence[Section] = (), halving_by: int | None = None) -> list[Section]:
    """The report in its order; sections with nothing to show are left out.

    `published`: what others have; `halving_by`: the eta of the searches, where they were halvings.
    """
    methods, folded = len(a.methods), []
    for block in a.compared:
        if len(block.methods) > 1 and len(a.compared) > 1:
            folded.append(tables.pair_table(f"Pairs on {where(block.id, a.block_ids)}", block.differences))
    apart = Section("What can be told apart", (wording.told_apart(), _ranks(a)))
    if methods > 1:
        matrix = tables.matrix("All pairs over all tasks", a.methods, a.pairs)
        ranks = tuple(chart for chart in [charts.critical_difference(a)] if chart)
        apart = dataclasses.replace(
            apart, charts=ranks, tables=(matrix, tables.pair_table("Pairs with intervals", a.pairs), *folded)
        )
    answer, searches = wording.answer(a), tuple(charts.searches(a))
    costs = [*charts.fronts(a), charts.costs(a)]
    found = [
        Section("Answer", tuple(answer[:1]), tuple(answer[1:])),
        Section("Caveats", points=tuple(wording.caveats(a))),
        Section(
            "Results",
            charts=tuple(charts.values(a, block) for block in a.blocks if any(e.runs for e in block.entries)),
            tables=(tables.main_table(a), *(tables.block_table(a, block) for block in a.blocks)),
        ),
        apart,
        Section("Costs", points=_costs(a), charts=tuple(chart for chart in costs if chart)),
        Section("Training rows", charts=tuple(charts.efficiency(a))),
        Section(
            "Searches",
            ("On validation rows: of every rate its best run.",) if searches else (),
            charts=searches,
            tables=() if halving_by is None else _of_halving(a),
        ),
        *published,
        Section("Peers", tables=(tables.peer_table(a),) if a.peers else ()),
        Section("Errors", tables=(tables.error_table(a),) if a.failed else ()),
        Section("How it was measured", (_cells(halving_by), *_PROTOCOL), tables=(tables.provenance(a),)),
    ]
    return [section for section in found if section.words or section.points or section.charts or section.tables]


def _of_halving(a: Analysis) -> tuple[Table, ...]:
    halved = halved_searches(a.records)
    return (tables.halving_table(a, halved), tables.rungs_table(a, halved)) if halved else ()


def _cells(halving_by: int | None) -> str:
    """What a cell is, and how its setting was found."""
    return _CELLS.format(search=_WIDENING if halving_by is None else _HALVING.format(eta=halving_by))


def _published(a: Analysis, folder: Path) -> list[Section]:
    """Averages as published tables have them, and these tables themselves."""
    means = averages(a, groups_in(folder))
    theirs = tuple(map(tables.published_table, reproduced(folder)))
    return [
        Section("Averages", tables=(tables.averages_table(means),) if means else ()),
        Section("Published", ("What this suite is there to reproduce, as others have it.",) if theirs else (), tables=theirs),
    ]


def _ranks(a: Analysis) -> str:
    r = a.ranks
    if r.why_not is not None or r.critical is None or r.p is None:
        return f"No critical difference: {r.why_not}."
    said = f"Friedman's test over {wording.compared_on(a)}: chi-square {r.friedman:.2f}, p {wording.p_value(r.p)}. "
    said += f"Mean ranks less than {r.critical:.2f} apart are not told apart"
    groups = "; ".join(wording.listed(group) for group in r.groups)
    return f"{said}: {groups}." if groups else f"{said}; here all are further apart."


def _costs(a: Analysis) -> tuple[str, ...]:
    """Who is on the front of each cost."""
    if len(a.methods) < 2:
        return ()
    said = []
    for field, cost in COSTS.items():
        front = [f"{m} (busy)" if a.busy(m, field) else m for m in a.front(field)]
        said += [f"Beaten by none in both value and {cost}: {wording.listed(front)}."] if front else []
    return tuple(said)


def _named(content: list[Section]) -> list[tuple[str, Chart]]:
    """File names of the plots: charts of one name are numbered."""
    shown = [chart for section in content for chart in section.charts]
    names = [chart.name for chart in shown]
    return [
        (f"{c.name}.png" if names.count(c.name) == 1 else f"{c.name}-{names[:i].count(c.name) + 1}.png", c)
        for i, c in enumerate(shown)
    ]


def _figures(content: list[Section]) -> dict[int, str]:
    """The page's figures by the charts' `id`; beyond `_FIGURES_ROOM` characters, where a picture of it lies."""
    figures, room = {}, _FIGURES_ROOM
    for name, chart in _named(content):
        drawn = figure(chart)
        room -= len(drawn)
        figures[id(chart)] = drawn if room >= 0 else f'<p class="note">{html.escape(chart.title)}: plots/{name}</p>'
    return figures


def _within_room(content: list[Section]) -> list[Section]:
    """The page's sections: of the tables that are folded away as many as there is room for, of the others where they stand."""
    room, sections = _TABLES_ROOM, []
    for section in content:
        tables = []
        for table in section.tables:
            room -= table.size if table.folded else 0
            left_out = dataclasses.replace(
                table, columns=(), lines=(), note="It is in report.md; this page has no room for it."
            )
            tables.append(left_out if table.folded and room < 0 else table)
        sections.append(dataclasses.replace(section, tables=tuple(tables)))
    return sections


def markdown(title: str, content: list[Section]) -> str:
    files = {id(chart): name for name, chart in _named(content)}
    parts = [f"# {escaped(title)}"]
    for section in content:
        parts += [f"## {section.title}", *(escaped(words) for words in section.words)]
        parts += ["\n".join(f"- {escaped(point)}" for point in section.points)] if section.points else []
        parts += [table.markdown() for table in section.tables]
        parts += [f"![{escaped(chart.title)}](plots/{files[id(chart)]})" for chart in section.charts]
    return "\n\n".join(parts) + "\n"


def _write_parquet(file: Path, records: list[Record]) -> None:
    import pyarrow
    from pyarrow import parquet

    facts = [
        {name: json.dumps(value) if isinstance(value, dict) else value for name, value in dataclasses.asdict(record).items()}
        for record in records
    ]
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(facts), out)
    disk.write_bytes(file, out.getvalue())
