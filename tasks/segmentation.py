"""A class for every pixel of a picture: semantic segmentation, by a light head over feature maps.

    logits [h, w, classes]      what the head makes of the feature maps' positions (`adapters/methods/head.py`)
    loss                        softmax cross-entropy of every labelled pixel, of logits resized to the mask's size
    answer                      the likeliest class of every pixel of the picture itself, of logits resized to its size

as DINOv2 (Oquab et al., 2023, arXiv:2304.07193) and SegFormer (Xie et al., 2021, arXiv:2105.15203) do it. Pixels of class 255
(`VOID`) are neither learnt from nor measured. What a backbone's preparation cuts away of a picture is answered by `VOID`, for
nothing was seen there, and metrics are of what was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..adapters.bilinear import resized
from ..adapters.task_words import words_for
from ..data.class_names import names_beside
from ..data.columns import Columns, Field, read_fields
from ..data.examples import Examples
from ..data.mask_values import MOST_CLASSES, VOID, Mask, mask_of
from ..data.prepared import Prepared
from ..data.sources import Source
from ..errors import GraftaxError
from ..notes import note
from ..shapes import AnyArray, Float, UInt, shaped
from .labelled import without_surplus
from .main_metrics import main_metric_of
from .outputs import OfPixel
from .segmentation_metrics import confusions, counts, of_counts
from .task import Answer, Settings, Tallies, Task, mean_of, some_of

_MASK = Field("mask", mask_of, located=True)


class ImageSegment(Task):
    """A class for every pixel."""

    name = "image-segment"
    about = "image"
    label_field = _MASK.name
    output = OfPixel()
    words = words_for(name)
    main_metric, lower_is_better = main_metric_of(name)

    def fields(self, processor: Any) -> tuple[Field, ...]:
        return (*processor.fields, _MASK)

    def read(self, source: Source, columns: Columns, processor: Any, names: Sequence[str] = ()) -> Examples:
        fields = read_fields(source, columns, self.fields(processor))
        masks: tuple[Mask, ...] = fields.pop(_MASK.name)
        classes = source.classes.get(columns[_MASK.name], ())
        if not names and not classes:
            classes = names_beside(source.name)
        if names:
            _refuse_beyond(masks, names)
        return Examples(fields, masks, source.name, classes)

    def label_names(self, examples: Examples) -> tuple[str, ...]:
        occurring = frozenset[int]().union(*_occurring(examples.labels or ()))
        if len(occurring) < 2:
            only, hint = next(iter(occurring)), f"{VOID} stands for no class; where it was meant as one, write another number"
            raise GraftaxError(f"{examples.source}: every labelled pixel is of class {only}, of at least two ({hint}).")
        names = examples.names or tuple(f"LABEL_{number}" for number in range(max(occurring) + 1))
        if len(names) > MOST_CLASSES:
            raise GraftaxError(f"{examples.source}: {len(names)} classes; masks of 8 bits have numbers for {MOST_CLASSES}.")
        _refuse_beyond(examples.labels or (), names)
        if not examples.names and 2 * len(occurring) < len(names):
            several = f"{len(occurring)} classes, with numbers up to {max(occurring)}"
            note(f"{examples.source}: its masks have {several}; are these numbers of classes, and not, say, shades of grey?")
        return names

    def prepare(
        self, examples: Examples, names: Sequence[str], processor: Any, max_length: int, truncate: bool = False
    ) -> Prepared:
        items = processor.items(examples.fields, max_length)
        return Prepared(examples, items, processor.masks(examples.labels, items))

    @shaped
    def loss(
        self,
        logits: Float[Array, "items high wide room"],
        labels: UInt[AnyArray, "items height width"],
        settings: Settings,
        weight: Float[Array, " items"],
    ) -> Float[Array, ""]:
        of_pixels = without_surplus(resized(logits, labels.shape[1:]), settings.classes)
        counted = (labels != VOID) & (weight > 0)[:, None, None]
        number = jnp.where(counted, labels, 0).astype(jnp.int32)
        each = -jnp.take_along_axis(jax.nn.log_softmax(of_pixels), number[..., None], axis=-1)[..., 0]
        return mean_of(each, counted.astype(each.dtype))

    def answer(self, logits: np.ndarray, names: Sequence[str], item: Any) -> Answer:
        down, across, seen = item.frame.from_map(logits.shape[:2])
        best, numbers = np.full(seen.shape, -np.inf, np.float32), np.zeros(seen.shape, np.uint8)
        for number in range(len(names)):  # one by one, for a photograph's logits of all classes would be gigabytes
            of_class = down @ logits[..., number] @ across.T
            better = of_class > best
            best[better], numbers[better] = of_class[better], number
        shares = np.bincount(numbers[seen], minlength=len(names)) / seen.sum()
        numbers[~seen] = VOID
        there = {names[number]: float(shares[number]) for number in np.argsort(-shares).tolist() if shares[number]}
        return Answer(Mask(numbers), there)

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        found = self.tallies(examples.labels or (), answers, names)
        return found.metrics(found.each.sum(0))

    def tallies(self, labels: Sequence[Any], answers: Sequence[Answer], names: Sequence[str]) -> Tallies:
        """Tables `[classes, classes + 1]` of each (`segmentation_metrics.counts`)."""
        pairs = zip(labels, answers, strict=True)
        each = np.stack([counts(label, answer.label, len(names)) for label, answer in pairs])
        return Tallies(each, partial(of_counts, names=names), partial(confusions, names=names))

    mistaken_by = "the share of its pixels that are of another class"

    def mistake(self, label: Any, answer: Answer) -> float | None:
        wanted, said = label.pixels(), answer.label.pixels()
        counted = (wanted != VOID) & (said != VOID)
        return float((wanted != said)[counted].mean()) or None if counted.any() else None


def _occurring(masks: Sequence[Mask]) -> list[frozenset[int]]:
    """The classes in each mask; an error that names one that has none."""
    with ThreadPoolExecutor() as pool:  # Pillow works outside of Python's lock
        found = list(pool.map(lambda mask: mask.occurring, masks))
    for mask, numbers in zip(masks, found, strict=True):
        if not numbers:
            raise GraftaxError(f"{mask.where}: every pixel of the mask is {VOID}, of no class.")
    return found


def _refuse_beyond(masks: Sequence[Mask], names: Sequence[str]) -> None:
    """An error that names the first mask with a class that there is not."""
    for mask, numbers in zip(masks, _occurring(masks), strict=True):
        if max(numbers) >= len(names):
            known = f"there are {len(names)}, 0 to {len(names) - 1} ({some_of(names)})"
            raise GraftaxError(f"{mask.where}: the mask has class {max(numbers)}, and {known}.")
