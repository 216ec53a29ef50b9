"""Making a report: every adapter is measured on the rows, and what was answered is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...adapters.adapter import Adapter
from ...adapters.files import adapter_for
from ...adapters.fitting import length_for
from ...data.columns import Columns
from ...data.prepared import Prepared
from ...data.sources import Source, source_of
from ...errors import GraftaxError
from ...models.backbone import Backbone
from ...store.events import Measure
from ...tasks.reliability import reliability_of
from ...typed import Location, held
from ..evaluation import Answered, Measured, measure, measure_adapter, pooled_of, rows_asked
from ..intervals import intervals
from ..predictor import Predictor
from .adapter_report import AdapterReport
from .domain_shift import Distance, Shift, change_of, distance, labels_apart
from .evaluation_report import Report
from .most_wrong import most_wrong
from .slices import slices_of

_POINTS = 500  # of a regression, that are shown


@held
def report_on(
    backbone: Backbone,
    adapters: Mapping[str, Adapter | Location],
    data: Any,
    *,
    slices: Sequence[str] = (),
    against: Any = None,
    columns: Columns = Columns(),
    chat_template: str | None = None,
) -> Report:
    """Measure adapters on the same rows, and look at what they answer: `report_on(...).write("DIR")` makes a page of it.

    Args:
        backbone: that of all of them.
        adapters: by names for the page, each one in memory, a directory or a Hub id; without any the head that the backbone's
            checkpoint brings.
        data: rows as of `measure` or `measure_language`.
        slices: columns of the rows; the metrics are taken of the rows with each of a column's values, too.
        against: other rows, such as those of the training: how much better the adapters are there, and how far these lie apart.
        columns: which of them play which part.
        chat_template: as of `measure_language`.

    Raises:
        GraftaxError: what `measure` raises; a column that is not there or makes no slices.
    """
    reporter = Reporter(backbone, data, slices=slices, against=against, columns=columns, chat_template=chat_template)
    for name, adapter in adapters.items():
        reporter.add(name, adapter_for(backbone, adapter))
    if not adapters:
        reporter.add_own_head()
    return reporter.report()


class Reporter:
    """A report to which adapters are added one by one."""

    def __init__(
        self,
        backbone: Backbone,
        data: Any,
        *,
        slices: Sequence[str] = (),
        against: Any = None,
        columns: Columns = Columns(),
        chat_template: str | None = None,
    ):
        self._backbone, self._slices, self._columns, self._chat_template = backbone, tuple(slices), columns, chat_template
        self._data, self._against = _kept(data, self._slices), None if against is None else _kept(against, ())
        self._predictor = Predictor(backbone)
        self._made: list[AdapterReport] = []
        self._measured: list[Measured] = []
        if self._slices:
            source_of(self._data).require(*self._slices)  # before anything is computed

    def add(self, name: str, adapter: Adapter, labels: Sequence[str] | None = None) -> Measured:
        """Measure an adapter; `labels`: names of the classes of one that has none of its own."""

        def on(rows: Any) -> Measured:
            return measure_adapter(
                self._predictor, name, adapter, rows, columns=self._columns, labels=labels, chat_template=self._chat_template
            )

        here, there = on(self._data), None if self._against is None else on(self._against)
        self._look_at(name, adapter, here, there)
        return here

    def add_own_head(self) -> Measured:
        """Measure the head that the backbone's checkpoint brings, which reads no chats."""
        if self._chat_template is not None:
            raise GraftaxError("a chat template is for language models, and the checkpoint's own head is asked here.")
        measured = measure(self._predictor, None, self._data, columns=self._columns)
        there = None if self._against is None else measure(self._predictor, None, self._against, columns=self._columns)
        self._look_at(self._backbone.name, None, measured, there)
        return measured

    def report(self) -> Report:
        """Of all that were added, at least one."""
        if not self._made:
            raise GraftaxError("a report needs an adapter.")
        return Report(self._backbone.name, self._measured[0].data, tuple(self._made))

    def _look_at(self, name: str, adapter: Adapter | None, here: Measured, there: Measured | None) -> None:
        shift = None if there is None else self._shift(adapter, here, there)
        source = source_of(self._data) if self._slices else None
        self._measured.append(here)
        self._made.append(looked_at(name, here, source, self._slices, shift))

    def _shift(self, adapter: Adapter | None, here: Measured, there: Measured) -> Shift:
        assert here.answered is not None
        assert there.answered is not None
        task = here.answered.task
        metrics, nothing = intervals(there, task.name), Measure(math.nan)
        main = intervals(here, task.name).get(task.main_metric, nothing)
        change = change_of(main, metrics.get(task.main_metric, nothing))
        known = None if adapter is None or adapter.data is None else adapter.data.sha256
        distances = list[Distance]()
        if task.output.headed and min(len(here.answered), len(there.answered)) > 1:
            for what, under in (("of the frozen backbone", None), ("under the adapter", adapter)):
                if under is not None or not distances:
                    sides = (self._features(side.answered, adapter, under) for side in (here, there))
                    distances.append(distance(what, *sides))
        trained_on = None if known is None else known == there.data.sha256
        return Shift(there.data, trained_on, metrics, change, labels_apart(here.answered, there.answered), tuple(distances))

    def _features(self, answered: Answered | None, adapter: Adapter | None, under: Adapter | None) -> np.ndarray:
        """What a classifier would read, `[items, width]`; `adapter` says how long the items are."""
        assert answered is not None
        processor = self._backbone.processor
        length = self._predictor.max_length if adapter is None else length_for(adapter, self._backbone, processor.max_length)
        items = [
            item
            for i, row in enumerate(rows_asked(answered.examples, processor))
            for item in answered.task.ask(processor, row, f"row {i + 1}", None, length)
        ]
        return pooled_of(self._backbone, under, Prepared(answered.examples, items, ()))


def looked_at(
    name: str, measured: Measured, source: Source | None = None, slices: Sequence[str] = (), shift: Shift | None = None
) -> AdapterReport:
    """What there is to see in answers; `source`: the rows, whose columns make slices."""
    answered = measured.answered
    assert answered is not None
    task, each = answered.task, [*zip(answered.labels, answered.answers, strict=True)]
    claims = [claim for label, answer in each for claim in task.claims(label, answer)]
    numbers = [(label, answer.label) for label, answer in each if isinstance(answer.label, float)][:_POINTS]
    return AdapterReport(
        name,
        task.name,
        task.main_metric,
        task.lower_is_better,
        task.mistaken_by,
        intervals(measured, task.name),
        measured.unknown,
        slices_of(answered, source, slices) if source is not None else (),
        reliability_of(*zip(*claims, strict=True)) if claims else None,
        measured.confusion,
        tuple(numbers),
        most_wrong(answered),
        shift,
    )


def _kept(data: Any, slices: Sequence[str]) -> Any:
    """Rows that can be read again and again; a path as it is, for a plain text is no rows."""
    return data if isinstance(data, str | Path) and not slices else source_of(data)
