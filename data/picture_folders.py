"""Pictures in a folder: of each class in a folder of its own, which is named after it, or all of one folder without classes.

    pets/cat/1.jpg      rows {"image": pets/cat/1.jpg, "label": "cat"}, {"image": pets/dog/7.png, "label": "dog"}
    pets/dog/7.png

Or of each split in a folder of its own, `pets/train/cat/1.jpg`, each of which is read alone (`splits.py`).

Where each picture has a mask (`mask_values.py`), both are called alike, but for how their names end; names of classes may lie
in a file beside the two folders (`class_names.py`):

    parts/images/7.jpg      rows {"image": parts/images/7.jpg, "mask": parts/masks/7.png}
    parts/masks/7.png

Only names are read here. What is hidden is passed over; anything else that is no picture is refused by its name, for it may be
that the folder is not what it is taken for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import GraftaxError
from ..paths import expect_file
from .archives import SPLITS
from .class_names import NAMES
from .coco_boxes import ANNOTATIONS, METADATA
from .picture_values import SUFFIXES

_IMAGES, _MASKS = "images", "masks"
_SHOWN = 3
_OF_WINDOWS = frozenset(["thumbs.db", "desktop.ini"])  # which are hidden there


def splits_of_folder(folder: Path) -> list[str]:
    """The splits of a folder that holds nothing else; a class called `train` holds pictures, and is none."""
    entries = [entry for entry in _visible(folder) if entry.name not in NAMES]
    of_splits = all(entry.name in SPLITS and entry.is_dir() and any(map(_is_of_split, _visible(entry))) for entry in entries)
    return [entry.name for entry in entries] if of_splits else []


def _is_of_split(entry: Path) -> bool:
    """Whether a folder that holds this may be a split: a folder of pictures, or what says what is in those beside it."""
    return entry.is_dir() or entry.name in (METADATA, *ANNOTATIONS)


def read_picture_folder(folder: Path) -> list[dict[str, Any]]:
    """A row for each picture, in the order of their names: class by class, where each has a folder; or with its mask."""
    if len(splits := splits_of_folder(folder)) > 1:
        name = f"name one of them, as in {folder}:{splits[0]}"
        raise GraftaxError(f"{folder}: it has the splits {', '.join(splits)}; {name}.")
    for split in splits:
        return read_picture_folder(folder / split)
    entries = _visible(folder)
    if {_IMAGES, _MASKS} <= {entry.name for entry in entries if entry.is_dir()}:
        return _with_masks(folder, entries)
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


def _with_masks(folder: Path, entries: Sequence[Path]) -> list[dict[str, Any]]:
    """Rows of pictures and masks; an error for a picture without a mask, and for a mask without a picture."""
    if other := [entry for entry in entries if entry.name not in (_IMAGES, _MASKS, *NAMES)]:
        raise GraftaxError(f"{other[0]}: beside the folders {_IMAGES} and {_MASKS} only {' or '.join(NAMES)} may lie.")
    pictures, masks = (_by_stem(folder / name) for name in (_IMAGES, _MASKS))
    for what, here, there in (("no mask for", pictures, masks), ("no picture for the mask", masks, pictures)):
        if lone := [entry.name for stem, entry in here.items() if stem not in there]:
            several = f", and for {len(lone) - _SHOWN} more" if len(lone) > _SHOWN else ""
            raise GraftaxError(f"{folder}: {what} {', '.join(islice(lone, _SHOWN))}{several}; both must be called alike.")
    return [{"image": picture, "mask": masks[stem]} for stem, picture in pictures.items()]


def _by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their names without the ending."""
    if not (entries := _visible(folder)):
        raise GraftaxError(f"{folder}: no picture in it.")
    found: dict[str, Path] = {}
    for entry in _pictures(entries, folder):
        if (other := found.setdefault(entry.stem, entry)) != entry:
            raise GraftaxError(f"{folder}: both {other.name} and {entry.name}; which is meant?")
    return found


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
