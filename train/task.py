"""What a task is: how rows become tokens and labels, the loss, how outputs become answers, which metrics are taken.

Losses are written for one adapter and one batch. Classes beyond an adapter's own (it shares a program with adapters that have
more) are masked *before* the loss: a mask after it would leak NaN through 0 * inf.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from ..errors import GraftaxError
from ..models.tokens import Tokenizer, Tokens
from .batches import Shape
from .data import Examples
from .rows import Rows

IGNORE = -1  # a token without a tag of its own, in label arrays


@dataclass(frozen=True)
class Answer:
    """What is predicted for one row: a label and its score, or lists of them (tagging, multi-label), or a number."""

    label: Any
    score: Any


class Task(ABC):
    """Base of the tasks; `name` is what `--task` takes."""

    name: ClassVar[str]
    tokens: ClassVar[bool] = False  # logits for every token, not for the row
    headless: ClassVar[bool] = False  # the backbone answers, not a head of the adapter's
    main_metric: ClassVar[str]
    lower_is_better: ClassVar[bool] = False

    @abstractmethod
    def label_names(self, examples: Examples) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""

    def rows(
        self, examples: Examples, names: Sequence[str], tokenizer: Tokenizer, max_length: int, truncate: bool = False
    ) -> Rows:
        """Examples tokenized, with label arrays, in rows of at most `max_length` tokens; `truncate`: see `Recipe`."""
        tokens = tokenizer(examples.texts, examples.pairs, max_length, words=self.tokens)
        return Rows(examples, tokens, self.encode(examples, names, tokens))

    def encode(self, examples: Examples, names: Sequence[str], rows: Sequence[Tokens]) -> list[Any]:
        """Label arrays, one per row; an unknown label is an error that names it."""
        raise NotImplementedError

    def outputs(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: jax.Array, key: Any = None, layers: Any = None
    ) -> jax.Array:
        """What `loss` and `answer` read: the logits of the adapter's head. Arguments as of `Backbone.forward`."""
        logits = backbone.forward(params, state, inputs, key=key, layers=layers)
        mine: jax.Array | None = logits.tokens if self.tokens else logits.pooled
        assert mine is not None
        return mine

    def check(self, examples: Examples, names: Sequence[str]) -> None:
        """An error that names the first label the adapter does not know."""
        for i, label in enumerate(examples.labels or ()):
            for name in (label,) if isinstance(label, str) else label:
                index_of(names, name, i, examples.source)

    @abstractmethod
    def loss(self, logits: jax.Array, labels: jax.Array, classes: jax.Array, weight: jax.Array) -> jax.Array:
        """Mean loss over the texts with weight 1, of logits `[texts, room]` or, by token, `[rows, tokens, room]`.

        `classes` of the logits are real.
        """

    @abstractmethod
    def answer(self, logits: np.ndarray, names: Sequence[str], row: Tokens) -> Answer:
        """From one row's logits, cut to its classes (and its tokens)."""

    @abstractmethod
    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        """Metrics by name."""

    def blank(self, shape: Shape, room: int) -> np.ndarray:
        """A batch of labels to fill in, with room for so many classes."""
        return np.zeros(shape.texts, np.int32)


def index_of(names: Sequence[str], label: str, row: int, source: str) -> int:
    try:
        return names.index(label)
    except ValueError:
        known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise GraftaxError(f"{source}: row {row + 1} has label {label!r}, which the adapter does not know ({known}).") from None
