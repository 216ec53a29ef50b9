"""What AdapterHub's `adapters` cannot hold is not written, and what is not understood of its files is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from adapterhub_cases import OURS
from cases import METHODS, random_adapter
from conftest import CONFIGS, GetBackbone
from safetensors.numpy import load_file, save_file

from graftax import GatedLoRA, GatedPrefix, GraftaxError, LoRA, Method, export_adapter, load_adapter
from graftax.models.random import random_backbone

CANNOT: dict[str, tuple[tuple[Method, ...], str]] = {
    "bitfit": (METHODS["bitfit"], "bitfit cannot be written for it; bottleneck, .* can"),
    "ia3": (METHODS["ia3"], "IA3 scales what matrices put out there"),
    "shifted": (METHODS["prefix"], "shifted=false"),
    "prompt": (METHODS["prompt"], "post=true"),
    "ranks": (METHODS["rslora"], "one rank and one alpha"),
    "behind-the-attention": ((LoRA(targets=("attention.output.dense",)),), "no LoRA or IA3 there at attention_out"),
    "uneven": ((LoRA(targets=r".*layer\.0.*query|.*layer\.1.*value"),), "same places in every layer"),
    "scaled-gate": ((GatedLoRA(r=3, alpha=7.0),), "a gated LoRA has the scale 1 there"),
    "gated-shifted": ((GatedPrefix(tokens=3),), "shifted=false"),
    "twice": ((LoRA(), OURS["ia3"][0]), "two of them are one architecture"),
    "probe": ((), "a head alone"),
}


@pytest.mark.parametrize("case", CANNOT)
def test_what_the_library_cannot_hold(case: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    (methods, message), backbone = CANNOT[case], backbone_of("bert")
    with pytest.raises(GraftaxError, match=message):
        export_adapter(random_adapter(backbone, methods), tmp_path / "a", backbone)
    assert not (tmp_path / "a").exists()


def test_names_and_families(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    with pytest.raises(GraftaxError, match=r"v1\.2.*part of a module's path"):
        export_adapter(random_adapter(backbone, "lora"), tmp_path / "v1.2", backbone)
    with pytest.raises(GraftaxError, match="this backbone is albert"):
        export_adapter(random_adapter(backbone_of("albert"), "lora"), tmp_path / "a", backbone_of("albert"))
    path = export_adapter(random_adapter(backbone, "lora"), tmp_path / "a", backbone)
    with pytest.raises(GraftaxError, match="made for bert of hidden size 32; this backbone is roberta"):
        load_adapter(path, backbone_of("roberta"))
    wide = random_backbone({**CONFIGS["bert"], "hidden_size": 64}, seed=1)
    with pytest.raises(GraftaxError, match="made for bert of hidden size 32; this backbone is bert of hidden size 64"):
        load_adapter(path, wide)


def config_of(path: Path, **changes: Any) -> None:
    """Change settings of the method in a directory."""
    file = path / "adapter_config.json"
    content = json.loads(file.read_text())
    content["config"] |= changes
    file.write_text(json.dumps(content))


SIDE = {"reduction_factor": 4, "non_linearity": "relu"}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gated-compacter": ("compacter", {"use_gating": True}, "use_gating=True with compacter"),
    "gated-ia3": ("ia3", {"use_gating": True}, "use_gating=True with ia3"),
    "no-gates": (
        "houlsby",
        {"use_gating": True},
        r"missing .*layer\.0\.attention\.output\.adapters\.mine\.gate\.bias",
    ),
    "norm-before": ("houlsby", {"ln_before": True}, "ln_before=True"),
    "norm-after": ("houlsby", {"ln_after": True}, "ln_after=True"),
    "invertible": ("houlsby", {"inv_adapter": "nice", "inv_adapter_reduction_factor": 2}, "inv_adapter='nice'.$"),
    "no-norm": ("houlsby", {"original_ln_after": False}, "original_ln_after=False"),
    "residual": ("pfeiffer-normed", {"residual_before_ln": "post_add"}, "residual_before_ln=post_add"),
    "activation": ("houlsby", {"non_linearity": "sigmoid"}, "non_linearity='sigmoid' is none of relu"),
    "widths": ("houlsby", {"reduction_factor": {"1": 2, "default": 4}}, "several widths"),
    "unknown": ("houlsby", {"tomorrows_switch": 3}, "tomorrows_switch=3"),
    "nowhere": ("houlsby", {"mh_adapter": False, "output_adapter": False}, "acts nowhere"),
    "shared-weights": ("compacter++-normed", {"shared_W_phm": True, "phm_rank": 2}, "phm_rank=2, shared_W_phm=True"),
    "whole-weights": ("compacter++-normed", {"factorized_phm_W": False}, "factorized_phm_W=False"),
    "after-bos": ("prompt-post", {"combine": "prefix_after_bos"}, "prefix_after_bos"),
    "two-gates": ("prefix-unshifted", {"use_gating": True, "shared_gating": False}, "shared_gating=False"),
    "prefix-left-out": ("prefix-unshifted", {"leave_out": [1]}, r"leave_out=\[1\]"),
    "dora": ("lora", {"use_dora": True}, "use_dora=True"),
    "vera": ("lora", {"vera_d": 0.1, "vera_b": 0.0}, "vera_d=0.1, vera_b=0.0"),
    "scaled-ia3": ("ia3", {"alpha": 2}, "alpha=2"),
    "reft": ("lora", {"architecture": "reft"}, "architecture 'reft' is not supported; supported are bottleneck, .*union"),
    "shape": ("lora", {"r": 4}, r"mine\.lora_A has shape \(3, 32\), expected \(4, 32\)"),
    "missing": ("lora", {"output_lora": True}, r"missing bert\.encoder\.layer\.0\.output\.dense\.loras\.mine\.lora_A"),
    "extra": ("lora", {"attn_matrices": ["q"]}, r"unexpected .*value\.loras"),
    "empty-union": ("lora", {"architecture": "union"}, "not a sound config: 'configs'"),
    "one-method-twice": (
        "houlsby",
        {"architecture": "union", "configs": [{**SIDE, "mh_adapter": True}, {**SIDE, "output_adapter": True}]},
        "two parts of a union are one method here",
    ),
    "no-config": ("lora", {"leave_out": 7}, "not a sound config"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    (name, changes, message), backbone = REFUSED[case], backbone_of("bert")
    path = export_adapter(random_adapter(backbone, OURS[name]), tmp_path / "a", backbone, name="mine")
    config_of(path, **changes)
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, backbone)


def test_two_rules_of_one_compacter(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    path = export_adapter(random_adapter(backbone, "compacter"), tmp_path / "a", backbone)
    tensors = load_file(path / "adapter.safetensors")
    key = next(key for key in tensors if key.endswith("adapter_up.phm_rule"))
    save_file(tensors | {key: tensors[key] + 1}, path / "adapter.safetensors")
    with pytest.raises(GraftaxError, match=r"rules .* of their own"):
        load_adapter(path, backbone)


def test_a_pickle_is_never_read(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    path = export_adapter(random_adapter(backbone, "lora"), tmp_path / "a", backbone)
    (path / "adapter.safetensors").rename(path / "pytorch_adapter.bin")
    with pytest.raises(GraftaxError, match=r"pickle \(pytorch_adapter.bin\).*docs/files.md"):
        load_adapter(path, backbone)
