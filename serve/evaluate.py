"""Measuring adapters on rows they were not trained on: by what they answer, how likely they find it, what they generate."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ..adapters.adapter import Adapter, Layout
from ..adapters.files import adapter_for
from ..adapters.fitting import length_for, refuse_unfit
from ..adapters.methods.head import HEADS
from ..data.batches import Shape, plan_all, shape_alone
from ..data.examples import Columns, Examples, read_examples
from ..data.labels import each_name
from ..data.rows import Rows
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.tokens import Tokenizer
from ..tasks.labelled import Answer, spelled, task_named
from ..tasks.task import some_of
from ..tasks.text_metrics import SCORES
from ..typed import Location, held
from .composition import Composition
from .confusion import Confusion
from .generator import Generator, Prompt
from .predictor import Predictor
from .sampling import Sampling

_TOKENS = 1024  # of a batch; but
_ROWS = 8  # at least
_NARROWEST = 64  # tokens of a row that texts share
_SHORTEST = 4  # tokens of a text, for the room a batch has for texts


@dataclass(frozen=True)
class Measured:
    """What an adapter's answers to labelled rows are worth."""

    #: of its task; `unknown_labels`: how many labels it does not know, `cut_rows`: how many rows it does not read to their end,
    #: where there are any
    metrics: dict[str, float]
    unknown: dict[str, int] = field(default_factory=dict)  # these, and how often each occurs; any answer there counts as wrong
    confusion: Confusion | None = None  # None: there are no labels that could be confused


@held
def measure(predictor: Predictor, name: str | None, data: Any, *, columns: Columns = Columns()) -> Measured:
    """Ask a loaded adapter about labelled rows, and compare.

    Args:
        predictor: with the adapter loaded; measuring several with one predictor compiles nothing again.
        name: of the adapter; None: the head that the backbone's checkpoint brings.
        data: a path, a `datasets.Dataset`, a pandas DataFrame or an iterable of dicts, as for `train_many`.

    Raises:
        GraftaxError: data that cannot be read, none of whose labels the adapter knows, or an adapter without a head.
    """
    names, task = predictor.labels(name), predictor.task(name)
    if not names:
        raise GraftaxError(f"{name} has no head, so there is nothing to measure.")
    examples = spelled(read_examples(data, columns, task.name, names), names)
    occurring = Counter(each_name(examples.labels))
    unknown = {label: count for label, count in occurring.items() if label not in names}
    if unknown and len(unknown) == len(occurring):
        who, theirs = name or predictor.backbone.name, some_of(list(unknown))
        raise GraftaxError(f"{examples.source}: {who} knows none of its labels ({theirs}), but {some_of(names)}.")
    rows = list(zip(examples.texts, examples.pairs, strict=True)) if examples.pairs else list(examples.texts)
    answers = predictor.predict(rows, name)
    said = [Answer(answer.label, answer.score) for answer in answers]
    metrics = task.score(examples, said, names)
    if cut := sum(answer.cut for answer in answers):
        metrics |= {"cut_rows": cut}
    if unknown:
        metrics |= {"unknown_labels": sum(unknown.values())}
    pairs = Counter(
        pair for label, answer in zip(examples.labels or (), said, strict=True) for pair in task.compared(label, answer)
    )
    return Measured(metrics, unknown, Confusion((*names, *unknown), pairs) if pairs else None)


def evaluate(predictor: Predictor, name: str | None, data: Any, *, columns: Columns = Columns()) -> dict[str, float]:
    """The metrics alone of `measure`."""
    return measure(predictor, name, data, columns=columns).metrics


@held
def evaluate_language(
    backbone: Backbone,
    adapter: Adapter | Location,
    data: Any,
    *,
    columns: Columns = Columns(),
    chat_template: str | None = None,
) -> dict[str, float]:
    """Metrics of an adapter (in memory, its directory or Hub id) on rows of its task, which has no head ("lm", "sft", "dpo",
    "seq2seq"); `data` as for `train_many`.

    `chat_template`: of chats, a name or a Jinja text (`models/chat.py`). None: that of the adapter's training, if it is one by
    name, else the tokenizer's own; "adapter": that of its training, whatever it is.
    """
    adapter = adapter_for(backbone, adapter)
    task = task_named(adapter.task)
    if not task.headless:
        raise GraftaxError(f"adapters of task {task.name!r} are measured by what a Predictor answers with them (`measure`).")
    tokenizer = Tokenizer.of(backbone, chat_template).of_adapter(adapter.recipe)
    length = length_for(adapter, backbone, backbone.config.max_tokens)
    rows = task.rows(read_examples(data, columns, task.name), (), tokenizer, length)
    found = outputs_of(backbone, adapter, rows)
    return task.measure(rows, {i: task.answer(mine, (), rows.tokens[i]) for i, mine in found.items()}, ())


def outputs_of(backbone: Backbone, adapter: Adapter, rows: Rows) -> dict[int, np.ndarray]:
    """What `Task.answer` reads of each text, an adapter's own task and classes: text -> outputs, in the order computed.

    Adapters of one method and like sizes share a program.
    """
    task, classes = task_named(adapter.task), len(adapter.labels)

    def outputs(params: Any, state: Any, inputs: Any, labels: Any) -> jax.Array:
        return task.outputs(backbone, params, state, inputs, labels)

    program = backbone.programs.setdefault((outputs_of, task.name), jax.jit(outputs))
    layout, tokenizer = Layout.of([adapter], backbone.sites, bucket=True), Tokenizer.of(backbone)
    state = jax.device_put(layout.stack(adapter, backbone.sites).state)
    shape, found = _shape_of(rows, adapter), dict[int, np.ndarray]()
    for planned in plan_all(rows.lengths, shape):
        inputs = tokenizer.lay([rows.tokens[i] for i in planned.texts], planned.places, shape)
        outs = np.asarray(program(backbone.params, state, inputs, task.lay(rows, planned, shape, classes)))
        found |= {i: mine if task.headless else mine[..., :classes] for i, mine in task.each(outs, rows, planned)}
    return found


def pooled_of(backbone: Backbone, adapter: Adapter | None, rows: Rows) -> np.ndarray:
    """The features that a classifier reads, `[texts, hidden]`, under an adapter without its head; None: of the backbone."""

    def features(params: Any, state: Any, inputs: Any) -> jax.Array:
        out = backbone.encode(params, state, inputs)
        return out.pooled if backbone.family.head.features == "pooled" and out.pooled is not None else out.first

    program = backbone.programs.setdefault((pooled_of,), jax.jit(features))
    tokenizer, state = Tokenizer.of(backbone), {}
    if adapter is not None:
        refuse_unfit(adapter, backbone)
        whole = Layout.of([adapter], backbone.sites, bucket=True).stack(adapter, backbone.sites).state
        state = {name: tree for name, tree in whole.items() if name not in HEADS}
    shape, found = _shape_of(rows, adapter), dict[int, np.ndarray]()
    for planned in plan_all(rows.lengths, shape):
        inputs = tokenizer.lay([rows.tokens[i] for i in planned.texts], planned.places, shape)
        found |= dict(zip(planned.texts, np.asarray(program(backbone.params, state, inputs)), strict=False))
    return np.stack([found[i] for i in range(len(rows))])


def _shape_of(rows: Rows, adapter: Adapter | None) -> Shape:
    """Of the batches in which rows are measured."""
    methods = adapter.methods if adapter else ()
    if rows.longest_target or any(method.adds_tokens or method.whole_text for method in methods):
        return shape_alone(max(rows.lengths), _ROWS, rows.together, rows.longest_target)
    tokens = max(_NARROWEST, 1 << (max(rows.wholes) - 1).bit_length())
    count = max(_ROWS, _TOKENS // tokens)
    return Shape(count * tokens // _SHORTEST, count, tokens, together=rows.together)


@held
def evaluate_generation(
    generator: Generator,
    name: str | Composition | None,
    data: Any,
    *,
    score: str = "text",
    sampling: Sampling = Sampling(),
    columns: Columns = Columns(),
) -> dict[str, float]:
    """What is generated behind every prompt, against what is wanted there (`tasks/text_metrics.py`).

    Args:
        generator: with the adapter loaded.
        name: of the adapter; None: the backbone alone.
        data: rows as of task "sft"; of a chat the assistant's last message is wanted behind those before it.
        score: "text", or "gsm8k": the number that the answer comes to.

    Raises:
        GraftaxError: an unknown score, a chat without the assistant, or a prompt that leaves no room in the context.
    """
    if score not in SCORES:
        raise GraftaxError(f"unknown score {score!r}; there are {', '.join(SCORES)}.")
    examples = read_examples(data, columns, "sft")
    prompts, wanted = _questions(examples) if examples.hold_chats else (examples.texts, examples.pairs or ())
    said = [continuation.text for continuation in generator.generate(prompts, name, sampling)]
    return SCORES[score](said, wanted)


def _questions(chats: Examples) -> tuple[list[Prompt], list[str]]:
    """Each chat up to the assistant's last message, and that message."""
    prompts: list[Prompt] = []
    wanted = []
    for i, messages in enumerate(chats.texts):
        messages += chats.pairs[i] if chats.pairs else ()
        turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns:
            raise GraftaxError(f"{chats.source}: row {i + 1} has no message of the assistant.")
        prompts.append(messages[: turns[-1]])
        wanted.append(messages[turns[-1]]["content"] or "")
    return prompts, wanted
