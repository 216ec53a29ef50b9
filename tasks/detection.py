"""Objects in a picture, a box and a class for each: object detection, by a light head over feature maps.

    said [queries, 6 + classes]   what the head says of each of its questions (`adapters/methods/detection_head.py`)
    loss                          of the set of boxes (`set_loss.py`)
    answer                        for each question its likeliest class, how likely, and its box in pixels of the picture itself

A question that finds nothing has little left for any class: what is shown is what is likelier than a threshold, and COCO's
metric, which is of the order of the scores, reads all (`detection_metrics.py`). Boxes are measured as they are given: what a
backbone's preparation cuts away of a picture is not seen, and boxes there are missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jax import Array

from ..adapters.methods.detection_head import ASKED, BOX, LOGITS, DetectionHead
from ..adapters.task_words import words_for
from ..counted import counted
from ..data.box_values import THRESHOLD, Boxes, Found, boxes_of, counterparts
from ..data.class_names import names_beside
from ..data.coco_boxes import OBJECTS
from ..data.columns import Columns, Field, read_fields
from ..data.examples import Examples
from ..data.labels import in_one_spelling, in_order
from ..data.prepared import Prepared
from ..data.sources import Source
from ..errors import GraftaxError
from ..notes import note
from ..shapes import Float, shaped
from .detection_metrics import average_precision, expect_pycocotools
from .main_metrics import main_metric_of
from .outputs import OfObjects
from .set_loss import set_loss
from .task import Answer, Settings, Task, some_of

_ENOUGH = 0.5  # IoU from which on a box counts as found, where answers are looked at one by one


class ImageDetect(Task):
    """Boxes around objects."""

    name = "image-detect"
    about = "image"
    label_field = OBJECTS
    output = OfObjects()
    words = words_for(name)
    main_metric, lower_is_better = main_metric_of(name)
    redrawn = False

    def fields(self, processor: Any) -> tuple[Field, ...]:
        return (*processor.fields, Field(OBJECTS, boxes_of, located=True))

    def read(self, source: Source, columns: Columns, processor: Any, names: Sequence[str] = ()) -> Examples:
        expect_pycocotools()  # before anything is computed
        classes = source.classes.get(columns[OBJECTS], ()) or (() if names else names_beside(source.name))
        field = Field(OBJECTS, partial(boxes_of, names=classes), located=True)
        fields = read_fields(source, columns, (*processor.fields, field))
        boxes: tuple[Boxes, ...] = fields.pop(OBJECTS)
        spelled = in_one_spelling([own.names for own in boxes], names)
        boxes = tuple(own.called(called) for own, called in zip(boxes, spelled, strict=True))
        if names:
            _refuse_unknown(boxes, names)
        return Examples(fields, boxes, source.name, classes)

    def label_names(self, examples: Examples) -> tuple[str, ...]:
        occurring = in_order(name for boxes in examples.labels or () for name in boxes.names)
        if not occurring:
            raise GraftaxError(f"{examples.source}: no row has a box.")
        return examples.names or occurring

    def prepare(
        self, examples: Examples, names: Sequence[str], processor: Any, max_length: int, truncate: bool = False
    ) -> Prepared:
        items = processor.items(examples.fields, max_length)
        labels, lost, cut, crowds = [], 0, 0, 0
        for own, placed in zip(examples.labels or (), processor.boxes(examples.labels, items), strict=True):
            learnt = [index for index, which in enumerate(placed.kept.tolist()) if not own.crowd[which]]
            numbers = np.array([names.index(own.names[placed.kept[index]]) for index in learnt], np.float32)
            labels.append(np.concatenate([numbers[:, None], placed.boxes[learnt]], axis=1))  # [boxes, 5]
            lost, cut, crowds = lost + len(own) - len(placed.kept), cut + placed.cut, crowds + len(placed.kept) - len(learnt)
        if lost or cut:
            edge = f"{counted(cut, 'box', 'boxes')} cut at the edge of what the backbone sees of a picture"
            note(f"{examples.source}: {edge}, {lost} beyond it or too small to be seen, which are not learnt from.")
        if crowds:
            note(f"{examples.source}: {counted(crowds, 'box', 'boxes')} around a crowd, which are not learnt from.")
        return Prepared(examples, items, labels)

    def refuse_small(self, head: Any, prepared: Prepared, name: str) -> None:
        most = head.queries if isinstance(head, DetectionHead) else 0
        for boxes, label in zip(prepared.examples.labels or (), prepared.labels, strict=True):
            if (count := len(label)) > most:
                questions = f"its head has {most} queries (--method detection_head --option queries={count})"
                raise GraftaxError(f"{name}: {boxes.where} has {count} boxes, and {questions}.")

    @shaped
    def loss(
        self,
        said: Float[Array, "items queries said"],
        labels: Any,
        settings: Settings,
        weight: Float[Array, " items"],
    ) -> Float[Array, ""]:
        return set_loss(said, labels, settings.classes, weight)

    def answer(self, said: np.ndarray, names: Sequence[str], item: Any) -> Answer:
        said = said[said[:, ASKED] > 0.5].astype(np.float64)
        logits = said[:, LOGITS:]
        chances = np.exp(logits - logits.max(-1, keepdims=True))
        chances = (chances / chances.sum(-1, keepdims=True))[:, 1:]
        middle, side = np.split(1.0 / (1.0 + np.exp(-said[:, BOX])), 2, axis=-1)
        corners = np.stack([middle - side / 2, middle + side / 2], axis=1) * item.frame.prepared[::-1]
        corners = np.round(item.frame.from_prepared(corners).reshape(-1, 4), 2).tolist()
        best, scores = chances.argmax(-1).tolist(), chances.max(-1).tolist()
        order = np.argsort([-score for score in scores], kind="stable").tolist()
        sides = ("xmin", "ymin", "xmax", "ymax")
        found = Found(
            {"score": scores[i], "label": names[best[i]], "box": dict(zip(sides, corners[i], strict=True))} for i in order
        )
        return Answer(found, [one["score"] for one in found])

    def shown(self, answer: Answer, threshold: float) -> Answer:
        found = answer.label.above(threshold)
        return Answer(found, [one["score"] for one in found])

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        return average_precision(examples.labels or (), [answer.label for answer in answers], names)

    mistaken_by = "the share of its boxes, and of those that were found, that have no counterpart"

    def mistake(self, label: Any, answer: Answer) -> float | None:
        found = answer.label.above(THRESHOLD)
        both = len(label) + len(found)
        return (1.0 - 2.0 * counterparts(label, found, _ENOUGH) / both or None) if both else None


def _refuse_unknown(boxes: Sequence[Boxes], names: Sequence[str]) -> None:
    """An error that names the first row with a class that there is not."""
    for own in boxes:
        if unknown := [name for name in own.names if name not in names]:
            raise GraftaxError(f"{own.where}: a box of {unknown[0]!r}, which is none of {some_of(names)}.")
