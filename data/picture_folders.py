"""Pictures in a folder: of each class in a folder of its own, which is named after it, or all of one folder without classes.

    pets/cat/1.jpg      rows {"image": pets/cat/1.jpg, "label": "cat"}, {"image": pets/dog/7.png, "label": "dog"}
    pets/dog/7.png

Or of each split in a folder of its own, `pets/train/cat/1.jpg`, each of which is read alone (`splits.py`).

Only names are read here. What is hidden is passed over; anything else that is no picture is refused by its name, for it may be
that the folder is not what it is taken for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import GraftaxError
from ..paths import expect_file
from .archives import SPLITS
from .picture_values import SUFFIXES

_OF_WINDOWS = frozenset(["thumbs.db", "desktop.ini"])  # which are hidden there


def splits_of_folder(folder: Path) -> list[str]:
    """The splits of a folder that holds nothing else; a class called `train` holds pictures, and is none."""
    entries = _visible(folder)
    of_splits = all(entry.name in SPLITS and entry.is_dir() and any(map(Path.is_dir, _visible(entry))) for entry in entries)
    return [entry.name for entry in entries] if of_splits else []


def read_picture_folder(folder: Path) -> list[dict[str, Any]]:
    """A row for each picture, in the order of their names: class by class, where each has a folder."""
    if len(splits := splits_of_folder(folder)) > 1:
        name = f"name one of them, as in {folder}:{splits[0]}"
        raise GraftaxError(f"{folder}: it has the splits {', '.join(splits)}; {name}.")
    for split in splits:
        return read_picture_folder(folder / split)
    entries = _visible(folder)
    classes = [entry for entry in entries if entry.is_dir()]
    if not entries:
        expect_file(folder)  # says that it is none: an empty folder is hardly meant as pictures
    if not classes and not any(map(_is_picture, entries)):
        other = f"it holds {entries[0].name}, which is no picture by its name"
        raise GraftaxError(f"{folder}: a directory; a file is wanted here, or a folder of pictures: {other}.")
    if not classes:
        return [{"image": path} for path in _pictures(entries, folder)]
    if beside := [entry for entry in entries if entry not in classes]:
        raise GraftaxError(f"{beside[0]}: a file beside the folders of {folder}, each of which holds the pictures of a class.")
    return [
        {"image": path, "label": directory.name} for directory in classes for path in _pictures(_visible(directory), directory)
    ]


def _pictures(entries: Sequence[Path], folder: Path) -> Sequence[Path]:
    """Files of a folder, all of which are called as pictures are."""
    if not entries:
        raise GraftaxError(f"{folder}: no picture of this class; remove the folder if there is no such class.")
    for entry in entries:
        if entry.is_dir():
            raise GraftaxError(f"{entry}: a folder within a class; give the folder whose folders are the classes.")
        if not _is_picture(entry):
            raise GraftaxError(f"{entry}: no picture, by its name; {folder} may hold nothing else, for it is read as pictures.")
    return entries


def _is_picture(entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES


def _visible(folder: Path) -> list[Path]:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise GraftaxError(f"{folder}: cannot be read ({error.strerror}).") from error
    return [folder / name for name in names if name[0] != "." and name.lower() not in _OF_WINDOWS]
