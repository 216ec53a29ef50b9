"""Fields: the parts that the columns of rows play; and which column plays which.

A task and a processor say which fields they read of a row, and what the values there mean: `text` and perhaps `pair` of texts,
`image` of pictures, `label`, `prompt` and `completion`. A field is in the column of its own name, unless `Columns` names
another one:

    Columns(text="question", label="intent")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from ..errors import GraftaxError
from ..typed import shown
from .sources import Source
from .values import class_of

_NAMED = re.compile(r"\{([^{}]*)\}")  # columns in a text
_IN_ORDER = ("text", "pair", "label")  # what columns mean that are given without the name of a field


@dataclass(frozen=True)
class Field:
    """A part that a column plays."""

    name: str
    meaning: Callable[..., Any]  # of a value there; raises `values.Unreadable` for what is none
    #: "always"; only where a column is "named" for it; or wherever its column is "found" in the rows
    read: Literal["always", "named", "found"] = "always"
    located: bool = False  # whether `meaning` is told where the value stands (`Source.located`), as of a path it must be


class Columns:
    """Which columns hold what: field -> column. A field that is not named is in the column of its own name.

    Without a field's name the first three are the columns of `text`, `pair` and `label`. A field that is None is not named.

    Raises:
        GraftaxError: a column that is no text.
    """

    def __init__(self, *columns: str | None, **named: str | None):
        if len(columns) > len(_IN_ORDER):
            raise GraftaxError(f"columns: more than {len(_IN_ORDER)} are given without the name of a field.")
        for field, column in zip(_IN_ORDER, columns, strict=False):
            if field in named:
                raise GraftaxError(f"columns: {field} is given twice.")
            named[field] = column
        for field, column in named.items():
            if column is not None and (not isinstance(column, str) or not column):
                raise GraftaxError(f"columns: {field} must be the name of a column, got {shown(column)}.")
        self.named = {field: column for field, column in named.items() if column is not None}

    def __getitem__(self, field: str) -> str:
        """The column of a field."""
        return self.named.get(field, field)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Columns) and self.named == other.named

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.named.items())))

    def __repr__(self) -> str:
        return f"Columns({', '.join(f'{field}={column!r}' for field, column in self.named.items())})"

    def names_others(self, field: str) -> bool:
        """Whether what a field is in is a text in which other columns are named: `a photo of a {label}.` (`filled`)."""
        return bool(_NAMED.search(self[field]))

    def check(self, fields: Iterable[Field], reader: str, elsewhere: Collection[str] = ()) -> None:
        """An error where a column is named for a field that is none of these, or one column for two.

        `reader`: who reads, for the error. `elsewhere`: fields that others read, and this one need not.
        """
        names = [field.name for field in fields]
        if other := [field for field, column in self.named.items() if field not in {*names, *elsewhere} and column != field]:
            column = self.named[other[0]]
            raise GraftaxError(
                f"{reader} reads no {other[0]!r}, so the column {column!r} cannot be one; it reads {', '.join(names)}."
            )
        taken: dict[str, str] = {}
        for field in fields:
            column = self[field.name]
            if (field.read != "named" or field.name in self.named) and taken.setdefault(column, field.name) != field.name:
                raise GraftaxError(
                    f"the column {column!r} is named as {taken[column]} and as {field.name}; each needs one of its own."
                )


def filled(source: Source, column: str) -> Source:
    """A source with a column that is a text in which others are named: `a photo of a {label}.`; with another, as it is."""
    names = _NAMED.findall(column)
    if not names or column in source.rows[0]:
        return source
    values = [source.column(name, partial(class_of, names=source.classes.get(name, ()))) for name in names]
    parts = _NAMED.split(column)[::2]
    texts = [
        "".join(part for both in zip(parts, (*own, ""), strict=True) for part in both) for own in zip(*values, strict=True)
    ]
    return replace(source, rows=[row | {column: text} for row, text in zip(source.rows, texts, strict=True)])


def read_fields(source: Source, columns: Columns, fields: Iterable[Field]) -> dict[str, tuple[Any, ...]]:
    """What the rows of a source have in some fields: field -> a value for each row.

    Raises GraftaxError, which names the columns that are not there, or the row with a value that is none.
    """
    read = [
        field
        for field in fields
        if field.read == "always"
        or field.name in columns.named
        or (field.read == "found" and columns[field.name] in source.rows[0])
    ]
    source.require(*(columns[field.name] for field in read))
    return {field.name: _values(source, columns[field.name], field) for field in read}


def _values(source: Source, column: str, field: Field) -> tuple[Any, ...]:
    return source.located(column, field.meaning) if field.located else source.column(column, field.meaning)
