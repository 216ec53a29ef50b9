"""PEFT's files of adapters on CLIP's and SigLIP's towers, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import peft
import pytest
from cases import logits
from reference import saved, stirred
from safetensors.numpy import load_file
from torch_towers import of_pictures, of_texts, pictures, texts, torch_pair

from graftax import load_adapter, load_backbone, save_adapter
from graftax.adapters.adapter import Adapter, Layout
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs, TextInputs

TARGETS = ["q_proj", "v_proj", "out_proj", "fc1"]
LORA = {"r": 3, "lora_alpha": 7, "target_modules": TARGETS, "rank_pattern": {r"layers\.1\.self_attn\.q_proj": 5}}
#: What it puts on the projection of a pooling by attention is not run in PEFT.
LORA["exclude_modules"] = r".*head\.attention\.out_proj"


def changed(model: Any, directory: Path, **settings: Any) -> Any:
    """PEFT's model with an adapter that changes something, which it has saved."""
    model = peft.get_peft_model(model, peft.LoraConfig(**LORA, **settings)).eval()
    stirred(model).save_pretrained(directory)
    return model


def vectors(backbone: Backbone, adapter: Adapter, inputs: Any) -> np.ndarray:
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
    run = jax.jit(lambda params, state, inputs: backbone.encode(params, state, inputs).vector)
    return np.asarray(run(backbone.params, state, inputs))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_classifier(kind: str, tmp_path: Path) -> None:
    model = torch_pair(kind, "ForImageClassification", num_labels=3)
    backbone = load_backbone(saved(model, tmp_path / "base"), tower="image")
    x = pictures()
    assert backbone.own_head is not None
    found = logits(backbone, backbone.own_head, ImageInputs(x))
    np.testing.assert_allclose(found, of_pictures(model, x).logits.numpy(), atol=1e-4)
    theirs = changed(model, tmp_path / "theirs", modules_to_save=["classifier"])
    wanted = of_pictures(theirs, x).logits.numpy()
    adapter = load_adapter(tmp_path / "theirs", backbone)
    np.testing.assert_allclose(logits(backbone, adapter, ImageInputs(x)), wanted, atol=1e-4)
    save_adapter(adapter, tmp_path / "ours", backbone)
    again = peft.PeftModel.from_pretrained(torch_pair(kind, "ForImageClassification", num_labels=3), tmp_path / "ours").eval()
    keys = {key for key in peft.get_peft_model_state_dict(again) if "original_module" not in key}
    assert {*load_file(tmp_path / "ours" / "adapter_model.safetensors")} == keys
    np.testing.assert_allclose(of_pictures(again, x).logits.numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize(("kind", "tower"), [(kind, tower) for kind in ("clip", "siglip") for tower in ("image", "text")])
def test_a_bare_tower(kind: str, tower: str, tmp_path: Path) -> None:
    """Its vectors with PEFT's adapter, which has no head."""
    pair = torch_pair(kind)
    model = pair.vision_model if tower == "image" else pair.text_model
    backbone = load_backbone(saved(model, tmp_path / "base"))
    theirs = changed(model, tmp_path / "theirs")
    ids, mask = texts()
    seen = mask if kind == "clip" else np.ones_like(mask)
    wanted = of_pictures(theirs, pictures()) if tower == "image" else of_texts(theirs, ids, seen)
    inputs = ImageInputs(pictures()) if tower == "image" else TextInputs(ids, seen, np.zeros_like(ids))
    adapter = load_adapter(tmp_path / "theirs", backbone)
    np.testing.assert_allclose(vectors(backbone, adapter, inputs), wanted.pooler_output.numpy(), atol=1e-4)
    save_adapter(adapter, tmp_path / "ours", backbone)
    again = load_adapter(tmp_path / "ours", backbone)
    np.testing.assert_array_equal(vectors(backbone, again, inputs), vectors(backbone, adapter, inputs))
