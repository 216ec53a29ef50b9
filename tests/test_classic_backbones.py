"""VGG, Inception v3 and MobileNetV3 against torch's, block by block, small and random, with the keys that people have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from block_parity import assert_same
from picture_adapters import assert_it_answers_alike
from safetensors.torch import save_file
from torch_classics import VGG, Inception, MobileNetV3
from torch_resnet import pictures, shaken

from graftax import LoRA, load_backbone
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs
from graftax.models.random import random_backbone


def loaded(directory: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> Backbone:
    """A checkpoint with its config.json, whose head is read with it."""
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    backbone = load_backbone(directory)
    assert backbone.own_head is not None
    return backbone


_STAGES = [[4], [6, 6], [8]]


@pytest.mark.parametrize(
    ("normed", "height", "width"),
    [(True, 56, 56), (False, 72, 80), (True, 33, 60)],
    ids=["whole", "larger", "smaller"],
)
def test_a_vgg(normed: bool, height: int, width: int, tmp_path: Path) -> None:
    """Of a picture as large as the layer behind the stages sees, of a larger one and of one that is spread to that size."""
    torch.manual_seed(0)
    model = shaken(VGG(_STAGES, 10, normed=normed, labels=3))
    name = "vgg16_bn" if normed else "vgg16"
    backbone = loaded(tmp_path, model.state_dict(), {"architecture": name, "stages": _STAGES, "hidden_size": 10})
    x = pictures(2, height, width)
    blocks = model.seen(torch.tensor(x.transpose(0, 3, 1, 2)))
    assert_same(backbone, blocks, blocks[-1].mean((2, 3)), x)


@pytest.mark.slow
def test_an_inception(tmp_path: Path) -> None:
    """The head beside the network, which some checkpoints have, is left aside."""
    torch.manual_seed(0)
    model = shaken(Inception(0.05, labels=3))
    beside = {"AuxLogits.fc.weight": torch.zeros(3, 4)}
    config = {"architecture": "inception_v3", "depth_multiplier": 0.05}
    backbone, x = loaded(tmp_path, {**model.state_dict(), **beside}, config), pictures(1, 79, 91)
    blocks = model.seen(torch.tensor(x.transpose(0, 3, 1, 2)))
    assert_same(backbone, blocks, blocks[-1].mean((2, 3)), x)
    assert len({site.path for site in backbone.sites if site.kind == "conv"}) == 94


_BLOCKS = [[3, 8, 8, 1, 0, 1], [3, 24, 10, 0, 0, 2], [5, 40, 10, 1, 1, 1]]
_SIZES = {"blocks": _BLOCKS, "stages": [1, 2], "stem": 8, "last": 12, "head": 14}


def of_timm(key: str) -> str:
    """timm's name of a tensor for torchvision's."""
    for number, (stage, index, expands, squeezes) in enumerate([(0, 0, 0, 1), (1, 0, 1, 0), (1, 1, 1, 1)], 1):
        names = [("conv_pw", "bn1"), ("conv_dw", "bn2")] if expands else [("conv_dw", "bn1")]
        steps: list[Any] = [*names, *(["se"] if squeezes else []), ("conv_pwl", "bn3") if expands else ("conv_pw", "bn2")]
        for place, step in enumerate(steps):
            for part, name in enumerate((step,) if isinstance(step, str) else step):
                inner = rf"\.{part}" if step != "se" else ""
                key = re.sub(rf"^features\.{number}\.block\.{place}{inner}\.", f"blocks.{stage}.{index}.{name}.", key)
    key = key.replace("se.fc1", "se.conv_reduce").replace("se.fc2", "se.conv_expand")
    for theirs, ours in {
        "features.0.0": "conv_stem",
        "features.0.1": "bn1",
        "features.4.0": "blocks.2.0.conv",
        "features.4.1": "blocks.2.0.bn1",
        "classifier.0": "conv_head",
        "classifier.3": "classifier",
    }.items():
        key = re.sub(rf"^{re.escape(theirs)}\.", f"{ours}.", key)
    return key


@pytest.mark.parametrize("timm", [True, False])
def test_a_mobilenet_v3(timm: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = shaken(MobileNetV3(_BLOCKS, 8, 12, 14, {8: 8, 40: 16}, 1e-5 if timm else 1e-3, labels=3))
    tensors = {of_timm(key) if timm else key: tensor for key, tensor in model.state_dict().items()}
    if timm:
        tensors["conv_head.weight"] = tensors["conv_head.weight"][..., None, None]
    config = {"architecture": "mobilenetv3_large_100" if timm else "mobilenet_v3_large", **_SIZES}
    backbone, x = loaded(tmp_path, tensors, config), pictures(height=37, width=32)
    blocks, features = model.seen(torch.tensor(x.transpose(0, 3, 1, 2)))
    assert_same(backbone, blocks, features, x)


ADAPTED: dict[str, tuple[dict[str, Any], LoRA]] = {
    "vgg": ({"model_type": "vgg", "stages": _STAGES, "hidden_size": 10}, LoRA(r=3, targets=("0", "pre_logits.fc1"))),
    "inception": (
        {"model_type": "inception_v3", "depth_multiplier": 0.03},
        LoRA(r=3, targets=("Mixed_7a.branch7x7x3_4.conv", "Mixed_7c.branch3x3_2a.conv")),
    ),
    "mobilenet": ({"model_type": "mobilenet_v3", **_SIZES}, LoRA(r=3, targets=("classifier.0", "block.2.0", "fc1"))),
    "mobilenet-of-timm": ({"model_type": "timm_mobilenet_v3", **_SIZES}, LoRA(r=3, targets=("conv_head", "conv_pwl"))),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "vgg" else pytest.mark.slow) for name in ADAPTED])
def test_an_adapter(name: str) -> None:
    raw, method = ADAPTED[name]
    side = 79 if name == "inception" else 33
    assert_it_answers_alike(random_backbone(raw), method, ImageInputs(pictures(2, side, side)))
