"""How far a metric is from what it would be on other rows of the same kind: 95% intervals of an evaluation.

A share of rows has Wilson's interval (1927), which is right for few rows and for shares near 0 and 1. Another metric has the
percentile bootstrap's (Efron, 1979): it is taken of as many rows, drawn anew with replacement, and again, and runs from the
2.5th to the 97.5th percentile. A metric for which nothing is known of single rows has none.

An interval is of the rows alone: that another seed would have trained another adapter is not in it, as it is in a benchmark's
(`benchmarks/statistics.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..store.events import Measure
from ..tasks import counted_metrics
from ..tasks.task_registry import task_named
from .confusion import Confusion
from .evaluation import Measured

_Z = 1.959963984540054  # the normal distribution has 95% within so many standard deviations
_SEED = 19790101  # of every draw: what is measured twice says the same
_DRAWS, _DRAWS_OF_ANSWERS = 2000, 300  # the second where a metric is taken of answers one by one, which takes milliseconds
_OF_CLASSES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "macro_f1": counted_metrics.macro_f1,
    "matthews": counted_metrics.matthews,
}
_SHARES = {"accuracy", "exact_match", "reward_accuracy"}  # of rows, or where a task answers every position of them
_COUNTS = {"cut_rows", "unknown_labels"}  # told beside metrics


def intervals(measured: Measured, task: str) -> dict[str, Measure]:
    """The metrics of an evaluation, each with its interval where there is one; what is no finite number is left out."""
    values = {metric: value for metric, value in measured.metrics.items() if math.isfinite(value)}
    rows = measured.data.rows or 0
    shares = _SHARES & values.keys() if rows and not task_named(task).output.by_position else set[str]()
    others = values.keys() - shares - _COUNTS
    drawn = _of_classes(measured.confusion, rows) if others and measured.confusion else {}
    if not others <= drawn.keys():
        drawn = _of_answers(measured) | drawn
    bounds = {metric: wilson(values[metric], rows) for metric in shares}
    for metric in others & drawn.keys():
        low, high = np.percentile(drawn[metric], [2.5, 97.5]).tolist()
        if low < high:  # else no draw had a row that tells, as where all answers are right
            bounds[metric] = low, high
    return {metric: Measure(value, *bounds.get(metric, ())) for metric, value in values.items()}


def wilson(share: float, rows: int) -> tuple[float, float]:
    """The bounds of the 95% interval of a share of rows."""
    middle, room = share + _Z**2 / (2 * rows), _Z * math.sqrt(share * (1 - share) / rows + _Z**2 / (4 * rows**2))
    whole = 1 + _Z**2 / rows
    return min(share, max(0.0, (middle - room) / whole)), max(share, min(1.0, (middle + room) / whole))  # rounding apart


def _of_classes(confusion: Confusion, rows: int) -> dict[str, np.ndarray]:
    """Metrics in every draw, where each row has one label and one answer: rows of one label and answer are alike."""
    if rows < 2 or sum(confusion.counts.values()) != rows or any(None in pair for pair in confusion.counts):
        return {}
    number: dict[str | None, int] = {label: i for i, label in enumerate(confusion.labels)}
    gold, said = (np.array([number[pair[side]] for pair in confusion.counts], np.int32) for side in (0, 1))
    shares = np.array([*confusion.counts.values()]) / rows
    weights = np.random.default_rng(_SEED).multinomial(rows, shares, size=_DRAWS).astype(float)
    return {metric: of(gold, said, weights) for metric, of in _OF_CLASSES.items()}


def _of_answers(measured: Measured) -> dict[str, np.ndarray]:
    """Metrics in every draw, as the task takes them of single answers."""
    if measured.answered is None or (count := len(measured.answered)) < 2 or not measured.answered.task.redrawn:
        return {}
    answered, draws = measured.answered, np.random.default_rng(_SEED).integers(count, size=(_DRAWS_OF_ANSWERS, count))
    if (tallies := answered.tallies) is None:
        each = [answered.take(chosen).metrics() for chosen in draws.tolist()]
    else:
        each = [tallies.metrics(tallies.each[chosen].sum(0)) for chosen in draws]
    always = [metric for metric in each[0] if all(metric in scores for scores in each)]  # a class may be in some draws alone
    return {metric: np.array([scores[metric] for scores in each]) for metric in always}
