"""Which labels are one, what they are called, and in which order their classes stand.

Data may write a label in several ways: `pos` and `pos `; 1, 1.0 and "1" in a data frame, its CSV file, JSON lines; é as one
character or, as names of folders often are, as e with an accent behind it. Labels whose `normal_form` is the same are one. It
is called as the data has it, by the shortest spelling; an adapter keeps the names that it was trained with, and the rows it is
measured on are read in these (`in_words_of`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..errors import GraftaxError
from .values import Unreadable, class_of, items_of, plain

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0*")  # 007 and 1.50 are names
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]*)?")


def normal_form(name: str) -> str:
    """Equal for two spellings of one label."""
    name = unicodedata.normalize("NFC", name.strip())
    found = _WHOLE.fullmatch(name)
    return found[1] if found else name


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes in their order: as numbers where all are numbers, else as texts."""
    names = sorted(set(names))
    return tuple(sorted(names, key=float) if all(_NUMBER.fullmatch(name) for name in names) else names)


def renamed(labels: Any, name: Callable[[str], str]) -> Any:
    """A label, or lists of labels, or lists of these, with every name replaced; numbers are no names."""
    if isinstance(labels, list | tuple):
        return type(labels)(renamed(label, name) for label in labels)
    return name(labels) if isinstance(labels, str) else labels


def each_name(labels: Any) -> Iterator[str]:
    """Every name in a label, in lists of labels, or in lists of these."""
    if isinstance(labels, str):
        yield labels
    elif isinstance(labels, list | tuple):
        for label in labels:
            yield from each_name(label)


def in_one_spelling(labels: Any, names: Sequence[str] = ()) -> Any:
    """Labels as `names` spell them, where there are any; else each under the shortest of its spellings."""
    if names:
        return in_words_of(names, labels)
    chosen: dict[str, str] = {}
    for name in sorted(set(each_name(labels)), key=lambda name: (len(name), name)):
        chosen.setdefault(normal_form(name), name)
    return renamed(labels, lambda name: chosen[normal_form(name)])


def in_words_of(names: Sequence[str], labels: Any) -> Any:
    """Labels as `names` spell them; what is none of them stays as it is."""
    spelled = {normal_form(name): name for name in reversed(names)} | {name: name for name in names}
    return renamed(labels, lambda name: spelled.get(name) or spelled.get(normal_form(name), name))


def refuse_truths_beside_numbers(labels: Sequence[Any], where: str) -> None:
    """An error where some labels are true or false and others are numbers: then true and 1 may be one class, or two."""
    types = [type(plain(label)) for label in labels]
    if bool in types and (numbers := {int, float}.intersection(types)):
        rows = types.index(bool) + 1, min(map(types.index, numbers)) + 1
        raise GraftaxError(f"{where} has true or false in row {rows[0]} and a number in row {rows[1]}; write one of both.")


def tags_of(value: Any, names: Sequence[str]) -> list[str]:
    """A label for every word."""
    return [class_of(tag, names) for tag in items_of(value, None)]


def set_of(value: Any, names: Sequence[str]) -> tuple[str, ...]:
    """The labels of a row that has any number of them: their names, or, where there are `names`, numbers of these."""
    items = items_of(value, "|")
    numbers = [item for item in items if isinstance(item, int | float)]
    if any(isinstance(number, float) and not number.is_integer() for number in numbers):
        raise Unreadable(f"{numbers} are no labels, but shares of them")
    if len(set(numbers)) < len(numbers):
        raise Unreadable(f"{numbers} has a label twice; vectors of 0 and 1 have the same length in every row")
    return tuple(sorted({class_of(item, names) for item in items}))


def vector_of(value: Any, names: Sequence[str]) -> tuple[str, ...]:
    """The labels of a row that has a 1 for each of these, and a 0 for each other."""
    return tuple(name for name, item in zip(names, items_of(value, "|"), strict=True) if int(item))


def are_vectors(rows: Sequence[Sequence[Any]], source: str) -> bool:
    """Whether every row has a 0 or 1 for every class.

    A list of the numbers of a row's classes has none of them twice, and so is told from these unless there are two classes.
    """
    if len({len(row) for row in rows}) > 1 or len(rows[0]) < 2:
        return False
    if not all(item in (0, 1, "0", "1") for row in rows for item in row):
        return False
    if any(isinstance(item, bool | float) for row in rows for item in row) or any(len(set(row)) < len(row) for row in rows):
        return True
    if any(isinstance(item, int) for row in rows for item in row):
        raise GraftaxError(
            f"{source}: every row has the labels 0 and 1: these may be numbers or yes and no; write names instead."
        )
    return False
