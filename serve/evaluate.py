"""Measuring resident adapters on labelled rows."""

from __future__ import annotations

from typing import Any

from ..errors import GraftaxError
from ..train.data import Columns, read_examples
from ..train.tasks import Answer
from .predictor import Predictor


def evaluate(predictor: Predictor, name: str, data: Any, *, columns: Columns = Columns()) -> dict[str, float]:
    """Metrics of a loaded adapter's task (`train/metrics.py`) on rows it was not trained on.

    Args:
        predictor: with the adapter loaded; measuring several with one predictor compiles nothing again.
        name: of the adapter.
        data: a path, a `datasets.Dataset` or an iterable of dicts, as for `train_many`.

    Raises GraftaxError for a label in the data that the adapter does not know.
    """
    names, task = predictor.labels(name), predictor.task(name)
    if not names:
        raise GraftaxError(f"{name} has no head, so there is nothing to measure.")
    examples = read_examples(data, columns, task.name)
    task.check(examples, names)
    rows = list(zip(examples.texts, examples.pairs, strict=True)) if examples.pairs else list(examples.texts)
    said = [Answer(p.label, p.score) for p in predictor.predict(rows, name)]
    return task.score(examples, said, names)
