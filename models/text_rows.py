"""Texts as callers hand them in, row by row: checked by type before anything is computed."""

from __future__ import annotations

from typing import Any

from ..data.values import Unreadable, words_of
from ..errors import GraftaxError

_A_ROW = "a row is a text, a pair of texts (a tuple) or, for a tagging adapter, a list of words"


def text_asked(row: Any, where: str, adapter: str | None) -> str | tuple[str, str]:
    """A row that is a text, or a pair of texts (a tuple); `adapter`: the name of the one that answers it, if any does."""
    _refuse_other(row, where)
    if isinstance(row, list) and adapter is not None:
        raise GraftaxError(f"{where} is a list of words, but adapter {adapter!r} takes a text.")
    if isinstance(row, list):
        return _filled(" ".join(row), where)
    if isinstance(row, tuple) and len(row) != 2:
        raise GraftaxError(f"{where} is a tuple of {len(row)}; {_A_ROW}.")
    if not isinstance(row, str | tuple):
        raise GraftaxError(f"{where} is {type(row).__name__}; {_A_ROW}.")
    return _filled(row, where)


def words_asked(row: Any, where: str) -> list[str]:
    """A row for an adapter that tags words: a list of them, or a text."""
    if isinstance(row, str):
        try:
            return _filled(words_of(row), where)
        except Unreadable as error:
            raise GraftaxError(f"{where}: {error}.") from None
    _refuse_other(row, where)
    if isinstance(row, list | tuple):
        return _filled(list(row), where)
    raise GraftaxError(f"{where} is {type(row).__name__}; {_A_ROW}.")


def _refuse_other(row: Any, where: str) -> None:
    """An error where a row holds something else than texts."""
    if isinstance(row, list | tuple) and not all(isinstance(part, str) for part in row):
        wrong = next(type(part).__name__ for part in row if not isinstance(part, str))
        raise GraftaxError(f"{where} holds {wrong}; {_A_ROW}.")


def _filled(row: Any, where: str) -> Any:
    """The row, no text of which is blank; blank words are the tokenizer's affair."""
    texts = [row] if isinstance(row, str) else row if isinstance(row, tuple) else []
    if not row or any(not text.strip() for text in texts):
        raise GraftaxError(f"{where} is empty.")
    return row
