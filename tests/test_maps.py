"""The feature maps that a segmentation reads, against what leaves torch's layers and blocks."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch
from block_parity import blocks_of
from cases import random_adapter
from feature_maps import from_torch
from reference import saved
from test_classic_backbones import ADAPTED as CLASSIC
from test_convolutional_backbones import ADAPTED as CONVOLVED
from test_convolutional_backbones import SMALL, theirs
from torch_pictures import SHAPES, SWINS, outputs, pictures, torch_model
from torch_resnet import pictures as random_pictures
from torch_towers import PAIRS as TOWERS
from torch_towers import PICTURE

from graftax import VPT, LoRA, load_backbone
from graftax.adapters.adapter import Adapter, Layout
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs
from graftax.models.random import random_backbone

WITHIN = {"rtol": 1e-4, "atol": 1e-4}


def maps_of(backbone: Backbone, x: np.ndarray, adapter: Adapter | None = None) -> list[np.ndarray]:
    """All that the backbone declares, the last one asked for alone being the last of these."""
    count, state = len(backbone.config.maps), {} if adapter is None else state_of(backbone, adapter)
    run = jax.jit(lambda params, inputs, maps: backbone.encode(params, state, inputs, maps=maps).maps, static_argnums=2)
    found = [np.asarray(one) for one in run(backbone.params, ImageInputs(x), count)]
    assert [one.shape[-1] for one in found] == list(backbone.config.maps)
    (last,) = run(backbone.params, ImageInputs(x), 1)
    np.testing.assert_allclose(last, found[-1], **WITHIN)
    return found


def state_of(backbone: Backbone, adapter: Adapter) -> Any:
    return jax.tree.map(jax.numpy.asarray, Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state)


def marked(shapes: Any, fast: tuple[str, ...]) -> list[Any]:
    return [pytest.param(shape, marks=() if shape in fast else pytest.mark.slow) for shape in shapes]


OF_PATCHES = [shape for shape in SHAPES if shape not in SWINS]


@pytest.mark.parametrize("shape", marked(OF_PATCHES, ("vit-oblong", "registers")))
def test_of_patches(shape: str, tmp_path: Any) -> None:
    """The last layers, each through the last norm, without the tokens in front of the patches."""
    model, x = torch_model(shape), pictures(shape)
    said, backbone = outputs(model, x), load_backbone(saved(model, tmp_path))
    norm = next((getattr(model, name) for name in ("layernorm", "norm") if hasattr(model, name)), torch.nn.Identity())
    found = maps_of(backbone, x)
    with torch.no_grad():
        wanted = [*(norm(one) for one in said.hidden_states[-len(found) : -1]), said.last_hidden_state]
    for mine, reference in zip(found, wanted, strict=True):
        patches = reference[:, -mine.shape[1] * mine.shape[2] :]
        np.testing.assert_allclose(mine, patches.reshape(mine.shape), **WITHIN)


@pytest.mark.parametrize("shape", marked(SWINS, ("swin-three",)))
def test_of_windows(shape: str, tmp_path: Any) -> None:
    """What leaves each stage before its patches are merged; the last through the last norm."""
    model, x = torch_model(shape), pictures(shape)
    backbone = load_backbone(saved(model, tmp_path))
    paths = [f"encoder.layers.{stage}.blocks.{depth - 1}" for stage, depth in enumerate(model.config.depths)]
    ends: list[torch.Tensor] = []
    for path in paths:
        model.get_submodule(path).register_forward_hook(lambda module, given, made: ends.append(made[0]))
    last = outputs(model, x).last_hidden_state
    for mine, reference in zip(maps_of(backbone, x), [*ends[:-1], last], strict=True):
        np.testing.assert_allclose(mine, reference.numpy().reshape(mine.shape), **WITHIN)


@pytest.mark.parametrize("name", marked(SMALL, ("basic",)))
def test_of_convolutions(name: str, tmp_path: Any) -> None:
    """Of each size that maps have, what leaves the last block of that size."""
    model = theirs(*SMALL[name])
    model.save_pretrained(tmp_path)
    backbone, x = load_backbone(tmp_path), random_pictures(height=64, width=48)
    blocks, _ = blocks_of([path for path, _ in backbone.config.blocks], model.base_model, x)
    of_size = {one.shape[2:]: from_torch(one) for one in blocks}
    found = maps_of(backbone, x)
    assert len({one.shape[1:3] for one in found}) == len(found)
    for mine in found:
        np.testing.assert_allclose(mine, of_size[torch.Size(mine.shape[1:3])], **WITHIN)


#: Configs of the other families, and how large their pictures must be.
OTHERS: dict[str, tuple[dict[str, Any], int]] = {
    **{f"classic {name}": (raw, 80 if name == "inception" else 32) for name, (raw, _) in CLASSIC.items() if name != "vgg"},
    **{f"convolutions {name}": (raw, 32) for name, (raw, _) in CONVOLVED.items()},
    **{f"tower {name}": ({"model_type": f"{name}_vision_model", **PICTURE, "projection_dim": 16}, 16) for name in TOWERS},
    "timm_vit": ({"model_type": "timm_vit", "embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 16, "patch_size": 4}, 16),
}


@pytest.mark.parametrize("name", marked(OTHERS, ("classic mobilenet",)))
def test_the_other_families_give_what_they_declare(name: str) -> None:
    """Maps of the channels that are said, each as large as the one before or smaller, and as many as a head reads."""
    raw, side = OTHERS[name]
    backbone = random_backbone({"image_size": side, **raw} if "img_size" not in raw else raw)
    x = np.random.default_rng(0).standard_normal((2, side, side, 3), np.float32)
    sizes = [one.shape[1:3] for one in maps_of(backbone, x)]
    assert sizes == sorted(sizes, reverse=True)
    assert backbone.head_of_maps(3, several=True).select(backbone.sites)[0].shape == backbone.config.maps


def test_vectors_beside_the_patches_are_no_part_of_a_map(tmp_path: Any) -> None:
    model, x = torch_model("vit"), pictures("vit")
    backbone = load_backbone(saved(model, tmp_path))
    adapter = random_adapter(backbone, (VPT(tokens=5), LoRA()))
    last = maps_of(backbone, x, adapter)[-1]
    hidden = backbone.encode(backbone.params, state_of(backbone, adapter), ImageInputs(x)).hidden
    np.testing.assert_allclose(last, hidden[:, -last.shape[1] * last.shape[2] :].reshape(last.shape), **WITHIN)
    assert np.abs(last - maps_of(backbone, x)[-1]).max() > 1e-2
