"""Measuring adapters on rows they were not trained on: by what they answer, how likely they find it, what they generate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from ..adapters.adapter import Adapter, Layout
from ..adapters.files import adapter_for
from ..adapters.fitting import length_for, names_for, refuse_unfit
from ..adapters.methods.head import HEADS
from ..data.batches import plan_all
from ..data.columns import Columns
from ..data.examples import Examples
from ..data.labels import each_name
from ..data.prepared import Prepared
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.pairs import PairConfig
from ..models.processor import Processor
from ..store.manifest import DataFacts
from ..tasks.generative import chats_in, holds_chats
from ..tasks.labelled import spelled
from ..tasks.read_examples import read_examples
from ..tasks.task import Answer, Tallies, Task, some_of
from ..tasks.task_registry import task_named
from ..tasks.text_metrics import SCORES
from ..typed import Location, held
from .composition import Composition
from .confusion import Confusion
from .generator import Generator, Prompt
from .predictor import Predictor
from .sampling import Sampling


@dataclass(frozen=True)
class Answered:
    """Examples with the answers to them: what metrics are taken of, and can be taken of again for some of them."""

    task: Task
    examples: Examples  # of a language model the pieces of long texts are examples of their own
    answers: Sequence[Answer]
    names: Sequence[str] = ()  # of the classes

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def labels(self) -> Sequence[Any]:
        """Of each example; None of all where what is to be answered is among their fields."""
        return (None,) * len(self) if self.examples.labels is None else self.examples.labels

    def take(self, chosen: Sequence[int]) -> Answered:
        """The examples of these indices, each as often as its index is there."""
        return replace(self, examples=self.examples.take(chosen), answers=[self.answers[i] for i in chosen])

    @cached_property
    def tallies(self) -> Tallies | None:
        """As the task takes them; None where it takes none."""
        return self.task.tallies(self.labels, self.answers, self.names)

    def metrics(self) -> dict[str, float]:
        if self.tallies is not None:
            return self.tallies.metrics(self.tallies.each.sum(0))
        return self.task.score(self.examples, self.answers, self.names)

    def confusions(self) -> Counter[tuple[str | None, str | None]]:
        """How often which pairs of a label and an answer occur."""
        if self.tallies is not None:
            return self.tallies.confusions(self.tallies.each.sum(0))
        each = zip(self.labels, self.answers, strict=True)
        return Counter(pair for label, answer in each for pair in self.task.compared(label, answer))

    def confusion(self) -> Confusion | None:
        """None: there are no labels that could be confused."""
        pairs = self.confusions()
        return Confusion((*self.names, *_unknown(self.examples, self.names)), pairs) if pairs else None

    def measured(self) -> Measured:
        """All that is measured of answers alone."""
        return Measured(self.metrics(), confusion=self.confusion(), data=DataFacts(rows=len(self)), answered=self)


@dataclass(frozen=True)
class Measured:
    """What an adapter's answers to labelled rows are worth."""

    #: of its task; `unknown_labels`: how many labels it does not know, `cut_rows`: how many rows it does not read to their end,
    #: where there are any
    metrics: dict[str, float]
    unknown: dict[str, int] = field(default_factory=dict)  # these, and how often each occurs; any answer there counts as wrong
    confusion: Confusion | None = None  # None: there are no labels that could be confused
    data: DataFacts = DataFacts()  # which rows they were
    answered: Answered | None = field(default=None, repr=False, compare=False)  # None: only the metrics are known


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
    read = read_examples(data, columns, task, predictor.processor, names)
    examples, asked = spelled(read, names), read.known()
    unknown = _unknown(examples, names)
    if unknown and unknown.keys() == {*each_name(examples.labels)}:
        who, theirs = name or predictor.backbone.name, some_of(list(unknown))
        raise GraftaxError(f"{examples.source}: {who} knows none of its labels ({theirs}), but {some_of(names)}.")
    answers = predictor.predict(rows_asked(examples, predictor.processor), name, threshold=0.0)
    said = [Answer(answer.label, answer.score, answer.probabilities) for answer in answers]
    answered = Answered(task, examples, said, names)
    metrics = answered.metrics()
    if cut := sum(answer.cut for answer in answers):
        metrics |= {"cut_rows": cut}
    if unknown:
        metrics |= {"unknown_labels": sum(unknown.values())}
    return Measured(metrics, unknown, answered.confusion(), asked, answered)


def _unknown(examples: Examples, names: Sequence[str]) -> dict[str, int]:
    """Labels of examples that are none of the names, and how often each occurs."""
    occurring = Counter(each_name(examples.labels))
    return {label: count for label, count in occurring.items() if label not in names}


@held
def measure_adapter(
    predictor: Predictor,
    name: str,
    adapter: Adapter,
    data: Any,
    *,
    columns: Columns = Columns(),
    labels: Sequence[str] | None = None,
    chat_template: str | None = None,
) -> Measured:
    """Measure an adapter of any task: with a head by what it answers (`measure`), which loads it, else by `measure_language`.

    Args:
        predictor: of the backbone.
        name: what the adapter is called there.
        adapter: one in memory.
        data: as of these two.
        labels: names of the classes of an adapter that has none of its own.
        chat_template: as of `measure_language`; None for adapters with a head, which read no chats.
    """
    task = task_named(adapter.task)
    if not task.output.headed:
        names_for(adapter, labels, name)
        return measure_language(predictor.backbone, adapter, data, columns=columns, chat_template=chat_template)
    if chat_template is not None:
        raise GraftaxError(f"{name}: a chat template is for language models, and this adapter is of task {task.name!r}.")
    predictor.load(name, adapter, labels=labels)
    return measure(predictor, name, data, columns=columns)


def evaluate(predictor: Predictor, name: str | None, data: Any, *, columns: Columns = Columns()) -> dict[str, float]:
    """The metrics alone of `measure`."""
    return measure(predictor, name, data, columns=columns).metrics


def evaluate_language(backbone: Backbone, adapter: Adapter | Location, data: Any, **how: Any) -> dict[str, float]:
    """The metrics alone of `measure_language`."""
    return measure_language(backbone, adapter, data, **how).metrics


@held
def measure_language(
    backbone: Backbone,
    adapter: Adapter | Location | None,
    data: Any,
    *,
    columns: Columns = Columns(),
    chat_template: str | None = None,
) -> Measured:
    """Metrics of an adapter whose task has no head ("lm", "sft", "dpo", "seq2seq", "contrastive"), on rows of its task.

    Args:
        adapter: one in memory, its directory or Hub id; None, of a pair of towers of one model: that model as it is.
        data: as for `train_many`.
        chat_template: of chats, a name or a Jinja text (`models/chat.py`). None: the template with which the adapter was
            trained, if it is one by name, else the tokenizer's own. "adapter": the template with which it was trained, whatever
            that is.
    """
    if adapter is None and not (isinstance(backbone.config, PairConfig) and backbone.config.joined):
        raise GraftaxError(f"{backbone.name} is no pair of towers of one model, which alone is measured without an adapter.")
    adapter = Adapter((), {}, "contrastive") if adapter is None else adapter_for(backbone, adapter)
    task = task_named(adapter.task)
    if task.output.headed:
        raise GraftaxError(f"adapters of task {task.name!r} are measured by what a Predictor answers with them (`measure`).")
    processor = backbone.new_processor().for_measuring(chat_template, adapter.recipe)
    length = length_for(adapter, backbone, processor.max_length)
    examples = read_examples(data, columns, task, processor)
    prepared = task.prepare(examples, (), processor, length)
    found = outputs_of(backbone, adapter, prepared)
    answers = {i: task.answer(mine, (), prepared.items[i]) for i, mine in found.items()}
    answered = Answered(task, prepared.examples, [task.whole([answers[i] for i in items]) for items in prepared.items_of])
    return Measured(answered.metrics(), data=examples.known(), answered=answered)


def rows_asked(examples: Examples, processor: Processor) -> list[Any]:
    """Each example as a row that a caller asks about."""
    each = zip(*examples.fields.values(), strict=True)
    return [processor.row_of(dict(zip(examples.fields, values, strict=True))) for values in each]


def outputs_of(backbone: Backbone, adapter: Adapter, prepared: Prepared) -> dict[int, np.ndarray]:
    """What `Task.answer` reads of each item, by the item's index, for an adapter's own task and classes.

    Adapters of one method and like sizes share a program.
    """
    task, classes = task_named(adapter.task), len(adapter.labels)

    def outputs(params: Any, state: Any, inputs: Any, labels: Any) -> jax.Array:
        return task.output.compute(backbone, params, state, inputs, labels)

    program = backbone.programs.setdefault((outputs_of, task.name), jax.jit(outputs))
    layout = Layout.of([adapter], backbone.sites, bucket=True)
    state = jax.device_put(layout.stack(adapter, backbone.sites).state)
    shape = backbone.processor.shape_to_measure(prepared, alone=_alone(adapter))
    found = dict[int, np.ndarray]()
    for planned in plan_all(prepared.lengths, shape):
        inputs = backbone.processor.lay([prepared.items[i] for i in planned.items], planned.places, shape)
        labels = task.output.lay(prepared, planned, shape, classes)
        outputs_laid = task.output.own(np.asarray(program(backbone.params, state, inputs, labels)), classes)
        found |= dict(task.output.each(outputs_laid, prepared, planned))
    return found


def pooled_of(backbone: Backbone, adapter: Adapter | None, prepared: Prepared) -> np.ndarray:
    """The features that a classifier would read, `[items, hidden]`: with an adapter but for its head, or (None) without any."""

    def features(params: Any, state: Any, inputs: Any) -> jax.Array:
        out = backbone.encode(params, state, inputs)
        return out.pooled if backbone.family.head.features == "pooled" and out.pooled is not None else out.first

    program = backbone.programs.setdefault((pooled_of,), jax.jit(features))
    state = {}
    if adapter is not None:
        refuse_unfit(adapter, backbone)
        whole = Layout.of([adapter], backbone.sites, bucket=True).stack(adapter, backbone.sites).state
        state = {name: tree for name, tree in whole.items() if name not in HEADS}
    shape = backbone.processor.shape_to_measure(prepared, alone=_alone(adapter))
    found = dict[int, np.ndarray]()
    for planned in plan_all(prepared.lengths, shape):
        inputs = backbone.processor.lay([prepared.items[i] for i in planned.items], planned.places, shape)
        found |= dict(zip(planned.items, np.asarray(program(backbone.params, state, inputs)), strict=False))
    return np.stack([found[i] for i in range(len(prepared))])


def _alone(adapter: Adapter | None) -> bool:
    """Whether a method needs every item in a batch row of its own."""
    return any(method.adds_tokens or method.whole_text for method in (adapter.methods if adapter else ()))


def evaluate_generation(generator: Generator, name: str | Composition | None, data: Any, **how: Any) -> dict[str, float]:
    """The metrics alone of `measure_generation`."""
    return measure_generation(generator, name, data, **how).metrics


@held
def measure_generation(
    generator: Generator,
    name: str | Composition | None,
    data: Any,
    *,
    score: str = "text",
    sampling: Sampling = Sampling(),
    columns: Columns = Columns(),
) -> Measured:
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
    examples = read_examples(data, columns, task_named("sft"), generator.tokenizer)
    if holds_chats(examples):
        prompts, wanted = _questions(examples)
    else:
        prompts, wanted = list(examples.fields["prompt"]), list(examples.fields["completion"])
    said = [continuation.text for continuation in generator.generate(prompts, name, sampling)]
    return Measured(SCORES[score](said, wanted), data=examples.known())


def _questions(chats: Examples) -> tuple[list[Prompt], list[str]]:
    """Each chat up to the assistant's last message, and that message."""
    prompts: list[Prompt] = []
    wanted = []
    for i, (messages, _) in enumerate(chats_in(chats)):
        turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns:
            raise GraftaxError(f"{chats.source}: row {i + 1} has no message of the assistant.")
        prompts.append(messages[: turns[-1]])
        wanted.append(messages[turns[-1]]["content"] or "")
    return prompts, wanted
