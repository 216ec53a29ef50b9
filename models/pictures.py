"""The processor of pictures: files, bytes or arrays to pixels of one size, and these in batches.

Pictures are prepared (`preparation.py`) when items are made of them, several at a time, and kept with 8 bits: 4,000 of CIFAR
are 12 MB, 50,000 at 224 x 224 are 7.5 GB, which lie on disk (`graftax/large.py`). They become floats in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..data.batches import Shape
from ..data.box_values import Boxes
from ..data.columns import Field
from ..data.mask_values import Mask
from ..data.picture_values import Picture, UnreadablePicture, picture_of, without_warnings
from ..data.values import Unreadable
from ..errors import GraftaxError
from ..large import large_array
from .augment import Augment
from .augmented_pictures import augmented
from .inputs import ImageInputs
from .preparation import Frame, Preparation
from .preprocessor_config import preparation_of
from .processor import Augmented, Processor, UnreadableItems

if TYPE_CHECKING:
    from .backbone import Backbone


_LEAST = 0.5  # pixels of a prepared picture: less of a box is nothing


class Pixels:
    """A prepared picture, an item as `data.prepared.Item` has it.

    `array`: uint8 `[H, W, channels]`; `levels`: what each value becomes in a batch, float32 `[256, channels]`; `frame`: where
    the picture's own pixels are in it.
    """

    __slots__ = ("array", "frame", "levels")
    cut = False
    target_length = 0

    def __init__(self, array: np.ndarray, levels: np.ndarray, frame: Frame):
        self.array, self.levels, self.frame = array, levels, frame

    def __len__(self) -> int:
        return 1

    def tobytes(self) -> bytes:
        return self.levels.tobytes() + self.array.tobytes()


class Placed(NamedTuple):
    """The boxes of a prepared picture."""

    boxes: np.ndarray  # float32 [boxes, 4]: cx, cy, width, height as shares of it
    kept: np.ndarray  # int [boxes]: which of the picture's these are; of the others nothing is left
    cut: int  # how many of them have lost a part at the edge


def _placed(boxes: Boxes, frame: Frame) -> Placed:
    whole = frame.to_prepared(np.reshape(boxes.corners, (-1, 2, 2)))
    sides = np.array(frame.prepared[::-1], np.float64)
    left = np.clip(whole, 0.0, sides)
    kept = np.flatnonzero((left[:, 1] - left[:, 0] >= _LEAST).all(-1))
    cut = int((np.abs(left - whole)[kept] > _LEAST).any((1, 2)).sum())
    first, last = (left[kept] / sides).swapaxes(0, 1)
    return Placed(np.concatenate([(first + last) / 2, last - first], axis=-1).astype(np.float32), kept, cut)


class Pictures(Processor):
    """Pictures as the checkpoint of a backbone says that they are prepared."""

    kind = "image"
    augments = True
    fields = (Field("image", picture_of, located=True),)

    def __init__(self, preparation: Preparation):
        self.preparation = preparation

    @classmethod
    def of(cls, backbone: Backbone) -> Pictures:
        return cls(preparation_of(backbone.directory, backbone.hf_config or {}))

    def items(self, fields: Mapping[str, Sequence[Any]], max_length: int) -> list[Pixels]:
        pictures: Sequence[Picture] = fields["image"]
        pixels, sizes = large_array((len(pictures), *self.shape), np.uint8), np.zeros((len(pictures), 2), np.int32)
        with without_warnings(), ThreadPoolExecutor() as pool:  # Pillow works outside of Python's lock
            lines = {index: line for index, line in enumerate(pool.map(self._prepare, pictures, pixels, sizes)) if line}
        if lines:
            raise UnreadableItems(lines)
        frames = [self.preparation.frame((height, width)) for height, width in sizes.tolist()]
        return [Pixels(array, self.preparation.levels, frame) for array, frame in zip(pixels, frames, strict=True)]

    def masks(self, masks: Sequence[Mask], items: Sequence[Pixels]) -> list[np.ndarray]:
        """Of each item's picture the mask, prepared as that is: uint8 `[H, W]`.

        Raises GraftaxError for a mask that cannot be read, or is of another size than its picture.
        """
        prepared = large_array((len(masks), *self.preparation.size), np.uint8)
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(self._prepare_mask, masks, items, prepared):
                pass
        return list(prepared)

    def boxes(self, boxes: Sequence[Boxes], items: Sequence[Pixels]) -> list[Placed]:
        """Of each item's picture the boxes, placed as its pixels are: cut at the edge of what was prepared.

        Raises GraftaxError for boxes that are not of their picture.
        """
        return [_placed(own.within(item.frame.size), item.frame) for own, item in zip(boxes, items, strict=True)]

    def _prepare_mask(self, mask: Mask, item: Pixels, prepared: np.ndarray) -> None:
        numbers = mask.pixels()
        if numbers.shape != item.frame.size:
            (high, wide), (height, width) = numbers.shape, item.frame.size
            raise GraftaxError(f"{mask.where}: a mask of {wide} x {high} pixels for a picture of {width} x {height}.")
        prepared[...] = self.preparation.mask(numbers, mask.where)

    def _prepare(self, picture: Picture, pixels: np.ndarray, size: np.ndarray) -> str | None:
        """Fill in a picture's pixels and size; why not, where it cannot be read. One that does not fit is a GraftaxError."""
        try:
            decoded = picture.pixels()
        except UnreadablePicture as error:
            return str(error)
        pixels[...], size[...] = self.preparation.pixels(decoded, picture.where), decoded.shape[:2]
        return None

    def called(self, fields: Mapping[str, Sequence[Any]]) -> Sequence[str]:
        return [picture.where for picture in fields["image"]]

    def asked(self, row: Any, where: str, adapter: str | None) -> dict[str, Any]:
        """A row that is a picture in any form (`data/picture_values.py`), or a mapping with one as "image"."""
        picture = row["image"] if isinstance(row, Mapping) and "image" in row else row
        try:
            return {"image": picture_of(picture, where, Path())}
        except Unreadable as error:
            raise GraftaxError(f"{where}: {error}.") from None

    def lay(self, items: Sequence[Pixels], places: Sequence[tuple[int, int]], shape: Shape) -> ImageInputs:
        pixels = np.zeros((shape.rows, *self.shape), np.float32)
        for item, (row, _) in zip(items, places, strict=True):
            for channel in range(self.preparation.channels):
                pixels[row, ..., channel] = item.levels[:, channel][item.array[..., channel]]
        return ImageInputs(pixels)

    def augmented(
        self, policy: Augment, inputs: ImageInputs, keys: jax.Array, partners: jax.Array, masks: Any = None
    ) -> Augmented:
        lowest, highest = self.preparation.levels[0], self.preparation.levels[255]
        step = (highest - lowest) / np.float32(255)
        decoded = jnp.round((inputs.pixels - lowest) / step)  # the 8 bits that `lay` made floats of
        mixed = augmented(policy, decoded, keys, partners, masks)
        return Augmented(ImageInputs(mixed.pixels * step + lowest), mixed.share, mixed.masks)

    def random_inputs(self, count: int) -> ImageInputs:
        arrays = np.random.default_rng(0).integers(0, 256, (count, *self.shape), np.uint8)
        frame = self.preparation.frame(self.preparation.size)
        items = [Pixels(array, self.preparation.levels, frame) for array in arrays]
        return self.lay(items, [(row, 0) for row in range(count)], Shape(count, count, shared=False))

    def with_hidden(self, hidden: Any, inputs: ImageInputs | None) -> ImageInputs:
        return ImageInputs(None, hidden)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a prepared picture: height, width, channels."""
        return (*self.preparation.size, self.preparation.channels)
