"""Measuring adapters on rows they were not trained on."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ..adapters.adapter import Adapter, Layout
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.tokens import Tokenizer
from ..train.batches import Shape, plan_all, shape_alone
from ..train.data import Columns, read_examples
from ..train.tasks import Answer, task_named
from .predictor import Predictor

_ROWS = 8  # of a batch of a language model's


def evaluate(predictor: Predictor, name: str, data: Any, *, columns: Columns = Columns()) -> dict[str, float]:
    """Metrics of a loaded adapter's task (`train/metrics.py`) on labelled rows.

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


def evaluate_language(backbone: Backbone, adapter: Adapter, data: Any, *, columns: Columns = Columns()) -> dict[str, float]:
    """Metrics of an adapter without a head on rows of its task ("lm", "sft", "dpo", "seq2seq"); `data` as for `train_many`."""
    task, tokenizer = task_named(adapter.task), Tokenizer.of(backbone)
    room = backbone.config.max_tokens - sum(method.virtual_tokens for method in adapter.methods)
    length = min(adapter.recipe.get("max_length", room), room)
    rows = task.rows(read_examples(data, columns, task.name), (), tokenizer, length)
    if task.targets or any(method.adds_tokens or method.whole_text for method in adapter.methods):
        shape = shape_alone(max(rows.lengths), _ROWS, rows.together, rows.longest_target)
    else:
        shape = Shape(len(rows.tokens), _ROWS, max(rows.wholes), together=rows.together)
    state = Layout.of([adapter], backbone.sites, bucket=True).stack(adapter, backbone.sites).state

    @jax.jit
    def outputs(params: Any, state: Any, inputs: Any, labels: Any) -> jax.Array:
        return task.outputs(backbone, params, state, inputs, labels)

    answers = []
    for planned in plan_all(rows.lengths, shape):
        inputs = tokenizer.lay([rows.tokens[i] for i in planned.texts], planned.places, shape)
        found = np.asarray(outputs(backbone.params, state, inputs, task.lay(rows, planned, shape, 0)))
        answers += [task.answer(mine, (), rows.tokens[i]) for i, mine in task.each(found, rows, planned)]
    return task.score(rows.examples, answers, ())
