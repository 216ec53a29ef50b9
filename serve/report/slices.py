"""Slices: the rows with one value in a column, and how an adapter does on each of them.

A mean over all rows hides that an adapter fails on some kind of them. A column of numbers of which there are many makes no
slices by itself: it is cut into ranges with about as many rows each.

Which slice is the worst is decided by the better end of its interval, for of many small slices one looks bad by chance: two
rows that are both answered wrongly say less than forty of which half are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...data.labels import each_name
from ...data.sources import Source
from ...data.values import Unreadable, class_of, is_missing, number_of
from ...errors import GraftaxError
from ...store.events import Measure
from ...tasks.task import Task
from ..evaluation import Answered
from ..intervals import intervals

MOST = 20  # slices of a column that are shown
_RANGES = 5  # of numbers
_NOTHING = "(nothing)"  # what a value is called that is missing


@dataclass(frozen=True)
class Slice:
    """Rows with one value in a column, or with one in a range."""

    value: str
    rows: int
    metrics: Mapping[str, Measure]  # of rows that all have one label the main one alone: others compare labels
    apart: bool  # whether the interval of its main metric lies wholly on the worse side of the value of all rows


@dataclass(frozen=True)
class Slices:
    """Those of one column: the worst first, or of numbers in their order."""

    column: str
    values: int  # how many different ones the column has
    shown: tuple[Slice, ...]
    worst: int | None  # index of the worst of these; None: there is but one, or each is a single row
    note: str | None = None  # what else should be known of them


@dataclass(frozen=True)
class _Groups:
    """Rows by their values in a column."""

    values: int
    rows: Mapping[str, Sequence[int]]
    ranges: bool = False
    note: str | None = None


def slices_of(answered: Answered, source: Source, columns: Sequence[str]) -> tuple[Slices, ...]:
    """Those of each column.

    Raises GraftaxError: a column that is not there or holds lists or pictures, texts that are measured in pieces.
    """
    if not columns:
        return ()
    if len(answered) != len(source.rows):
        raise GraftaxError(f"{source.name}: texts of task {answered.task.name!r} are measured in pieces; it has no slices.")
    whole = answered.metrics()[answered.task.main_metric]
    return tuple(_measured(answered, column, _grouped(source, column), whole) for column in dict.fromkeys(columns))


def _grouped(source: Source, column: str) -> _Groups:
    source.require(column)
    names = [_name_of(source, i, column) for i in range(len(source.rows))]
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        rows.setdefault(name, []).append(i)
    count = len(rows)
    if count > MOST and (numbers := _numbers(names)) is not None:
        note = f"{len({*names} - {_NOTHING}):,} different numbers, in ranges of about as many rows"
        return _Groups(count, _ranges(numbers), ranges=True, note=note)
    if count == len(names) > MOST:
        return _Groups(count, rows, note=f"as many values as rows, so that these {MOST} of {count:,} say nothing of others")
    return _Groups(count, rows, note=f"the {MOST} largest of {count:,}" if count > MOST else None)


def _name_of(source: Source, row: int, column: str) -> str:
    value = source.rows[row].get(column)
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return _NOTHING
    try:
        return class_of(value, source.classes.get(column, ()))
    except Unreadable:
        where = f"{source.row_name(row)} has a {type(value).__name__} in column {column!r}"
        raise GraftaxError(f"{where}; slices are made of texts, numbers, True and False.") from None


def _numbers(names: Sequence[str]) -> list[float] | None:
    """Values as numbers, what is missing as NaN; None where some are none."""
    try:
        return [math.nan if name == _NOTHING else number_of(name) for name in names]
    except Unreadable:
        return None


def _ranges(numbers: Sequence[float]) -> dict[str, list[int]]:
    """Rows by ranges of numbers, in the order of these, and those without a number behind them."""
    each = np.array(numbers)
    known = np.sort(each[~np.isnan(each)])
    ends = np.unique(known[[math.ceil(len(known) * part / _RANGES) - 1 for part in range(1, _RANGES + 1)]])
    which = np.searchsorted(ends, each)  # of NaN one behind the last
    found: dict[str, list[int]] = {}
    for index in np.unique(which).tolist():
        rows = np.flatnonzero(which == index).tolist()
        low, high = each[rows].min(), each[rows].max()
        name = _NOTHING if index == len(ends) else f"{low:g}" if low == high else f"{low:g} to {high:g}"
        found.setdefault(name, []).extend(rows)
    return found


def _measured(answered: Answered, column: str, groups: _Groups, whole: float) -> Slices:
    largest = sorted(groups.rows.items(), key=lambda item: -len(item[1]))[:MOST]
    shown = [_slice(answered, value, rows, whole) for value, rows in (groups.rows.items() if groups.ranges else largest)]
    badness = partial(_badness, answered.task)
    if not groups.ranges:
        shown.sort(key=badness)
    told_apart = len(shown) > 1 and any(one.rows > 1 for one in shown)
    worst = min(range(len(shown)), key=lambda i: badness(shown[i])) if told_apart else None
    return Slices(column, groups.values, tuple(shown), worst, groups.note)


def _slice(answered: Answered, value: str, rows: Sequence[int], whole: float) -> Slice:
    part = answered.take(rows)
    found = intervals(part.measured(), answered.task.name)
    main = found.get(answered.task.main_metric)
    if len({*each_name(part.examples.labels)}) == 1:
        found = {} if main is None else {answered.task.main_metric: main}
    best = None if main is None else _best_end(main, answered.task.lower_is_better)
    apart = best is not None and (best > whole if answered.task.lower_is_better else best < whole)
    return Slice(value, len(rows), found, apart)


def _best_end(measure: Measure, lower_is_better: bool) -> float | None:
    return measure.low if lower_is_better else measure.high


def _badness(task: Task, one: Slice) -> tuple[bool, float, float]:
    """A key by which the worst slice is the first; those of which nothing is certain are behind the others."""
    main = one.metrics.get(task.main_metric)
    if main is None:
        return True, math.inf, math.inf
    sign, end = -1.0 if task.lower_is_better else 1.0, _best_end(main, task.lower_is_better)
    return end is None, sign * (main.value if end is None else end), sign * main.value
