"""Pictures as they stand in a page: small PNGs, in data URLs."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from ...data.picture_values import Picture

if TYPE_CHECKING:
    from PIL import Image

_PIXELS = 112  # of a thumbnail, its longer side


def thumbnail(picture: Picture) -> str:
    """A picture as a small PNG, in a data URL; a tiny one larger than it is, with its pixels to be seen."""
    from PIL import Image

    image = enlarged(Image.fromarray(np.ascontiguousarray(picture.pixels())), _PIXELS)
    if max(image.size) > _PIXELS:
        image.thumbnail((_PIXELS, _PIXELS))
    return data_url(png_of(image))


def enlarged(image: Image.Image, pixels: int) -> Image.Image:
    """As many times its size as fit into so many pixels; as it is where it is larger."""
    from PIL import Image

    times = max(1, pixels // max(image.size))
    return image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)


def png_of(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
