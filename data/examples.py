"""What a task wants of rows: which columns, read as what; and which rows are held out for validation.

Rows come from `sources.py`, what their values mean is said in `values.py`, which labels are one in `labels.py`. All of it is
checked before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GraftaxError
from ..shown import Shown
from ..typed import settle
from .chats import Chat, chat_of, is_chat, turns_of
from .labels import are_vectors, in_one_spelling, refuse_truths_beside_numbers, set_of, tags_of, vector_of
from .sources import Source, source_of
from .text_files import read_text
from .values import class_of, items_of, number_of, text_of, words_of


@dataclass(frozen=True)
class Columns:
    """Which columns hold what."""

    text: str = "text"  # the text; of tagging its words
    pair: str | None = None  # second text, for tasks on two
    label: str = "label"  # a name, a number, names or a tag for each word, by task
    prompt: str = "prompt"  # of rows with a response or target, which stands in the next column, unless there are chats
    completion: str = "completion"  # the response to the prompt, or target
    messages: str = "messages"  # a chat, a list of {role, content}
    chosen: str = "chosen"  # the better response to a prompt, or a chat that ends in it
    rejected: str = "rejected"  # the worse

    def __post_init__(self) -> None:
        settle(self, "columns")

    @property
    def labelled(self) -> tuple[str, ...]:
        """Those of the tasks on labelled rows."""
        return tuple(column for column in (self.text, self.pair, self.label) if column)


@dataclass(frozen=True, repr=False)
class Examples(Shown):
    """Rows as read. `texts` are strings, for tagging lists of words, for chats messages; `labels` as the task has them.

    Of sft both `texts` and `pairs` are messages where one of them is. For dpo `pairs` are a chosen and a rejected response
    each, and chats such pairs, too.
    """

    texts: tuple[Any, ...]
    pairs: tuple[Any, ...] | None  # second texts, or responses
    labels: tuple[Any, ...] | None
    source: str = "data"  # for error messages
    names: tuple[str, ...] = ()  # of all classes in their order, where the data says them

    def facts(self) -> dict[str, Any]:
        return {"source": self.source, "rows": len(self)}

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def hold_chats(self) -> bool:
        """Whether what is read and answered are messages."""
        return self.labels is None and len(self) > 0 and not isinstance(self.texts[0], str)

    def take(self, rows: Sequence[int]) -> Examples:
        def pick(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
            return None if values is None else tuple(values[i] for i in rows)

        return replace(self, texts=pick(self.texts) or (), pairs=pick(self.pairs), labels=pick(self.labels))


def read_examples(data: Any, columns: Columns, task: str, names: Sequence[str] = (), called: str = "") -> Examples:
    """Examples from a path, a `datasets` data set, a pandas DataFrame, an iterable of dicts, or Examples as they are.

    `names`: the classes, where they are known already; vectors of as many 0 and 1 are read in these. `called`: what errors call
    rows that have no path.

    Raises GraftaxError, which names the source, and the row where it is one row that cannot be read.
    """
    if isinstance(data, Examples):
        return data
    check_columns(columns, task)
    if task == "lm" and isinstance(data, str | Path) and Path(data).suffix == ".txt":
        return Examples((read_text(Path(data)),), None, None, str(data))
    return _READERS[task](source_of(data, called), columns, names)


def _plain_text(source: Source, columns: Columns, names: Sequence[str]) -> Examples:
    return Examples(*_texts(source, columns), None, source.name)


def _classified(source: Source, columns: Columns, names: Sequence[str]) -> Examples:
    source.require(*columns.labelled)
    classes = source.classes.get(columns.label, ())
    labels = in_one_spelling(source.column(columns.label, partial(class_of, names=classes)), classes)
    refuse_truths_beside_numbers([row[columns.label] for row in source.rows], f"{source.name}: column {columns.label!r}")
    return Examples(*_texts(source, columns), labels, source.name, classes)


def _multilabel(source: Source, columns: Columns, names: Sequence[str]) -> Examples:
    source.require(*columns.labelled)
    classes = source.classes.get(columns.label, ())
    rows = source.column(columns.label, partial(items_of, separator="|"), blank=True)
    meaning = partial(set_of, names=classes)
    if are_vectors(rows, source.name):
        width = len(rows[0])
        if classes and len(classes) != width:
            raise GraftaxError(
                f"{source.name}: its labels are {width} numbers a row, and its features name {len(classes)} classes."
            )
        classes = classes or (tuple(names) if len(names) == width else tuple(f"LABEL_{i}" for i in range(width)))
        meaning = partial(vector_of, names=classes)
    labels = in_one_spelling(source.column(columns.label, meaning, blank=True), classes)
    return Examples(*_texts(source, columns), tuple(tuple(sorted(set(row))) for row in labels), source.name, classes)


def _numbered(source: Source, columns: Columns, names: Sequence[str]) -> Examples:
    source.require(*columns.labelled)
    return Examples(*_texts(source, columns), source.column(columns.label, number_of), source.name)


def _tagged(source: Source, columns: Columns, names: Sequence[str]) -> Examples:
    source.require(*columns.labelled)
    classes = source.classes.get(columns.label, ())
    texts = source.column(columns.text, words_of)
    labels = in_one_spelling(source.column(columns.label, partial(tags_of, names=classes)), classes)
    for i, (words, tags) in enumerate(zip(texts, labels, strict=True)):
        if not words:
            raise GraftaxError(f"{source.name}: row {i + 1} has no words.")
        if len(words) != len(tags):
            raise GraftaxError(f"{source.name}: row {i + 1} has {len(words)} words and {len(tags)} tags.")
    return Examples(texts, None, labels, source.name, classes)


def _responses(source: Source, columns: Columns, names: Sequence[str]) -> Examples:
    """Chats, or prompts with completions; where either is a list of messages, both become such lists."""
    if columns.messages in source.rows[0]:
        return Examples(source.column(columns.messages, chat_of), None, None, source.name)
    source.require(columns.prompt, columns.completion)
    if not any(is_chat(row.get(column)) for row in source.rows for column in (columns.prompt, columns.completion)):
        return _translated(source, columns, names)
    prompts = source.column(columns.prompt, partial(turns_of, role="user"))
    return Examples(prompts, source.column(columns.completion, partial(turns_of, role="assistant")), None, source.name)


def _translated(source: Source, columns: Columns, names: Sequence[str]) -> Examples:
    source.require(columns.prompt, columns.completion)
    return Examples(source.column(columns.prompt, text_of), source.column(columns.completion, text_of), None, source.name)


def _preferences(source: Source, columns: Columns, names: Sequence[str]) -> Examples:
    """Prompts with two responses each, or, where those are lists of messages, pairs of chats."""
    both = columns.chosen, columns.rejected
    source.require(*both)
    if any(is_chat(row.get(column)) for row in source.rows for column in both):
        sides = [[_answered(source, columns, column, i) for i in range(len(source.rows))] for column in both]
        return Examples(tuple(zip(*sides, strict=True)), None, None, source.name)
    chosen, rejected = (source.column(column, text_of) for column in both)
    return Examples(source.column(columns.prompt, text_of), tuple(zip(chosen, rejected, strict=True)), None, source.name)


def _answered(source: Source, columns: Columns, column: str, row: int) -> Chat:
    """A chat; where it begins with the assistant's answer, behind the prompt, which is a text or a list of messages."""
    chat = source.cell(row, column, chat_of)
    return chat if chat[0]["role"] != "assistant" else source.cell(row, columns.prompt, partial(turns_of, role="user")) + chat


def _texts(source: Source, columns: Columns) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """The texts of the rows, and their second texts where a column of these is named."""
    return source.column(columns.text, text_of), source.column(columns.pair, text_of) if columns.pair else None


_READERS: dict[str, Callable[[Source, Columns, Sequence[str]], Examples]] = {
    "classify": _classified,
    "multilabel": _multilabel,
    "regress": _numbered,
    "tag": _tagged,
    "lm": _plain_text,
    "sft": _responses,
    "seq2seq": _translated,
    "dpo": _preferences,
}


#: The columns that a task reads, by the fields of `Columns`; all but `pair` and `messages` must be there.
_ROLES = {
    **dict.fromkeys(("classify", "multilabel", "regress"), ("text", "pair", "label")),
    "tag": ("text", "label"),
    "lm": ("text",),
    "sft": ("prompt", "completion", "messages"),
    "seq2seq": ("prompt", "completion"),
    "dpo": ("prompt", "chosen", "rejected"),
}


def check_columns(columns: Columns, task: str) -> None:
    """An error where one column is named as two things, or a second text for a task that reads one."""
    roles = _ROLES[task]
    if columns.pair and "pair" not in roles:
        raise GraftaxError(f"task {task!r} reads no second text, so the column {columns.pair!r} cannot be one.")
    column_of = {role: getattr(columns, role) for role in roles}
    for role, column in column_of.items():
        if column and (others := [other for other in roles if other != role and column_of[other] == column]):
            raise GraftaxError(f"the column {column!r} is named as {role} and as {others[0]}; each needs one of its own.")


def are_among(some: Examples, others: Examples) -> bool:
    """Whether every one of some rows is one of others, too."""
    return {*_contents(some)} <= {*_contents(others)}


def _contents(examples: Examples) -> Iterator[str]:
    """What stands in each row."""
    nothing = (None,) * len(examples)
    yield from map(repr, zip(examples.texts, examples.pairs or nothing, examples.labels or nothing, strict=True))


def check_fraction(fraction: float) -> None:
    """An error where it is no share of rows to hold out."""
    if not 0.0 < fraction < 1.0:
        raise GraftaxError(f"the validation fraction must be between 0 and 1, got {fraction}.")


def split(examples: Examples, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Which rows are for training and which for validation, at random; stratified where rows have one label each."""
    check_fraction(fraction)
    count = len(examples)
    order = np.random.default_rng(seed).permutation(count)
    labels = examples.labels or ()
    if labels and isinstance(labels[0], str):
        # round robin over the labels, so that the first rows hold each of them in its proportion
        seen: dict[str, int] = {}
        totals: dict[str, int] = {}
        for label in labels:
            totals[label] = totals.get(label, 0) + 1
        place = np.empty(count)
        for i in order:
            seen[labels[i]] = seen.get(labels[i], 0) + 1
            place[i] = (seen[labels[i]] - 0.5) / totals[labels[i]]
        order = order[np.argsort(place[order], kind="stable")]
    held = max(1, round(count * fraction))
    if held >= count:
        raise GraftaxError(f"{examples.source}: {count} rows are too few to hold {fraction:g} of them out for validation.")
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())
