"""What is done to a picture before a backbone sees it, as transformers' image processors do it (the ones on Pillow).

    pixels, 8 bits  ->  resized  ->  the middle cut out  ->  times `scale`  ->  minus `mean`, by `std`  ->  float32

What lies before the arithmetic is done once per picture (`Preparation.pixels`), and leaves 8 bits, a quarter of the memory of
floats. The arithmetic is done whenever a batch is laid: a pixel has 256 values, so that it is a table (`Preparation.levels`),
made once, and every float is the very one that transformers computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..data.picture_values import MOST_PIXELS
from ..errors import GraftaxError


@dataclass(frozen=True)
class Preparation:
    """What is done, in this order; what is None is not done."""

    size: tuple[int, int]  # height and width of every picture that is prepared
    channels: int = 3  # 3: RGB; 1: greys
    resize: tuple[int, int] | int | None = None  # to this height and width; or the shorter side to this, in proportion
    resample: int = 2  # by which filter; Pillow's number (2: bilinear)
    crop: bool = False  # whether `size` is cut out of the middle, black around what is smaller
    scale: float | None = None
    mean: tuple[float, ...] | None = None  # of each channel
    std: tuple[float, ...] | None = None
    to_even: bool = False  # where halves of a pixel go as the middle is found: to even numbers, else down
    shift: float = 0.0  # added to what is scaled
    divided: tuple[float, ...] | None = None  # by what each channel is divided last

    @cached_property
    def levels(self) -> np.ndarray:
        """What each value of a pixel becomes: float32 `[256, channels]`."""
        values: np.ndarray = np.arange(256, dtype=np.float32)
        if self.scale is not None:
            values = (np.arange(256, dtype=np.float64) * self.scale).astype(np.float32) + np.float32(self.shift)
        table = np.tile(values[:, None], self.channels)
        if self.mean is not None and self.std is not None:
            table = (table - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        if self.divided is not None:
            table = table / np.asarray(self.divided, np.float32)
        return table

    def pixels(self, pixels: np.ndarray, where: str) -> np.ndarray:
        """Pixels uint8 `[H, W, 3]` of any size as those of `size`, uint8 `[*size, channels]`.

        Raises GraftaxError, which begins with `where`, for a picture of another size where none is resized, and for one in
        colour where greys are wanted.
        """
        if self.channels == 1:
            if (pixels != pixels[..., :1]).any():
                raise GraftaxError(f"{where}: a picture in colour, and this backbone takes greys, of one channel.")
            pixels = pixels[..., :1]
        if self.resize is not None:
            pixels = self._resized(pixels, where)
        if self.crop:
            pixels = _middle(pixels, self.size, self.to_even)
        if pixels.shape[:2] != self.size:
            wanted = f"this backbone takes {_said(self.size)}, and its config has nothing resized"
            raise GraftaxError(f"{where}: a picture of {_said(pixels.shape)} pixels; {wanted}. Resize it.")
        return pixels

    def _resized(self, pixels: np.ndarray, where: str) -> np.ndarray:
        from PIL import Image

        height, width = _in_proportion(pixels.shape, self.resize) if isinstance(self.resize, int) else self.resize or (0, 0)
        if (height, width) == pixels.shape[:2]:
            return pixels
        if height * width > MOST_PIXELS:
            raise GraftaxError(f"{where}: a picture of {_said(pixels.shape)} pixels is too long to be resized in proportion.")
        image = Image.fromarray(pixels if self.channels == 3 else pixels[..., 0])
        return np.asarray(image.resize((width, height), Image.Resampling(self.resample))).reshape(height, width, -1)


def _in_proportion(shape: tuple[int, ...], shorter: int) -> tuple[int, int]:
    """Height and width of a picture whose shorter side is to be so long."""
    height, width = shape[:2]
    longer = int(shorter * max(height, width) / min(height, width))
    return (longer, shorter) if width <= height else (shorter, longer)


def _middle(pixels: np.ndarray, size: tuple[int, int], to_even: bool) -> np.ndarray:
    """The middle of a picture, of this height and width."""
    cut = np.zeros((*size, pixels.shape[2]), pixels.dtype)
    sides = zip(pixels.shape[:2], size, strict=True)
    (from_rows, to_rows), (from_columns, to_columns) = (_common(own, wanted, to_even) for own, wanted in sides)
    cut[to_rows, to_columns] = pixels[from_rows, from_columns]
    return cut


def _common(own: int, wanted: int, to_even: bool) -> tuple[slice, slice]:
    """Where what a side of length `own` and one of `wanted` have in common lies in each, middle on middle."""
    begin, length = round((own - wanted) / 2) if to_even else (own - wanted) // 2, min(own, wanted)
    return slice(max(begin, 0), max(begin, 0) + length), slice(max(-begin, 0), max(-begin, 0) + length)


def _said(shape: tuple[int, ...]) -> str:
    """As one says a picture's size, the width first."""
    return f"{shape[1]} x {shape[0]}"
