"""Boxes as COCO's annotation files have them (Lin et al., 2014, arXiv:1405.0312), and as a folder's metadata has them.

    pets/annotations.json      {"images": [{"id": 7, "file_name": "a.jpg", "width": 640, "height": 480}],
    pets/images/a.jpg           "annotations": [{"image_id": 7, "category_id": 18, "bbox": [12, 30, 40, 20], "iscrowd": 0}],
                                "categories": [{"id": 18, "name": "dog"}]}

Pictures lie beside the file, or in a folder `images` there, or, as in COCO itself, in a folder beside the file's own by whose
name that of the file ends: `annotations/instances_val2017.json` is of `val2017`. The classes are the categories in the order of
their ids, which need not follow one another. A picture without annotations is a row without objects.

Data sets of `datasets` in a folder have `metadata.jsonl` in place of it, with a picture's `file_name` in each line and whatever
else is known of it, such as its `objects` (`box_values.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import GraftaxError
from ..json_files import read_object
from ..notes import note
from ..typed import shown
from .class_names import NAMES

ANNOTATIONS = ("annotations.json", "_annotations.coco.json")  # what such a file is called in a folder
METADATA = "metadata.jsonl"
OBJECTS = "objects"  # the column
_IMAGES = "images"
_MOST_BYTES = 1 << 30  # COCO's own file, of 118,000 pictures, has 448 MB


def annotations_in(folder: Path) -> Path | None:
    """The annotation file of a folder of pictures; GraftaxError where there are two."""
    found = [folder / name for name in ANNOTATIONS if (folder / name).is_file()]
    if len(found) > 1:
        raise GraftaxError(f"{folder}: both {' and '.join(ANNOTATIONS)} say what is in its pictures; remove one of them.")
    return found[0] if found else None


def read_annotations(file: Path) -> tuple[list[dict[str, Any]], dict[str, tuple[str, ...]]]:
    """A row for each picture in the order of the file, and what the numbers in its column of objects stand for.

    Raises GraftaxError, which names the file and what in it, for what is no such file, an annotation of a picture or a category
    that is not there, and a picture that is missing.
    """
    said, folders = read_object(file, most=_MOST_BYTES), _folders_of(file)
    images, annotations, categories = (_objects(said, key, file) for key in ("images", "annotations", "categories"))
    number = {one["id"]: index for index, one in enumerate(sorted(categories, key=lambda one: _id(one, "a category", file)))}
    names = tuple(str(one.get("name", "")).strip() for one in sorted(categories, key=lambda one: one["id"]))
    if not names or not all(names) or len({*names}) < len(names) or len(number) < len(names):
        raise GraftaxError(f"{file}: its categories must each have a name and an id of their own, got {shown(list(names))}.")
    of_image: dict[Any, list[Mapping[str, Any]]] = {_id(one, "an image", file): [] for one in images}
    if len(of_image) < len(images):
        raise GraftaxError(f"{file}: two images have one id.")
    for index, one in enumerate(annotations, 1):
        where = f"{file}: annotation {one.get('id', f'number {index}')}"
        wanted, kind = one.get("image_id"), one.get("category_id")
        if not isinstance(wanted, int) or wanted not in of_image:
            raise GraftaxError(f"{where} is of image {wanted!r}, which is not among its images.")
        if not isinstance(kind, int) or kind not in number:
            known = ", ".join(map(str, [*number][:20]))
            raise GraftaxError(f"{where} is of category {kind!r}, and there are {known}.")
        of_image[wanted].append(one)
    rows = []
    for image in images:
        name = image.get("file_name")
        places = [folder / name for folder in folders] if isinstance(name, str) and name.strip() else []
        picture = next((place for place in places if place.is_file()), None)
        if picture is None:
            raise GraftaxError(f"{file}: image {image['id']!r}, {name!r}, lies in none of {', '.join(map(str, folders))}.")
        rows.append({"image": picture, OBJECTS: _objects_in(image, of_image[image["id"]], number)})
    return rows, {OBJECTS: names}


def _folders_of(file: Path) -> list[Path]:
    """Where the pictures of an annotation file may lie."""
    own = file.parent
    beside = sorted(one for one in (own / "..").resolve().iterdir() if one.is_dir() and file.stem.endswith(one.name))
    return [own, own / _IMAGES, *(one for one in beside if one != own.resolve())]


def _objects_in(image: Mapping[str, Any], own: Sequence[Mapping[str, Any]], number: Mapping[Any, int]) -> dict[str, Any]:
    """A row's cell of objects."""
    return {
        "bbox": [one.get("bbox") for one in own],
        "category": [number[one["category_id"]] for one in own],
        "iscrowd": [one.get("iscrowd", 0) for one in own],
        "size": (image.get("height"), image.get("width")),
    }


def with_pictures(rows: Iterable[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Rows of a folder's metadata with the picture that each names; a note says which pictures of the folder none names."""
    found = []
    for index, row in enumerate(rows, 1):
        name = row.get("file_name")
        if not isinstance(name, str) or not (folder / name).is_file():
            raise GraftaxError(f"{folder / METADATA}: line {index}: no picture {name!r} (file_name) in {folder}.")
        found.append({"image": folder / name} | {key: value for key, value in row.items() if key != "file_name"})
    named = {row["image"] for row in found}
    lone = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry not in named and entry.is_file() and entry.name not in (METADATA, *NAMES)
    )
    if lone := [name for name in lone if name[0] != "."]:
        note(f"{folder}: {METADATA} names no {', '.join(lone[:5])}{', ...' if len(lone) > 5 else ''}; passed over.")
    return found


def _objects(said: Mapping[str, Any], key: str, file: Path) -> list[Mapping[str, Any]]:
    found = said.get(key)
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise GraftaxError(f"{file}: no annotations as COCO has them: its {key!r} must be a list of objects.")
    return found


def _id(one: Mapping[str, Any], what: str, file: Path) -> int:
    if not isinstance(one.get("id"), int):
        raise GraftaxError(f"{file}: {what} has the id {one.get('id')!r}, which is no whole number.")
    return int(one["id"])
