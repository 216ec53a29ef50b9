"""Masks: as files, arrays and folders have them, prepared and augmented with their pictures; what is none, in one line."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from refusals import refused

from graftax.data.class_names import file_beside, read_names
from graftax.data.mask_values import COLOURS, VOID, Mask, mask_of
from graftax.data.sources import source_of
from graftax.models.augment import Augment
from graftax.models.augmented_pictures import augmented
from graftax.models.preparation import Preparation

NUMBERS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def stored(image: Image.Image, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **{"format": "PNG", **how})
    return file.getvalue()


def picture_of_numbers(mode: str = "L") -> Image.Image:
    return Image.fromarray(NUMBERS).convert(mode)


def test_forms_of_masks(tmp_path: Path) -> None:
    """Of one channel, of a palette its numbers, of one bit; arrays of whole numbers; what is written is read as it was."""
    palette = Image.fromarray(NUMBERS)
    palette.putpalette(COLOURS.tobytes())
    (tmp_path / "a.png").write_bytes(stored(palette))
    for value in (stored(Image.fromarray(NUMBERS)), stored(palette), "a.png", NUMBERS, NUMBERS.astype(np.int64), palette):
        assert mask_of(value, "row 1", tmp_path).pixels().tolist() == NUMBERS.tolist()
    one_bit = Image.fromarray(NUMBERS > 5)
    assert mask_of(stored(one_bit), "row 1", tmp_path).pixels().tolist() == (NUMBERS > 5).astype(int).tolist()
    mask = Mask(NUMBERS)
    assert mask == mask_of(mask.png(), "row 1", tmp_path)
    assert mask != Mask(NUMBERS[::-1].copy())
    assert Mask(np.array([[3, VOID, 3]], np.uint8)).occurring == {3}
    assert COLOURS[[0, 1, 2, 3, 15, VOID]].tolist() == [  # PASCAL VOC's
        *([0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [192, 128, 128], [224, 224, 192])
    ]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (stored(picture_of_numbers(), format="JPEG"), "row 1: a mask as JPEG, which may change numbers of classes; save masks"),
        (stored(picture_of_numbers(), format="WEBP"), "row 1: a mask as WEBP, which may change"),
        (stored(picture_of_numbers("RGB")), "row 1: a mask whose pixels are RGB says no numbers of classes; save one channel"),
        (stored(picture_of_numbers("LA")), "row 1: a mask whose pixels are LA says no"),
        (stored(Image.fromarray(NUMBERS.astype(np.uint16))), "row 1: a mask whose pixels are I;16 says no"),
        (b"%PDF-1.7", "row 1: a PDF, and no picture"),
        ("missing.png", "no such file"),
        (NUMBERS.astype(np.float32), "an array of float32 is no mask"),
        (np.zeros((3, 4, 3), np.uint8), "an array [3, 4, 3] is no mask: its axes are height and width"),
        (np.array([[0, 256]]), "a mask with numbers from 0 to 256: classes are 0 to 254"),
    ],
)
def test_what_is_no_mask(value: Any, line: str, tmp_path: Path) -> None:
    said = refused(lambda: source_of([{"mask": value}]).located("mask", partial(mask_of))[0].pixels())
    assert said is not None
    assert line in said


# -- folders and names ------------------------------------------------------------------------------------------------


def put(path: Path, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (2, 2)).save(path)
    return path


def test_a_folder_of_pictures_and_masks(tmp_path: Path) -> None:
    """Called alike; and the file of names beside them, or beside their splits."""
    for split in ("train", "val"):
        for name in ("b", "a"):
            put(tmp_path / split / "images" / f"{name}.jpg", "RGB"), put(tmp_path / split / "masks" / f"{name}.png")
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    source = source_of(f"{tmp_path}:train")
    train = tmp_path / "train"
    assert source.rows == [{"image": train / f"images/{n}.jpg", "mask": train / f"masks/{n}.png"} for n in "ab"]
    assert file_beside(source.name) == tmp_path / "classes.txt"
    assert read_names(tmp_path / "classes.txt") == ("sky", "road")
    (train / "id2label.json").write_text(json.dumps({"1": "road", "0": "sky"}))
    assert file_beside(source.name) == train / "id2label.json"
    assert read_names(train / "id2label.json") == ("sky", "road")
    assert len(source_of(train).rows) == 2
    assert file_beside("rows in memory") is None


def test_folders_in_which_something_is_missing(tmp_path: Path) -> None:
    for name in "abcde":
        put(tmp_path / "images" / f"{name}.jpg", "RGB")
    put(tmp_path / "masks" / "a.png")
    lone = "b.jpg, c.jpg, d.jpg, and for 1 more"
    assert refused(lambda: source_of(tmp_path)) == f"{tmp_path}: no mask for {lone}; both must be called alike."
    for name in "bcdef":
        put(tmp_path / "masks" / f"{name}.png")
    assert refused(lambda: source_of(tmp_path)) == f"{tmp_path}: no picture for the mask f.png; both must be called alike."
    put(tmp_path / "images" / "a.png", "RGB")
    assert refused(lambda: source_of(tmp_path)) == f"{tmp_path / 'images'}: both a.jpg and a.png; which is meant?"
    (tmp_path / "notes.txt").write_text("x")
    said = refused(lambda: source_of(tmp_path))
    assert said == f"{tmp_path / 'notes.txt'}: beside the folders images and masks only id2label.json or classes.txt may lie."


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("id2label.json", '{"1": "a", "2": "b"}', "it must name classes from 0 on, each by its number; it names 1, 2."),
        ("id2label.json", '{"0": "a", "1": "a"}', "two classes are called 'a'."),
        ("classes.txt", "a\n\nb\n", "class 1 has no name."),
    ],
)
def test_names_that_name_no_classes(name: str, text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert refused(lambda: read_names(tmp_path / name)) == f"{tmp_path / name}: {line}"


# -- with their pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preparation",
    [
        Preparation((6, 16), resize=(6, 16)),
        Preparation((24, 28), resize=27, crop=True),
        Preparation((20, 22), crop=True, to_even=True),
        Preparation((12, 16)),
    ],
)
def test_prepared_as_the_picture_is(preparation: Preparation) -> None:
    """The mask where a picture that is it, resized to the nearest, would be; and `frame` says where its pixels are."""
    numbers = np.kron(np.arange(12).reshape(3, 4) % 5, np.ones((4, 4))).astype(np.uint8)
    nearest = Preparation(preparation.size, 3, preparation.resize, 0, preparation.crop, to_even=preparation.to_even)
    beside = nearest.pixels(np.repeat(numbers[..., None], 3, -1) + 1, "x")[..., 0]
    found = preparation.mask(numbers, "x")
    np.testing.assert_array_equal(np.where(found == VOID, 0, found + 1), beside)

    # positions as they lie in the prepared picture, from 0 to 1, brought back to the picture's own pixels
    high, wide = preparation.size
    rows, columns = np.mgrid[0:high, 0:wide].astype(np.float32)
    down, across, seen = preparation.frame((12, 16)).from_map((high, wide))
    own = np.stack([down @ of_axis @ across.T for of_axis in (rows, columns)])[:, seen]
    near = tuple(np.round(own).astype(int))
    assert seen.any()
    assert np.mean(found[near] == numbers[seen]) > 0.8  # all but at seams, where several pixels became one
    if preparation.resize is None:
        np.testing.assert_array_equal(found[near], numbers[seen])


@pytest.mark.parametrize("said", ["crop=0.3+flip", "randaugment=9"])
def test_augmented_as_the_picture_is(said: str) -> None:
    """Areas of a picture, each of a shade, and a mask that says which: it still does, but at the seams of what was resized."""
    numbers = np.kron(np.arange(4, dtype=np.uint8).reshape(2, 2), np.ones((16, 16), np.uint8))
    masks, pictures = np.stack([numbers] * 6), np.repeat(np.stack([numbers] * 6)[..., None] * 50.0 + 30.0, 3, -1)
    keys = jax.random.split(jax.random.key(3, impl="threefry2x32"), 6)
    call = jax.jit(partial(augmented, Augment.of(said)))
    found = call(pictures.astype(np.float32), keys, np.arange(6), masks)
    pixels, moved = np.asarray(found.pixels)[..., 0], np.asarray(found.masks)
    assert moved.dtype == np.uint8
    assert (moved != masks).any(axis=(1, 2)).sum() >= 3  # some operations move nothing
    for own, numbered in zip(pixels, moved, strict=True):
        for number in np.unique(numbered):
            area = own[numbered == number]
            shade = number * 50.0 + 30.0 if said != "randaugment=9" else np.median(area)  # which changes colours, too
            assert len(area) < 40 or np.mean(np.abs(area - shade) < 1.0) > 0.8
    assert (VOID in moved) == (said == "randaugment=9")  # which moves pixels in from beyond the edge


def test_a_mask_has_no_part_in_what_is_drawn() -> None:
    pictures = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype(np.float32)
    given = pictures, jax.random.split(jax.random.key(3, impl="threefry2x32"), 3), np.arange(3)
    call = jax.jit(partial(augmented, Augment.of("flip")))
    with_masks, without = call(*given, np.zeros((3, 8, 8), np.uint8)), call(*given)
    np.testing.assert_array_equal(np.asarray(with_masks.pixels), np.asarray(without.pixels))
    assert without.masks is None
