"""Tasks on labelled rows (a label, labels, a number, a label per word), and the tasks there are by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..data.batches import Shape
from ..data.examples import Examples
from ..data.labels import each_name, in_order, in_words_of
from ..data.rows import Rows
from ..errors import GraftaxError
from ..models.tokens import Tokenizer, Tokens
from ..notes import note
from . import metrics
from .language import LanguageModel, SequenceToSequence, SupervisedFineTuning
from .preference import DirectPreference
from .task import IGNORE, Answer, Task, index_of, mean_of

if TYPE_CHECKING:
    from ..train.step import Hyper

OUTSIDE = "O"  # the tag of a word that is read by no token


def _masked(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Logits with the classes beyond an adapter's own at -1e9: a softmax gives them zero, and zero gradient."""
    return jnp.where(jnp.arange(logits.shape[-1]) < classes, logits, -1e9)


def spelled(examples: Examples, names: Sequence[str]) -> Examples:
    """Examples whose labels are written as an adapter's own names are."""
    return replace(examples, labels=in_words_of(names, examples.labels))


class Labelled(Task):
    """Base of those whose labels a head of the adapter gives."""

    @abstractmethod
    def encode(self, examples: Examples, names: Sequence[str]) -> list[Any]:
        """Labels as numbers, one array per row; an unknown label is an error that names it."""

    def rows(
        self, examples: Examples, names: Sequence[str], tokenizer: Tokenizer, max_length: int, truncate: bool = False
    ) -> Rows:
        examples, tokens = spelled(examples, names), tokenizer(examples.texts, examples.pairs, max_length)
        return Rows(examples, tokens, self.encode(examples, names))

    def outputs(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: jax.Array, key: Any = None, layers: Any = None
    ) -> jax.Array:
        """The head's logits."""
        logits = backbone.forward(params, state, inputs, key=key, layers=layers)
        mine: jax.Array | None = logits.tokens if self.tokens else logits.pooled
        assert mine is not None
        return mine


class Classify(Labelled):
    """One label per row: softmax cross-entropy."""

    name = "classify"
    main_metric = "accuracy"

    def label_names(self, examples: Examples) -> tuple[str, ...]:
        names = in_order(examples.labels or ())
        if len(names) < 2:
            raise GraftaxError(f"{examples.source}: every row has the label {names[0]!r}; there must be at least two.")
        if 2 * len(names) > len(examples) and len(names) > 2:  # two rows of two labels are somebody's first try
            many = f"{len(names)} different labels on {len(examples)} rows"
            note(f"{examples.source}: {many}: too few of each to learn; are these labels, and not, say, the rows' numbers?")
        return examples.names or names

    def encode(self, examples: Examples, names: Sequence[str]) -> list[Any]:
        return [np.int32(index_of(names, label, i, examples.source)) for i, label in enumerate(examples.labels or ())]

    def loss(self, logits: jax.Array, labels: jax.Array, hyper: Hyper, weight: jax.Array) -> jax.Array:
        logs = jax.nn.log_softmax(_masked(logits, hyper.classes))
        return mean_of(-jnp.take_along_axis(logs, labels[:, None], axis=-1)[:, 0], weight)

    def answer(self, logits: np.ndarray, names: Sequence[str], row: Tokens) -> Answer:
        best, chances = int(logits.argmax()), _softmax(logits).tolist()
        return Answer(names[best], chances[best], dict(zip(names, chances, strict=True)))

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        return metrics.classification(list(examples.labels or ()), [a.label for a in answers])

    def compared(self, label: Any, answer: Answer) -> Iterable[tuple[str | None, str | None]]:
        return ((label, answer.label),)


class MultiLabel(Labelled):
    """Any number of labels per row: a sigmoid and binary cross-entropy for each; a label is given above 0.5."""

    name = "multilabel"
    main_metric = "macro_f1"

    def label_names(self, examples: Examples) -> tuple[str, ...]:
        names = in_order(each_name(examples.labels or ()))
        if not names:
            raise GraftaxError(f"{examples.source}: no row has a label.")
        return examples.names or names

    def encode(self, examples: Examples, names: Sequence[str]) -> list[Any]:
        arrays = []
        for i, labels in enumerate(examples.labels or ()):
            array = np.zeros(len(names), np.float32)
            array[[index_of(names, label, i, examples.source) for label in labels]] = 1.0
            arrays.append(array)
        return arrays

    def loss(self, logits: jax.Array, labels: jax.Array, hyper: Hyper, weight: jax.Array) -> jax.Array:
        own = jnp.arange(logits.shape[-1]) < hyper.classes
        logits = jnp.where(own, logits, 0.0)
        each = jax.nn.softplus(logits) - labels * logits
        return mean_of(jnp.sum(jnp.where(own, each, 0.0), axis=-1) / hyper.classes.astype(logits.dtype), weight)

    def answer(self, logits: np.ndarray, names: Sequence[str], row: Tokens) -> Answer:
        chances = 1.0 / (1.0 + np.exp(-logits))
        chosen = np.flatnonzero(chances > 0.5)
        said = [names[i] for i in chosen.tolist()], [float(chances[i]) for i in chosen]
        return Answer(*said, dict(zip(names, chances.tolist(), strict=True)))

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        return metrics.multilabel(list(examples.labels or ()), [a.label for a in answers], names)

    def compared(self, label: Any, answer: Answer) -> Iterable[tuple[str | None, str | None]]:
        right = [(name, name) for name in label if name in answer.label]
        missed = [(name, None) for name in label if name not in answer.label]
        return (*right, *missed, *((None, name) for name in answer.label if name not in label))

    def blank(self, shape: Shape, room: int) -> np.ndarray:
        return np.zeros((shape.texts, room), np.float32)


class Regress(Labelled):
    """One number per row: squared error."""

    name = "regress"
    main_metric = "pearson"

    def label_names(self, examples: Examples) -> tuple[str, ...]:
        return ("value",)

    def encode(self, examples: Examples, names: Sequence[str]) -> list[Any]:
        return [np.float32(value) for value in examples.labels or ()]

    def loss(self, logits: jax.Array, labels: jax.Array, hyper: Hyper, weight: jax.Array) -> jax.Array:
        return mean_of(jnp.square(logits[:, 0] - labels), weight)

    def answer(self, logits: np.ndarray, names: Sequence[str], row: Tokens) -> Answer:
        return Answer(float(logits[0]), None)

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        return metrics.regression(list(examples.labels or ()), [a.label for a in answers])

    def blank(self, shape: Shape, room: int) -> np.ndarray:
        return np.zeros(shape.texts, np.float32)


class Tag(Labelled):
    """One label per word, read at the word's first token.

    A text of more tokens than a row may have is read in pieces (`Tokenizer.pieces`), which are trained on one by one, and
    answered and measured as one text. A word without a token is not learnt from; it is answered by `OUTSIDE`, without a
    score.
    """

    name = "tag"
    tokens = True
    main_metric = "f1"

    def label_names(self, examples: Examples) -> tuple[str, ...]:
        names = in_order(each_name(examples.labels or ()))
        if len(names) < 2:
            raise GraftaxError(f"{examples.source}: every word has the tag {names[0]!r}; there must be at least two.")
        return examples.names or names

    def rows(
        self, examples: Examples, names: Sequence[str], tokenizer: Tokenizer, max_length: int, truncate: bool = False
    ) -> Rows:
        examples = spelled(examples, names)
        tokens, labels, owners = [], [], list[int]()
        pieces_of_each = tokenizer.pieces(examples.texts, max_length)
        for i, (pieces, tags) in enumerate(zip(pieces_of_each, self.encode(examples, names), strict=True)):
            begin = 0
            for piece in pieces:
                tokens.append(piece)
                labels.append(_on_first_tokens(piece, tags[begin : begin + piece.count]))
                owners.append(i)
                begin += piece.count
        return Rows(examples, tokens, labels, owners=owners)

    def encode(self, examples: Examples, names: Sequence[str]) -> list[Any]:
        """The number of every word's tag."""
        return [
            np.array([index_of(names, tag, i, examples.source) for tag in tags], np.int32)
            for i, tags in enumerate(examples.labels or ())
        ]

    def loss(self, logits: jax.Array, labels: jax.Array, hyper: Hyper, weight: jax.Array) -> jax.Array:
        logs = jax.nn.log_softmax(_masked(logits, hyper.classes))
        each = -jnp.take_along_axis(logs, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
        return mean_of(each, (labels != IGNORE).astype(each.dtype))  # a text that is not there has no label

    def answer(self, logits: np.ndarray, names: Sequence[str], row: Tokens) -> Answer:
        assert row.words is not None
        tags: list[str] = [OUTSIDE] * row.count
        scores: list[float | None] = [None] * row.count
        for token in first_tokens(row):
            best = int(logits[token].argmax())
            tags[row.words[token]], scores[row.words[token]] = names[best], float(_softmax(logits[token])[best])
        return Answer(tags, scores)

    def whole(self, answers: Sequence[Answer]) -> Answer:
        return Answer([tag for a in answers for tag in a.label], [score for a in answers for score in a.score])

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        return metrics.tagging(list(examples.labels or ()), [a.label for a in answers])

    def compared(self, label: Any, answer: Answer) -> Iterable[tuple[str | None, str | None]]:
        return zip(label, answer.label, strict=True)

    def blank(self, shape: Shape, room: int) -> np.ndarray:
        return np.full((shape.rows, shape.tokens), IGNORE, np.int32)


def _on_first_tokens(row: Tokens, tags: np.ndarray) -> np.ndarray:
    """The number of each word's tag at its first token, `IGNORE` at all others."""
    assert row.words is not None
    array, at = np.full(len(row), IGNORE, np.int32), first_tokens(row)
    array[at] = tags[row.words[at]]
    return array


def first_tokens(row: Tokens) -> np.ndarray:
    """Positions of the first token of every word."""
    assert row.words is not None
    return np.flatnonzero((row.words >= 0) & (row.words != np.concatenate([[-1], row.words[:-1]])))


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(Classify(), MultiLabel(), Regress(), Tag()),
        *(LanguageModel(), SupervisedFineTuning(), SequenceToSequence(), DirectPreference()),
    )
}


def task_named(name: str) -> Task:
    if name not in TASKS:
        raise GraftaxError(f"unknown task {name!r}; there are {', '.join(TASKS)}.")
    return TASKS[name]
