"""What a task is: how rows become tokens and labels, the loss, how outputs become answers, which metrics are taken.

Losses are written for one adapter and one batch. Classes beyond an adapter's own (it shares a program with adapters that have
more) are masked *before* the loss: a mask after it would leak NaN through 0 * inf.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..data.batches import Planned, Shape
from ..data.examples import Examples
from ..data.rows import Rows
from ..errors import GraftaxError
from ..models.tokens import Tokenizer, Tokens

if TYPE_CHECKING:
    from ..train.step import Hyper

IGNORE = -1  # a token without a tag of its own, in label arrays


@dataclass(frozen=True)
class Answer:
    """What is predicted for one row: a label and its score, or lists of them (tagging, multi-label), or a number."""

    label: Any
    score: Any
    probabilities: Mapping[str, float] | None = None  # of every label, where a softmax or sigmoids over them answer


class Task(ABC):
    """Base of the tasks; `name` is what `--task` takes."""

    name: ClassVar[str]
    tokens: ClassVar[bool] = False  # logits for every token, not for the row
    headless: ClassVar[bool] = False  # the backbone answers, not a head of the adapter's
    compares: ClassVar[bool] = False  # `outputs` runs the backbone without the adapter, too, and needs all of the layers
    targets: ClassVar[bool] = False  # it reads one text and writes another: for encoder-decoders
    main_metric: ClassVar[str]
    lower_is_better: ClassVar[bool] = False

    @abstractmethod
    def label_names(self, examples: Examples) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""

    @abstractmethod
    def rows(
        self, examples: Examples, names: Sequence[str], tokenizer: Tokenizer, max_length: int, truncate: bool = False
    ) -> Rows:
        """Examples tokenized, with label arrays, in rows of at most `max_length` tokens; `truncate`: see `Recipe`."""

    @abstractmethod
    def outputs(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: jax.Array, key: Any = None, layers: Any = None
    ) -> jax.Array:
        """What `loss` and `answer` read. Arguments as of `Backbone.forward`."""

    @abstractmethod
    def loss(self, outputs: jax.Array, labels: jax.Array, hyper: Hyper, weight: jax.Array) -> jax.Array:
        """Mean loss over the texts with weight 1, of outputs `[texts, room]` or, by token, `[rows, tokens, room]`.

        Of a head's logits `hyper.classes` are real.
        """

    @abstractmethod
    def answer(self, outputs: np.ndarray, names: Sequence[str], row: Tokens) -> Answer:
        """From one row's outputs, cut to its classes (and its tokens or more)."""

    def whole(self, answers: Sequence[Answer]) -> Answer:
        """The answer to an example, of those to its texts (`Rows.texts`): the pieces of a long one, the turns of a chat."""
        (answer,) = answers
        return answer

    @abstractmethod
    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        """Metrics by name, of one answer to each example."""

    def measure(self, rows: Rows, answers: Mapping[int, Answer], names: Sequence[str]) -> dict[str, float]:
        """Metrics by name, of an answer to each text of some rows."""
        return self.score(rows.examples, [self.whole([answers[i] for i in texts]) for texts in rows.texts], names)

    def compared(self, label: Any, answer: Answer) -> Iterable[tuple[str | None, str | None]]:
        """A row's labels, each with what was answered in its place, for a table of confusions; none where they are numbers."""
        return ()

    def blank(self, shape: Shape, room: int) -> np.ndarray:
        """A batch of labels to fill in, with room for so many classes."""
        return np.zeros(shape.texts, np.int32)

    def lay(self, rows: Rows, planned: Planned, shape: Shape, room: int) -> np.ndarray:
        """The labels of a batch, where its texts are laid."""
        laid = self.blank(shape, room)
        for k, (i, (row, begin)) in enumerate(zip(*planned, strict=True)):
            own = rows.labels[i]
            if self.tokens:
                laid[row, begin : begin + len(own)] = own
            else:
                laid[(k, slice(0, len(own))) if own.ndim else k] = own
        return laid

    def each(self, outputs: np.ndarray, rows: Rows, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        """The texts of a batch, and what is theirs of its outputs."""
        for k, (i, (row, begin)) in enumerate(zip(*planned, strict=True)):
            yield i, outputs[row, begin : begin + len(rows.labels[i])] if self.tokens else outputs[k]


def mean_of(losses: jax.Array, weight: jax.Array) -> jax.Array:
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
