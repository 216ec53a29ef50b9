"""Pictures: what a value in a row may be one, and its pixels.

Such a value is a path, the bytes of a file, what `datasets` keeps of an `Image` (`{"bytes": ..., "path": ...}`), a Pillow
image, an array of pixels, uint8 `[H, W]` or `[H, W, 1 or 3 or 4]`, or lies in a larger file (`Stored`). Listing the rows only
notes which it is (`picture_of`): a thousand photographs are gigabytes of pixels, decoded when something is made of them, one
after another (`Picture.pixels`).

Pixels are 8-bit RGB, made as transformers' image processors make them: the picture stands upright (EXIF says how it was held),
what is transparent lies on white, greys and palettes become colours. Of 16 bits the upper 8 are taken. Whatever is wrong with
a picture is one line that names it: data is often collected by machines, and one of thousands is half a download.
"""

from __future__ import annotations

import hashlib
import io
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GraftaxError
from ..json_files import read_bytes
from ..paths import expect_file
from .values import Unreadable, described

if TYPE_CHECKING:
    from PIL import Image

#: Pillow's names of the formats that are read. It knows more; some of these run other programs (EPS), or are no pictures.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
#: How names of such files end.
SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif"),
    ]
)
#: What may lie under such a name instead, by what stands in its first bytes, in small letters.
_OTHERS = {
    b"%pdf-": "a PDF, and no picture",
    b"<svg": "an SVG, which has lines and no pixels",
    b"<html": "a web page, and no picture",
    b"<!doctype html": "a web page, and no picture",
    b"ftyphei": "a HEIC, which Pillow does not read",
    b"ftypmif1": "a HEIF, which Pillow does not read",
}
_BEGINNING = 1024
_FILTERS = threading.Lock()  # those of warnings are the whole process's
_MOST_BYTES = 1 << 28  # of a file
MOST_PIXELS = 1 << 26  # of a picture: 200 MB as RGB; a small file can claim to hold far more
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")  # Pillow's names of greys with so many
_CHANNELS = (1, 3, 4)  # of an array's last axis: grey, RGB, RGB with how opaque it is


class UnreadablePicture(GraftaxError):
    """A picture that cannot be had, or decoded."""


@dataclass(frozen=True)
class Stored:
    """A file within a larger one: where its bytes lie."""

    path: Path
    begin: int
    size: int

    def read(self) -> bytes:
        """Its bytes; GraftaxError where these are not there."""
        if self.size > _MOST_BYTES:
            raise GraftaxError(f"{self.path}: {self.size:,} bytes are too many for a picture.")
        try:
            with self.path.open("rb") as file:
                file.seek(self.begin)
                data = file.read(self.size)
        except OSError as error:
            raise GraftaxError(f"{self.path}: cannot be read ({error.strerror}).") from error
        if len(data) < self.size:
            raise GraftaxError(f"{self.path}: it ends in the middle of a picture.")
        return data


@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """A picture that is not decoded yet."""

    content: Path | Stored | bytes | np.ndarray | Image.Image
    where: str = "a picture"  # what errors call it: its row, and its file where it has one

    @cached_property
    def identity(self) -> str:
        """The same for two pictures of the same bytes, wherever they lie, or pixels; of what cannot be read its path."""
        if not isinstance(self.content, Path | Stored | bytes):
            pixels = self.pixels()
            return f"sha256 {hashlib.sha256(pixels.tobytes()).hexdigest()} of {pixels.shape}"
        try:
            return f"sha256 {hashlib.sha256(self._bytes()).hexdigest()}"
        except GraftaxError:
            return str(self.content)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.identity})"

    def pixels(self) -> np.ndarray:
        """uint8 `[H, W, 3]`, RGB. Raises UnreadablePicture, which names it, where it is none that can be read."""
        return self._made(_rgb_of_array, _rgb_of)

    def _made(self, of_array: Callable[[np.ndarray], np.ndarray], of_image: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
        """What is made of its array, or of Pillow's image of it; whatever goes wrong names it."""
        with _refusals(self.where):
            if isinstance(self.content, np.ndarray):
                return of_array(self.content)
            if isinstance(self.content, Path | Stored | bytes):
                return _decoded(self._bytes(), of_image)
            return of_image(self.content)

    @staticmethod
    def expect(array: np.ndarray) -> None:
        """Raises Unreadable, which says what is wanted, for an array that is no picture."""
        _expect_pixels(array)

    def _bytes(self) -> bytes:
        """Of its file; GraftaxError where these cannot be had."""
        if isinstance(self.content, Path):
            expect_file(self.content, f"{self.where}: no such file.")
            return read_bytes(self.content, _MOST_BYTES)
        assert isinstance(self.content, Stored | bytes)
        return self.content.read() if isinstance(self.content, Stored) else self.content


def picture_of(value: Any, where: str, folder: Path, kind: type[Picture] = Picture) -> Picture:
    """The picture that a value stands for; nothing is opened yet.

    Args:
        where: the row, for errors.
        folder: what relative paths are relative to.
        kind: what it is made into.

    Raises:
        Unreadable: the value is no picture, nor says where one is.
    """
    if isinstance(value, kind):
        return value
    if isinstance(value, Mapping) and value.keys() == {"bytes", "path"}:
        value = value["path"] if value["bytes"] is None else value["bytes"]
    if isinstance(value, str | Path) and str(value).strip():
        path = folder / value
        return kind(path, f"{where}: {path}")
    if isinstance(value, bytes | bytearray | memoryview):
        return kind(bytes(value), where)
    if isinstance(value, np.ndarray):
        kind.expect(value)
        return kind(value, where)
    if "PIL.Image" in sys.modules and isinstance(value, sys.modules["PIL.Image"].Image):
        return kind(value, where)
    raise Unreadable(f"{described(value)} is no picture: give a path, bytes, a Pillow image or an array of pixels")


def _expect_pixels(array: np.ndarray) -> None:
    if array.dtype != np.uint8:
        whole = np.issubdtype(array.dtype, np.integer)
        made = "of such numbers: x.astype('uint8')" if whole else "of numbers from 0 to 1: (255 * x).round().astype('uint8')"
        raise Unreadable(f"an array of {array.dtype} is no picture: pixels are uint8, from 0 to 255 ({made})")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _CHANNELS):
        first = array.ndim == 3 and array.shape[0] in _CHANNELS
        turned = " (here these seem to come first: x.transpose(1, 2, 0))" if first else ""
        raise Unreadable(
            f"an array {list(array.shape)} is no picture: its axes are height, width and 1, 3 or 4 channels{turned}"
        )
    if 0 in array.shape:
        raise Unreadable(f"an array {list(array.shape)} has no pixels")


def _rgb_of_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3 and array.shape[2] == 3:
        return array
    if array.ndim == 3 and array.shape[2] == 4:
        from PIL import Image

        return _rgb_of(Image.fromarray(np.ascontiguousarray(array)))
    return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)


def _decoded(data: bytes, of_image: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise Unreadable("empty; there is not one byte")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return of_image(image)
    except UnidentifiedImageError:
        raise Unreadable(_otherwise(data)) from None


def _otherwise(data: bytes) -> str:
    """What a file is that no picture begins like, in words; its name may end as that of one all the same."""
    beginning = data[:_BEGINNING].lower()
    kind = next((kind for sign, kind in _OTHERS.items() if sign in beginning), "no picture, or one that is damaged")
    return f"{kind}; read are {', '.join(_FORMATS)}"


def _rgb_of(image: Image.Image) -> np.ndarray:
    from PIL import Image, ImageOps

    refuse_several_or_huge(image)
    sixteen_bits = image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PPM")
    if image.mode in ("I", "F") and not sixteen_bits:
        raise Unreadable("its pixels have 32 bits; save it with 8")
    image = ImageOps.exif_transpose(image)
    if sixteen_bits:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # Pillow itself would make 255 of all above
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def refuse_several_or_huge(image: Image.Image) -> None:
    """Raises Unreadable for an image of too many pixels, or of several pages."""
    if image.width * image.height > MOST_PIXELS:
        raise Unreadable(f"{image.width:,} x {image.height:,} pixels, and at most {MOST_PIXELS:,} are read")
    if getattr(image, "is_animated", False) and image.format != "MPO":  # of which a camera's first is the photograph
        raise Unreadable("an animation, or several pages; save one of its pictures")


@contextmanager
def _refusals(where: str) -> Iterator[None]:
    """What Pillow raises of pictures, in a line each.

    Its readers raise whatever comes up where a file is damaged (OSError, SyntaxError, struct.error, KeyError, ...), hence
    `Exception`.
    """
    from PIL import Image

    try:
        yield
    except GraftaxError as error:
        raise UnreadablePicture(str(error)) from error
    except Unreadable as error:
        raise UnreadablePicture(f"{where}: {error}.") from None
    except Image.DecompressionBombError:
        raise UnreadablePicture(f"{where}: it claims more pixels than the {MOST_PIXELS:,} that are read.") from None
    except Exception as error:
        raise UnreadablePicture(f"{where}: a damaged picture ({str(error) or type(error).__name__}).") from error


@contextmanager
def without_warnings() -> Iterator[None]:
    """A block without Pillow's warnings: of oddities in files that it reads all the same, of sizes that are refused here."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
