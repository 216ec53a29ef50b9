"""The plots of a report, as data: `draw.py` makes a figure for the page and a picture for papers of each.

A method has one colour in all plots of a report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from . import wording as say
from .analysis import COSTS, Analysis
from .blocks import Block, named, where
from .scores import metric_named
from .statistics import Ranks, score

_BETWEEN_BARS, _BETWEEN_NAMES = 0.35, 0.9  # heights in the diagram of mean ranks


@dataclass(frozen=True)
class Series:
    """Points that belong together. `low` and `high` are the ends of their intervals, along the chart's `interval` axis."""

    name: str
    x: Sequence[float | str]
    y: Sequence[float | str]
    drawn_as: Literal["points", "line", "curve", "bars", "label"] = "points"  # "curve": a line with its points
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    colour: int | None = None  # of the palette; None: the ink of the page
    width: float = 2  # of a line, in pixels
    align: Literal["left", "center", "right"] = "left"  # of a label: which part of it is at its point


@dataclass(frozen=True)
class Chart:
    name: str  # of its file
    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    interval: Literal["x", "y"] = "y"
    ticks: tuple[float, ...] = ()  # of a logarithmic horizontal axis; none: it is linear
    bare: bool = False  # without axes
    lines: int | None = None  # of text down its height; None: an ordinary plot


def ticks(values: Iterable[float]) -> tuple[float, ...]:
    """At most seven on a logarithmic axis: 1, 2 and 5 of every decade, or fewer; in a narrow range the values themselves."""
    known = sorted(set(values))
    low, high = known[0], known[-1]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1,)):
        found = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if 2 <= len(found) <= 7:
            return tuple(found)
    return (low, high) if len(found) < 2 else tuple(found[:: math.ceil(len(found) / 7)])


def colours(a: Analysis) -> dict[str, int]:
    return {name: i for i, name in enumerate(dict.fromkeys([*a.methods, *(named(r) for r in a.records)]))}


def _unit(block: Block) -> str:
    return block.metric.name.replace("_", " ") + (", %" if say.unit(block.metric) == 100 else "")


def values(a: Analysis, block: Block) -> Chart:
    """Every entry's value with its interval, the best at the top."""
    known = {e.name: v for e in block.entries if (v := block.value(e.name)) is not None}
    order = sorted(known, key=lambda name: float(score(block.metric, np.array(known[name].value))))
    scale, colour = say.unit(block.metric), colours(a)
    series = tuple(
        Series(
            name,
            [scale * known[name].value],
            [name],
            low=[scale * known[name].low],
            high=[scale * known[name].high],
            colour=colour[name],
        )
        for name in order
    )
    return Chart("values", where(block.id, a.block_ids), _unit(block), "", series, interval="x", lines=len(order))


def searches(a: Analysis) -> list[Chart]:
    """Validation value by learning rate and by length, two charts per block."""
    colour, charts = colours(a), []
    for block_id in dict.fromkeys(curve.block_id for curve in a.curves):
        curves = [curve for curve in a.curves if curve.block_id == block_id]
        metric, block = metric_named(curves[0].metric), where(block_id, a.block_ids)
        unit = metric.name.replace("_", " ") + (", %" if say.unit(metric) == 100 else "")
        for title, axis, lines in (
            (f"Rates on {block}", "learning rate", {c.method: c.by_rate for c in curves}),
            (f"Lengths on {block}, at each method's best rate", "steps", {c.method: c.by_steps for c in curves}),
        ):
            series = tuple(
                Series(
                    method,
                    [float(x) for x, _ in line],
                    [say.unit(metric) * y for _, y in line],
                    "curve",
                    colour=colour[method],
                )
                for method, line in lines.items()
            )
            tried = {float(x) for line in lines.values() for x, _ in line}
            marks = tuple(sorted(tried)) if len(tried) <= 6 else ticks(tried)
            charts.append(Chart("search", title, axis, unit, series, ticks=marks))
    return charts


def efficiency(a: Analysis) -> list[Chart]:
    """Value by number of training rows, where a task has several sizes."""
    charts, several = [], len({block.id.backbone for block in a.blocks}) > 1
    for backbone, task in dict.fromkeys(block.id[:2] for block in a.blocks):
        blocks = [block for block in a.blocks if block.id[:2] == (backbone, task)]
        names = dict.fromkeys(entry.name for block in blocks for entry in block.entries)
        series = [line for name in names if (line := _by_rows(name, blocks, colours(a)[name])) is not None]
        if len(blocks) > 1 and series:
            title = f"Training rows of {task}, {backbone}" if several else f"Training rows of {task}"
            marks = ticks(float(x) for line in series for x in line.x)
            charts.append(Chart("rows", title, "training rows", _unit(blocks[0]), tuple(series), ticks=marks))
    return charts


def _by_rows(name: str, blocks: Sequence[Block], colour: int) -> Series | None:
    """An entry's values on blocks of several sizes; None where it has none."""
    points = []
    for block in blocks:
        entry, value = block.entry(name), block.value(name)
        if entry is not None and value is not None and (rows := entry.mean("rows")) is not None:
            points.append((rows, *(say.unit(block.metric) * v for v in (value.value, value.low, value.high))))
    if not points:
        return None
    x, y, low, high = zip(*sorted(points), strict=True)
    return Series(name, x, y, "curve", low, high, colour=colour)


def fronts(a: Analysis) -> list[Chart]:
    """Mean value against each cost; a line joins the methods that no other beats in both."""
    colour, charts = colours(a), []
    metric = a.one_metric
    for field, cost in COSTS.items():
        known = [m for m in a.methods if (a.cost(m, field) or 0) > 0]
        if len(known) < 2:
            continue
        if metric is None:  # no mean value: the mean rank, upwards
            height = {m: -a.ranks.mean[m] for m in known}
            unit = "minus the mean rank"
        else:
            height = {m: say.unit(metric) * mean.value for m in known if (mean := a.mean(m)) is not None}
            unit = "value, %" if len({b.metric.name for b in a.compared}) > 1 else _unit(a.compared[0])
            unit = f"mean {unit}" if len(a.compared) > 1 else unit
        points = {m: (a.cost(m, field) or 0.0, height[m]) for m in known}
        front = sorted(points[m] for m in a.front(field) if m in points)
        series = [Series("front", [x for x, _ in front], [y for _, y in front], "line")]
        for method, (x, y) in points.items():
            name = f"{method} (busy)" if a.busy(method, field) else method
            series.append(Series(name, [x], [y], colour=colour[method]))
        charts.append(
            Chart(
                f"front-{field.replace('_', '-')}",
                f"Value and {cost}",
                cost,
                unit,
                tuple(series),
                ticks=ticks(x for x, _ in points.values()),
            )
        )
    return charts


def costs(a: Analysis) -> Chart | None:
    """What each method costs, as a multiple of the cheapest."""
    series = []
    for i, (field, cost) in enumerate([*COSTS.items(), ("step_seconds", "seconds of a step")]):
        known = {m: c for m in reversed(a.methods) if (c := a.cost(m, field))}  # from the bottom up
        if len(known) > 1:
            least = min(known.values())
            busy = " (busy)" if any(a.busy(m, field) for m in known) else ""
            series.append(Series(cost + busy, [c / least for c in known.values()], list(known), "bars", colour=i))
    if not series:
        return None
    lines = len(series) * len(a.methods) // 2
    return Chart(
        "costs",
        "Costs",
        "times the cheapest method",
        "",
        tuple(series),
        ticks=ticks(float(x) for bars in series for x in bars.x),
        lines=lines,
    )


def critical_difference(a: Analysis) -> Chart | None:
    """Demšar's diagram: methods on the axis of mean ranks, the best at the left; a bar joins those not told apart."""
    r = a.ranks
    if r.critical is None:
        return None
    series = (
        *_axis_of_ranks(len(r.mean)),
        Series("critical difference", [1.0, 1.0 + r.critical], [1.1, 1.1], "line"),
        Series(f"critical difference {r.critical:.2f}", [1.0], [1.1], "label"),
        *_bars_of_groups(r),
        *_names_at_ranks(r, colours(a)),
    )
    lines = (len(r.mean) + 1) // 2 + len(r.groups) + 3
    return Chart("ranks", "Mean ranks, 1 is best", "", "", series, bare=True, lines=lines)


def _axis_of_ranks(count: int) -> Iterator[Series]:
    """A line at height 0 with a mark and a number at every rank."""
    yield Series("mean rank", [1.0, float(count)], [0, 0], "line")
    for rank in range(1, count + 1):
        yield Series("tick", [rank, rank], [0, 0.12], "line")
        yield Series(str(rank), [rank], [0.15], "label", align="center")


def _bars_of_groups(r: Ranks) -> Iterator[Series]:
    """A bar below the axis for every group that is not told apart, each deeper than the one before."""
    for i, group in enumerate(r.groups):
        ends = [r.mean[group[0]] - 0.04, r.mean[group[-1]] + 0.04]
        yield Series(f"not told apart: {say.listed(group)}", ends, [-_BETWEEN_BARS * (i + 1)] * 2, "line", width=5)


def _names_at_ranks(r: Ranks, colour: dict[str, int]) -> Iterator[Series]:
    """Every method's name, and a line that leads from its rank down and out to it.

    The better half stands at the left, the other at the right; the outermost rank is the highest, so no lines cross.
    """
    names, last = list(r.mean), float(len(r.mean))
    room = 0.3 * len(names)  # for the names to stand clear of the best and of the worst
    top = -_BETWEEN_BARS * (len(r.groups) + 1)
    for i, name in enumerate(names):
        left, rank = i < (len(names) + 1) // 2, r.mean[name]
        depth = top - _BETWEEN_NAMES * (i + 1 if left else len(names) - i)
        edge = 1.0 - room if left else last + room
        yield Series(name, [rank, rank, edge], [0, depth, depth], "line", colour=colour[name])
        yield Series(f"{name} {rank:.2f}", [edge], [depth], "label", align="left" if left else "right")
