"""Backbones of pictures against torch's, stage by stage, small and random, and as they were published; adapters on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers
from block_parity import assert_same, features
from conftest import SHARED
from feature_maps import to_torch
from picture_adapters import adapter_on, assert_it_answers_alike, said
from safetensors.torch import load_file
from torch_resnet import MOBILENET, RESNET, ResNet, mobilenet, pictures, resnet

from graftax import IA3, BitFit, Bottleneck, Full, GraftaxError, LayerNormTuning, LoRA, load_backbone
from graftax.adapters.adapter import Layout
from graftax.adapters.method import Method
from graftax.adapters.methods.head import MAP, MAPS, OBJECTS, OBJECTS_OF_MAPS, POOLED
from graftax.models.backbone import Backbone
from graftax.models.family_registry import family_of
from graftax.models.inputs import ImageInputs
from graftax.models.load import unstack_weights
from graftax.models.random import random_backbone

CIFAR, IMAGENET = SHARED / "backbones" / "resnet20-cifar10", SHARED / "backbones" / "mobilenet-v2-1.0-224"
published = pytest.mark.skipif(not IMAGENET.is_dir(), reason="the shared assets are not there")


def test_a_resnet_is_torchs(tmp_path: Path) -> None:
    model, x = resnet(tmp_path), pictures()
    model(to_torch(x))
    backbone = load_backbone(tmp_path)
    assert_same(backbone, model.blocks, model.blocks[-1].mean((2, 3)), x)
    assert [*backbone.structure.stacks.items()] == [(f"stage{i}.layers", count) for i, count in enumerate([2, 1, 1, 1, 1])]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"tf_padding": False, "hidden_act": "relu"},
        {"output_stride": 8, "first_layer_is_expansion": False},
        {"output_stride": 16, "tf_padding": False, "finegrained_output": True},
    ],
    ids=str,
)
def test_a_mobilenet_is_transformers(config: dict[str, Any], tmp_path: Path) -> None:
    model, x = mobilenet(tmp_path, **config), pictures(height=37, width=32)
    with torch.no_grad():
        out = model.mobilenet_v2(to_torch(x), output_hidden_states=True)
    assert_same(load_backbone(tmp_path), [*out.hidden_states, out.last_hidden_state], out.pooler_output, x)


@pytest.mark.parametrize("by", [0.35, 1.0, 1.4])
def test_widths_are_transformers(by: float) -> None:
    """Channels of all convolutions, with the divisors that are usual."""
    raw = {"model_type": "mobilenet_v2", "depth_multiplier": by}
    family = family_of("mobilenet_v2")
    config = family.configure(raw)
    weights = [weight for part in family.parts(config) for weight in part.weights(family.layer_paths(config))]
    with torch.device("meta"):
        theirs = transformers.MobileNetV2Model(transformers.MobileNetV2Config(depth_multiplier=by)).state_dict()
    found = {weight.key: weight.stored_shape for weight in weights}
    assert found == {key: tuple(tensor.shape) for key, tensor in theirs.items() if not key.endswith("num_batches_tracked")}


def test_a_checkpoint_goes_both_ways(tmp_path: Path) -> None:
    model = mobilenet(tmp_path)
    backbone = load_backbone(tmp_path)
    again, theirs = unstack_weights(backbone, backbone.arrays()), model.state_dict()
    assert {*theirs} - {*again} == {key for key in theirs if "num_batches" in key or key.startswith("classifier.")}
    for key, tensor in again.items():
        np.testing.assert_array_equal(tensor, theirs[key].numpy())


# -- adapters ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    raws = {"cifar_resnet": RESNET, "mobilenet_v2": {"model_type": "mobilenet_v2", **MOBILENET}}
    return {name: random_backbone(raw) for name, raw in raws.items()}


METHODS: dict[str, Method] = {
    "lora": LoRA(r=3, alpha=5.0),
    "ia3": IA3(),
    "bitfit": BitFit(),
    "norms": LayerNormTuning(),
    "bottleneck": Bottleneck(width=4),
    "full": Full(last=3),
}


@pytest.mark.parametrize(
    ("family", "name"),
    [*(("cifar_resnet", name) for name in METHODS), ("mobilenet_v2", "lora"), ("mobilenet_v2", "bottleneck")],
)
def test_an_adapter(family: str, name: str, backbones: dict[str, Backbone]) -> None:
    """At its default sites: merged as unmerged, unrolled as in loops, from what is kept of frozen layers, beside another."""
    backbone, inputs = backbones[family], ImageInputs(pictures())
    adapter, found = assert_it_answers_alike(backbone, METHODS[name], inputs)
    if name == "full":  # of the last layers
        layout = Layout.of([adapter], backbone.sites, bucket=True)
        cut, state = layout.cut(backbone.structure), layout.stack(adapter, backbone.sites).state
        assert cut == ("stage2.layers", 0, False)
        known = jax.jit(lambda params, inputs: backbone.frozen(params, inputs, cut, pooled=True))(backbone.params, inputs)
        np.testing.assert_allclose(said(backbone, state, ImageInputs(None, known)), found, atol=1e-4)


@pytest.mark.parametrize("family", ["cifar_resnet", "mobilenet_v2"])
def test_a_probe_keeps_the_pooled_features(family: str, backbones: dict[str, Backbone]) -> None:
    backbone = backbones[family]
    adapter, inputs = adapter_on(backbone, None), ImageInputs(pictures())
    layout = Layout.of([adapter], backbone.sites)
    cut, state = layout.cut(backbone.structure), layout.stack(adapter, backbone.sites).state
    kept = jax.jit(lambda params, inputs: backbone.frozen(params, inputs, cut, pooled=True))(backbone.params, inputs)
    assert kept.shape == (2, backbone.config.hidden_size)
    found = said(backbone, state, ImageInputs(None, kept))
    np.testing.assert_allclose(found, said(backbone, state, inputs), atol=1e-5)


def test_where_methods_act_by_default(backbones: dict[str, Backbone]) -> None:
    def paths(family: str, method: Method) -> set[str]:
        return {site.path.removeprefix("mobilenet_v2.") for site in method.select(backbones[family].sites)}

    convolutions = {f"layer{stage}.{block}.conv{n}" for stage in (1, 2, 3) for block in (0, 1) for n in (1, 2)}
    assert paths("cifar_resnet", LoRA()) == convolutions
    assert paths("cifar_resnet", IA3()) == {path for path in convolutions if path.endswith("conv2")}
    assert paths("cifar_resnet", BitFit()) == {path.replace("conv", "bn") for path in {*convolutions, "conv1"}}
    steps = ("expand_1x1", "reduce_1x1")
    assert paths("mobilenet_v2", LoRA()) == {f"layer.{i}.{step}.convolution" for i in range(16) for step in steps}
    residual = (1, 3, 4, 6, 7, 8, 10, 11, 13, 14)  # where neither the stride nor the number of channels is another
    assert paths("mobilenet_v2", Bottleneck()) == {f"layer.{i}.reduce_1x1" for i in residual}
    heads = [site.name for site in backbones["cifar_resnet"].sites if site.kind == "head"]
    assert heads == [POOLED, MAP, OBJECTS, MAPS, OBJECTS_OF_MAPS]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"depth": 20}, r"depth 20 is not that of 3 stages of 2 blocks, 14"),
        ({"stage_channels": [4, 7, 10]}, r"from 4 to 7 channels no equal number of zeros"),
        ({"stage_channels": "16"}, r"stage_channels='16' \(a list of sizes\)"),
        ({"shortcut": "option B"}, r"shortcut='option B' \(only 'option A"),
    ],
)
def test_configs_that_are_none(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(GraftaxError, match=message):
        family_of("cifar_resnet").configure({**RESNET, **changed})


def test_kernels_of_convolutions_are_not_rounded() -> None:
    with pytest.raises(GraftaxError, match="quantize 'int8' is for linear layers"):
        random_backbone(RESNET, quantize="int8")


# -- as published -----------------------------------------------------------------------------------------------------


@published
def test_the_published_resnet() -> None:
    """Top-1 on the pictures at hand, 80.7%, and torch's logits."""
    raw = json.loads((CIFAR / "config.json").read_text())
    model = ResNet(raw).eval()
    model.load_state_dict(load_file(CIFAR / "model.safetensors"), strict=False)
    data = np.load(SHARED / "data" / "cifar10_jpeg" / "cifar10_subset.npz")
    pixels = (data["x_test"].astype(np.float32) / 255.0 - raw["image_mean"]) / raw["image_std"]
    x = pixels.astype(np.float32)
    found = features(load_backbone(CIFAR), x) @ model.linear.weight.detach().numpy().T + model.linear.bias.detach().numpy()
    assert np.mean(found.argmax(-1) == data["y_test"]) == pytest.approx(0.807)
    np.testing.assert_allclose(found[:32], model(to_torch(x[:32])).detach().numpy(), atol=1e-4)


@published
def test_the_published_mobilenet() -> None:
    model = transformers.MobileNetV2ForImageClassification.from_pretrained(IMAGENET).eval()
    x = pictures(1, 224, 224)
    with torch.no_grad():
        wanted = model.mobilenet_v2(to_torch(x)).pooler_output.numpy()
    np.testing.assert_allclose(features(load_backbone(IMAGENET), x), wanted, atol=1e-4)
