"""How the answers of two adapters to the same rows differ.

Where the rows have labels, McNemar's exact test (1947) says whether one adapter is better: it looks at the rows that one of
them answers right and the other wrong. Were both equally good, each such row would fall to either side like a coin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.box_values import Boxes, Found
from ..data.columns import Columns, read_fields
from ..data.examples import Examples
from ..data.mask_values import Mask
from ..data.sources import source_of
from ..errors import GraftaxError
from ..serve.evaluation import Answered
from ..serve.predictor import Prediction, Predictor
from ..tasks.labelled import spelled
from ..tasks.read_examples import check_columns
from ..tasks.task import Answer, Task
from ..typed import held


@dataclass(frozen=True)
class Truth:
    """How often two adapters are right. A row is answered right where all of its answer is: every label, every word's tag."""

    left: float  # the share of rows that the first answers right
    right: float  # and the second
    only_left: int  # rows that the first alone answers right
    only_right: int  # and the second alone
    p: float  # of McNemar's exact test, two-sided: how often equally good adapters would differ so much


@dataclass(frozen=True)
class AnswersCompared:
    """Two adapters' answers to the same rows."""

    rows: int
    alike: float | None  # the share of rows with the same answer; None: answers are numbers
    apart: float | None  # of numbers: the mean distance between the two
    changed: Mapping[tuple[str | None, str | None], int]  # how often the first said one label and the second another
    truth: Truth | None  # None: the rows have no labels, or these are numbers


@held
def compare_answers(predictor: Predictor, left: str, right: str, data: Any, *, columns: Columns = Columns()) -> AnswersCompared:
    """Ask two loaded adapters of one task about rows.

    Args:
        predictor: with both loaded.
        left: the name of the first one there.
        right: and of the second.
        data: rows as of `measure`; they may be without labels.

    Raises:
        GraftaxError: adapters of different tasks, or without a head; rows that cannot be read.
    """
    task, other = predictor.task(left), predictor.task(right)
    if other.name != task.name:
        raise GraftaxError(f"an adapter of task {task.name!r} and one of {other.name!r} give no answers to compare.")
    if not predictor.labels(left) or not predictor.labels(right):
        raise GraftaxError(f"adapters of task {task.name!r} without a head give no answers to compare.")
    examples = _read(data, columns, task, predictor, left)
    each = (dict(zip(examples.fields, values, strict=True)) for values in zip(*examples.fields.values(), strict=True))
    rows = [predictor.processor.row_of(fields) for fields in each]
    said = predictor.predict(rows, left), predictor.predict(rows, right)
    if isinstance(said[0][0].label, float):
        apart = np.mean([abs(one.label - other.label) for one, other in zip(*said, strict=True)])
        return AnswersCompared(len(rows), None, float(apart), {}, None)
    alike = [_whole(task, one.label) == _whole(task, other.label) for one, other in zip(*said, strict=True)]
    as_labels = replace(examples, labels=tuple(one.label for one in said[0]))
    pairs = Answered(task, as_labels, [Answer(one.label, None) for one in said[1]], predictor.labels(left)).confusions()
    changed = Counter({pair: count for pair, count in pairs.items() if pair[0] != pair[1]})
    truth = None
    if examples.labels is not None:  # each adapter's own spelling of them is the right one for it
        labels = [spelled(examples, predictor.labels(name)).labels or () for name in (left, right)]
        truth = _truth(*(_right(task, own, answers) for own, answers in zip(labels, said, strict=True)))
    return AnswersCompared(len(rows), float(np.mean(alike)), None, changed, truth)


def _read(data: Any, columns: Columns, task: Task, predictor: Predictor, name: str) -> Examples:
    """Rows with their labels, where they have any."""
    processor = predictor.processor
    check_columns(columns, task, processor)
    source = source_of(data)
    own = task.label_field
    if columns[own] in source.rows[0]:
        return task.read(source, columns, processor, predictor.labels(name))
    fields = [field for field in task.fields(processor) if field.name != own]
    return Examples(read_fields(source, columns, fields), None, source.name)


def _whole(task: Task, label: Any) -> Any:
    """An answer as one value; of a set of labels the order says nothing."""
    if isinstance(label, str | Mask):
        return label
    if isinstance(label, Boxes | Found):
        return _things(label)
    return tuple(label) if task.output.by_position else tuple(sorted(label))


def _things(label: Boxes | Found) -> tuple[str, ...]:
    """What is in a picture; boxes are never alike to the pixel."""
    return tuple(sorted(label.names if isinstance(label, Boxes) else (one["label"] for one in label)))


def _right(task: Task, labels: Sequence[Any], said: Sequence[Prediction]) -> np.ndarray:
    """Which rows are answered right."""
    return np.array([_whole(task, label) == _whole(task, one.label) for label, one in zip(labels, said, strict=True)], bool)


def _truth(left: np.ndarray, right: np.ndarray) -> Truth:
    from scipy.stats import binomtest

    only_left, only_right = int((left & ~right).sum()), int((right & ~left).sum())
    differ = only_left + only_right
    p = float(binomtest(only_left, differ, 0.5).pvalue) if differ else 1.0
    return Truth(float(left.mean()), float(right.mean()), only_left, only_right, p)
