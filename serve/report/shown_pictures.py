"""Pictures as they stand in a page: small PNGs, in data URLs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...data.box_values import Corners
from ...data.mask_values import COLOURS, MOST_CLASSES, Mask
from ...data.picture_values import Picture

if TYPE_CHECKING:
    from PIL import Image

_PIXELS = 112  # of a thumbnail, its longer side
_PIXELS_OF_BOXES = 168  # of one in which there are boxes
_GAP = 4  # between two that are beside each other


def thumbnail(picture: Picture) -> str:
    """A picture as a small PNG, in a data URL; a tiny one larger than it is, with its pixels to be seen."""
    from PIL import Image

    image = enlarged(Image.fromarray(np.ascontiguousarray(picture.pixels())), _PIXELS)
    if max(image.size) > _PIXELS:
        image.thumbnail((_PIXELS, _PIXELS))
    return data_url(png_of(image))


def masks_beside(picture: Picture, masks: Sequence[Mask]) -> str:
    """A picture, and beside it again under each of its masks, half in colours; as `thumbnail`."""
    from PIL import Image

    pixels = picture.pixels()
    shown = [pixels, *((pixels // 2 + COLOURS[mask.pixels()] // 2).astype(np.uint8) for mask in masks)]
    row = [enlarged(Image.fromarray(np.ascontiguousarray(one)), _PIXELS) for one in shown]
    for image in row:
        image.thumbnail((_PIXELS, _PIXELS))
    return _side_by_side(row)


def boxes_beside(picture: Picture, each: Sequence[Iterable[tuple[int, Corners]]]) -> str:
    """A picture beside itself, each time with other boxes in it, of classes by their numbers; as `thumbnail`, but larger."""
    from PIL import Image, ImageDraw

    pixels = picture.pixels()
    image = enlarged(Image.fromarray(np.ascontiguousarray(pixels)), _PIXELS_OF_BOXES)
    image.thumbnail((_PIXELS_OF_BOXES, _PIXELS_OF_BOXES))
    times = image.width / pixels.shape[1]
    shown = []
    for boxes in each:
        draw = ImageDraw.Draw(one := image.copy())
        for number, corners in boxes:
            x1, y1, x2, y2 = (side * times for side in corners)
            colour = np.minimum(2 * COLOURS[number % MOST_CLASSES + 1].astype(int), 255).tolist()  # a mask's, but brighter
            draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=tuple(colour), width=2)
        shown.append(one)
    return _side_by_side(shown)


def _side_by_side(row: Sequence[Image.Image]) -> str:
    from PIL import Image

    wide, high = row[0].size
    sheet = Image.new("RGB", (len(row) * (wide + _GAP) - _GAP, high), "white")
    for index, image in enumerate(row):
        sheet.paste(image, (index * (wide + _GAP), 0))
    return data_url(png_of(sheet))


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
