"""open_clip's folders: both towers layer by layer against torch's, adapters on a projection for three, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from cases import randomised
from contract import assert_same_states
from feature_maps import to_torch
from parity import assert_parity
from refusals import refused
from safetensors.torch import load_file
from tiny import write_towers
from torch_open_clip import LENGTH, MODEL, SIDE, VOCABULARY, OpenCLIP, open_clip

from graftax import Adapter, LoRA, load_adapter, load_backbone, merge, save_adapter
from graftax.adapters.adapter import Layout
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs, PairInputs, TextInputs
from graftax.models.preprocessor_config import preparation_of
from graftax.serve import export_merged

KINDS: list[dict[str, bool]] = [{}, {"quick": True, "scaled": True}]
PIXELS = np.random.default_rng(0).standard_normal((3, SIDE, SIDE, 3), np.float32)


def texts() -> TextInputs:
    """Of unlike lengths, each ended by the largest id."""
    ids, lengths = np.random.default_rng(0).integers(5, VOCABULARY - 1, (3, LENGTH)).astype(np.int32), np.array([LENGTH, 5, 9])
    mask = np.arange(LENGTH) < lengths[:, None]
    ids[np.arange(3), lengths - 1] = VOCABULARY - 1
    return TextInputs(np.where(mask, ids, 0), mask, np.zeros_like(ids))


INPUTS = {"image": ImageInputs(PIXELS), "text": texts()}


@torch.no_grad()
def said(model: OpenCLIP, tower: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What enters and leaves a tower's layers, and its vectors."""
    found: tuple[list[torch.Tensor], torch.Tensor]
    found = model.visual(to_torch(PIXELS)) if tower == "image" else model.of_texts(torch.tensor(texts().ids.astype(np.int64)))
    return found


def encode(backbone: Backbone, inputs: Any, adapter: Adapter | None = None, **options: bool) -> Any:
    state = {} if adapter is None else Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
    run = jax.jit(lambda params, state, inputs: backbone.encode(params, state, inputs, **options))
    return jax.device_get(run(backbone.params, state, inputs))


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_layers_and_vectors_equal_torchs(kind: dict[str, bool], tower: str, tmp_path: Path) -> None:
    states, vectors = said(open_clip(tmp_path, **kind), tower)
    backbone, inputs = load_backbone(tmp_path, tower=tower), INPUTS[tower]
    ours = encode(backbone, inputs, intermediates=True)
    seen = inputs.mask if isinstance(inputs, TextInputs) else np.ones(states[0].shape[:2], bool)
    layers = ours.layers if tower == "image" else ours.layers[:-1]  # the last of texts is normed
    for mine, reference in zip(layers, states, strict=tower == "image"):
        assert_parity(backbone, mine[seen], reference.numpy()[seen])
    assert_parity(backbone, ours.vector, vectors)
    assert vectors.std() > 0.1


def test_both_are_compared_by_the_checkpoints_scale(tmp_path: Path) -> None:
    model = open_clip(tmp_path)
    u, w = (torch.nn.functional.normalize(said(model, tower)[1], dim=-1) for tower in ("image", "text"))
    both = load_backbone(tmp_path, tower="both")
    found = encode(both, PairInputs(INPUTS["image"], INPUTS["text"])).together
    with torch.no_grad():
        np.testing.assert_allclose(found[:, 0] @ found[:, 1].T, (model.logit_scale.exp() * u @ w.T).numpy(), atol=1e-4)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_an_adapter_of_the_projection_for_three(tower: str, tmp_path: Path) -> None:
    """Saved, loaded, and folded into weights with which torch's model says the same."""
    model = open_clip(tmp_path / "clip")
    backbone, inputs = load_backbone(tmp_path / "clip", tower=tower), INPUTS[tower]
    method = LoRA(targets=("in_proj", "out_proj", "proj" if tower == "image" else "text_projection"), r=3, alpha=7)
    adapter = randomised(Adapter.create((method,), backbone.sites, task="classify", fingerprint=backbone.fingerprint))
    changed = encode(backbone, inputs, adapter).vector
    assert np.abs(changed - said(model, tower)[1].numpy()).max() > 0.1
    save_adapter(adapter, tmp_path / "adapter", backbone)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "GRAFTAX"  # PEFT has no module there, or one that it does not call
    assert_same_states(load_adapter(tmp_path / "adapter", backbone), adapter, 0.0)
    export_merged(backbone, adapter, tmp_path / "merged")
    assert load_backbone(tmp_path / "merged").fingerprint == merge(backbone, adapter)[0].fingerprint
    prefix = "visual." if tower == "image" else ""
    folded = {prefix + key: tensor for key, tensor in load_file(tmp_path / "merged" / "model.safetensors").items()}
    left = model.load_state_dict(folded, strict=False)
    assert not left.unexpected_keys
    np.testing.assert_allclose(said(model, tower)[1].numpy(), changed, atol=1e-4)


def test_where_hugging_faces_files_lie_beside(tmp_path: Path) -> None:
    """What `config.json` says is read, of its own weights."""
    open_clip(tmp_path)
    pictures = load_backbone(write_towers(tmp_path), tower="image")
    assert pictures.family.model_types == ("clip_vision_model",)
    assert {site.role for site in pictures.sites} >= {"query", "key", "value"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"vision_cfg": {"timm_model_name": "vit_base_patch16_siglip_224"}}, "a tower of pictures of timm's (timm_model_name="),
        ({"text_cfg": {"hf_model_name": "roberta-base"}}, "a tower of texts of transformers' (hf_model_name='roberta-base')"),
        ({"multimodal_cfg": {"layers": 12}}, "a third tower, which writes texts (CoCa)"),
        ({"vision_cfg": {"attentional_pool": True}}, "pools by attention"),
        ({"custom_text": True}, "under names of its own (CustomTextCLIP)"),
        ({"vision_cfg": {"layers": [3, 4, 6, 3]}}, "its tower of pictures is a ResNet (layers=[3, 4, 6, 3])"),
        ({"vision_cfg": {"qk_norm": True}}, "qk_norm=True (only False is supported)"),
        ({"vision_cfg": {"head_width": 12}}, "width=32 is no multiple of head_width=12"),
        ({"vision_cfg": {"pool_type": "avg"}}, "pool_type='avg' (only 'tok' is supported)"),
        ({"vision_cfg": None}, "vision_cfg must be an object"),
    ],
)
def test_what_is_not_read(changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    """One line, of whichever tower is asked for."""
    model = dict(MODEL)
    for name, change in changes.items():
        model[name] = {**model[name], **change} if isinstance(change, dict) and name in model else change
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    found = refused(lambda: load_backbone(tmp_path, tower="image"))
    assert found is not None
    assert line in found


def test_weights_that_are_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL}))
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"")
    found = refused(lambda: load_backbone(tmp_path, tower="text"))
    assert found is not None
    assert "a pickle, which graftax never reads" in found
    assert "save_file({k: t.contiguous()" in found


@pytest.mark.parametrize(
    ("said", "how"),
    [
        ({}, ((16, 16), 16, 3)),
        ({"interpolation": "bilinear", "size": 224, "mean": None}, ((16, 16), 16, 2)),
        ({"resize_mode": "squash", "image_size": [16, 20]}, ((16, 20), (16, 20), 3)),
    ],
)
def test_how_pictures_are_prepared(said: dict[str, Any], how: Any, tmp_path: Path) -> None:
    """In the tower's size; nothing said is CLIP's mean and standard deviation."""
    size = said.pop("image_size", 16)
    found = preparation_of(tmp_path, {"image_size": size, "preprocess_cfg": said})
    assert (found.size, found.resize, found.resample) == how
    assert (found.mean, found.std) == ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"resize_mode": "longest"}, "resize_mode='longest' (one of shortest, squash)"),
        ({"std": [0.2, 0.0, 0.2]}, "std=[0.2, 0.0, 0.2] (a number above 0"),
        ({"image_size": [16, 20]}, "resize_mode shortest of 20 x 16 pixels"),
    ],
)
def test_what_is_not_prepared(said: dict[str, Any], line: str, tmp_path: Path) -> None:
    size = said.pop("image_size", 16)
    found = refused(lambda: preparation_of(tmp_path, {"image_size": size, "preprocess_cfg": said}))
    assert found is not None
    assert line in found
