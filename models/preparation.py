"""What is done to a picture before a backbone sees it, as transformers' image processors do it (the ones on Pillow).

    pixels, 8 bits  ->  resized  ->  the middle cut out  ->  times `scale`  ->  minus `mean`, by `std`  ->  float32

What lies before the arithmetic is done once per picture (`Preparation.pixels`), and leaves 8 bits, a quarter of the memory of
floats. The arithmetic is done whenever a batch is laid: a pixel has 256 values, so that it is a table (`Preparation.levels`),
made once, and every float is the very one that transformers computes.

A mask is resized and cut as its picture is, but of each new pixel the nearest old one is taken, for the mean of two classes is
none. What is answered of prepared pixels is brought back to the picture's own by its `Frame`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..adapters.bilinear import middles, weights_at
from ..data.mask_values import VOID
from ..data.picture_values import MOST_PIXELS
from ..errors import GraftaxError

_NEAREST = 0  # Pillow's number


class Frame(NamedTuple):
    """Where a picture's pixels are in what was prepared of it; of each pair the first is of rows, the second of columns."""

    size: tuple[int, int]  # of the picture
    resized: tuple[int, int]
    begin: tuple[int, int]  # of what was cut out of that; below 0 where there is black around the picture
    prepared: tuple[int, int]  # size of what was cut out

    def to_prepared(self, corners: np.ndarray) -> np.ndarray:
        """Points of the picture `[..., 2]`, x and y in its pixels, in those of what was prepared; it may not hold them."""
        factors, begins = (np.array(pair[::-1], np.float64) for pair in (np.divide(self.resized, self.size), self.begin))
        return np.asarray(corners, np.float64) * factors - begins

    def from_prepared(self, corners: np.ndarray) -> np.ndarray:
        """The other way round; what lies outside of the picture becomes the nearest point of it."""
        factors, begins = (np.array(pair[::-1], np.float64) for pair in (np.divide(self.resized, self.size), self.begin))
        return np.clip((np.asarray(corners, np.float64) + begins) / factors, 0.0, np.array(self.size[::-1], np.float64))

    def from_map(self, positions: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How what is said of a feature map of so many positions is said of each of the picture's pixels, and which it is of.

        With `down [height, h]`, `across [width, w]` and `seen [height, width]` that is down @ map @ across^T where `seen`,
        linear between the positions; pixels that were cut away are not seen.
        """
        weights, seen = [], []
        for size, resized, begin, prepared, count in zip(*self, positions, strict=True):
            places = middles(resized, size) - begin
            seen.append((places >= -0.5) & (places < prepared - 0.5))
            weights.append(weights_at((places + 0.5) * (count / prepared) - 0.5, count))
        return weights[0], weights[1], seen[0][:, None] & seen[1]


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
        return self._placed(pixels, where, self.resample, 0)

    def mask(self, numbers: np.ndarray, where: str) -> np.ndarray:
        """A mask uint8 `[H, W]` prepared as its picture is, uint8 `[*size]`; around the picture it is of no class."""
        return self._placed(numbers[..., None], where, _NEAREST, VOID)[..., 0]

    def frame(self, size: tuple[int, int]) -> Frame:
        """Of a picture of this height and width."""
        resized = self._resized_size(size)
        if not self.crop:
            return Frame(size, resized, (0, 0), resized)
        common = [_common(*sides, self.to_even) for sides in zip(resized, self.size, strict=True)]
        (rows, columns) = (own.start - cut.start for own, cut in common)
        return Frame(size, resized, (rows, columns), self.size)

    def _placed(self, pixels: np.ndarray, where: str, resample: int, around: int) -> np.ndarray:
        """Resized and cut; `around`: what stands around a picture that is smaller."""
        if self.resize is not None:
            pixels = self._resized(pixels, where, resample)
        if self.crop:
            pixels = _middle(pixels, self.size, self.to_even, around)
        if pixels.shape[:2] != self.size:
            wanted = f"this backbone takes {_said(self.size)}, and its config has nothing resized"
            raise GraftaxError(f"{where}: a picture of {_said(pixels.shape)} pixels; {wanted}. Resize it.")
        return pixels

    def _resized_size(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.resize is None:
            return size
        return _in_proportion(size, self.resize) if isinstance(self.resize, int) else self.resize

    def _resized(self, pixels: np.ndarray, where: str, resample: int) -> np.ndarray:
        from PIL import Image

        height, width = self._resized_size((pixels.shape[0], pixels.shape[1]))
        if (height, width) == pixels.shape[:2]:
            return pixels
        if height * width > MOST_PIXELS:
            raise GraftaxError(f"{where}: a picture of {_said(pixels.shape)} pixels is too long to be resized in proportion.")
        image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
        return np.asarray(image.resize((width, height), Image.Resampling(resample))).reshape(height, width, -1)


def _in_proportion(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Height and width of a picture whose shorter side is to be so long."""
    height, width = size
    longer = int(shorter * max(height, width) / min(height, width))
    return (longer, shorter) if width <= height else (shorter, longer)


def _middle(pixels: np.ndarray, size: tuple[int, int], to_even: bool, around: int) -> np.ndarray:
    """The middle of a picture, of this height and width."""
    cut = np.full((*size, pixels.shape[2]), around, pixels.dtype)
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
