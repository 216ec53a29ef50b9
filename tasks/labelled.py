"""Tasks on labelled rows: a label, labels, a number, a label per word."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..adapters.task_words import words_for
from ..counted import counted
from ..data.columns import Columns, Field, read_fields
from ..data.examples import Examples
from ..data.labels import (
    are_vectors,
    each_name,
    in_one_spelling,
    in_order,
    in_words_of,
    refuse_truths_beside_numbers,
    set_of,
    tags_of,
    vector_of,
)
from ..data.prepared import Prepared
from ..data.sources import Source
from ..data.values import class_of, items_of, label_of, number_of, words_of
from ..errors import GraftaxError
from ..models.text_rows import words_asked
from ..models.tokens import Tokenizer, Tokens
from ..notes import note
from ..shapes import AnyArray, Float, Int, shaped
from . import metrics
from .main_metrics import main_metric_of
from .outputs import IGNORE, OfItem, OfPosition
from .task import Answer, Claim, Settings, Task, index_of, mean_of

OUTSIDE = "O"  # the tag of a word that is read by no token
_LABEL = Field("label", label_of)


def without_surplus(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Logits with the classes beyond an adapter's own at -1e9: a softmax gives them zero, and zero gradient."""
    return jnp.where(jnp.arange(logits.shape[-1]) < classes, logits, -1e9)


def spelled(examples: Examples, names: Sequence[str]) -> Examples:
    """Examples whose labels are written as an adapter's own names are."""
    return replace(examples, labels=in_words_of(names, examples.labels))


class Labelled(Task):
    """Base of those whose labels a head of the adapter gives, of whatever the backbone's processor reads."""

    output = OfItem()

    def fields(self, processor: Any) -> tuple[Field, ...]:
        return (*processor.fields, _LABEL)

    def read(self, source: Source, columns: Columns, processor: Any, names: Sequence[str] = ()) -> Examples:
        fields = [field for field in self.fields(processor) if field is not _LABEL]
        source.require(*(columns[field.name] for field in fields if field.read == "always"), columns["label"])
        labels, classes = self.read_labels(source, columns["label"], names)
        return Examples(read_fields(source, columns, fields), labels, source.name, classes)

    @abstractmethod
    def read_labels(self, source: Source, column: str, names: Sequence[str]) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        """The label of each row, and the names of all classes where the data say them."""

    def prepare(
        self, examples: Examples, names: Sequence[str], processor: Any, max_length: int, truncate: bool = False
    ) -> Prepared:
        examples, items = spelled(examples, names), processor.items(examples.fields, max_length)
        return Prepared(examples, items, self.encode(examples, names))

    @abstractmethod
    def encode(self, examples: Examples, names: Sequence[str]) -> list[Any]:
        """Labels as numbers, an array for each example; an unknown label is an error that names it."""


class Classify(Labelled):
    """One label per row: softmax cross-entropy."""

    name = "classify"
    words = words_for(name)
    main_metric, lower_is_better = main_metric_of(name)

    def read_labels(self, source: Source, column: str, names: Sequence[str]) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        classes = source.classes.get(column, ())
        labels = in_one_spelling(source.column(column, partial(class_of, names=classes)), classes)
        refuse_truths_beside_numbers([row[column] for row in source.rows], f"{source.name}: column {column!r}")
        return labels, classes

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

    @shaped
    def loss(
        self,
        logits: Float[Array, "items room"],
        labels: Int[AnyArray, " items"],
        settings: Settings,
        weight: Float[Array, " items"],
    ) -> Float[Array, ""]:
        logs = jax.nn.log_softmax(without_surplus(logits, settings.classes))
        return mean_of(-jnp.take_along_axis(logs, labels[:, None], axis=-1)[:, 0], weight)

    def answer(self, logits: np.ndarray, names: Sequence[str], item: Any) -> Answer:
        best, chances = int(logits.argmax()), _softmax(logits).tolist()
        return Answer(names[best], chances[best], dict(zip(names, chances, strict=True)))

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        return metrics.classification(list(examples.labels or ()), [a.label for a in answers])

    def compared(self, label: Any, answer: Answer) -> Iterable[tuple[str | None, str | None]]:
        return ((label, answer.label),)

    explained = "probability"

    def evidence(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """The label's logit against all others': alone it says nothing, for what is added to all logits changes no answer."""
        of_label = jnp.arange(logits.shape[-1]) == labels[:, None]
        others = jax.nn.logsumexp(jnp.where(of_label, -1e9, logits), axis=-1)
        return jnp.sum(jnp.where(of_label, logits, 0.0), axis=-1) - others

    mistaken_by = "the probability of the wrong answer"

    def claims(self, label: Any, answer: Answer) -> Iterable[Claim]:
        return (Claim(answer.score, label == answer.label),)

    def mistake(self, label: Any, answer: Answer) -> float | None:
        return None if label == answer.label else float(answer.score)


class MultiLabel(Labelled):
    """Any number of labels per row: a sigmoid and binary cross-entropy for each; a label is given above 0.5."""

    name = "multilabel"
    words = words_for(name)
    main_metric, lower_is_better = main_metric_of(name)

    def read_labels(self, source: Source, column: str, names: Sequence[str]) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        classes = source.classes.get(column, ())
        sets = source.column(column, partial(items_of, separator="|"), blank=True)
        meaning = partial(set_of, names=classes)
        if are_vectors(sets, source.name):
            width = len(sets[0])
            if classes and len(classes) != width:
                raise GraftaxError(
                    f"{source.name}: its labels are {width} numbers a row, and its features name {len(classes)} classes."
                )
            classes = classes or (tuple(names) if len(names) == width else tuple(f"LABEL_{i}" for i in range(width)))
            meaning = partial(vector_of, names=classes)
        labels = in_one_spelling(source.column(column, meaning, blank=True), classes)
        return tuple(tuple(sorted(set(names_of_row))) for names_of_row in labels), classes

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

    @shaped
    def loss(
        self,
        logits: Float[Array, "items room"],
        labels: Float[AnyArray, "items room"],
        settings: Settings,
        weight: Float[Array, " items"],
    ) -> Float[Array, ""]:
        own = jnp.arange(logits.shape[-1]) < settings.classes
        logits = jnp.where(own, logits, 0.0)
        each = jax.nn.softplus(logits) - labels * logits
        return mean_of(jnp.sum(jnp.where(own, each, 0.0), axis=-1) / settings.classes.astype(logits.dtype), weight)

    def answer(self, logits: np.ndarray, names: Sequence[str], item: Any) -> Answer:
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

    explained = "probability"

    def evidence(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """The label's logit, of which a sigmoid makes its probability."""
        return jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]

    mistaken_by = "how far the probabilities of the wrong labels are from the truth, all together"

    def claims(self, label: Any, answer: Answer) -> Iterable[Claim]:
        return (Claim(chance, name in label) for name, chance in (answer.probabilities or {}).items())

    def mistake(self, label: Any, answer: Answer) -> float | None:
        chances = answer.probabilities or {}
        missed = [1.0 - chances.get(name, 0.0) for name in label if name not in answer.label]
        wrong = [score for name, score in zip(answer.label, answer.score, strict=True) if name not in label]
        return sum(missed + wrong) if missed or wrong else None


class Regress(Labelled):
    """One number per row: squared error."""

    name = "regress"
    words = words_for(name)
    main_metric, lower_is_better = main_metric_of(name)

    def read_labels(self, source: Source, column: str, names: Sequence[str]) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        return source.column(column, number_of), ()

    def label_names(self, examples: Examples) -> tuple[str, ...]:
        return ("value",)

    def encode(self, examples: Examples, names: Sequence[str]) -> list[Any]:
        return [np.float32(value) for value in examples.labels or ()]

    @shaped
    def loss(
        self,
        logits: Float[Array, "items room"],
        labels: Float[AnyArray, " items"],
        settings: Settings,
        weight: Float[Array, " items"],
    ) -> Float[Array, ""]:
        return mean_of(jnp.square(logits[:, 0] - labels), weight)

    def answer(self, logits: np.ndarray, names: Sequence[str], item: Any) -> Answer:
        return Answer(float(logits[0]), None)

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        return metrics.regression(list(examples.labels or ()), [a.label for a in answers])

    explained = "number"

    def evidence(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """The number itself."""
        return logits[:, 0]

    mistaken_by = "the distance between answer and truth"

    def mistake(self, label: Any, answer: Answer) -> float | None:
        return abs(answer.label - label) or None


class Tag(Labelled):
    """One label per word, read at the word's first token.

    A text of more tokens than an item may have is read in pieces (`Tokenizer.pieces`), which are trained on one by one, and
    answered and measured as one text. A word without a token is not learnt from; it is answered by `OUTSIDE`, without a
    score.
    """

    name = "tag"
    words = words_for(name)
    output = OfPosition()
    main_metric, lower_is_better = main_metric_of(name)
    about = "text"

    def fields(self, processor: Any) -> tuple[Field, ...]:
        return (Field("text", words_of), _LABEL)

    def read(self, source: Source, columns: Columns, processor: Any, names: Sequence[str] = ()) -> Examples:
        examples = super().read(source, columns, processor, names)
        for i, (words, tags) in enumerate(zip(examples.fields["text"], examples.labels or (), strict=True)):
            if not words:
                raise GraftaxError(f"{source.name}: row {i + 1} has no words.")
            if len(words) != len(tags):
                both = f"{counted(len(words), 'word')} and {counted(len(tags), 'tag')}"
                raise GraftaxError(f"{source.name}: row {i + 1} has {both}.")
        return examples

    def read_labels(self, source: Source, column: str, names: Sequence[str]) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        classes = source.classes.get(column, ())
        return in_one_spelling(source.column(column, partial(tags_of, names=classes)), classes), classes

    def label_names(self, examples: Examples) -> tuple[str, ...]:
        names = in_order(each_name(examples.labels or ()))
        if len(names) < 2:
            raise GraftaxError(f"{examples.source}: every word has the tag {names[0]!r}; there must be at least two.")
        return examples.names or names

    def prepare(
        self, examples: Examples, names: Sequence[str], processor: Tokenizer, max_length: int, truncate: bool = False
    ) -> Prepared:
        examples = spelled(examples, names)
        pieces, labels, owners = list[Tokens](), [], list[int]()
        pieces_of_each = processor.pieces(examples.fields["text"], max_length)
        for i, (of_text, tags) in enumerate(zip(pieces_of_each, self.encode(examples, names), strict=True)):
            begin = 0
            for piece in of_text:
                pieces.append(piece)
                labels.append(_on_first_tokens(piece, tags[begin : begin + piece.count]))
                owners.append(i)
                begin += piece.count
        return Prepared(examples, pieces, labels, owners=owners)

    def ask(self, processor: Tokenizer, row: Any, where: str, adapter: str | None, max_length: int) -> Sequence[Tokens]:
        (pieces,) = processor.pieces([words_asked(row, where)], max_length)
        return pieces

    def encode(self, examples: Examples, names: Sequence[str]) -> list[Any]:
        """The number of every word's tag."""
        return [
            np.array([index_of(names, tag, i, examples.source) for tag in tags], np.int32)
            for i, tags in enumerate(examples.labels or ())
        ]

    @shaped
    def loss(
        self,
        logits: Float[Array, "rows length room"],
        labels: Int[AnyArray, "rows length"],
        settings: Settings,
        weight: Float[Array, " items"],
    ) -> Float[Array, ""]:
        logs = jax.nn.log_softmax(without_surplus(logits, settings.classes))
        each = -jnp.take_along_axis(logs, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
        return mean_of(each, (labels != IGNORE).astype(each.dtype))  # a text that is not there has no label

    def answer(self, logits: np.ndarray, names: Sequence[str], item: Any) -> Answer:
        assert item.words is not None
        tags: list[str] = [OUTSIDE] * item.count
        scores: list[float | None] = [None] * item.count
        for token in first_tokens(item):
            best = int(logits[token].argmax())
            tags[item.words[token]], scores[item.words[token]] = names[best], float(_softmax(logits[token])[best])
        return Answer(tags, scores)

    def whole(self, answers: Sequence[Answer]) -> Answer:
        return Answer([tag for a in answers for tag in a.label], [score for a in answers for score in a.score])

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        return metrics.tagging(list(examples.labels or ()), [a.label for a in answers])

    def compared(self, label: Any, answer: Answer) -> Iterable[tuple[str | None, str | None]]:
        return zip(label, answer.label, strict=True)

    mistaken_by = "the probabilities of the wrong tags, all together"

    def claims(self, label: Any, answer: Answer) -> Iterable[Claim]:
        each = zip(label, answer.label, answer.score, strict=True)
        return (Claim(score, tag == said) for tag, said, score in each if score is not None)

    def mistake(self, label: Any, answer: Answer) -> float | None:
        """A word that was not read, and whose tag is another, counts as one that was answered for certain."""
        each = zip(label, answer.label, answer.score, strict=True)
        wrong = [1.0 if score is None else score for tag, said, score in each if tag != said]
        return sum(wrong) if wrong else None


def _on_first_tokens(text: Tokens, tags: np.ndarray) -> np.ndarray:
    """The number of each word's tag at its first token, `IGNORE` at all others."""
    assert text.words is not None
    array, positions = np.full(len(text), IGNORE, np.int32), first_tokens(text)
    array[positions] = tags[text.words[positions]]
    return array


def first_tokens(text: Tokens) -> np.ndarray:
    """Positions of the first token of every word."""
    assert text.words is not None
    return np.flatnonzero((text.words >= 0) & (text.words != np.concatenate([[-1], text.words[:-1]])))


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()
