"""COCO's metric of boxes (Lin et al., 2014, arXiv:1405.0312), as pycocotools takes it.

    map        the mean over classes, and over the overlaps 0.50, 0.55 ... 0.95 that a box must have (IoU), of average precision
    map_50     the same at 0.50 alone; map_75 at 0.75
    ap_CLASS   of one class, over the overlaps

Average precision is of all pictures together: boxes are looked at from the surest on, so it asks how well the scores tell
right ones from wrong ones, and takes no threshold. Of a picture the hundred surest count, as in COCO. Classes of which there is
no box have no part.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..data.box_values import Boxes, Found
from ..errors import GraftaxError

_MOST, _ALL_SIZES = 2, 0  # of pycocotools' axes: the hundred surest of a picture; boxes of all sizes
_AT_50, _AT_75 = 0, 5  # and of its ten overlaps


def expect_pycocotools() -> None:
    """An error where COCO's metric cannot be taken."""
    if find_spec("pycocotools") is None:
        raise GraftaxError("object detection is measured by pycocotools: pip install 'graftax[detect]'.")


def average_precision(labels: Sequence[Boxes], answers: Sequence[Found], names: Sequence[str]) -> dict[str, float]:
    """The metrics by name; 0 where there is no box to be found."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    number = {name: index for index, name in enumerate(names, 1)}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        true, said = COCO(), COCO()
        true.dataset = _dataset(number, [_of_label(label, number) for label in labels])
        said.dataset = _dataset(number, [_of_answer(answer, number) for answer in answers])
        true.createIndex()
        said.createIndex()
        evaluation = COCOeval(true, said, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., _ALL_SIZES, _MOST]  # [overlaps, recalls, classes]; -1 where no box is
    each = {
        f"ap_{name}": _mean(precision[..., index]) for index, name in enumerate(names) if (precision[..., index] > -1).any()
    }
    return {
        "map": _mean(precision),
        "map_50": _mean(precision[_AT_50]),
        "map_75": _mean(precision[_AT_75]),
        **each,
    }


def _mean(precision: np.ndarray) -> float:
    there = precision[precision > -1]
    return float(there.mean()) if there.size else 0.0


def _dataset(number: dict[str, int], each: Sequence[list[dict[str, Any]]]) -> dict[str, Any]:
    every = [one | {"image_id": image} for image, own in enumerate(each) for one in own]
    return {
        "images": [{"id": image} for image in range(len(each))],
        "categories": [{"id": index, "name": name} for name, index in number.items()],
        "annotations": [one | {"id": index} for index, one in enumerate(every, 1)],
    }


def _of_label(label: Boxes, number: dict[str, int]) -> list[dict[str, Any]]:
    each = zip(label.corners, label.names, label.crowd, strict=True)
    return [_box(*corners) | {"category_id": number[name], "iscrowd": int(crowd)} for corners, name, crowd in each]


def _of_answer(answer: Found, number: dict[str, int]) -> list[dict[str, Any]]:
    return [_box(*one["box"].values()) | {"category_id": number[one["label"]], "score": one["score"]} for one in answer]


def _box(x1: float, y1: float, x2: float, y2: float) -> dict[str, Any]:
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
