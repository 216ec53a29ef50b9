"""Reading labelled rows from CSV, JSONL, Parquet or a `datasets` dataset, and checking them before anything is trained."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GraftaxError
from ..shown import Shown


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


@dataclass(frozen=True, repr=False)
class Examples(Shown):
    """Rows as read. `texts` are strings, for tagging lists of words, for chats messages; `labels` as the task has them.

    For dpo `pairs` are a chosen and a rejected response each, and chats such pairs, too.
    """

    texts: tuple[Any, ...]
    pairs: tuple[Any, ...] | None  # second texts, or responses
    labels: tuple[Any, ...] | None
    source: str = "data"  # for error messages

    def facts(self) -> dict[str, Any]:
        return {"source": self.source, "rows": len(self)}

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> Examples:
        def pick(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
            return None if values is None else tuple(values[i] for i in rows)

        return replace(self, texts=pick(self.texts) or (), pairs=pick(self.pairs), labels=pick(self.labels))


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a .csv, .jsonl or .parquet file as dicts."""
    path = Path(path)
    if not path.is_file():
        raise GraftaxError(f"{path}: no such file.")
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows: list[dict[str, Any]] = list(csv.DictReader(file, strict=True))
            for i, row in enumerate(rows):
                if None in row:
                    raise GraftaxError(f"{path}: row {i + 1} has more fields than the header; quote texts that hold commas.")
        elif path.suffix in (".jsonl", ".ndjson"):
            with path.open(encoding="utf-8-sig") as file:
                rows = parse_json_lines(file, str(path))
        elif path.suffix == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
        else:
            raise GraftaxError(f"{path}: unknown kind of file; use .csv, .jsonl or .parquet.")
    except UnicodeDecodeError as error:
        raise GraftaxError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except (csv.Error, OSError, ValueError) as error:
        raise GraftaxError(f"{path}: cannot be read ({error}).") from error
    if not rows:
        raise GraftaxError(f"{path}: no rows in it.")
    return rows


def parse_json_lines(lines: Iterable[str], source: str) -> list[dict[str, Any]]:
    """One JSON object per line; blank lines are passed over."""
    rows = []
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise GraftaxError(f"{source}: line {i + 1} is not valid JSON ({error}).") from error
        if not isinstance(row, dict):
            raise GraftaxError(f"{source}: line {i + 1} is not a JSON object.")
        rows.append(row)
    return rows


def read_examples(data: Any, columns: Columns, task: str, *, labelled: bool = True) -> Examples:
    """Examples from a path, a `datasets.Dataset`, an iterable of dicts, or Examples as they are."""
    if isinstance(data, Examples):
        return data
    source = str(data) if isinstance(data, str | Path) else type(data).__name__
    if task == "lm" and source.endswith(".txt"):
        return Examples((read_text(Path(source)),), None, None, source)
    rows = read_rows(data) if isinstance(data, str | Path) else [dict(row) for row in data]
    if not rows:
        raise GraftaxError(f"{source}: no rows in it.")
    if task == "sft" and columns.messages in rows[0]:
        return Examples(tuple(chat_of(row, columns.messages, i, source) for i, row in enumerate(rows)), None, None, source)
    if task == "dpo":
        return _preferences(rows, columns, source)
    if task in ("sft", "seq2seq"):
        columns, labelled = replace(columns, text=columns.prompt, pair=columns.completion), False
    labelled &= task != "lm"
    wanted = [columns.text, *([columns.pair] if columns.pair else []), *([columns.label] if labelled else [])]
    _require(wanted, rows[0], source)

    texts = _column(rows, columns.text, source)
    pairs = _column(rows, columns.pair, source) if columns.pair else None
    labels = _column(rows, columns.label, source, blank=task == "multilabel") if labelled else None
    if task == "tag":
        texts = [_words(text, i, source) for i, text in enumerate(texts)]
        labels = None if labels is None else [_words(tags, i, source) for i, tags in enumerate(labels)]
        for i, (words, tags) in enumerate(zip(texts, labels or texts, strict=True)):
            if not words:
                raise GraftaxError(f"{source}: row {i + 1} has no words.")
            if len(words) != len(tags):
                raise GraftaxError(f"{source}: row {i + 1} has {len(words)} words and {len(tags)} tags.")
    else:
        texts, pairs = [str(text) for text in texts], None if pairs is None else [str(pair) for pair in pairs]
    if labels is not None and task == "regress":
        labels = [_number(label, i, source) for i, label in enumerate(labels)]
    if labels is not None and task == "multilabel":
        labels = [_label_set(label, i, source) for i, label in enumerate(labels)]
    if labels is not None and task == "classify":
        labels = [str(label) for label in labels]
    return Examples(tuple(texts), None if pairs is None else tuple(pairs), None if labels is None else tuple(labels), source)


def _require(columns: Sequence[str], row: Mapping[str, Any], source: str) -> None:
    missing = [column for column in columns if column not in row]
    if missing:
        raise GraftaxError(f"{source}: no column {', '.join(map(repr, missing))}; it has {', '.join(row)}.")


def _column(rows: Iterable[Mapping[str, Any]], column: str, source: str, blank: bool = False) -> list[Any]:
    """Values of a column, none of them missing; `blank`: an empty string is a value (no label at all)."""
    values = []
    for i, row in enumerate(rows):
        value = row.get(column)
        empty = value is None or (isinstance(value, float) and math.isnan(value))
        if empty or (isinstance(value, str) and not value.strip() and not blank):
            raise GraftaxError(f"{source}: row {i + 1} has nothing in column {column!r}.")
        values.append(value)
    return values


def read_text(path: Path) -> str:
    """A file of plain text."""
    if not path.is_file():
        raise GraftaxError(f"{path}: no such file.")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GraftaxError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
    if not text.strip():
        raise GraftaxError(f"{path}: no text in it.")
    return text


def chat_of(row: Mapping[str, Any], column: str, index: int, source: str) -> tuple[dict[str, Any], ...]:
    """The messages in a column of row `index`, checked."""
    messages = row.get(column)
    if not isinstance(messages, list | tuple) or not messages:
        raise GraftaxError(f"{source}: row {index + 1} has no list of messages in column {column!r}.")
    for message in messages:
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            raise GraftaxError(f"{source}: row {index + 1}: a message is not an object with role and content.")
    return tuple(dict(message) for message in messages)


def _preferences(rows: Sequence[Mapping[str, Any]], columns: Columns, source: str) -> Examples:
    """Prompts with two responses each, or, where those are lists of messages, pairs of chats."""
    both = columns.chosen, columns.rejected
    _require(both, rows[0], source)
    if any(isinstance(row.get(column), list | tuple) for row in rows for column in both):
        chats = tuple(tuple(_answered(row, columns, column, i, source) for column in both) for i, row in enumerate(rows))
        return Examples(chats, None, None, source)
    _require([columns.prompt], rows[0], source)
    prompts, chosen, rejected = (map(str, _column(rows, column, source)) for column in (columns.prompt, *both))
    return Examples(tuple(prompts), tuple(zip(chosen, rejected, strict=True)), None, source)


def _answered(row: Mapping[str, Any], columns: Columns, column: str, index: int, source: str) -> tuple[dict[str, Any], ...]:
    """A chat; where it begins with the assistant's answer, behind the prompt, which is a message or a list of them."""
    messages = chat_of(row, column, index, source)
    if messages[0]["role"] != "assistant":
        return messages
    if isinstance(prompt := row.get(columns.prompt), str):
        return ({"role": "user", "content": prompt}, *messages)
    return (*chat_of(row, columns.prompt, index, source), *messages)


def _words(value: Any, row: int, source: str) -> list[str]:
    return value.split() if isinstance(value, str) else [str(word) for word in _list(value, row, source)]


def _label_set(value: Any, row: int, source: str) -> tuple[str, ...]:
    """Labels of one row: a list, or names separated by "|" in one string."""
    names = value.split("|") if isinstance(value, str) else _list(value, row, source)
    return tuple(sorted({str(name).strip() for name in names if str(name).strip()}))


def _list(value: Any, row: int, source: str) -> list[Any]:
    try:
        return list(value)
    except TypeError as error:
        raise GraftaxError(f"{source}: row {row + 1}: {value!r} is neither a text nor a list.") from error


def _number(value: Any, row: int, source: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise GraftaxError(f"{source}: row {row + 1}: {value!r} is not a number.") from error
    if not math.isfinite(number):
        raise GraftaxError(f"{source}: row {row + 1}: the label is {value!r}.")
    return number


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
