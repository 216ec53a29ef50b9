"""NumPy's archives, `.npz`: an array is a column, its first axis the rows.

    x [n, 32, 32, 3], y [n]                                the columns image and label
    x_train, y_train, x_test, y_test                       the same in two splits: `FILE.npz:train` is one
    classes ["cat", "dog"]                                 what the numbers in label stand for

A row holds a view of each array, so that pixels lie in memory once, as they lie in the file, and never as lists of numbers.
Arrays of Python objects are pickles, which can run code, and are not read.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GraftaxError
from ..json_files import refuse_pointer
from ..paths import expect_file

SPLITS = ("train", "test", "val", "valid", "validation", "dev")  # what they are called
_USUAL = {"x": "image", "y": "label", "images": "image", "labels": "label"}  # names in archives -> of columns
_CLASSES = "classes"  # the array of their names


def splits_of_archive(path: Path) -> list[str]:
    """The splits of an archive, in the order of its arrays; none of what is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return []
    return list(dict.fromkeys(part for _, part in map(_column_and_split, names) if part))


def read_archive(path: Path, split: str = "") -> tuple[list[dict[str, Any]], dict[str, tuple[str, ...]]]:
    """Rows of an archive, or of one of its splits; and the names of its classes, by column, where it has them.

    Raises GraftaxError: no such file or split, several splits and none of them named, arrays of unlike lengths, a damaged file.
    """
    expect_file(path)
    refuse_pointer(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise GraftaxError(f"{path}: one array and no archive of several; save it with numpy.savez.")
        with loaded as archive:
            members = _members(archive.files, split, path)
            columns = {column: _array(archive, member, path) for column, member in members.items()}
            classes = _class_names(archive[_CLASSES], path) if _CLASSES in archive.files else ()
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise GraftaxError(f"{path}: cannot be read ({error}).") from error
    lengths = {members[column]: len(array) for column, array in columns.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise GraftaxError(f"{path}: its arrays have unlike numbers of rows: {said}.")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return rows, {"label": classes} if classes else {}


def _members(names: Sequence[str], split: str, path: Path) -> dict[str, str]:
    """The arrays that are wanted, by column."""
    parts = {name: _column_and_split(name) for name in names if name != _CLASSES}
    splits = list(dict.fromkeys(part for _, part in parts.values() if part))
    if lone := [name for name, (_, part) in parts.items() if splits and not part]:
        raise GraftaxError(f"{path}: its array {lone[0]!r} belongs to none of its splits, {', '.join(splits)}.")
    if split and split not in splits:
        raise GraftaxError(f"{path}: no split {split!r}; it has {', '.join(splits) or 'none'}.")
    if len(splits) > 1 and not split:
        raise GraftaxError(f"{path}: it has the splits {', '.join(splits)}; name one of them, as in {path}:{splits[0]}.")
    wanted = {name: column for name, (column, part) in parts.items() if not split or part == split}
    members: dict[str, str] = {}
    for name, column in wanted.items():
        usual = _USUAL.get(column, column)
        column = column if usual in wanted.values() else usual
        if column in members:
            raise GraftaxError(f"{path}: its arrays {members[column]!r} and {name!r} are both the column {column!r}.")
        members[column] = name
    if not members:
        raise GraftaxError(f"{path}: no rows in it.")
    return members


def _column_and_split(name: str) -> tuple[str, str]:
    """`x_train` and `train_x` are the column x of the split train; `speaker` is a column, and of no split."""
    before, _, behind = name.rpartition("_")
    if before and behind in SPLITS:
        return before, behind
    before, _, behind = name.partition("_")
    return (behind, before) if behind and before in SPLITS else (name, "")


def _array(archive: Any, member: str, path: Path) -> np.ndarray:
    array = archive[member]
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        raise GraftaxError(f"{path}: {member!r} is no array of rows.")
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array  # a column of single values


def _class_names(array: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind != "U":
        raise GraftaxError(f"{path}: {_CLASSES!r} is not a list of names.")
    return tuple(map(str, array))
