"""Transformers of patches with timm's names: parity, architectures, PEFT's files of adapters on one projection for three."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import peft
import pytest
import torch
from cases import LABELS, logits
from feature_maps import to_torch
from parity import assert_parity
from reference import stirred
from safetensors.numpy import load_file
from torch_timm_vit import CONFIG, timm_vit

from graftax import GraftaxError, load_adapter, load_backbone, save_adapter
from graftax.models.family_registry import config_said, family_of
from graftax.models.inputs import ImageInputs

PIXELS = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)


def said(model: Any) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(to_torch(PIXELS)).numpy()
    return found


@pytest.mark.parametrize("kind", [{}, {"scaled": True, "registers": 2}], ids=str)
def test_layers_equal_torchs(kind: dict[str, Any], tmp_path: Path) -> None:
    """And the head's logits."""
    model = timm_vit(tmp_path, **kind)
    wanted, backbone = said(model), load_backbone(tmp_path)
    run = jax.jit(lambda params, inputs: backbone.encode(params, {}, inputs, intermediates=True))
    for mine, reference in zip(run(backbone.params, ImageInputs(PIXELS)).layers, model.states, strict=True):
        assert_parity(backbone, mine, reference)
    assert backbone.own_head is not None
    np.testing.assert_allclose(logits(backbone, backbone.own_head, ImageInputs(PIXELS)), wanted, atol=1e-4)


CASES: dict[str, Callable[[], Any]] = {
    "lora": lambda: peft.LoraConfig(r=3, lora_alpha=7, target_modules=["qkv"], modules_to_save=["head"]),
    "regex": lambda: peft.LoraConfig(r=3, lora_alpha=7, target_modules=r".*\.mlp\.fc\d", modules_to_save=["head"]),
    "ia3": lambda: peft.IA3Config(target_modules=["qkv", "fc2"], feedforward_modules=["fc2"], modules_to_save=["head"]),
}


@pytest.mark.parametrize("case", ["lora", *(pytest.param(case, marks=pytest.mark.slow) for case in CASES if case != "lora")])
def test_pefts_files_both_ways(case: str, tmp_path: Path) -> None:
    model = peft.get_peft_model(timm_vit(tmp_path / "base"), CASES[case]()).eval()
    stirred(model).save_pretrained(tmp_path / "theirs")
    backbone, wanted = load_backbone(tmp_path / "base"), said(model)
    adapter = load_adapter(tmp_path / "theirs", backbone)
    assert len(LABELS) == wanted.shape[1]
    np.testing.assert_allclose(logits(backbone, adapter, ImageInputs(PIXELS)), wanted, atol=1e-4)
    save_adapter(adapter, tmp_path / "ours", backbone)
    again = peft.PeftModel.from_pretrained(timm_vit(tmp_path / "again"), tmp_path / "ours").eval()
    there = {key for key in peft.get_peft_model_state_dict(again) if "original_module" not in key}
    assert there == {*load_file(tmp_path / "ours" / "adapter_model.safetensors")}
    np.testing.assert_allclose(said(again), wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "sizes"),
    [
        ("vit_base_patch16_224", (768, 12, 12, 3072, (14, 14))),
        ("vit_small_patch32_384", (384, 12, 6, 1536, (12, 12))),
        ("deit_tiny_patch16_224", (192, 12, 3, 768, (14, 14))),
        ("vit_large_patch14_reg4_dinov2", (1024, 24, 16, 4096, (37, 37))),
        ("vit_giant_patch14_dinov2", (1536, 40, 24, 4096, (37, 37))),
    ],
)
def test_an_architecture_has_its_sizes(architecture: str, sizes: tuple[Any, ...]) -> None:
    raw = config_said({"architecture": architecture, "num_classes": 1000, "global_pool": "token"})
    c = family_of(raw["model_type"]).configure(raw)
    assert (c.hidden_size, c.num_layers, c.num_heads, c.intermediate_size, c.grid) == sizes


def test_what_timm_pools_otherwise_is_refused(tmp_path: Path) -> None:
    timm_vit(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"global_pool": "avg"}))
    with pytest.raises(GraftaxError, match=r"global_pool='avg' \(only 'token' is supported\)"):
        load_backbone(tmp_path)
