"""Backbones of convolutions against torch's, block by block, small and random; and the sizes that the published ones have."""

from __future__ import annotations

import json
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from block_parity import assert_same, blocks_of
from conftest import SHARED
from picture_adapters import assert_it_answers_alike
from refusals import refused
from safetensors.torch import load_file, save_file
from torch_efficientnet import EfficientNet
from torch_resnet import pictures, shaken

from graftax import IA3, DoRA, LoRA, load_backbone
from graftax.adapters.method import Method
from graftax.models.family_registry import config_said, family_of
from graftax.models.inputs import ImageInputs
from graftax.models.load import unstack_weights
from graftax.models.random import random_backbone
from graftax.notes import GraftaxNote

_RESNET = {"embedding_size": 6, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 2, 3, 1]}
_WIDER = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [2, 1]}
_NEXT = {"hidden_sizes": [8, 12, 12, 20], "depths": [1, 3, 1, 2]}
_EFFICIENT = {"width_coefficient": 0.25, "depth_coefficient": 0.9, "hidden_dim": 320, "batch_norm_eps": 1e-2}

#: Configs of each, of models of transformers.
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "bottlenecks": ("resnet", {**_RESNET, "hidden_act": "silu"}),
    "basic": ("resnet", {**_RESNET, "layer_type": "basic"}),
    "v1": ("resnet", {**_RESNET, "downsample_in_bottleneck": True, "downsample_in_first_stage": True}),
    "efficient": ("efficientnet", _EFFICIENT),
    "efficient-max": ("efficientnet", {**_EFFICIENT, "pooling_type": "max", "depthwise_padding": [1, 2], "hidden_act": "relu"}),
    "next": ("convnext", {**_NEXT, "layer_norm_eps": 1e-2}),
    "next-unscaled": ("convnext", {**_NEXT, "layer_scale_init_value": 0.0, "patch_size": [2, 4], "hidden_act": "relu"}),
    "next-v2": ("convnextv2", _NEXT),
    "mobile": ("mobilenet_v1", {"depth_multiplier": 0.125, "layer_norm_eps": 1e-2}),
    "mobile-even": ("mobilenet_v1", {"depth_multiplier": 0.1, "min_depth": 10, "tf_padding": False, "hidden_act": "relu"}),
}


def theirs(model_type: str, config: dict[str, Any]) -> Any:
    """transformers' model of a config, random, with every statistic of its norms random too."""
    torch.manual_seed(0)
    model = transformers.AutoModelForImageClassification.from_config(
        transformers.AutoConfig.for_model(model_type, **config, num_labels=3)
    )
    for name, parameter in model.named_parameters():  # some begin so small that nothing would be seen of them
        if parameter.ndim > 1 and "conv" in name:
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        if "grn" in name or "layer_scale" in name:
            torch.nn.init.normal_(parameter)
    return shaken(model)


FAST = ("bottlenecks", "next-v2")  # whole configs of each are in tests/test_config_keys.py


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in SMALL])
def test_it_is_transformers(name: str, tmp_path: Path) -> None:
    """Loaded from what transformers saves, without a note."""
    model = theirs(*SMALL[name])
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GraftaxNote)
        backbone = load_backbone(tmp_path)
    x = pictures(height=37, width=32)
    blocks, out = blocks_of([path for path, _ in backbone.config.blocks], model.base_model, x)
    assert_same(backbone, blocks, out.pooler_output.flatten(1), x)
    again = unstack_weights(backbone, backbone.arrays())
    kept = {key: tensor for key, tensor in model.state_dict().items() if key in again}
    assert {*model.state_dict()} - {*kept} == {
        key for key in model.state_dict() if "num_batches" in key or key.startswith("classifier")
    }
    for key, tensor in kept.items():
        np.testing.assert_array_equal(again[key], tensor.numpy())


#: timm's names of a ConvNeXt's modules for transformers', in this order.
_TIMM_CONVNEXT = {
    r"^convnext(v2)?\.": "",
    r"^embeddings\.patch_embeddings": "stem.0",
    r"^embeddings\.layernorm": "stem.1",
    r"^layernorm": "head.norm",
    r"^classifier": "head.fc",
    r"^encoder\.": "",
    r"downsampling_layer": "downsample",
    r"layers": "blocks",
    r"dwconv": "conv_dw",
    r"layernorm": "norm",
    r"pwconv": "mlp.fc",
    r"grn": "mlp.grn",
    r"layer_scale_parameter": "gamma",
}


@pytest.mark.parametrize("model_type", ["convnext", "convnextv2"])
def test_a_convnext_of_timm(model_type: str, tmp_path: Path) -> None:
    model = theirs(model_type, {**_NEXT, "layer_norm_eps": 1e-6})
    tensors = {key: t.flatten() if "grn" in key else t for key, t in renamed(model.state_dict(), _TIMM_CONVNEXT).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    config = {"architecture": model_type.replace("v2", "") + ("v2_tiny" if "v2" in model_type else "_tiny"), **_NEXT}
    (tmp_path / "config.json").write_text(json.dumps(config))
    backbone, x = load_backbone(tmp_path), pictures(height=37, width=32)
    paths = [f"encoder.stages.{stage}.layers.{index}" for stage, depth in enumerate(_NEXT["depths"]) for index in range(depth)]
    blocks, out = blocks_of(paths, model.base_model, x)
    assert_same(backbone, blocks, out.pooler_output, x)
    assert backbone.own_head is not None


#: timm's names of a ResNet's modules for transformers', in this order.
_TIMM_RESNET = {
    r"^resnet\.": "",
    r"^embedder\.embedder\.convolution": "conv1",
    r"^embedder\.embedder\.normalization": "bn1",
    r"^encoder\.stages\.(\d+)\.layers": lambda found: f"layer{int(found[1]) + 1}",
    r"shortcut\.convolution": "downsample.0",
    r"shortcut\.normalization": "downsample.1",
    r"layer\.(\d+)\.convolution": lambda found: f"conv{int(found[1]) + 1}",
    r"layer\.(\d+)\.normalization": lambda found: f"bn{int(found[1]) + 1}",
    r"^classifier\.1": "fc",
}


def renamed(state: dict[str, torch.Tensor], names: dict[str, Any]) -> dict[str, torch.Tensor]:
    found = {}
    for key, tensor in state.items():
        for pattern, name in names.items():
            key = re.sub(pattern, name, key)
        found[key] = tensor.contiguous()
    return found


def widen(block: Any, groups: int, width: int) -> None:
    """A bottleneck's 3x3 convolution, in groups and of another width than a quarter."""
    first, second, third = (layer.convolution for layer in block.layer)
    inner = third.out_channels // 4 * width // 64 * groups
    block.layer[0].convolution = torch.nn.Conv2d(first.in_channels, inner, 1, bias=False)
    block.layer[1].convolution = torch.nn.Conv2d(inner, inner, 3, second.stride, 1, groups=groups, bias=False)
    block.layer[2].convolution = torch.nn.Conv2d(inner, third.out_channels, 1, bias=False)
    for layer in block.layer[:2]:
        layer.normalization = torch.nn.BatchNorm2d(inner)


@pytest.mark.parametrize(
    ("architecture", "groups", "width"),
    [("resnet18", 1, 64), ("resnext50_32x4d", 4, 32), pytest.param("wide_resnet50_2", 1, 128, marks=pytest.mark.slow)],
)
def test_a_resnet_of_timm(architecture: str, groups: int, width: int, tmp_path: Path) -> None:
    """transformers' model under timm's names, with other 3x3 convolutions."""
    model = theirs("resnet", {**_WIDER, **({"layer_type": "basic"} if architecture == "resnet18" else {})})
    if width != 64:
        for block in (layer for stage in model.resnet.encoder.stages for layer in stage.layers):
            widen(block, groups, width)
        shaken(model)
    save_file(renamed(model.state_dict(), _TIMM_RESNET), tmp_path / "model.safetensors")
    sizes = {**_WIDER, **({"groups": groups, "inner_width": width} if width != 64 else {})}
    config = {"architecture": architecture, "label_names": ["a", "b", "c"], **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    backbone, x = load_backbone(tmp_path), pictures(height=37, width=32)
    paths = [f"encoder.stages.{stage}.layers.{index}" for stage, depth in enumerate(_WIDER["depths"]) for index in range(depth)]
    blocks, out = blocks_of(paths, model.resnet, x)
    assert_same(backbone, blocks, out.pooler_output.flatten(1), x)
    assert backbone.own_head is not None
    assert backbone.own_head.labels == ("a", "b", "c")
    assert {site.path for site in backbone.sites if site.role == "conv_shortcut"} == {
        "layer1.0.downsample.0",
        "layer2.0.downsample.0",
    }


_SELDOM = [(True, True, True), (False, True, False)]
_GROUPS = [[1, 3, 1, 1, 8, 6], [2, 3, 2, 6, 6, 10], [2, 5, 2, 4, 10, 12], [1, 5, 1, 2, 12, 12]]
LITE = SHARED / "backbones" / "efficientnet-lite0"


@pytest.mark.parametrize(
    ("timm", "lite", "tensorflow"),
    [(True, False, False), (False, False, True)] + [pytest.param(*case, marks=pytest.mark.slow) for case in _SELDOM],
)
def test_an_efficientnet_under_other_names(timm: bool, lite: bool, tensorflow: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    eps = 1e-3 if tensorflow else 1e-5
    model = shaken(EfficientNet(_GROUPS, 24, timm=timm, lite=lite, tensorflow=tensorflow, eps=eps, labels=3))
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, tmp_path / "model.safetensors")
    names = {(True, True): "efficientnet_lite0", (True, False): "efficientnet_b0"}
    names |= {(False, True): "EfficientNet-Lite0", (False, False): "efficientnet-b0"}
    padded = {"padding": "TF same" if tensorflow else "alike", "batch_norm_eps": eps}
    config = {"architecture": names[timm, lite], "blocks": _GROUPS, "stem": 8, "head": 24, **padded}
    (tmp_path / "config.json").write_text(json.dumps(config))
    backbone, x = load_backbone(tmp_path), pictures(height=37, width=32)
    blocks = model.seen(torch.tensor(x.transpose(0, 3, 1, 2)))
    assert_same(backbone, blocks, blocks[-1].mean((2, 3)), x)
    assert backbone.own_head is not None


@pytest.mark.slow
@pytest.mark.skipif(not LITE.is_dir(), reason="the shared assets are not there")
def test_the_published_efficientnet_lite() -> None:
    """torch's features with the weights themselves; its config.json says in words what the groups are."""
    raw = json.loads((LITE / "config.json").read_text())
    groups = [[int(number) for number in six.split(",")] for six in re.findall(r"\(([\d, ]+)\)", raw["blocks"])]
    model = EfficientNet(groups, raw["head"], timm=False, lite=True, tensorflow=True, eps=raw["batch_norm_eps"], labels=1000)
    model.load_state_dict(load_file(LITE / "model.safetensors"), strict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GraftaxNote)
        backbone = load_backbone(LITE)
    x = pictures(1, 224, 224)
    blocks = model.eval().seen(torch.tensor(x.transpose(0, 3, 1, 2)))
    assert_same(backbone, blocks, blocks[-1].mean((2, 3)), x)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"architecture": "resnet51"}, r"architecture 'resnet51' is not supported; supported are .*resnet50, "),
        ({"architecture": "resnet18", "groups": 2}, r"groups and inner_width are a bottleneck's, and layer_type is basic"),
        (
            {"architecture": "resnet50", "hidden_sizes": [3, 8]},
            r"hidden_sizes \[3, 8\] of 4 depths; each stage has one of both",
        ),
        (
            {"architecture": "resnet50", "model_args": {"output_stride": 8}},
            r"model_args={'output_stride': 8} \(only {} is supported",
        ),
        ({"architecture": "vgg16", "stages": [64, 64]}, r"stages=\[64, 64\] \(a list of channels for each stage\)"),
        (
            {"architecture": "efficientnet_b0", "blocks": [[1, 3, 1, 1, 32, 16], [2, 3, 2, 6, 24, 24]]},
            r"takes 24 channels, and is given 16",
        ),
        ({"model_type": "efficientnet", "depth_coefficient": 1e9}, r"blocks; supported are up to 4,096"),
        ({"model_type": "efficientnet", "strides": [1, 2]}, r"lists of unlike lengths"),
        ({"model_type": "convnext", "num_stages": 3}, r"4 hidden_sizes and 4 depths of 3 stages"),
        ({"architecture": "mobilenetv3_large_100", "stages": [1]}, r"stages of 1 blocks, of which there are 15"),
    ],
)
def test_configs_that_are_none(said: dict[str, Any], message: str) -> None:
    line = refused(lambda: family_of(config_said(said)["model_type"]).configure(config_said(said)))
    assert re.search(message, line or "")


#: Small ones, and methods that act there on convolutions of every kind.
ADAPTED: dict[str, tuple[dict[str, Any], Method]] = {
    "resnet": ({"model_type": "resnet", **_WIDER}, LoRA(r=3, alpha=5.0)),
    "resnext": ({"model_type": "timm_resnet", **_WIDER, "groups": 2}, IA3(targets=("conv2", "downsample.0"))),
    "mobilenet": (
        {"model_type": "mobilenet_v1", "depth_multiplier": 0.0625},
        LoRA(r=3, targets=("layer.1.convolution", "layer.25.convolution")),
    ),
    "efficientnet": (
        {"model_type": "timm_efficientnet", "blocks": [[1, 3, 1, 1, 8, 6], [1, 3, 2, 2, 6, 10]], "stem": 8, "head": 24},
        DoRA(r=3, alpha=5.0, targets=("conv_pw", "se.conv_reduce", "conv_head")),
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "efficientnet" else []) for name in ADAPTED]
)
def test_an_adapter(name: str) -> None:
    raw, method = ADAPTED[name]
    assert_it_answers_alike(random_backbone(raw), method, ImageInputs(pictures(height=37, width=32)))


#: Weights of what is published, with the head of 1,000 classes, as its makers and timm count them.
PUBLISHED = {
    **{"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160},
    **{"resnet152": 60_192_808, "wide_resnet50_2": 68_883_240, "resnext50_32x4d": 25_028_904, "resnext101_32x8d": 88_791_336},
    **{"efficientnet_b0": 5_288_548, "efficientnet_b1": 7_794_184, "efficientnet_b2": 9_109_994, "efficientnet_b3": 12_233_232},
    **{"efficientnet_b4": 19_341_616, "efficientnet_b5": 30_389_784, "efficientnet_b6": 43_040_704},
    **{"tf_efficientnet_b7": 66_347_960, "EfficientNet-Lite0": 4_652_008, "efficientnet_lite1": 5_416_680},
    **{"tf_efficientnet_lite4": 13_006_568, "convnext_tiny": 28_589_128, "convnext_base": 88_591_464},
    **{"vgg11": 132_863_336, "vgg11_bn": 132_868_840, "vgg13_bn": 133_053_736, "vgg16": 138_357_544, "vgg19_bn": 143_678_248},
    **{"inception_v3": 23_834_568, "mobilenetv3_large_100": 5_483_032, "mobilenetv3_small_100": 2_542_856},
    **{"mobilenet_v3_large": 5_483_032, "mobilenet_v3_small": 2_542_856},
    **{"convnextv2_atto": 3_708_400, "convnextv2_tiny": 28_635_496, "convnextv2_base": 88_717_800},
}


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_the_sizes_of_what_is_published(architecture: str) -> None:
    raw = config_said({"architecture": architecture})
    family = family_of(raw["model_type"])
    config = family.configure(raw)
    weights = (weight for part in family.parts(config) for weight in part.weights(family.layer_paths(config)))
    count = sum(math.prod(weight.shape) for weight in weights if weight.leaf not in ("mean", "var"))
    assert count + 1000 * (config.hidden_size + 1) == PUBLISHED[architecture]
