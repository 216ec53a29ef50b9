"""What is attributed to a picture's pixels as colours over it: orange speaks for the answer, blue against it.

The picture under them is grey and pale, so that their strength can be seen: it grows with the value, up to the scale's end.
What was found of one picture with and without an adapter is drawn on one scale, and so can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..report.shown_pictures import enlarged, png_of

if TYPE_CHECKING:
    from PIL import Image

_FOR, _AGAINST = np.array([217, 95, 2], np.float32), np.array([31, 96, 180], np.float32)
_STRONGEST = 0.85  # how much of a pixel is colour at the scale's end
_PIXELS = 320  # of a picture's longer side, up to which small ones are enlarged
_SMOOTH = 1 / 56  # of the shorter side: over how far single pixels are smoothed
_OUTERMOST = 99.5  # percentile beyond which a value has no more colour


def strongest(every: Sequence[np.ndarray], signed: bool) -> tuple[float, float]:
    """The values between which colours run, from none to the strongest, of what is drawn on one scale."""
    joined = np.concatenate([(smooth(values) if values.ndim == 2 else values).ravel() for values in every])
    if signed:
        return 0.0, float(np.percentile(np.abs(joined), _OUTERMOST))
    return float(joined.min()), float(joined.max())


def smooth(values: np.ndarray) -> np.ndarray:
    """What is attributed to pixels, each with its neighbours: a derivative is rough from one to the next."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values.astype(np.float64), _SMOOTH * min(values.shape)))


def strengths(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """From -1, all blue, to 1, all orange."""
    if high <= low:
        return np.zeros(values.shape)
    return np.clip(np.sign(values) * np.maximum(np.abs(values) - low, 0) / (high - low), -1, 1)


def laid_over(picture: np.ndarray, values: np.ndarray, low: float, high: float) -> bytes:
    """A PNG of a picture `[height, width, 1 or 3]`, uint8, under the colours of values `[height, width]`."""
    strong = strengths(smooth(values), low, high)[..., None]
    grey = picture.astype(np.float32).mean(-1, keepdims=True)
    pale = np.broadcast_to(70 + grey * (185 / 255), (*grey.shape[:2], 3))
    share = np.abs(strong) * _STRONGEST
    mixed = pale * (1 - share) + np.where(strong > 0, _FOR, _AGAINST) * share
    return png_of(_image(mixed))


def plain(picture: np.ndarray) -> bytes:
    """A PNG of the picture as the network is given it."""
    return png_of(_image(np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture))


def _image(pixels: np.ndarray) -> Image.Image:
    from PIL import Image

    return enlarged(Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8)), _PIXELS)
