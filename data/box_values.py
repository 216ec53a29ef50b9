"""Boxes: where objects are in a picture, and what each of them is.

In a row they stand as `datasets` has them, a list of boxes beside one of what is in each, or as an object for each box:

    {"bbox": [[12.0, 30.5, 40.0, 20.0]], "category": ["cat"]}        {"bbox": ..., "categories": [0], "iscrowd": [0]}
    [{"bbox": [12.0, 30.5, 40.0, 20.0], "category": "cat"}]

A box is x, y, width, height in pixels of the picture as it is shown, upright, from its upper left corner, as COCO has it (Lin
et al., 2014, arXiv:1405.0312). A row without objects has empty lists. What COCO calls a crowd, a box around many of a kind, is
not learnt from; in measuring it is passed on, and whatever is found in it is neither right nor wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import GraftaxError
from .values import Unreadable, class_of, described, number_of, plain

CATEGORIES = ("category", "categories", "category_id", "label")  # what the key is called that says what is in a box
_WANTED = 'give {"bbox": [[x, y, width, height], ...], "category": [...]}'
_BEYOND = 1.0  # pixels by which a box may reach beyond its picture: such are rounded, and cut at the edge
THRESHOLD = 0.5  # what is found is shown where it is at least so sure, unless another is asked for
NOTHING = -1  # number of a class: there is no box here

Corners = tuple[float, float, float, float]  # x and y of the upper left corner, of the lower right one


class LaidBoxes(NamedTuple):
    """The boxes of a batch's items as arrays, those of an item first and behind them what fills the room up.

    A box is cx, cy, width, height as shares of the prepared picture.
    """

    numbers: Any  # int32 [items, most] of classes; NOTHING where there is no box
    boxes: Any  # float32 [items, most, 4]


@dataclass(frozen=True)
class Boxes:
    """The boxes of one picture."""

    corners: tuple[Corners, ...]
    names: tuple[str, ...]  # of what is in each
    crowd: tuple[bool, ...]  # whether it is around many
    size: tuple[int, int] | None = None  # height and width of the picture, where the row says them
    where: str = field(default="boxes", compare=False, repr=False)  # what errors call it: its row

    def __len__(self) -> int:
        return len(self.corners)

    def called(self, names: tuple[str, ...]) -> Boxes:
        """The same with other names of what is in them."""
        return replace(self, names=names)

    def within(self, size: tuple[int, int]) -> Boxes:
        """The boxes cut at the edges of a picture of this height and width; GraftaxError for one that is not in it."""
        (height, width), found = size, list[Corners]()
        if self.size not in (None, size):
            high, wide = self.size or size
            turned = "; it is turned as its camera says, and boxes must be those of the upright picture"
            differs = f"boxes for a picture of {wide} x {high} pixels, and it has {width} x {height}"
            raise GraftaxError(f"{self.where}: {differs}{turned if self.size == (width, height) else ''}.")
        for box in self.corners:
            x1, y1, x2, y2 = box
            beyond = max(-x1, -y1, x2 - width, y2 - height)
            if beyond > _BEYOND or min(x2, y2) <= 0 or x1 >= width or y1 >= height:
                picture = f"the picture of {width} x {height} pixels"
                raise GraftaxError(f"{self.where}: the box {said(box)} reaches out of {picture}.")
            found.append((max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)))
        return replace(self, corners=tuple(found))


class Found(tuple[dict[str, Any], ...]):
    """What was found in a picture, the surest first, in the words of Hugging Face's pipeline.

    {"score": 0.93, "label": "cat", "box": {"xmin": 12.0, "ymin": 30.5, "xmax": 52.0, "ymax": 50.5}}
    """

    def above(self, threshold: float) -> Found:
        """What it is at least so sure of."""
        return Found(one for one in self if one["score"] >= threshold)


def counterparts(boxes: Boxes, found: Found, least: float) -> int:
    """How many boxes were found: each by one of its name that overlaps it by `least` of both (IoU), the surest first."""
    left, count = [*range(len(boxes))], 0
    for one in found:
        box = tuple(one["box"].values())
        own = [(overlap(box, boxes.corners[i]), i) for i in left if boxes.names[i] == one["label"]]
        much, nearest = max(own, default=(0.0, -1))
        if much >= least:
            left.remove(nearest)
            count += 1
    return count


def overlap(a: Corners, b: Corners) -> float:
    """What two boxes share, of what they are together."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)) - shared
    return shared / both if both else 0.0


def boxes_of(value: Any, where: str, folder: Path, names: Sequence[str] = ()) -> Boxes:
    """The boxes that a value in a row stands for; raises Unreadable. `names`: of numbered classes, where there are any."""
    value, size = plain(value), None
    if isinstance(value, Mapping):
        high, wide = value.get("size") or (0, 0)
        value, size = _each_of(value), (high, wide) if high and wide else None
    if not isinstance(value, list | tuple):
        raise Unreadable(f"{described(value)} says no boxes: {_WANTED}")
    corners, called, crowd = list[Corners](), list[str](), list[bool]()
    for number, one in enumerate(value, 1):
        try:
            if not isinstance(one, Mapping):
                raise Unreadable(f"{described(one)} is no object with a box and its category")
            corners.append(_corners_of(plain(one.get("bbox"))))
            called.append(class_of(_category_of(one), names))
        except Unreadable as error:
            raise Unreadable(f"box {number}: {error}") from None
        crowd.append(bool(one.get("iscrowd")))
    return Boxes(tuple(corners), tuple(called), tuple(crowd), size, where)


def _each_of(lists: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An object for each box, of lists beside each other."""
    if "bbox" not in lists:
        raise Unreadable(f"an object with {', '.join(map(str, lists)) or 'nothing'} says no boxes: {_WANTED}")
    columns = {key: plain(own) for key, own in lists.items() if key in ("bbox", "iscrowd", *CATEGORIES) and own is not None}
    counts = {key: len(own) if isinstance(own, list | tuple) else -1 for key, own in columns.items()}
    if len({*counts.values()}) > 1 or -1 in counts.values():
        raise Unreadable(
            f"{', '.join(f'{count} {key}' for key, count in counts.items())}: there must be one of each for every box"
        )
    return [{key: own[index] for key, own in columns.items()} for index in range(counts["bbox"])]


def _category_of(one: Mapping[str, Any]) -> Any:
    found = [one[key] for key in CATEGORIES if one.get(key) is not None]
    if len(found) != 1:
        raise Unreadable(f"{'no' if not found else 'more than one'} category of it (as {', '.join(CATEGORIES)})")
    return found[0]


def _corners_of(bbox: Any) -> Corners:
    if not isinstance(bbox, list | tuple) or len(bbox) != 4:
        raise Unreadable(f"{described(bbox)} is no box: it is x, y, width and height")
    if any(isinstance(one, float) and not math.isfinite(one) for one in bbox):
        raise Unreadable(f"{bbox} is no box: its numbers must be finite")
    x, y, width, height = (number_of(one) for one in bbox)
    if width <= 0 or height <= 0:
        raise Unreadable(f"it is {width:g} wide and {height:g} high")
    return x, y, x + width, y + height


def said(box: Corners) -> str:
    """A box for a message, as rows say it."""
    x1, y1, x2, y2 = box
    return f"[{x1:g}, {y1:g}, {x2 - x1:g}, {y2 - y1:g}]"
