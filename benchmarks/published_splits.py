"""Splits as others have published them: lists of pictures beside folders of pictures.

    vtab-1k/cifar/train800.txt            a line is `images/train/00007.jpg 15`: a path, and a class by its number (NOAH, FacT)
    images_variant_train.txt              `1025794 707-320`: the name of a .jpg, and a class (FGVC-Aircraft)
    split_zhou_OxfordPets.json:train      {"train": [["Abyssinian_1.jpg", 0, "abyssinian"], ...], ...}: the class by its number
                                          and its name (CoOp)

Paths are relative to the list's own folder, or to the one that the task names as `images`. Whoever has the data has them in
this form, and results are comparable only on these very pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.sources import Source
from ..errors import GraftaxError
from ..json_files import read_object
from ..paths import expect_file

LISTS, SPLITS = ".txt", ".json"  # how files of either kind end


def list_and_split(path: Path) -> tuple[Path, str] | None:
    """The file and the split that a path means (`splits.json:train`, or `train800.txt` and no split); None of other paths."""
    name, _, split = path.name.rpartition(":")
    if Path(name).suffix == SPLITS:
        return path.with_name(name), split
    return (path, "") if path.suffix == LISTS else None


def read_list(file: Path, split: str, images: Path | None) -> Source:
    """The pictures of a list, or of a split of several; `images`: the folder in which their paths begin."""
    expect_file(file)
    folder = file.parent if images is None else images
    rows = _of_split(file, split) if split else _of_lines(file)
    if not rows:
        raise GraftaxError(f"{file}: no pictures in it.")
    return Source(f"{file}:{split}" if split else str(file), [{"image": folder / path, "label": label} for path, label in rows])


def _of_lines(file: Path) -> list[tuple[str, str]]:
    rows = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        path, _, label = line.strip().partition(" ")
        if not path or not label.strip():
            raise GraftaxError(f"{file}: line {number} is no path with a class behind it.")
        rows.append((path if Path(path).suffix else f"{path}.jpg", label.strip()))
    return rows


def _of_split(file: Path, split: str) -> list[tuple[str, str]]:
    content = read_object(file)
    if not isinstance(listed := content.get(split), list):
        raise GraftaxError(f"{file}: no split {split!r}; it has {', '.join(content) or 'none'}.")
    return [_of_entry(entry, f"{file}: entry {number} of {split}") for number, entry in enumerate(listed, 1)]


def _of_entry(entry: Any, where: str) -> tuple[str, str]:
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], str) or not isinstance(entry[2], str):
        raise GraftaxError(f"{where} is no [path, number, name].")
    return entry[0], entry[2]
