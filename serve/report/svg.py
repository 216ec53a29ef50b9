"""Small drawings as SVG that stands in a page: it scales, its text is text, and its colours are the page's (by class).

Whatever is put into one goes through `Markup.format`, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from ...store.events import Measure
from ...tasks.reliability import Reliability
from ..intervals import wilson

_SIZE, _LEFT, _BOTTOM, _ROOM = 240, 48, 36, 10  # of a square plot, and the room around it
_RADIUS = 3.0, 9.0  # of the points of the fewest claims and of all


def strip(measure: Measure, low: float, high: float, worse: bool, reference: float | None = None) -> Markup:
    """A value with its interval on a line from `low` to `high`, as wide as its room; `reference`: a mark on the line."""

    def place(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%" if high > low else "50%"

    drawn = [Markup('<line class="rule" x1="0" x2="100%" y1="9" y2="9"/>')]
    if reference is not None:
        drawn.append(Markup('<line class="reference" x1="{0}" x2="{0}" y1="1" y2="17"/>').format(place(reference)))
    if measure.low is not None and measure.high is not None:
        ends = place(measure.low), place(measure.high)
        drawn.append(Markup('<line class="interval" x1="{}" x2="{}" y1="9" y2="9"/>').format(*ends))
    drawn.append(Markup('<circle class="point" cx="{}" cy="9" r="4"/>').format(place(measure.value)))
    opening = Markup('<svg class="strip{}" width="100%" height="18" aria-hidden="true">').format(" worse" if worse else "")
    return opening + Markup("").join(drawn) + Markup("</svg>")


def reliability_plot(found: Reliability) -> Markup:
    """How often claims were so, by how likely they were said to be; on the diagonal both are one."""
    ticks = _ticks(0.0, 1.0)
    drawn = [_axes(ticks, "said to be likely", ticks, "was so"), _diagonal()]
    smallest, largest = _RADIUS
    for one in found.bins:
        low, high = wilson(one.was_so, one.claims)
        radius = smallest + (largest - smallest) * (one.claims / found.claims) ** 0.5
        x = _across(one.said, 0.0, 1.0)
        ends = _up(low, 0.0, 1.0), _up(high, 0.0, 1.0)
        drawn.append(Markup('<line class="interval" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>').format(x, *ends))
        point = Markup('<circle class="point" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>')
        told = f"{one.claims:,}: said {one.said:.3f}, was so {one.was_so:.3f}"
        drawn.append(point.format(x, _up(one.was_so, 0.0, 1.0), radius, told))
    return _plot(f"Reliability: expected calibration error {found.error:.3f}", drawn)


def scatter(points: Sequence[tuple[float, float]]) -> Markup:
    """Truth across and answer upwards, on one scale."""
    every = [value for point in points for value in point]
    ticks = _ticks(min(every), max(every))
    low, high = ticks[0], ticks[-1]
    drawn = [_axes(ticks, "truth", ticks, "answer"), _diagonal()]
    for truth, answer in points:
        dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2.5"/>')
        drawn.append(dot.format(_across(truth, low, high), _up(answer, low, high)))
    return _plot("Answers against truth", drawn)


def curves(
    title: str, shares: Sequence[float], lines: Sequence[tuple[str, Sequence[float]]], below: str, beside: str
) -> Markup:
    """Lines over shares from 0 to 1, each behind the class that says how it is drawn; upwards from 0 to 1 if they fit."""
    every = [value for _, line in lines for value in line]
    low, high = min(every), max(every)
    ticks = _ticks(0.0, 1.0) if low >= 0.0 and high <= 1.0 else _ticks(low, high)
    drawn = [_axes(_ticks(0.0, 1.0), below, ticks, beside)]
    for name, line in lines:
        points = (f"{_across(x, 0.0, 1.0):.1f},{_up(y, ticks[0], ticks[-1]):.1f}" for x, y in zip(shares, line, strict=True))
        drawn.append(Markup('<polyline class="line {}" points="{}"/>').format(name, " ".join(points)))
    return _plot(title, drawn)


def _plot(title: str, drawn: Iterable[Markup]) -> Markup:
    width, height = _LEFT + _SIZE + _ROOM, _ROOM + _SIZE + _BOTTOM
    opening = Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, title)
    return opening + Markup("").join(drawn) + Markup("</svg>")


def _across(value: float, low: float, high: float) -> float:
    return _LEFT + _SIZE * (value - low) / (high - low)


def _up(value: float, low: float, high: float) -> float:
    return _ROOM + _SIZE * (1 - (value - low) / (high - low))


def _diagonal() -> Markup:
    line = Markup('<line class="reference" x1="{}" y1="{}" x2="{}" y2="{}"/>')
    return line.format(_LEFT, _ROOM + _SIZE, _LEFT + _SIZE, _ROOM)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, some four to nine of them, from one that is not above `low` to one that is not below `high`."""
    if low == high:
        low, high = low - 1.0, high + 1.0
    unit = 10.0 ** math.floor(math.log10((high - low) / 6))
    step = unit * next(times for times in (1, 2, 5, 10) if (high - low) / (unit * times) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * number for number in range(first, last + 1)]


def _axes(across: Sequence[float], below: str, upwards: Sequence[float], beside: str) -> Markup:
    """The lines of a grid with their numbers, and what the axes are called."""
    drawn = []
    line = Markup('<line class="rule" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    for tick in across:
        x = _across(tick, across[0], across[-1])
        drawn.append(line.format(x, x, _ROOM, _ROOM + _SIZE))
        drawn.append(Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{:.3g}</text>').format(x, _ROOM + _SIZE + 14, tick))
    for tick in upwards:
        y = _up(tick, upwards[0], upwards[-1])
        drawn.append(line.format(_LEFT, _LEFT + _SIZE, y, y))
        drawn.append(Markup('<text x="{}" y="{:.1f}" text-anchor="end">{:.3g}</text>').format(_LEFT - 5, y + 3.5, tick))
    middle = _LEFT + _SIZE / 2, _ROOM + _SIZE + 30
    drawn.append(Markup('<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>').format(*middle, below))
    turned = Markup('<text class="name" transform="translate({} {}) rotate(-90)" text-anchor="middle">{}</text>')
    drawn.append(turned.format(9, _ROOM + _SIZE / 2, beside))
    return Markup("").join(drawn)
