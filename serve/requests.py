"""What is asked of a predictor or generator, checked by type before anything is computed: rows, and the adapter of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.values import Unreadable, words_of
from ..errors import GraftaxError
from .composition import Composition

_A_ROW = "a row is a text, a pair of texts (a tuple) or, for a tagging adapter, a list of words"


def listed(values: Any, what: str = "rows") -> list[Any]:
    """The rows of a call. A single text is refused: its letters would be the rows."""
    if isinstance(values, str | bytes | Mapping):
        raise GraftaxError(f"{what} must be a list, got a single {type(values).__name__}; for one text give a list of it.")
    try:
        return list(values)
    except TypeError:
        raise GraftaxError(f"{what} must be a list, got {type(values).__name__}.") from None


def named(adapters: Any, count: int) -> list[str | Composition | None]:
    """The adapter of each row, of one for all or one for each."""
    if adapters is None or isinstance(adapters, str | Composition):
        return [adapters] * count
    each = listed(adapters, "adapters")
    for i, what in enumerate(each):
        if what is not None and not isinstance(what, str | Composition):
            raise GraftaxError(f"row {i + 1}: its adapter is {type(what).__name__}; give a name, a composition or None.")
    if len(each) != count:
        raise GraftaxError(f"{count} rows but {len(each)} adapters.")
    return each


def text_of(row: Any, index: int, what: str | Composition | None, words: bool) -> Any:
    """A row as it is tokenized: a text, a pair (a tuple), or where the adapter `what` tags `words` a list of them."""
    if words and isinstance(row, str):
        try:
            return _filled(words_of(row), index)
        except Unreadable as error:
            raise GraftaxError(f"row {index + 1}: {error}.") from None
    if isinstance(row, list | tuple) and not all(isinstance(part, str) for part in row):
        wrong = next(type(part).__name__ for part in row if not isinstance(part, str))
        raise GraftaxError(f"row {index + 1} holds {wrong}; {_A_ROW}.")
    if words and isinstance(row, list | tuple):
        return _filled(list(row), index)
    if isinstance(row, list) and what is not None:
        raise GraftaxError(f"row {index + 1} is a list of words, but adapter {str(what)!r} takes a text.")
    if isinstance(row, list):
        return _filled(" ".join(row), index)
    if isinstance(row, tuple) and len(row) != 2:
        raise GraftaxError(f"row {index + 1} is a tuple of {len(row)}; {_A_ROW}.")
    if not isinstance(row, str | tuple):
        raise GraftaxError(f"row {index + 1} is {type(row).__name__}; {_A_ROW}.")
    return _filled(row, index)


def _filled(row: Any, index: int) -> Any:
    """The row, no text of which is blank; blank words are the tokenizer's affair."""
    texts = [row] if isinstance(row, str) else row if isinstance(row, tuple) else []
    if not row or any(not text.strip() for text in texts):
        raise GraftaxError(f"row {index + 1} is empty.")
    return row
