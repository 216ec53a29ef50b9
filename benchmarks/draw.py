"""A `Chart` as a figure in a page (SVG, which scales and whose text is text) and as a picture for a paper (PNG, 200 dpi).

Both are drawn by matplotlib, the same series in the same colours. The page's figures are narrower, to be read on a telephone,
and draw text and axes in the page's own colour, so that they follow its light or dark.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ..errors import GraftaxError
from .charts import Chart, Series
from .wording import scaled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Told apart on white and on black, and most of them by readers who see few colours; from the eleventh on the marker differs.
PALETTE = ("#3f7fd6", "#e08a1e", "#2f9e6e", "#c9508f", "#8b66d6", "#b39b1a", "#2aa3b3", "#d1543e", "#7d8b99", "#96704d")
INK = "#828a93"
_PAGE = "#010203"  # stands in a drawing for the colour of the page's text
_MARKS = "osD^"
_WIDTHS = {"svg": 4.9, "png": 7.0}  # inches
_CLEAR = 5  # pixels around a point that no name covers
#: Where a point's name may be, the best first: points from it, and which part of the name is there.
_BESIDE: tuple[tuple[tuple[int, int], Any, Any], ...] = (
    ((0, 5), "center", "bottom"),
    ((0, -5), "center", "top"),
    ((6, 0), "left", "center"),
    ((-6, 0), "right", "center"),
    ((4, 5), "left", "bottom"),
    ((-4, 5), "right", "bottom"),
    ((4, -5), "left", "top"),
    ((-4, -5), "right", "top"),
)


def figure(chart: Chart) -> str:
    """An `<svg>` for a page; as wide as its room there."""
    drawn = _drawn(chart, "svg").decode()
    drawn = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(
        r"<[^>]*>", lambda tag: re.sub(r"(\.\d)\d+", r"\1", tag[0]), drawn
    )  # a tenth of a point is finer than a screen
    drawn = drawn.replace(_PAGE, "currentColor")
    drawn = re.sub(r"\s*\n\s*", " ", re.sub(r' id="[a-z0-9.]+_\d+"| transform="rotate\(-0 [^"]*"', "", drawn))
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)
    assert size is not None
    opening = f'<svg viewBox="{size[0][9:-1]}" role="img" aria-label="{html.escape(chart.title)}">'
    return opening + drawn[drawn.index(">") + 1 :]


def picture(chart: Chart) -> bytes:
    """A PNG, 7 inches wide."""
    return _drawn(chart, "png")


def _drawn(chart: Chart, file_format: str) -> bytes:
    try:
        import matplotlib
        from matplotlib.figure import Figure as Page
        from matplotlib.ticker import NullLocator
    except ImportError as error:
        raise GraftaxError("the report needs matplotlib; pip install 'graftax[bench]'.") from error
    ink = _PAGE if file_format == "svg" else "black"
    coloured = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink)
    style: Any = {"text.parse_math": False, "font.size": 9, **coloured}
    style |= {"svg.fonttype": "none", "svg.hashsalt": chart.title, "font.sans-serif": ["DejaVu Sans"]}
    with matplotlib.rc_context(rc=style):
        page = Page(figsize=(_WIDTHS[file_format], _height(chart)), layout="constrained")
        axes = page.add_subplot()
        axes.set(title=chart.title, xlabel=chart.x, ylabel=chart.y)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        if chart.ticks:
            axes.set_xscale("log")
            axes.set_xticks(chart.ticks, _texts(chart.ticks))
            axes.xaxis.set_minor_locator(NullLocator())
        if chart.bare:
            axes.axis("off")
        bars = [series for series in chart.series if series.drawn_as == "bars"]
        for series in chart.series:
            if series.drawn_as == "bars":
                _bars(axes, series, bars.index(series), len(bars))
            else:
                _plot(axes, chart, series)
        if _legend(chart):
            page.legend(loc="outside lower center", ncols=_columns(chart, _WIDTHS[file_format]), frameon=False)
        if named := [series for series in chart.series if series.drawn_as == "points" and not isinstance(series.y[0], str)]:
            page.draw_without_rendering()  # so that it is known where the points will be
            _name_points(axes, named)
        out = BytesIO()
        page.savefig(out, format=file_format, dpi=200, transparent=file_format == "svg")
    return out.getvalue()


def _height(chart: Chart) -> float:
    """In inches."""
    return 3.6 if chart.lines is None else 1.1 + 0.28 * max(chart.lines, 3)


def _legend(chart: Chart) -> bool:
    return not chart.bare and any(series.drawn_as in ("curve", "bars") for series in chart.series)


def _columns(chart: Chart, width: float) -> int:
    """Of the legend, that its names have room in so many inches."""
    longest = max(len(series.name) for series in chart.series)
    return max(1, min(3, int(72 * width / (5 * longest + 40))))


def _texts(ticks: Sequence[float]) -> list[str]:
    return [scaled(tick, "") if tick >= 1000 else f"{tick:.3g}" for tick in ticks]


def _colour(series: Series) -> str:
    return INK if series.colour is None else PALETTE[series.colour % len(PALETTE)]


def _mark(series: Series) -> str:
    return _MARKS[(series.colour or 0) // len(PALETTE) % len(_MARKS)]


def _gaps(above: Any, below: Any) -> list[float]:
    return [float(a) - float(b) for a, b in zip(above, below, strict=True)]


def _plot(axes: Axes, chart: Chart, series: Series) -> None:
    colour, x, y = _colour(series), list(series.x), list(series.y)
    if series.drawn_as == "label":
        axes.annotate(series.name, (x[0], y[0]), ha=series.align, va="bottom")
        return
    styles = {"points": ("", _mark(series)), "line": ("-", ""), "curve": ("-", _mark(series))}
    line, mark = styles[series.drawn_as]
    errors: dict[str, Any] = {}
    if series.low is not None and series.high is not None:
        middle = series.x if chart.interval == "x" else series.y
        errors[f"{chart.interval}err"] = [_gaps(middle, series.low), _gaps(series.high, middle)]
    axes.errorbar(
        x, y, color=colour, linestyle=line, linewidth=0.75 * series.width, marker=mark, capsize=2, label=series.name, **errors
    )


def _name_points(axes: Axes, points: Sequence[Series]) -> None:
    """Each point's name beside it: in the axes, and clear of points and of names before it, where that is possible."""
    from matplotlib.transforms import Bbox

    centres = [axes.transData.transform((float(series.x[0]), float(series.y[0]))) for series in points]
    taken = [Bbox.from_bounds(x - _CLEAR, y - _CLEAR, 2 * _CLEAR, 2 * _CLEAR) for x, y in centres]
    for series in points:
        names = [
            axes.annotate(series.name, (series.x[0], series.y[0]), xytext=xy, textcoords="offset points", ha=across, va=upright)
            for xy, across, upright in _BESIDE
        ]
        boxes = [name.get_window_extent() for name in names]
        within = [_holds(axes.bbox, box) for box in boxes]
        clear = [not any(box.overlaps(other) for other in taken) for box in boxes]
        best = max(range(len(names)), key=lambda i: (within[i] + clear[i], clear[i], -i))
        taken.append(boxes[best])
        for name in names[:best] + names[best + 1 :]:
            name.remove()


def _holds(outer: Any, inner: Any) -> bool:
    return bool(outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1)


def _bars(axes: Axes, series: Series, which: int, of: int) -> None:
    """One of several bars beside one another at each method."""
    heights = [i + (which - (of - 1) / 2) * 0.8 / of for i in range(len(series.y))]
    axes.barh(heights, [float(v) for v in series.x], height=0.8 / of, color=_colour(series), label=series.name)
    axes.set_yticks(range(len(series.y)), [str(name) for name in series.y])
