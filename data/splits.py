"""Splits: parts of a data set that lie in one place, each for its own use.

    digits.npz:train      of NumPy's archive, the arrays that are called so (`archives.py`)
    pets:train            of a folder, the folder in it that is called so, with those of the classes

To measure, a split is named. To train, a place that has a split of that name is enough: it is trained on, and the split for
validation, where there is one, is validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import GraftaxError
from ..notes import note
from ..paths import is_directory
from .archives import splits_of_archive
from .picture_folders import splits_of_folder

_TRAINING = "train"
_VALIDATION = ("val", "valid", "validation", "dev")


def place_and_split(path: Path) -> tuple[Path, str]:
    """The place and the split that `PLACE:SPLIT` names; a path as it is, and no split, where it names none."""
    name, _, split = path.name.rpartition(":")
    if is_directory(path) or path.exists() or not name.strip("."):
        return path, ""
    place = path.with_name(name)
    return (place, split) if _is_archive(place) or is_directory(place) else (path, "")


def expect_split(folder: Path, split: str) -> None:
    """An error unless a folder has this split."""
    if split not in (splits := splits_at(folder)):
        raise GraftaxError(f"{folder}: no split {split!r}; it has {', '.join(splits) or 'none'}.")


def splits_at(path: Path) -> Sequence[str]:
    """The splits at a place; none where it is another kind of place, or cannot be read, which reading it will say."""
    if is_directory(path):
        return splits_of_folder(path)
    return splits_of_archive(path) if _is_archive(path) and path.is_file() else ()


def parts_to_train(data: Any, val: Any) -> tuple[Any, Any]:
    """Rows to train on and validation rows as `train_many` takes them, of a place with splits those that are for that.

    Validation that somebody names stays what it is. A note says what is read.
    """
    if not isinstance(data, str | Path):
        return data, val
    splits = splits_at(Path(data))
    if len(splits) < 2 or _TRAINING not in splits:
        return data, val
    held = next((split for split in _VALIDATION if split in splits), None) if val is None else None
    also = f", and validated on {held}" if held else ""
    note(f"{data}: it has the splits {', '.join(splits)}; trained on {_TRAINING}{also}.")
    return f"{data}:{_TRAINING}", f"{data}:{held}" if held else val


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".npz"
