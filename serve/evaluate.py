"""Measuring adapters on rows they were not trained on: by what they answer, how likely they find it, what they generate."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ..adapters.adapter import Adapter, Layout
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.tokens import Tokenizer
from ..train.batches import Shape, plan_all, shape_alone
from ..train.data import Columns, Examples, read_examples
from ..train.tasks import Answer, task_named
from ..train.text_metrics import SCORES
from .composition import Composition
from .generator import Generator, Prompt
from .predictor import Predictor
from .sampling import Sampling

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


def evaluate_generation(
    generator: Generator,
    name: str | Composition | None,
    data: Any,
    *,
    score: str = "text",
    sampling: Sampling = Sampling(),
    columns: Columns = Columns(),
) -> dict[str, float]:
    """What is generated behind every prompt, against what is wanted there (`train/text_metrics.py`).

    Args:
        generator: with the adapter loaded.
        name: of the adapter; None: the backbone alone.
        data: rows as of task "sft"; of a chat the assistant's last message is wanted behind those before it.
        score: "text", or "gsm8k": the number that the answer comes to.

    Raises GraftaxError for an unknown score, a chat without the assistant, or a prompt that leaves no room in the context.
    """
    if score not in SCORES:
        raise GraftaxError(f"unknown score {score!r}; there are {', '.join(SCORES)}.")
    examples = read_examples(data, columns, "sft")
    prompts, wanted = (examples.texts, examples.pairs) if examples.pairs else _questions(examples)
    said = [continuation.text for continuation in generator.generate(prompts, name, sampling)]
    return SCORES[score](said, wanted)


def _questions(chats: Examples) -> tuple[list[Prompt], list[str]]:
    """Each chat up to the assistant's last message, and that message."""
    prompts: list[Prompt] = []
    wanted = []
    for i, messages in enumerate(chats.texts):
        turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns:
            raise GraftaxError(f"{chats.source}: row {i + 1} has no message of the assistant.")
        prompts.append(messages[: turns[-1]])
        wanted.append(str(messages[turns[-1]]["content"]))
    return prompts, wanted
