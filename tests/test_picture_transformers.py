"""Transformers of pictures against transformers' torch models, layer by layer; adapters on them."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from cases import logits, random_adapter
from contract import assert_same_states
from feature_maps import to_torch
from flax import nnx
from parity import assert_parity
from reference import saved
from torch_pictures import CLASSIFIER, SHAPES, SWINS, outputs, pictures, torch_model

from graftax import VPT, GraftaxError, Prefix, load_adapter, load_backbone, save_adapter
from graftax.adapters.graft import Grafts
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs, Outputs
from graftax.models.random import random_backbone
from graftax.models.stack import Chain


def encode(backbone: Backbone, x: np.ndarray, **options: bool) -> Outputs:
    run = jax.jit(lambda params, inputs: backbone.encode(params, {}, inputs, **options))
    return jax.device_get(run(backbone.params, ImageInputs(x)))


def assert_states_are_torchs(backbone: Backbone, theirs: Any, x: np.ndarray) -> None:
    """Every hidden state and the last one equal the torch model's within 1e-4."""
    ours = encode(backbone, x, intermediates=True)
    assert len(ours.layers) == len(theirs.hidden_states)
    for mine, reference in zip(ours.layers, theirs.hidden_states, strict=True):
        assert_parity(backbone, mine, reference)
    assert_parity(backbone, ours.hidden, theirs.last_hidden_state)


FAST = ("vit-oblong", "deit", "registers", "dinov2-gated", "beit-both", "dinov3-gated", "swin")


def marked(shapes: Iterable[str], fast: Container[str] = FAST) -> list[Any]:
    return [pytest.param(shape, marks=() if shape in fast else pytest.mark.slow) for shape in shapes]


@pytest.mark.parametrize("shape", marked(shape for shape in SHAPES if shape not in SWINS))
def test_hidden_states_equal_transformers(shape: str, tmp_path: Path) -> None:
    model, x = torch_model(shape), pictures(shape)
    assert_states_are_torchs(load_backbone(saved(model, tmp_path)), outputs(model, x), x)


@pytest.mark.parametrize("shape", marked(["vit", "deit", "dinov2", "registers", "dinov3"], ("vit", "registers")))
def test_pictures_of_another_size(shape: str, tmp_path: Path) -> None:
    """Positions are resampled, as transformers does when it is told to; pixels beyond the last whole patch are not seen."""
    told = {"interpolate_pos_encoding": True} if shape in ("vit", "deit") else {}
    model = torch_model(shape)
    for size in ((31, 22), (9, 14)):
        x = pictures(shape, size=size)
        assert_states_are_torchs(load_backbone(saved(model, tmp_path)), outputs(model, x, **told), x)


@pytest.mark.parametrize(
    ("shape", "size"), [("swin", (50, 39)), *(pytest.param(shape, None, marks=pytest.mark.slow) for shape in SWINS)]
)
def test_stages_equal_transformers(shape: str, size: tuple[int, int] | None, tmp_path: Path) -> None:
    """Windows that do not divide a map, patches and mergings that reach beyond its edge, layers in a loop and unrolled."""
    model, x = torch_model(shape), pictures(shape, size=size)
    theirs, backbone = outputs(model, x, interpolate_pos_encoding=True), load_backbone(saved(model, tmp_path))
    network: Chain = nnx.merge(backbone.graphdef, backbone.params)
    h, found = ImageInputs(x), []
    for index, stack in enumerate(network.stacks):
        h = network.enter(index, h, Grafts.bare())
        found.append(h)
        h = stack.run_layers(h, network.seen(), Grafts({}))[0]
    for mine, reference in zip([*found, h], theirs.hidden_states, strict=True):
        assert_parity(backbone, mine.reshape(reference.shape), reference)
    out = encode(backbone, x)
    assert_parity(backbone, out.hidden.reshape(theirs.last_hidden_state.shape), theirs.last_hidden_state)
    assert_parity(backbone, out.pooled, theirs.pooler_output)


def test_relative_positions_are_for_one_grid() -> None:
    backbone = random_backbone(SHAPES["beit"])
    with pytest.raises(GraftaxError, match="relative positions of 4 x 4 patches: pictures of 5 x 4 do not fit them"):
        encode(backbone, pictures("beit", size=(20, 16)))


@pytest.mark.parametrize("deep", [True, False])
def test_vpt_is_the_papers(deep: bool, tmp_path: Path) -> None:
    """Vectors between the class token and the patches, by hand in torch's model."""
    model, x = torch_model("vit"), pictures("vit")
    backbone = load_backbone(saved(model, tmp_path))
    adapter = random_adapter(backbone, (VPT(tokens=5, deep=deep),))
    states = {site.layer: torch.tensor(own["prompt"]) for site, (own, _) in adapter.states["vpt"].items()}
    below = [
        states[None],
        *(states.get(layer) for layer in range(backbone.config.num_layers - 1)),
    ]  # by the layer that reads it
    with torch.no_grad():
        h = model.embeddings(to_torch(x))
        class_token, prompt, patches = h[:, :1], h[:, :0], h[:, 1:]
        for layer, own in zip(model.layers, below, strict=True):
            prompt = prompt if own is None else own.expand(len(x), -1, -1)
            h = layer(torch.cat([class_token, prompt, patches], 1))
            class_token, prompt, patches = h[:, :1], h[:, 1:6], h[:, 6:]
        features = model.layernorm(class_token[:, 0]).numpy()
    (head,) = (own for own, _ in adapter.states["head:none"].values())
    found = logits(backbone, adapter, ImageInputs(x))
    np.testing.assert_allclose(found, features @ head["kernel"].T + head["bias"], atol=1e-4)


@pytest.mark.parametrize(
    "shape", marked(["vit", "deit", "dinov2", "registers", "beit", "beit-shared", "swin"], ("dinov2", "beit"))
)
def test_the_task_models_head(shape: str, tmp_path: Path) -> None:
    """It comes with the checkpoint, and answers as there."""
    model, x = torch_model(shape, CLASSIFIER, num_labels=3), pictures(shape)
    backbone = load_backbone(saved(model, tmp_path))
    assert backbone.own_head is not None
    found = logits(backbone, backbone.own_head, ImageInputs(x))
    np.testing.assert_allclose(found, outputs(model, x).logits.numpy(), atol=1e-4)


def test_vpt_says_why_it_has_no_place_in_windows() -> None:
    """And what acts there instead, which does."""
    swin = random_backbone(SWINS["swin"], seed=7)
    with pytest.raises(GraftaxError, match="patches attend to those of their window alone; prefix adds to what each window"):
        VPT().select(swin.sites)
    assert Prefix().select(swin.sites)


def test_a_prefix_of_stages_of_unlike_widths_is_read_as_written(tmp_path: Path) -> None:
    backbone = random_backbone(SWINS["swin"], seed=7)
    adapter = random_adapter(backbone, "prefix")
    again = load_adapter(save_adapter(adapter, tmp_path / "a", backbone), backbone)
    assert_same_states(again, adapter)
