"""Masks: pictures whose pixels are numbers of classes, one for each pixel of the picture beside it.

A mask is a file of one channel of 8 bits, or with a palette (the numbers are those of its colours), or an array of whole
numbers `[H, W]`. 255 (`VOID`) stands for a pixel that is of no class: it is neither learnt from nor measured. Colours in three
channels say no numbers, and a JPEG changes them; both are refused.

Masks are written with a palette, so that they can be looked at and are read as they were.
"""

from __future__ import annotations

import io
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .picture_values import Picture, picture_of, refuse_several_or_huge
from .values import Unreadable

if TYPE_CHECKING:
    from PIL import Image

VOID = 255  # of no class
MOST_CLASSES = VOID  # which have the numbers below it
_FORMATS = ("PNG", "BMP", "TIFF", None)  # that keep every number; None: an image that was never a file
_MODES = ("L", "P", "1")  # Pillow's names of one channel of 8 bits, with a palette, or of one bit


class Mask(Picture):
    """A mask that is not decoded yet. Two are equal where their numbers are."""

    def pixels(self) -> np.ndarray:
        """uint8 `[H, W]`. Raises UnreadablePicture, which names it, where it is none that can be read."""
        return self._made(_numbers_of_array, _numbers_of)

    @staticmethod
    def expect(array: np.ndarray) -> None:
        if array.dtype.kind not in "biu":
            raise Unreadable(f"an array of {array.dtype} is no mask: the classes of its pixels are whole numbers")
        if array.ndim != 2 or 0 in array.shape:
            raise Unreadable(f"an array {list(array.shape)} is no mask: its axes are height and width")
        if array.min() < 0 or array.max() > VOID:
            found = f"a mask with numbers from {array.min()} to {array.max()}"
            raise Unreadable(f"{found}: classes are 0 to {VOID - 1}, and {VOID} stands for none")

    @cached_property
    def occurring(self) -> frozenset[int]:
        """The numbers of the classes in it."""
        return frozenset(np.unique(self.pixels()).tolist()) - {VOID}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and np.array_equal(self.pixels(), other.pixels())

    def __hash__(self) -> int:
        return hash(self.pixels().tobytes())

    def image(self) -> Image.Image:
        """In colours by a palette, whose numbers are the classes'."""
        from PIL import Image

        image = Image.fromarray(self.pixels())
        image.putpalette(COLOURS.tobytes())
        return image

    def png(self) -> bytes:
        """That image as a file."""
        file = io.BytesIO()
        self.image().save(file, "PNG", optimize=True)
        return file.getvalue()


def mask_of(value: Any, where: str, folder: Path) -> Mask:
    """The mask that a value stands for; arguments and errors are those of `picture_of`."""
    found = picture_of(value, where, folder, Mask)
    assert isinstance(found, Mask)
    return found


def _numbers_of_array(array: np.ndarray) -> np.ndarray:
    return array.astype(np.uint8)


def _numbers_of(image: Image.Image) -> np.ndarray:
    refuse_several_or_huge(image)
    if image.format not in _FORMATS:
        raise Unreadable(f"a mask as {image.format}, which may change numbers of classes; save masks as PNG")
    if image.mode not in _MODES:
        wanted = "one channel of 8 bits, in it the number of each pixel's class"
        raise Unreadable(f"a mask whose pixels are {image.mode} says no numbers of classes; save {wanted}")
    return np.asarray(image).astype(np.uint8)


def _colours() -> np.ndarray:
    """PASCAL VOC's: bit k of a colour's red, green and blue are bits of its number, the lowest three first."""
    numbers = np.arange(256)
    found = np.zeros((256, 3), np.int64)
    for place in range(8):
        for channel in range(3):
            found[:, channel] |= ((numbers >> (3 * place + channel)) & 1) << (7 - place)
    return found.astype(np.uint8)


#: Of each class, uint8 `[256, 3]`; that of 0 is black, and that of `VOID` nearly white.
COLOURS = _colours()
