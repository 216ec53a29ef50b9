"""Pictures as they are prepared, against transformers' own image processor; what checkpoints say of it, and may not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHARED, needs_assets
from hypothesis import given, settings
from hypothesis import strategies as st
from noted import noted
from refusals import refused
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil

from graftax.models.preparation import Preparation
from graftax.models.preprocessor_config import NAME, preparation_of
from graftax.notes import silenced

#: Of pictures, height and width: smaller and larger than what is wanted, long, flat, of one pixel.
SIZES = [(24, 24), (25, 24), (31, 57), (57, 31), (9, 100), (100, 9), (17, 16), (1, 1), (3, 200), (60, 61)]
#: Settings at which nothing is as usual, over a first that gives each key.
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "cropped": {"size": {"shortest_edge": 26}, "crop_size": {"height": 24, "width": 23}},
    "cropped larger": {"size": {"shortest_edge": 20}, "crop_size": {"height": 33, "width": 24}},
    "both sides": {"size": {"height": 24, "width": 25}, "do_center_crop": False, "resample": 3},
    "a number": {"size": 27, "crop_size": 21},
    "a number, square": {"size": 27, "default_to_square": True, "do_center_crop": False, "resample": 1},
    "lists": {"size": [24, 31], "crop_size": [23, 30], "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    "cropped alone": {"do_resize": False, "crop_size": {"height": 24, "width": 24}},
    "not rescaled": {"size": 27, "crop_size": 21, "do_rescale": False, "image_mean": 127.5, "image_std": 63.0},
    "not normalised": {"size": 27, "crop_size": 21, "do_normalize": False, "rescale_factor": 0.01},
    "neither": {"size": 27, "crop_size": 21, "do_normalize": False, "do_rescale": False},
    "nulls": {"size": None, "resample": None, "do_resize": None, "image_mean": None, "do_normalize": None, "crop_size": 21},
    **{f"filter {filter}": {"size": [24, 31], "do_center_crop": False, "resample": filter} for filter in range(6)},
}


def written(folder: Path, said: Any, **config: Any) -> Preparation:
    """What is made of a `preprocessor_config.json`, beside the `config.json` of a MobileNetV2 with these keys."""
    (folder / NAME).write_text(json.dumps(said))
    return preparation_of(folder, {"model_type": "mobilenet_v2", **config})


def random_picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("case", SETTINGS)
def test_as_transformers_prepares(case: str, tmp_path: Path) -> None:
    """Bit for bit, at odd sizes: filters, crops of what is larger and smaller, every way to say a size."""
    said = SETTINGS[case]
    ours, theirs = written(tmp_path, said), MobileNetV2ImageProcessorPil(**said)
    for height, width in SIZES:
        picture = random_picture(height, width)
        prepared = ours.pixels(picture, "a")
        assert prepared.dtype == np.uint8
        found = np.stack([ours.levels[prepared[..., channel], channel] for channel in range(3)], axis=-1)
        expected = theirs(picture, input_data_format="channels_last", return_tensors="np")["pixel_values"][0]
        np.testing.assert_array_equal(found, expected.transpose(1, 2, 0).astype(np.float32), strict=True)
        assert found.shape == (*ours.size, 3)


def test_greys(tmp_path: Path) -> None:
    """Of one channel, where the backbone takes one; a picture in colour is refused there."""
    said = {"size": 27, "crop_size": 21, "image_mean": 0.1, "image_std": 0.3}
    ours, theirs = written(tmp_path, said, num_channels=1), MobileNetV2ImageProcessorPil(**said)
    grey = random_picture(31, 57, channels=1)
    prepared = ours.pixels(np.repeat(grey, 3, axis=2), "a")
    expected = theirs(grey, input_data_format="channels_last", return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(ours.levels[prepared[..., 0], 0], expected[0], strict=True)
    line = refused(lambda: ours.pixels(random_picture(31, 57), "cat.png"))
    assert line == "cat.png: a picture in colour, and this backbone takes greys, of one channel."


def test_a_config_that_says_how(tmp_path: Path) -> None:
    """`image_size`, `image_mean` and `image_std` of a config: normalised alone; another size is refused with both."""
    config = {"image_size": 32, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    how = preparation_of(tmp_path, config)
    picture = random_picture(32, 32)
    assert how.pixels(picture, "a") is picture
    value = (np.float32(200 / 255) - np.float32(0.456)) / np.float32(0.224)
    assert how.levels[200, 1] == value
    line = refused(lambda: how.pixels(random_picture(32, 33), "cat.png"))
    wanted = "this backbone takes 32 x 32, and its config has nothing resized. Resize it."
    assert line == f"cat.png: a picture of 33 x 32 pixels; {wanted}"
    flat = preparation_of(tmp_path, {**config, "image_size": [8, 16]})
    assert flat.pixels(random_picture(8, 16), "a").shape == (8, 16, 3)
    for lacking in ("image_mean", "image_std"):
        line = refused(lambda lacking=lacking: preparation_of(tmp_path, {**config, lacking: None}))
        assert line is not None
        assert f"does not say how pictures are prepared (image_mean, image_std), nor is there a {NAME}" in line
    assert preparation_of(None, {"image_size": 8}) == Preparation((8, 8), scale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_a_picture_too_long_to_resize(tmp_path: Path) -> None:
    """One pixel wide and thousands high, it would have a billion at 224 of width."""
    line = refused(lambda: written(tmp_path, {}).pixels(np.zeros((5000, 1, 3), np.uint8), "line.png"))
    assert line == "line.png: a picture of 1 x 5000 pixels is too long to be resized in proportion."


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"image_processor_type": "FlavaImageProcessor"}, "='FlavaImageProcessor' (one of ViTImageProcessor, DeiT"),
        ({"size": {"longest_edge": 9}}, "size={'longest_edge': 9} (a height and a width, each from 1 to 8,192, or a "),
        ({"size": None}, "do_resize without size"),
        ({"image_std": None}, "do_normalize without image_std"),
        ({"size": {"shortest_edge": 9, "longest_edge": 12}}, "size="),
        ({"size": {"height": 9, "width": 0}}, "size="),
        ({"size": True}, "size=True"),
        ({"crop_size": {"shortest_edge": 9}}, "crop_size="),
        ({"do_center_crop": False}, "a size of shortest_edge without do_center_crop"),
        ({"do_pad": True}, "do_pad=True (only False is supported)"),
        ({"do_resize": "yes"}, "do_resize='yes' (true or false)"),
        ({"resample": 9}, "resample=9 (a whole number from 0 to 5)"),
        ({"rescale_factor": 0}, "rescale_factor=0 (a number above 0)"),
        ({"image_mean": [0.5, 0.5]}, "image_mean has 2 numbers, and pictures have channels: 3"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std=[0.5, 0.5, 0] (a number above 0, or one for each channel)"),
        ([], "expected a JSON object"),
    ],
)  # fmt: skip
def test_what_is_not_supported(said: Any, line: str, tmp_path: Path) -> None:
    found = refused(lambda: written(tmp_path, said))
    assert found is not None
    assert found.startswith(f"{tmp_path / NAME}: ")
    assert line in found


def test_keys_that_no_processor_reads_are_noted(tmp_path: Path) -> None:
    said = {"image_processor_type": "MobileNetV2ImageProcessorFast", "do_flip": True, "crop_pct": 0.9, "do_convert_rgb": True}
    (note,) = noted(lambda: written(tmp_path, said))
    read = "ignored, for transformers' MobileNetV2ImageProcessor does not read them: crop_pct, do_flip."
    assert note == f"{tmp_path / NAME}: {read}"
    assert noted(lambda: written(tmp_path, MobileNetV2ImageProcessorPil().to_dict())) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats() | st.sampled_from(["a", "224"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["height", "width", "shortest_edge"]), inner, max_size=3)
    ),
    max_leaves=4,
)
KEYS: list[str] = [
    "do_resize",
    "size",
    "default_to_square",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
]
KEYS += ["do_normalize", "image_mean", "image_std", "do_pad", "image_processor_type", "image_size", "num_channels"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(said=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4), as_file=st.booleans())
def test_any_settings_are_read_or_refused(
    said: dict[str, Any], as_file: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A preparation that prepares, or a line."""
    made: list[Preparation] = []
    folder = tmp_path_factory.mktemp("said")
    read = (lambda: made.append(written(folder, said))) if as_file else (lambda: made.append(preparation_of(folder, said)))
    with silenced():
        line = refused(read)
    if line is None:
        (how,) = made
        assert how.levels.shape == (256, how.channels)
        assert np.isfinite(how.levels).all()
        refused(lambda: how.pixels(random_picture(5, 9), "a"))


@needs_assets
def test_real_checkpoints() -> None:
    mobile, resnet = (SHARED / "backbones" / name for name in ("mobilenet-v2-1.0-224", "resnet20-cifar10"))
    configs = [json.loads((directory / "config.json").read_text()) for directory in (mobile, resnet)]
    assert noted(lambda: preparation_of(mobile, configs[0])) == []
    how = preparation_of(mobile, configs[0])
    assert how == Preparation((224, 224), 3, (224, 224), 3, False, 0.00392156862745098, (0.5,) * 3, (0.5,) * 3)
    assert preparation_of(resnet, configs[1]).size == (32, 32)
