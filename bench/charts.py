"""The plots of a report, as data: `draw.py` makes a figure for the page and a picture for papers of each.

A method has one colour in all plots of a report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from . import wording as say
from .analysis import COSTS, Analysis
from .blocks import Block, named, where
from .metrics import metric_named
from .statistics import Ranks, score


@dataclass(frozen=True)
class Series:
    """Points that belong together. `low` and `high` are the ends of their intervals, along the chart's `interval` axis."""

    name: str
    x: Sequence[float | str]
    y: Sequence[float | str]
    kind: Literal["points", "line", "curve", "bars", "label"] = "points"  # "curve": a line with its points
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
    rows: int | None = None  # lines of text down its height; None: an ordinary plot


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
    return Chart("values", where(block.key, a.keys), _unit(block), "", series, interval="x", rows=len(order))


def searches(a: Analysis) -> list[Chart]:
    """Validation value by learning rate and by length, two charts per block."""
    colour, charts = colours(a), []
    for key in dict.fromkeys(curve.key for curve in a.curves):
        curves = [curve for curve in a.curves if curve.key == key]
        metric, place = metric_named(curves[0].metric), where(key, a.keys)
        unit = metric.name.replace("_", " ") + (", %" if say.unit(metric) == 100 else "")
        for title, axis, lines in (
            (f"Rates on {place}", "learning rate", {c.method: c.by_rate for c in curves}),
            (f"Lengths on {place}, at each method's best rate", "steps", {c.method: c.by_steps for c in curves}),
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
    colour, charts = colours(a), []
    for backbone, task in dict.fromkeys(block.key[:2] for block in a.blocks):
        blocks = [block for block in a.blocks if block.key[:2] == (backbone, task)]
        if len(blocks) < 2:
            continue
        series = []
        for name in dict.fromkeys(entry.name for block in blocks for entry in block.entries):
            points = []
            for block in blocks:
                entry, value = block.entry(name), block.value(name)
                if entry is not None and value is not None and (rows := entry.mean("rows")) is not None:
                    points.append((rows, *(say.unit(block.metric) * v for v in (value.value, value.low, value.high))))
            if points:
                x, y, low, high = zip(*sorted(points), strict=True)
                series.append(Series(name, x, y, "curve", low, high, colour=colour[name]))
        counts = [float(x) for line in series for x in line.x]
        several = len({block.key[0] for block in a.blocks}) > 1
        title = f"{task}, {backbone}" if several else task
        charts.append(
            Chart("rows", f"Training rows of {title}", "training rows", _unit(blocks[0]), tuple(series), ticks=ticks(counts))
        )
    return charts


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
        places = {m: (a.cost(m, field) or 0.0, height[m]) for m in known}
        front = sorted(places[m] for m in a.front(field) if m in places)
        series = [Series("front", [x for x, _ in front], [y for _, y in front], "line")]
        series += [Series(m, [x], [y], colour=colour[m]) for m, (x, y) in places.items()]
        charts.append(
            Chart(
                f"front-{field.replace('_', '-')}",
                f"Value and {cost}",
                cost,
                unit,
                tuple(series),
                ticks=ticks(x for x, _ in places.values()),
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
            series.append(Series(cost, [c / least for c in known.values()], list(known), "bars", colour=i))
    if not series:
        return None
    rows = len(series) * len(a.methods) // 2
    return Chart(
        "costs",
        "Costs",
        "times the cheapest method",
        "",
        tuple(series),
        ticks=ticks(float(x) for bars in series for x in bars.x),
        rows=rows,
    )


def critical_difference(a: Analysis) -> Chart | None:
    """Demšar's diagram: methods on the axis of mean ranks, the best at the left; a bar joins those not told apart."""
    r: Ranks = a.ranks
    if r.critical is None:
        return None
    names, colour = list(r.mean), colours(a)
    first, last = 1.0, float(len(names))
    series = [Series("mean rank", [first, last], [0, 0], "line")]
    for rank in range(1, len(names) + 1):
        series.append(Series("tick", [rank, rank], [0, 0.12], "line"))
        series.append(Series(str(rank), [rank], [0.15], "label", align="center"))
    series.append(Series("critical difference", [first, first + r.critical], [1.1, 1.1], "line"))
    series.append(Series(f"critical difference {r.critical:.2f}", [first], [1.1], "label"))
    for i, group in enumerate(r.groups):
        ends = [r.mean[group[0]] - 0.04, r.mean[group[-1]] + 0.04]
        series.append(Series(f"not told apart: {say.listed(group)}", ends, [-0.35 * (i + 1)] * 2, "line", width=5))
    below, half = -0.35 * (len(r.groups) + 1), (len(names) + 1) // 2
    room = 0.3 * len(names)  # for the labels to stand clear of the best and of the worst
    for i, name in enumerate(names):
        left, at = i < half, r.mean[name]
        depth = below - 0.9 * (i + 1 if left else len(names) - i)
        edge = first - room if left else last + room
        series.append(Series(name, [at, at, edge], [0, depth, depth], "line", colour=colour[name]))
        series.append(Series(f"{name} {at:.2f}", [edge], [depth], "label", align="left" if left else "right"))
    return Chart("ranks", "Mean ranks, 1 is best", "", "", tuple(series), bare=True, rows=half + len(r.groups) + 3)
