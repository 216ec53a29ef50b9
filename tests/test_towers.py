"""CLIP's and SigLIP's towers against transformers' torch models, layer by layer; adapters on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers
from parity import assert_parity
from reference import saved
from torch_towers import of_pictures, of_texts, pictures, texts, torch_pair

from graftax import load_backbone
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs, Outputs, TextInputs, Texts

KINDS = ("clip", "siglip")


def encode(backbone: Backbone, inputs: Any, **options: bool) -> Outputs:
    run = jax.jit(lambda params, inputs: backbone.encode(params, {}, inputs, **options))
    return jax.device_get(run(backbone.params, inputs))


def text_inputs(kind: str) -> tuple[TextInputs, np.ndarray, np.ndarray | None]:
    """Texts as a tower reads them, and as transformers' does: SigLIP's sees the padding."""
    ids, mask = texts()
    seen = np.ones_like(mask) if kind == "siglip" else mask
    return TextInputs(ids, seen, np.zeros_like(ids)), ids, None if kind == "siglip" else mask


@pytest.mark.parametrize("kind", KINDS)
def test_pictures(kind: str, tmp_path: Path) -> None:
    """Every hidden state, the last one, and the vector."""
    model = torch_pair(kind)
    backbone = load_backbone(saved(model, tmp_path), tower="image")
    theirs = of_pictures(model.vision_model, pictures())
    ours = encode(backbone, ImageInputs(pictures()), intermediates=True)
    for mine, reference in zip(ours.layers, theirs.hidden_states, strict=True):
        assert_parity(backbone, mine, reference)
    assert_parity(backbone, ours.hidden, theirs.last_hidden_state)
    with torch.no_grad():
        wanted = model.get_image_features(torch.tensor(pictures().transpose(0, 3, 1, 2))).pooler_output.numpy()
    assert_parity(backbone, ours.vector, wanted)
    assert wanted.shape == (3, backbone.config.vector_size)


@pytest.mark.parametrize("kind", KINDS)
def test_texts(kind: str, tmp_path: Path) -> None:
    model = torch_pair(kind)
    backbone = load_backbone(saved(model, tmp_path), tower="text")
    inputs, ids, mask = text_inputs(kind)
    theirs = of_texts(model.text_model, ids, mask)
    ours = encode(backbone, inputs, intermediates=True)
    real = inputs.mask
    for mine, reference in zip(ours.layers[:-1], theirs.hidden_states[:-1], strict=True):
        assert_parity(backbone, mine[real], reference[real])
    assert_parity(backbone, ours.hidden[real], theirs.last_hidden_state[real])
    with torch.no_grad():
        told = {} if mask is None else {"attention_mask": torch.tensor(mask.astype(np.int64))}
        wanted = model.get_text_features(torch.tensor(ids.astype(np.int64)), **told).pooler_output.numpy()
    assert_parity(backbone, ours.vector, wanted)


def test_texts_that_share_a_batch_row(tmp_path: Path) -> None:
    """Each sees itself alone, and has its own vector."""
    model = torch_pair("clip")
    backbone = load_backbone(saved(model, tmp_path), tower="text")
    ids, mask = texts((5, 7))
    apart = encode(backbone, TextInputs(ids, mask, np.zeros_like(ids))).vector
    both = np.concatenate([ids[0, :5], ids[1, :7]])[None]
    segments = np.array([[1] * 5 + [2] * 7], np.int32)
    inputs = TextInputs(both, segments > 0, np.zeros_like(both), Texts(segments, np.array([0, 5], np.int32)))
    np.testing.assert_allclose(encode(backbone, inputs).vector, apart, atol=1e-5)


@pytest.mark.parametrize(("kind", "tower"), [(kind, tower) for kind in KINDS for tower in ("image", "text")])
def test_a_checkpoint_of_a_tower_alone(kind: str, tower: str, tmp_path: Path) -> None:
    """Without CLIP's projection its vector is what would be projected."""
    model = torch_pair(kind)
    whole = load_backbone(saved(model, tmp_path / "whole"), tower=tower)
    alone = load_backbone(saved(model.vision_model if tower == "image" else model.text_model, tmp_path / "alone"))
    inputs = ImageInputs(pictures()) if tower == "image" else text_inputs(kind)[0]
    ours, theirs = encode(alone, inputs), encode(whole, inputs)
    np.testing.assert_array_equal(ours.hidden, theirs.hidden)
    if kind == "siglip":
        assert alone.fingerprint == whole.fingerprint
        return
    reference = of_pictures(model.vision_model, pictures()) if tower == "image" else of_texts(model.text_model, *texts())
    np.testing.assert_allclose(ours.vector, reference.pooler_output.numpy(), atol=1e-4)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_checkpoint_with_a_projection(tower: str, tmp_path: Path) -> None:
    kind, name = ("Vision", "vision_config") if tower == "image" else ("Text", "text_config")
    pair = torch_pair("clip")
    config = getattr(pair.config, name)
    config.projection_dim = 20
    model = getattr(transformers, f"CLIP{kind}ModelWithProjection")(config).eval()
    model.load_state_dict({key: tensor for key, tensor in pair.state_dict().items() if key in model.state_dict()})
    whole, alone = load_backbone(saved(pair, tmp_path / "whole"), tower=tower), load_backbone(saved(model, tmp_path / "alone"))
    assert alone.fingerprint == whole.fingerprint
    assert alone.config == whole.config
