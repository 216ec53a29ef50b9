"""Explanations as one page of HTML: the page is `explain.html.jinja`; what is drawn on it is made here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from ..report.frame import rendered
from ..report.shown_pictures import data_url
from ..report.svg import curves
from .explanation import About, Explanation
from .fragments import sums
from .heat import laid_over, plain, strengths, strongest
from .said import sentences, verdict

_TEMPLATE = Path(__file__).parent / "explain.html.jinja"


class Piece(NamedTuple):
    """Characters of a text, and how strongly they are coloured: from -1, all against the label, to 1."""

    text: str
    strength: float
    value: float | None  # what is attributed to them; None: they are in no fragment


def page_of(about: About, rows: Sequence[Explanation]) -> str:
    """The page of several explanations."""
    shown = {"about": about, "rows": rows, "sentences": [*sentences(about, rows)]}
    helpers = {"pictures": _pictures, "pieces": pieces, "plot": _plot, "verdict": verdict}
    return rendered(_TEMPLATE, **shown, **helpers)


def drawings(row: Explanation, signed: bool) -> dict[str, bytes]:
    """PNGs of a picture: as it is, under what is seen with the adapter, without it, and under the change; none of a text.

    Colours are on one scale.
    """
    if row.picture is None:
        return {}
    low, high = strongest(_values(row), signed)
    drawn = {"picture": plain(row.picture), "seen": laid_over(row.picture, row.seen.values, low, high)}
    if row.without is not None and row.change is not None:
        drawn["without"] = laid_over(row.picture, row.without.values, low, high)
        drawn["change"] = laid_over(row.picture, row.change, 0.0, high - low)
    return drawn


def pieces(row: Explanation, values: np.ndarray, signed: bool) -> list[list[Piece]]:
    """The texts of a row, each in pieces: its tokens, and what lies between them."""
    low, high = strongest(_values(row), signed)
    each = sums(values, row.fragments)
    strong = strengths(each, low, high)
    found: list[list[Piece]] = []
    for which, text in enumerate(row.texts):
        own, end = list[Piece](), 0
        for fragment, (of, begin, until) in enumerate(row.spans):
            if of != which or until <= end:  # several tokens may be made of one character
                continue
            own += [Piece(text[end:begin], 0.0, None)] if begin > end else []
            own.append(Piece(text[max(begin, end) : until], float(strong[fragment]), float(each[fragment])))
            end = until
        found.append([*own, *([Piece(text[end:], 0.0, None)] if end < len(text) else [])])
    return found


def _values(row: Explanation) -> list[np.ndarray]:
    return [view.values for view in (row.seen, row.without) if view is not None]


def _pictures(row: Explanation, signed: bool) -> dict[str, str]:
    return {what: data_url(png) for what, png in drawings(row, signed).items()}


def _plot(row: Explanation, explained: str) -> Markup:
    found = row.curves
    assert found is not None
    lines: list[tuple[str, Any]] = [("chance", line) for both in found.random for line in both]
    lines += [("deletion", found.deletion), ("insertion", found.insertion)]
    what = f"{explained} of {row.label}" if row.label else explained
    return curves(f"Deletion and insertion of row {row.row}", found.shares, lines, "share taken away, or given back", what)
