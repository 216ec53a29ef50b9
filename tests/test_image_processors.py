"""Every image processor that checkpoints name, pixel by pixel: transformers' on Pillow, DINOv3's on torch, timm's."""

from __future__ import annotations

import json
from importlib import import_module
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused
from test_preparation import SIZES, random_picture

from graftax.models.family_registry import config_said
from graftax.models.preparation import Preparation
from graftax.models.preprocessor_config import NAME, preparation_of

#: Of each, what published files say (in sizes that are quick), and what nobody says but the class reads.
SAID: dict[str, list[dict[str, Any]]] = {
    "ViT": [{}, {"size": 24, "resample": 3}, {"size": {"shortest_edge": 27}, "do_center_crop": True, "crop_size": 24}],
    "DeiT": [{}, {"size": 27, "crop_size": {"height": 24, "width": 24}}, {"do_center_crop": False, "size": [24, 31]}],
    "Bit": [{}, {"size": {"shortest_edge": 27}, "crop_size": {"height": 24, "width": 24}}, {"size": 26, "crop_size": 25}],
    "Beit": [{}, {"size": 27, "do_center_crop": True, "crop_size": 25, "do_reduce_labels": True}],
    "CLIP": [{}, {"size": 24, "crop_size": 24, "do_convert_rgb": True}, {"size": [24, 31], "do_center_crop": False}],
    "Siglip": [{}, {"size": {"height": 24, "width": 25}, "resample": 2}, {"size": [25, 24], "do_normalize": False}],
    "ConvNext": [
        {},
        {"size": {"shortest_edge": 24}},
        {"size": 25, "crop_pct": 0.95, "resample": 2},
        {"size": 384, "crop_pct": 0.5},
    ],
    "EfficientNet": [
        {},
        {"size": 24, "resample": 0, "include_top": False},
        {"size": 27, "do_center_crop": True, "crop_size": 24, "rescale_factor": 1 / 127.5, "rescale_offset": True},
        {"size": 24, "do_normalize": False, "image_std": [0.4, 0.5, 0.6]},
        {"size": 24, "do_rescale": False, "rescale_offset": True, "image_mean": 127.5, "image_std": 63.0},
    ],
    "MobileNetV1": [{}, {"size": {"shortest_edge": 26}, "crop_size": {"height": 24, "width": 24}}],
    "MobileNetV2": [{}, {"size": {"height": 24, "width": 24}, "resample": 3, "do_center_crop": False}],
}
MODULES = {"Bit": "bit", "MobileNetV1": "mobilenet_v1", "MobileNetV2": "mobilenet_v2"}  # others are called as they are


def floats(preparation: Preparation, picture: np.ndarray) -> np.ndarray:
    """A picture as a backbone sees it."""
    prepared = preparation.pixels(picture, "a")
    return np.stack([preparation.levels[prepared[..., channel], channel] for channel in range(3)], axis=-1)


def written(folder: Path, said: Any, **config: Any) -> Preparation:
    (folder / NAME).write_text(json.dumps(said))
    return preparation_of(folder, config)


def theirs_of(name: str) -> Any:
    module = MODULES.get(name, name.lower())
    return getattr(import_module(f"transformers.models.{module}.image_processing_pil_{module}"), f"{name}ImageProcessorPil")


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in SAID.items() for case in range(len(cases))])
def test_as_transformers_prepares(name: str, case: int, tmp_path: Path) -> None:
    """Bit for bit; by each of its spellings, and by the file that it writes itself."""
    said = SAID[name][case]
    theirs = theirs_of(name)(**said)
    endings = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
    key = ("image_processor_type", "feature_extractor_type")[case % 2]
    ours = written(tmp_path, {**said, key: name + endings[case % 4]})
    assert written(tmp_path, theirs.to_dict()) == ours
    for height, width in SIZES[:3] if max(ours.size) > 100 else SIZES:
        picture = random_picture(height, width)
        expected = theirs(picture, input_data_format="channels_last", return_tensors="np")["pixel_values"][0]
        found = floats(ours, picture)
        np.testing.assert_array_equal(found, expected.transpose(1, 2, 0).astype(np.float32), strict=True)


@pytest.mark.parametrize(
    ("model", "name"), [("dinov2", "Bit"), ("resnet", "ConvNext"), ("swin", "ViT"), ("deit", "DeiT"), ("clip", "CLIP")]
)
def test_a_file_without_a_name_is_that_of_its_model(model: str, name: str, tmp_path: Path) -> None:
    assert written(tmp_path, {}, model_type=model) == written(tmp_path, {"image_processor_type": f"{name}ImageProcessor"})


def test_dinov3_within_a_step_of_256(tmp_path: Path) -> None:
    """Its processor resizes floats, as torch does; here 8 bits are resized."""
    ours = written(tmp_path, {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 24, "width": 24}})
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    for height, width in SIZES:
        picture = random_picture(height, width)
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        resized = torch.nn.functional.interpolate(pixels, (24, 24), mode="bilinear", antialias=True, align_corners=False)
        expected = ((resized[0] - mean) / std).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(floats(ours, picture), expected, atol=1.1 / 255 / 0.224)


def timm_s(picture: np.ndarray, size: tuple[int, int], share: float, filter: int, squashed: bool) -> np.ndarray:
    """What `timm.data.create_transform` does for evaluation, and torchvision's Resize and CenterCrop within it."""
    image = Image.fromarray(picture)
    height, width = (floor(side / share) for side in size)
    if not squashed:
        short, long = sorted(picture.shape[:2])
        longer = int(height * long / short)
        height, width = (height, longer) if picture.shape[0] == short else (longer, height)
    resized = np.asarray(image.resize((width, height), Image.Resampling(filter)))
    top, left = (round((own - wanted) / 2.0) for own, wanted in zip((height, width), size, strict=True))
    cut = resized[top : top + size[0], left : left + size[1]]
    mean, std = (np.asarray(values, np.float32) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return (cut.astype(np.float32) / np.float32(255) - mean) / std


@pytest.mark.parametrize(
    ("said", "how"),
    [
        ({"input_size": [3, 24, 24]}, ((24, 24), 0.875, 3, False)),
        ({"input_size": [3, 23, 23], "crop_pct": 0.8, "interpolation": "bilinear"}, ((23, 23), 0.8, 2, False)),
        ({"input_size": [3, 24, 31], "crop_pct": 0.9, "crop_mode": "squash"}, ((24, 31), 0.9, 3, True)),
        ({"input_size": [3, 24, 24], "crop_pct": 1.0, "interpolation": None, "mean": None}, ((24, 24), 1.0, 3, False)),
    ],
)
def test_as_timm_prepares(said: dict[str, Any], how: Any, tmp_path: Path) -> None:
    ours = preparation_of(tmp_path, {"architecture": "vit_tiny", "pretrained_cfg": {"url": "", **said}})
    for height, width in SIZES:
        picture = random_picture(height, width)
        np.testing.assert_array_equal(floats(ours, picture), timm_s(picture, *how), strict=True)


@pytest.mark.parametrize(
    ("said", "size", "resized"),
    [
        ({}, (224, 224), 256),  # what the architecture's own weights were trained with
        ({"image_size": 96}, (96, 96), 109),
        ({"image_size": {"height": 64, "width": 64}}, (64, 64), 73),
        ({"image_size": 64, "pretrained_cfg": {"input_size": [3, 64, 64], "crop_pct": 1.0}}, (64, 64), 64),
    ],
)
def test_a_size_beside_an_architecture(said: dict[str, Any], size: Any, resized: int, tmp_path: Path) -> None:
    found = preparation_of(tmp_path, config_said({"architecture": "EfficientNet-Lite0", **said}))
    assert (found.size, found.resize) == (size, resized)
    assert found.mean == pytest.approx([127 / 255] * 3 if "pretrained_cfg" not in said else [0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"image_size": 96, "pretrained_cfg": {"input_size": [3, 64, 64]}}, "the rest comes with input_size=[3, 64, 64]"),
        ({"image_size": 96, "input_size": [3, 64, 64]}, "the rest comes with input_size=[3, 64, 64]"),
        ({"image_size": "96"}, "image_size='96' ("),
    ],
)
def test_two_sizes_or_none_beside_an_architecture(said: dict[str, Any], line: str) -> None:
    assert line in (refused(lambda: config_said({"architecture": "resnet50", **said})) or "")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"input_size": [3, 24]}, "input_size=[3, 24] ([1 or 3, height, width]"),
        ({"interpolation": "random"}, "interpolation='random' (one of nearest, lanczos"),
        ({"crop_mode": "border"}, "crop_mode='border' (one of center, squash)"),
        ({"crop_pct": 1.2}, "crop_pct=1.2 (a number from 0.1 to 1)"),
        ({"input_size": [3, 24, 31]}, "crop_mode center of 31 x 24 pixels, no square"),
        ({"input_size": [1, 24, 24]}, "mean has 3 numbers, and input_size channels: 1"),
        ({"std": [0.5, 0.5, 0]}, "std=[0.5, 0.5, 0]"),
        ([], "must be an object"),
    ],
)
def test_what_of_timm_is_not_supported(said: Any, line: str, tmp_path: Path) -> None:
    found = refused(lambda: preparation_of(tmp_path, {"pretrained_cfg": said}))
    assert found is not None
    assert found.startswith(f"{tmp_path}/config.json: pretrained_cfg")
    assert line in found


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"height": 24, "width": 24}}, "(a shortest_edge)"),
        ({"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0}, "crop_pct=0 (a number from 0.1 to 1)"),
        ({"image_processor_type": "ViTImageProcessor", "do_center_crop": True}, "do_center_crop without crop_size"),
        ({"image_processor_type": "SiglipImageProcessor", "size": 24}, "a size of shortest_edge without do_center_crop"),
        ({"image_processor_type": "EfficientNetImageProcessor", "image_std": None}, "do_normalize without image_std"),
        ({"image_processor_type": 3}, "image_processor_type=3 (one of ViTImageProcessor"),
        ({}, "it does not say whose it is; image_processor_type is one of ViTImageProcessor"),
    ],
)
def test_what_is_not_supported(said: Any, line: str, tmp_path: Path) -> None:
    found = refused(lambda: written(tmp_path, said))
    assert found is not None
    assert found.startswith(f"{tmp_path / NAME}: ")
    assert line in found
