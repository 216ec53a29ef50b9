"""A `Chart` as an interactive figure in a page (plotly) and as a picture for a paper (matplotlib, 200 dpi).

Both show the same series in the same colours. The page's styles colour text and grid, so that figures follow its light or dark.
"""

from __future__ import annotations

import html
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
_MARKS = (("circle", "o"), ("square", "s"), ("diamond", "D"), ("triangle-up", "^"))


def _colour(series: Series) -> str:
    return INK if series.colour is None else PALETTE[series.colour % len(PALETTE)]


def _mark(series: Series) -> tuple[str, str]:
    return _MARKS[(series.colour or 0) // len(PALETTE) % len(_MARKS)]


def _height(chart: Chart) -> int:
    """In pixels, on any screen."""
    return 360 if chart.rows is None else 110 + 26 * max(chart.rows, 3)


def _legend(chart: Chart) -> bool:
    return not chart.bare and any(series.kind in ("curve", "bars") for series in chart.series)


def plotly_js() -> str:
    """The library that the figures of a page need, once per page."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise GraftaxError("the report needs plotly; pip install 'graftax[bench]'.") from error
    return str(get_plotlyjs())


def figure(chart: Chart) -> str:
    """A `<div>` with the script that fills it."""
    from plotly.graph_objects import Figure
    from plotly.io import to_html

    layout: dict[str, Any] = {
        "template": "none",
        "title": {"text": html.escape(chart.title), "x": 0, "xref": "paper", "font": {"size": 15}},
        "height": _height(chart) + (24 * ((len(chart.series) + 2) // 3) if _legend(chart) else 0),
        "margin": {"l": 56, "r": 16, "t": 44, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "hovermode": "closest",
        "dragmode": False,  # on a telephone a finger scrolls the page
        "barmode": "group",
        "showlegend": _legend(chart),
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        "xaxis": _axis(chart, chart.x, chart.ticks),
        "yaxis": _axis(chart, chart.y),
    }
    traces = [_trace(chart, series) for series in chart.series]
    return to_html(
        Figure({"data": traces, "layout": layout}),
        full_html=False,
        include_plotlyjs=False,
        config={"displayModeBar": False, "responsive": True},
        default_width="100%",
        default_height=f"{layout['height']}px",
    )


def _axis(chart: Chart, title: str, ticks: Sequence[float] = ()) -> dict[str, Any]:
    axis: dict[str, Any] = {
        "title": {"text": html.escape(title)},
        "zeroline": False,
        "automargin": True,
        "visible": not chart.bare,
    }
    return axis | ({"type": "log", "tickvals": ticks, "ticktext": _texts(ticks)} if ticks else {})


def _texts(ticks: Sequence[float]) -> list[str]:
    return [scaled(tick, "") if tick >= 1000 else f"{tick:.3g}" for tick in ticks]


def _trace(chart: Chart, series: Series) -> dict[str, Any]:
    name, colour = html.escape(series.name), _colour(series)
    x, y = ([html.escape(v) if isinstance(v, str) else v for v in values] for values in (series.x, series.y))
    trace: dict[str, Any] = {"name": name, "x": x, "y": y}
    shown = [html.escape(note) for note in series.notes] or ["%{x:.4g}, %{y:.4g}"] * len(series.x)
    trace["hovertemplate"] = [f"{name}<br>{note}<extra></extra>" for note in shown]
    if series.kind == "bars":
        return trace | {"type": "bar", "orientation": "h", "marker": {"color": colour}}
    if series.kind == "label":
        side = {"left": "top right", "center": "top center", "right": "top left"}[series.align]
        return trace | {
            "type": "scatter",
            "mode": "text",
            "text": [name],
            "textposition": side,
            "cliponaxis": False,
            "hoverinfo": "skip",
        }
    labelled = series.kind == "points" and not any(isinstance(v, str) for v in series.y)
    trace |= {
        "type": "scatter",
        "mode": {"points": "markers+text" if labelled else "markers", "line": "lines", "curve": "lines+markers"}[series.kind],
        "marker": {"color": colour, "size": 9, "symbol": _mark(series)[0]},
        "line": {"color": colour, "width": series.width},
    }
    if labelled:
        trace |= {"text": [name], "textposition": "top center", "cliponaxis": False}
    if series.low is not None and series.high is not None:
        ends = {"symmetric": False, "color": colour, "thickness": 1.5, "width": 4}
        middle = series.x if chart.interval == "x" else series.y
        ends |= {"array": _gaps(series.high, middle), "arrayminus": _gaps(middle, series.low)}
        trace[f"error_{chart.interval}"] = ends
    return trace


def _gaps(above: Any, below: Any) -> list[float]:
    return [float(a) - float(b) for a, b in zip(above, below, strict=True)]


def picture(chart: Chart) -> bytes:
    """A PNG, 7 inches wide."""
    try:
        import matplotlib
        from matplotlib.figure import Figure as Page
        from matplotlib.ticker import NullLocator
    except ImportError as error:
        raise GraftaxError("the report needs matplotlib; pip install 'graftax[bench]'.") from error
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 9}):
        page = Page(figsize=(7, _height(chart) / 90), layout="constrained")
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
        bars = [series for series in chart.series if series.kind == "bars"]
        for series in chart.series:
            if series.kind == "bars":
                _bars(axes, series, bars.index(series), len(bars))
            else:
                _plot(axes, chart, series)
        if _legend(chart):
            page.legend(loc="outside lower center", ncols=3, frameon=False)
        out = BytesIO()
        page.savefig(out, dpi=200)
    return out.getvalue()


def _plot(axes: Axes, chart: Chart, series: Series) -> None:
    colour, x, y = _colour(series), list(series.x), list(series.y)
    if series.kind == "label":
        axes.annotate(series.name, (x[0], y[0]), ha=series.align, va="bottom")
        return
    styles = {"points": ("", _mark(series)[1]), "line": ("-", ""), "curve": ("-", _mark(series)[1])}
    line, mark = styles[series.kind]
    errors: dict[str, Any] = {}
    if series.low is not None and series.high is not None:
        middle = series.x if chart.interval == "x" else series.y
        errors[f"{chart.interval}err"] = [_gaps(middle, series.low), _gaps(series.high, middle)]
    axes.errorbar(
        x, y, color=colour, linestyle=line, linewidth=0.75 * series.width, marker=mark, capsize=2, label=series.name, **errors
    )
    if series.kind == "points" and not any(isinstance(v, str) for v in y):
        axes.annotate(series.name, (x[0], y[0]), xytext=(0, 6), textcoords="offset points", ha="center")


def _bars(axes: Axes, series: Series, which: int, of: int) -> None:
    """One of several bars beside one another at each method."""
    places = [i + (which - (of - 1) / 2) * 0.8 / of for i in range(len(series.y))]
    axes.barh(places, [float(v) for v in series.x], height=0.8 / of, color=_colour(series), label=series.name)
    axes.set_yticks(range(len(series.y)), [str(name) for name in series.y])
