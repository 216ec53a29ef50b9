"""What a task is: what it reads of rows, what it asks of a backbone, its loss, how outputs become answers, its metrics.

One class declares it all (docs/adding_a_task.md). Losses are written for one adapter and one batch. Classes beyond an adapter's
own (it shares a program with adapters that have more) are masked *before* the loss: a mask after it would leak NaN through
0 * inf.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

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
        """Real classes of its head."""

    @property
    def beta(self) -> jax.Array:
        """Of preferences (`tasks/preference.py`)."""


@dataclass(frozen=True)
class Answer:
    """What is predicted for one example: a label and its score, or lists of them (tagging, multi-label), or a number."""

    label: Any
    score: Any
    probabilities: Mapping[str, float] | None = None  # of every label, where a softmax or sigmoids over them answer


class Task(ABC):
    """Base of the tasks; `name` is what `--task` takes."""

    name: ClassVar[str]
    output: ClassVar[Output]  # what it asks of the backbone (`outputs.py`)
    words: ClassVar[TaskWords]  # what it is called in other libraries' files
    main_metric: ClassVar[str]
    lower_is_better: ClassVar[bool] = False
    about: ClassVar[str | None] = None  # the kind of input it is for: "text", "image"; None: any that the backbone reads

    @abstractmethod
    def fields(self, processor: Any) -> tuple[Field, ...]:
        """What it reads of a row; `processor`: the backbone's (or its class), which has fields of its own."""

    @abstractmethod
    def read(self, source: Source, columns: Columns, processor: Any, names: Sequence[str] = ()) -> Examples:
        """Examples of rows. `names`: the classes, where they are known already.

        Raises GraftaxError, which names the source, and the row where it is one row that cannot be read.
        """

    def read_directly(self, data: Any) -> Examples | None:
        """Examples of data that are no rows, such as a file of plain text; None where they are rows."""
        return None

    @abstractmethod
    def label_names(self, examples: Examples) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""

    @abstractmethod
    def prepare(
        self, examples: Examples, names: Sequence[str], processor: Any, max_length: int, truncate: bool = False
    ) -> Prepared:
        """Examples as items of at most `max_length` positions, with label arrays; `truncate`: see `Recipe`."""

    def ask(self, processor: Any, row: Any, where: str, adapter: str | None, max_length: int) -> Sequence[Any]:
        """The items of one row as a caller hands it in: several where it is answered in pieces. `where` names it in errors."""
        return items_asked(processor, row, where, adapter, max_length)

    @abstractmethod
    def loss(self, outputs: jax.Array, labels: jax.Array, settings: Settings, weight: jax.Array) -> jax.Array:
        """Mean loss over the items with weight 1 of what `output` computes, with `labels` as it lays them."""

    @abstractmethod
    def answer(self, outputs: np.ndarray, names: Sequence[str], item: Any) -> Answer:
        """From one item's outputs, cut to its classes (and its positions or more)."""

    def whole(self, answers: Sequence[Answer]) -> Answer:
        """The answer to an example, of those to its items (`Prepared.items_of`): the pieces of a long one, a chat's turns."""
        (answer,) = answers
        return answer

    @abstractmethod
    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        """Metrics by name, of one answer to each example."""

    def measure(self, prepared: Prepared, answers: Mapping[int, Answer], names: Sequence[str]) -> dict[str, float]:
        """Metrics by name, of an answer to each item of some examples."""
        whole = [self.whole([answers[i] for i in items]) for items in prepared.items_of]
        return self.score(prepared.examples, whole, names)

    def compared(self, label: Any, answer: Answer) -> Iterable[tuple[str | None, str | None]]:
        """An example's labels, each with what was answered instead, for a table of confusions; none of numbers."""
        return ()


def items_asked(processor: Any, row: Any, where: str, adapter: str | None, max_length: int) -> Sequence[Any]:
    """The item of one row as a caller hands it in."""
    asked = processor.asked(row, where, adapter)
    return processor.items({field: [value] for field, value in asked.items()}, max_length)


@shaped
def mean_of(losses: Float[Array, "*shape"], weight: Float[Array, "*shape"]) -> Float[Array, ""]:
    """The mean where the weight is 1, not 0; 0 where it nowhere is."""
    return jnp.sum(jnp.where(weight > 0, losses, 0.0)) / jnp.maximum(jnp.sum(weight), 1.0)


def some_of(names: Sequence[str]) -> str:
    """The first of many names, for a message."""
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def index_of(names: Sequence[str], label: str, row: int, source: str) -> int:
    try:
        return names.index(label)
    except ValueError:
        known = some_of(names)
        raise GraftaxError(f"{source}: row {row + 1} has label {label!r}, which the adapter does not know ({known}).") from None
