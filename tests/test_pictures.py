"""Pictures: what a value may be, pixels against Pillow's and transformers', and whatever may be wrong with a file."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from refusals import refused
from transformers.image_transforms import convert_to_rgb

from graftax.data.picture_values import Picture, Stored, picture_of, without_warnings
from graftax.data.sources import source_of
from graftax.data.values import Unreadable


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def pixels(value: Any) -> np.ndarray:
    with without_warnings():
        return picture_of(value, "row 1", Path()).pixels()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, and holds no pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# -- what a value may be -----------------------------------------------------------------------------------------------


def test_one_picture_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, absolute or relative to its rows; bytes; what `datasets` keeps; a Pillow image; arrays: the same pixels."""
    array = noise(5, 7, 3)
    image = Image.fromarray(array)
    (tmp_path / "there").mkdir()
    image.save(tmp_path / "there" / "a.png")
    data = encoded(image)
    relative = tmp_path / "rows.csv"
    relative.write_text("image,label\nthere/a.png,x\n")
    table = pa.Table.from_pylist([{"image": {"bytes": None, "path": "there/a.png"}}])
    pq.write_table(table, tmp_path / "rows.parquet")
    monkeypatch.chdir(tmp_path / "there")
    forms = [data, bytearray(data), memoryview(data), {"bytes": data, "path": None}, {"bytes": data, "path": "gone.png"}]
    forms += [image, array, tmp_path / "there" / "a.png", str(tmp_path / "there" / "a.png"), "a.png"]
    sources = [source_of([{"image": form} for form in forms]), source_of(relative), source_of(tmp_path / "rows.parquet")]
    found = [picture.pixels() for source in sources for picture in source.located("image", picture_of)]
    assert len(found) == len(forms) + 2
    for one in found:
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, array)


def test_arrays_of_one_and_four_channels() -> None:
    """Greys are grey in all three channels; what is transparent lies on white, as in a file of the same pixels."""
    grey, clear = noise(4, 6), noise(4, 6, 4)
    np.testing.assert_array_equal(pixels(grey), np.stack([grey] * 3, axis=2))
    np.testing.assert_array_equal(pixels(grey[..., None]), np.stack([grey] * 3, axis=2))
    np.testing.assert_array_equal(pixels(clear), pixels(encoded(Image.fromarray(clear))))
    assert pixels(np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8)).tolist() == [[[255] * 3, [9] * 3]]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros((3, 8, 8), np.uint8), "height, width and 1, 3 or 4 channels (here these seem to come first: x.transpose(1"),
        (np.zeros((8, 8, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((2, 8, 8, 3), np.uint8), "[2, 8, 8, 3] is no picture"),
        (np.zeros((0, 8, 3), np.uint8), "has no pixels"),
        (np.zeros((8, 8), np.float32), "an array of float32 is no picture: pixels are uint8, from 0 to 255 (of numbers from 0"),
        (np.zeros((8, 8), np.int64), "pixels are uint8, from 0 to 255 (of such numbers: x.astype('uint8'))"),
        (np.zeros((8, 8), bool), "an array of bool"),
        (3, "3 is no picture: give a path, bytes"),
        ([[0, 1], [1, 0]], "a list is no picture"),
        ({"bytes": None, "path": None}, "nothing is no picture"),
        ({"url": "a"}, "an object is no picture"),
    ],
)
def test_values_that_are_no_pictures(value: Any, said: str) -> None:
    with pytest.raises(Unreadable) as error:
        picture_of(value, "row 1", Path())
    assert said in str(error.value)
    line = refused(lambda: source_of([{"image": value}]).located("image", picture_of))
    assert line is not None
    assert line.startswith("list: row 1: ")
    assert "(column 'image')" in line


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path: Path) -> None:
    """Rows are listed without a look at their files; nor does a data set of `datasets` decode its pictures all at once."""
    assert len(source_of([{"image": "gone.png"}] * 3).located("image", picture_of)) == 3
    data = encoded(Image.fromarray(noise(4, 4, 3)))
    held = datasets.Dataset.from_dict({"image": [data, b"no picture"]}).cast_column("image", datasets.Image())
    first, second = source_of(held).located("image", picture_of)
    assert isinstance(first.content, bytes)
    np.testing.assert_array_equal(first.pixels(), noise(4, 4, 3))
    line = refused(second.pixels)
    assert line is not None
    assert line.startswith("Dataset: row 2: no picture")


def test_a_data_set_of_pictures_and_its_parquet_file(tmp_path: Path) -> None:
    """As `datasets` makes one of a folder of class folders: pictures, and class numbers with names; and as it writes it."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.fromarray(noise(4, 4, 3, seed=ord(name[0]))).save(tmp_path / name / "a.png")
    paths = [str(tmp_path / name / "a.png") for name in ("dog", "cat")]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    held = datasets.Dataset.from_dict({"image": paths, "label": [1, 0]}, features=features)
    held.to_parquet(tmp_path / "rows.parquet")
    for source in (source_of(held), source_of(tmp_path / "rows.parquet")):
        assert source.classes == {"label": ("cat", "dog")}
        assert [row["label"] for row in source.rows] == [1, 0]
        for picture, letter in zip(source.located("image", picture_of), "dc", strict=True):
            np.testing.assert_array_equal(picture.pixels(), noise(4, 4, 3, seed=ord(letter)))


def test_pictures_are_told_apart_by_what_they_are(tmp_path: Path) -> None:
    """By the bytes of a file, wherever these lie, or by pixels: arrays of other shapes may have the same bytes."""
    array, file = noise(4, 6), tmp_path / "a.png"
    Image.fromarray(array).save(file)
    stored = [Picture(content) for content in (file, file.read_bytes(), Stored(file, 0, file.stat().st_size))]
    assert len({repr(picture) for picture in stored}) == 1
    same = [Picture(array), Picture(array.copy()), Picture(np.asfortranarray(array))]
    others = [Picture(array.reshape(6, 4)), Picture(array.tobytes()), Picture(noise(4, 6, seed=1)), stored[0]]
    assert len({repr(picture) for picture in same}) == 1
    assert len({repr(picture) for picture in [same[0], *others]}) == 5
    assert repr(Picture(Path("gone"))) == "Picture(gone)"


# -- modes of files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_modes_as_transformers_has_them(mode: str) -> None:
    """Greys, palettes, CMYK, with and without transparency: as `convert_to_rgb` of transformers' image processors."""
    opaque, clear = Image.fromarray(noise(9, 7, 3)), Image.fromarray(noise(9, 7, 4))
    image = (clear if "A" in mode else opaque).convert(mode)
    np.testing.assert_array_equal(pixels(image), convert_to_rgb(image, return_numpy=True))


def test_palettes_with_a_clear_colour() -> None:
    """A GIF's or PNG's palette names one; what has it lies on white."""
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    for file_format in ("GIF", "PNG"):
        assert pixels(encoded(image, file_format, transparency=1)).tolist() == [[[10, 20, 30], [255] * 3]]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_their_upper_eight(file_format: str) -> None:
    """Pillow alone makes 255 of every value above 255, which is a white picture."""
    wide = np.array([[0, 255, 256, 511], [512, 32768, 65279, 65535]], np.uint16)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(wide), file_format))[..., 0], wide >> 8)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits_are_refused(mode: str) -> None:
    line = refused(lambda: pixels(encoded(Image.new(mode, (3, 2)), "TIFF")))
    assert line == "row 1: its pixels have 32 bits; save it with 8."


def test_a_picture_stands_upright() -> None:
    """Each of EXIF's eight ways to hold a camera."""
    image = Image.fromarray(noise(8, 16, 3))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(image, "JPEG", exif=exif)
        stored = Image.open(io.BytesIO(data))
        upright = np.asarray(ImageOps.exif_transpose(stored))
        assert upright.shape[:2] == ((16, 8) if orientation > 4 else (8, 16))
        np.testing.assert_array_equal(pixels(data), upright)
        np.testing.assert_array_equal(pixels(stored), upright)


# -- what may be wrong with a file ------------------------------------------------------------------------------------


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    """One line each, which names the file."""
    photograph = encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")
    frames = [Image.fromarray(noise(4, 4, 3, seed=i)) for i in range(2)]
    contents: dict[str, tuple[bytes, str]] = {
        "empty.png": (b"", "empty; there is not one byte"),
        "text.jpg": (b"no picture at all", "no picture, or one that is damaged"),
        "cut.jpg": (photograph[: len(photograph) // 2], "a damaged picture (image file is truncated"),
        "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git LFS pointer"),
        "huge.png": (png_header(30_000, 30_000), "claims more pixels than"),
        "large.png": (png_header(10_000, 10_000), "10,000 x 10,000 pixels, and at most"),
        "wide.png": (png_header(9_000, 8_000), "9,000 x 8,000 pixels, and at most"),
        "none.png": (png_header(0, 0), "no picture"),
        "flat.png": (png_header(5, 0), "no picture"),
        "page.jpg": (b"%PDF-1.7\n%\xe2\xe3", "a PDF, and no picture; read are JPEG, PNG"),
        "drawn.jpg": (
            b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
            "an SVG, which has lines and no pixels",
        ),
        "found.jpg": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "a web page, and no picture"),
        "phone.jpg": (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "a HEIC, which Pillow does not read"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        "moving.gif": (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), "an animation, or several pages"),
        "moving.png": (encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]), "an animation, or several pages"),
        "pages.tif": (encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]), "an animation, or several pages"),
    }
    for name, (content, said) in contents.items():
        (tmp_path / name).write_bytes(content)
        (picture,) = source_of([{"image": tmp_path / name}]).located("image", picture_of)
        with without_warnings():
            line = refused(picture.pixels)
        assert line is not None
        assert str(tmp_path / name) in line
        assert said in line
        assert "0x" not in line


def test_places_where_no_file_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name, said in (
        ("gone.png", "no such file"),
        ("folder.png", "a directory"),
        ("pipe.png", "a pipe"),
        ("a" * 300, "long"),
    ):
        line = refused(source_of([{"image": str(tmp_path / name)}]).located("image", picture_of)[0].pixels)
        assert line is not None
        assert said in line


def test_the_first_of_a_camera_s_several() -> None:
    """A phone writes a photograph with others behind it (MPO), which viewers do not show."""
    image, behind = Image.fromarray(noise(8, 8, 3)), Image.fromarray(noise(8, 8, 3, seed=1))
    data = encoded(image, "MPO", save_all=True, append_images=[behind])
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(file_format=st.sampled_from(FORMATS), damage=st.data())
def test_damaged_files_are_read_or_refused(file_format: str, damage: st.DataObject) -> None:
    """Cut anywhere, with other bytes anywhere."""
    data = bytearray(encoded(Image.fromarray(noise(6, 5, 3)), file_format))
    for index, byte in damage.draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=4)):
        data[index] = byte
    cut = bytes(data[: damage.draw(st.integers(0, len(data)))])
    made: list[np.ndarray] = []
    if refused(lambda: made.append(pixels(cut))) is None:
        (found,) = made
        assert found.dtype == np.uint8
        assert found.ndim == 3
        assert found.shape[2] == 3


CELLS = st.one_of(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.binary(max_size=8) | st.lists(st.integers(), max_size=3),
    st.fixed_dictionaries(
        {"bytes": st.none() | st.binary(max_size=6) | st.integers(), "path": st.none() | st.text(max_size=6)}
    ),
    st.builds(np.zeros, st.sampled_from([(), (2,), (2, 3), (2, 3, 3), (0, 3)]), st.sampled_from(["uint8", "int64", "O", "U3"])),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(value=CELLS)
def test_whatever_a_cell_holds(value: Any) -> None:
    made: list[Picture] = []
    if refused(lambda: made.extend(source_of([{"image": value}]).located("image", picture_of))) is None:
        refused(made[0].pixels)
