"""What a task is: what it reads of rows, what it asks of a backbone, its loss, how outputs become answers, its metrics.

One class declares it all (docs/adding_a_task.md). A loss is written for one adapter and one batch. An adapter shares a program
with adapters that have more classes, so there are logits beyond its own. They are masked *before* the loss is computed: a mask
behind it would give 0 * inf = NaN in the gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..adapters.task_words import TaskWords
from ..data.columns import Columns, Field
from ..data.examples import Examples
from ..data.prepared import Prepared
from ..data.sources import Source
from ..errors import GraftaxError
from ..shapes import Float, shaped
from .outputs import Output


@runtime_checkable
class Settings(Protocol):
    """What a loss may ask of an adapter's training, as traced numbers (`train.step.Hyper`)."""

    @property
    def classes(self) -> jax.Array:
        """How many classes the adapter has, without the room beyond them."""

    @property
    def beta(self) -> jax.Array:
        """The factor in the loss of preferences (`tasks/preference.py`)."""


@dataclass(frozen=True)
class Answer:
    """What is predicted for one example: a label and its score, or lists of both (tagging, multi-label), or a number."""

    label: Any
    score: Any
    #: of every label, where the answer is made by a softmax or by sigmoids over them
    probabilities: Mapping[str, float] | None = None


class Claim(NamedTuple):
    """Something that an answer says for so likely, and whether it is so."""

    probability: float
    is_so: bool


class Tallies(NamedTuple):
    """Numbers of each example from whose sums metrics and confusions follow, so that each is looked at once.

    An interval takes the metrics of many draws of the examples; without tallies each draw would look at its examples again.
    """

    each: np.ndarray  # [examples, ...]
    metrics: Callable[[np.ndarray], dict[str, float]]  # of a sum
    confusions: Callable[[np.ndarray], Counter[tuple[str | None, str | None]]]  # likewise: how often which pairs occur


class Task(ABC):
    """Base of the tasks."""

    name: ClassVar[str]  # what `--task` takes
    output: ClassVar[Output]  # what it asks of the backbone (`outputs.py`)
    words: ClassVar[TaskWords]  # what it is called in other libraries' files
    main_metric: ClassVar[str]  # by which the best epoch is chosen
    lower_is_better: ClassVar[bool] = False  # of the main metric
    label_field: ClassVar[str] = "label"  # in which what is to be answered stands, where there is such a field
    about: ClassVar[str | None] = None  # the kind of input it is for: "text", "image"; None: any that the backbone reads

    @abstractmethod
    def fields(self, processor: Any) -> tuple[Field, ...]:
        """The fields that it reads of a row. `processor`: the backbone's (or its class), which has fields of its own."""

    @abstractmethod
    def read(self, source: Source, columns: Columns, processor: Any, names: Sequence[str] = ()) -> Examples:
        """The examples that rows are. `names`: the classes, where they are known already.

        Raises GraftaxError, which names the source, and the row where a single row cannot be read.
        """

    def read_directly(self, data: Any) -> Examples | None:
        """The examples in data that is no rows, such as a file of plain text; None where it is rows."""
        return None

    @abstractmethod
    def label_names(self, examples: Examples) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""

    @abstractmethod
    def prepare(
        self, examples: Examples, names: Sequence[str], processor: Any, max_length: int, truncate: bool = False
    ) -> Prepared:
        """Examples as items of at most `max_length` positions, each with its label as an array; `truncate`: see `Recipe`."""

    def ask(self, processor: Any, row: Any, where: str, adapter: str | None, max_length: int) -> Sequence[Any]:
        """The items of a row that a caller asks about: several where it is answered in pieces. `where` names it in errors."""
        return items_asked(processor, row, where, adapter, max_length)

    def refuse_small(self, head: Any, prepared: Prepared, name: str) -> None:
        """An error, which begins with `name`, where an example needs a larger head than the adapter's."""
        return

    @abstractmethod
    def loss(self, outputs: jax.Array, labels: jax.Array, settings: Settings, weight: jax.Array) -> jax.Array:
        """The mean loss over the items with weight 1, from what `output.compute` and `output.lay` give."""

    @abstractmethod
    def answer(self, outputs: np.ndarray, names: Sequence[str], item: Any) -> Answer:
        """The answer to one item. `outputs`: those of the item, or of its positions, for its own classes alone."""

    def shown(self, answer: Answer, threshold: float) -> Answer:
        """What is shown of an answer, where that depends on how sure it is; all of it where an answer is one thing."""
        return answer

    def whole(self, answers: Sequence[Answer]) -> Answer:
        """The answer to an example, made of those to its items: the pieces of a long text, say, or the turns of a chat."""
        (answer,) = answers
        return answer

    #: Whether metrics may be taken of many draws of the examples, for intervals around them; else that takes too long.
    redrawn: ClassVar[bool] = True

    @abstractmethod
    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        """Metrics by name; `answers` has one for each example."""

    def measure(self, prepared: Prepared, answers: Mapping[int, Answer], names: Sequence[str]) -> dict[str, float]:
        """Metrics by name; `answers` has one for each item, by its index."""
        whole = [self.whole([answers[i] for i in items]) for items in prepared.items_of]
        return self.score(prepared.examples, whole, names)

    def compared(self, label: Any, answer: Answer) -> Iterable[tuple[str | None, str | None]]:
        """Pairs of a label of an example and the answer to it, for a table of confusions; none where answers are numbers."""
        return ()

    def tallies(self, labels: Sequence[Any], answers: Sequence[Answer], names: Sequence[str]) -> Tallies | None:
        """What the metrics follow from, of each example alone; None where there is no such thing."""
        return None

    def claims(self, label: Any, answer: Answer) -> Iterable[Claim]:
        """What an answer claims of an example with this label; none where nothing is said to be likely."""
        return ()

    #: What `evidence` is evidence of: a label's "probability", or the "number" that is answered; "": nothing is explained.
    explained: ClassVar[str] = ""

    def evidence(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """How much the logits `[items, classes]` speak for a label of each item, by its number `[items]`; to be traced.

        Of a probability p the log-odds, log p / (1 - p).
        """
        raise GraftaxError(f"what speaks for an answer of task {self.name!r} is not explained.")

    #: What `mistake` counts, in a few words.
    mistaken_by: ClassVar[str] = ""

    def mistake(self, label: Any, answer: Answer) -> float | None:
        """How wrong an answer is, by which the worst rows are found; None: it is right, or the task cannot say."""
        return None


def items_asked(processor: Any, row: Any, where: str, adapter: str | None, max_length: int) -> Sequence[Any]:
    """The item of a row that a caller asks about."""
    asked = processor.asked(row, where, adapter)
    return processor.items({field: [value] for field, value in asked.items()}, max_length)


@shaped
def mean_of(losses: Float[Array, "*shape"], weight: Float[Array, "*shape"]) -> Float[Array, ""]:
    """The mean of the losses whose weight is 1; 0 where there is none of these."""
    return jnp.sum(jnp.where(weight > 0, losses, 0.0)) / jnp.maximum(jnp.sum(weight), 1.0)


def some_of(names: Sequence[str]) -> str:
    """The first names of many, as a message shows them."""
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def index_of(names: Sequence[str], label: str, row: int, source: str) -> int:
    """The number of a label's class; GraftaxError, which names the row, for a label that is none of the names."""
    try:
        return names.index(label)
    except ValueError:
        known = some_of(names)
        raise GraftaxError(f"{source}: row {row + 1} has label {label!r}, which the adapter does not know ({known}).") from None
