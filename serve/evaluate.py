"""Measuring an adapter on labelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..adapters.adapter import Adapter
from ..adapters.files import load_adapter
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..train.data import Columns, read_examples
from ..train.tasks import Answer, task_named
from .predictor import Predictor


def evaluate(
    backbone: Backbone,
    adapter: str | Path | Adapter,
    data: Any,
    *,
    columns: Columns = Columns(),
    labels: Sequence[str] | None = None,
    any_backbone: bool = False,
) -> dict[str, float]:
    """Metrics of an adapter's task (`train/metrics.py`) on rows it was not trained on.

    Raises GraftaxError for a label in the data that the adapter does not know.
    """
    if not isinstance(adapter, Adapter):
        adapter = load_adapter(adapter, backbone, any_backbone=any_backbone)
    predictor = Predictor(backbone)
    predictor.load("adapter", adapter, labels=labels)
    names = predictor.labels("adapter")
    if not names:
        raise GraftaxError("the adapter has no head, so there is nothing to measure.")
    task = task_named(adapter.task)
    examples = read_examples(data, columns, task.name)
    task.check(examples, names)
    rows = list(zip(examples.texts, examples.pairs, strict=True)) if examples.pairs else list(examples.texts)
    said = [Answer(p.label, p.score) for p in predictor.predict(rows, "adapter")]
    return task.score(examples, said, names)
