"""A report as one page of HTML: the page is `evaluation.html.jinja`; what it computes of a report is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...store.events import Measure
from ...store.manifest import DataFacts
from ..confusion import Confusion
from .adapter_report import AdapterReport
from .findings import findings
from .frame import rendered
from .svg import reliability_plot, scatter, strip

_TEMPLATE = Path(__file__).parent / "evaluation.html.jinja"
_CLASSES = 12  # of a table of confusions; of more the largest confusions are listed
_LISTED = 15


@dataclass(frozen=True)
class Scale:
    """A line on which values with their intervals are drawn."""

    low: float
    high: float

    @classmethod
    def of(cls, measures: Sequence[Measure | None]) -> Scale:
        """One that holds all of them."""
        known = [one for one in measures if one is not None]
        ends = [end for one in known for end in (one.value, one.low, one.high) if end is not None]
        return cls(min(ends), max(ends)) if ends else cls(0.0, 1.0)

    def strip(self, measure: Measure, worse: bool = False, reference: float | None = None) -> Any:
        return strip(measure, self.low, self.high, worse, reference)


def page_of_report(backbone: str, data: DataFacts, adapters: Sequence[AdapterReport]) -> str:
    """The page of adapters on the same rows."""
    helpers = {
        "findings": findings,
        "others": _others,
        "reliability_plot": reliability_plot,
        "scale_of": Scale.of,
        "scatter": scatter,
        "share": _share,
        "largest": _largest,
    }
    shown = {"backbone": backbone, "data": data, "adapters": adapters, "classes": _CLASSES, "listed": _LISTED}
    return rendered(_TEMPLATE, **shown, **helpers)


def _others(found: AdapterReport) -> list[str]:
    """The metrics beside the main one."""
    return [name for name in found.metrics if name != found.main_metric]


def _share(confusion: Confusion, label: str | None, answer: str | None) -> float:
    """Of the rows with a label those with an answer."""
    total = sum(count for (one, _), count in confusion.counts.items() if one == label)
    return confusion.counts.get((label, answer), 0) / total if total else 0.0


def _largest(confusion: Confusion) -> list[tuple[str | None, str | None, int]]:
    """What was taken for what, the most frequent first."""
    wrong = [(*pair, count) for pair, count in confusion.counts.items() if pair[0] != pair[1]]
    return sorted(wrong, key=lambda one: -one[2])
