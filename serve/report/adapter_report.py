"""What a report says of one adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...store.events import Measure
from ...tasks.reliability import Reliability
from ..confusion import Confusion
from .domain_shift import Shift
from .most_wrong import Wrong
from .slices import Slices


@dataclass(frozen=True)
class AdapterReport:
    """How one adapter did."""

    name: str
    task: str
    main_metric: str
    lower_is_better: bool
    mistaken_by: str  # as `Task.mistaken_by`
    metrics: Mapping[str, Measure]
    unknown: Mapping[str, int]  # labels that it does not know, and how often each occurs
    slices: tuple[Slices, ...]
    reliability: Reliability | None  # None: it says nothing with a probability
    confusion: Confusion | None
    numbers: tuple[tuple[float, float], ...]  # of a regression, truth and answer of some rows
    most_wrong: tuple[Wrong, ...]
    shift: Shift | None

    @property
    def main(self) -> Measure | None:
        """None: it is no finite number."""
        return self.metrics.get(self.main_metric)

    def record(self) -> dict[str, Any]:
        """For JSON: everything but pictures."""
        known = asdict(self)
        known["confusion"] = self.confusion and {"labels": list(self.confusion.labels), "pairs": self.confusion.records()}
        for wrong in known["most_wrong"]:
            del wrong["picture"]
        return known
