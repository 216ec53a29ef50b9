"""PEFT's files of adapters on Transformers of pictures, both ways, whatever version of transformers named the modules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
from cases import LABELS, logits, random_adapter
from reference import saved, stirred
from safetensors.numpy import load_file, save_file
from tiny import edited
from torch_pictures import CLASSIFIER, outputs, pictures, torch_model

from graftax import LoRA, load_adapter, load_backbone, save_adapter
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs

SAVED = {"modules_to_save": ["classifier"]}
QV = {"target_modules": ["q_proj", "v_proj"], **SAVED}
CASES: dict[str, Callable[[], Any]] = {
    "lora": lambda: peft.LoraConfig(r=3, lora_alpha=7, rank_pattern={"layers.1.attention.q_proj": 5}, **QV),
    "everywhere": lambda: peft.LoraConfig(r=4, lora_alpha=7, target_modules="all-linear", **SAVED),
    "patches": lambda: peft.LoraConfig(r=4, lora_alpha=7, target_modules=["projection", r"fc1"], **SAVED),
    "dora": lambda: peft.LoraConfig(r=3, lora_alpha=7, use_dora=True, **QV),
    "norms_beside": lambda: peft.LoraConfig(
        r=3, lora_alpha=7, target_modules=["q_proj"], modules_to_save=["classifier", "layernorm_after"]
    ),
    "adalora": lambda: peft.AdaLoraConfig(init_r=4, target_r=2, total_step=9, lora_alpha=7, **QV),
    "loha": lambda: peft.LoHaConfig(r=3, alpha=7, **QV),
    "ia3": lambda: peft.IA3Config(target_modules=["k_proj", "v_proj", "fc2"], feedforward_modules=["fc2"], **SAVED),
    "oft": lambda: peft.OFTConfig(r=0, oft_block_size=4, **QV),
    "vera": lambda: peft.VeraConfig(r=5, **QV),
    "ln_tuning": lambda: peft.LNTuningConfig(target_modules=["layernorm_before", "layernorm"], **SAVED),
}
#: What modules were called before transformers 5.
OLDER = (("vit.layers.", "vit.encoder.layer."), (".q_proj", ".attention.query"), (".v_proj", ".attention.value"))
OLDER += ((".o_proj", ".output.dense"), ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense"))


def older(key: str) -> str:
    for newer, name in OLDER:
        key = key.replace(newer, name)
    return key


def base(directory: Path) -> Backbone:
    return load_backbone(saved(torch_model("vit", CLASSIFIER, num_labels=len(LABELS)), directory))


def made(directory: Path, case: str) -> Any:
    """PEFT's model with an adapter that changes something, which it has saved."""
    model = peft.get_peft_model(torch_model("vit", CLASSIFIER, num_labels=len(LABELS)), CASES[case]()).eval()
    stirred(model).save_pretrained(directory)
    return model


def read_by_peft(path: Path) -> np.ndarray:
    """The logits with a directory of ours, every tensor of which finds its place."""
    model = peft.PeftModel.from_pretrained(torch_model("vit", CLASSIFIER, num_labels=len(LABELS)), path).eval()
    assert {*load_file(path / "adapter_model.safetensors")} == {
        key for key in peft.get_peft_model_state_dict(model) if "original_module" not in key
    }
    found: np.ndarray = outputs(model, pictures("vit")).logits.numpy()
    return found


FAST = ("lora", "norms_beside", "ia3")


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case in FAST else pytest.mark.slow) for case in CASES])
def test_both_ways(case: str, tmp_path: Path) -> None:
    backbone, wanted = base(tmp_path / "base"), outputs(made(tmp_path / "theirs", case), pictures("vit")).logits.numpy()
    adapter = load_adapter(tmp_path / "theirs", backbone)
    np.testing.assert_allclose(logits(backbone, adapter, ImageInputs(pictures("vit"))), wanted, atol=1e-4)
    save_adapter(adapter, tmp_path / "ours", backbone)
    np.testing.assert_allclose(read_by_peft(tmp_path / "ours"), wanted, atol=1e-4)


@pytest.mark.parametrize("targets", [["query", "value"], r".*encoder\.layer\.\d+\.attention\.attention\.(query|value)"])
def test_an_adapter_of_an_older_transformers(targets: Any, tmp_path: Path) -> None:
    """As PEFT's notebooks have made them: `target_modules` ["query", "value"], `modules_to_save` ["classifier"]."""
    backbone, wanted = base(tmp_path / "base"), outputs(made(tmp_path / "theirs", "lora"), pictures("vit")).logits.numpy()
    file = tmp_path / "theirs" / "adapter_model.safetensors"
    save_file({older(key): tensor for key, tensor in load_file(file).items()}, file)
    edited(tmp_path / "theirs" / "adapter_config.json", target_modules=targets, rank_pattern={r"layer\.1\..*query": 5})
    adapter = load_adapter(tmp_path / "theirs", backbone)
    np.testing.assert_allclose(logits(backbone, adapter, ImageInputs(pictures("vit"))), wanted, atol=1e-4)


def test_targets_by_older_names_are_written_by_newer_ones(tmp_path: Path) -> None:
    """So that PEFT finds them in the model that it has."""
    backbone = base(tmp_path / "base")
    method = LoRA(r=3, alpha=7.0, targets=("query", "attention.output.dense"), rank_pattern={"query": 2})
    assert len(method.select(backbone.sites)) == 6
    adapter = random_adapter(backbone, (method,))
    save_adapter(adapter, tmp_path / "ours", backbone)
    config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["o_proj", "q_proj"]
    wanted = logits(backbone, adapter, ImageInputs(pictures("vit")))
    np.testing.assert_allclose(read_by_peft(tmp_path / "ours"), wanted, atol=1e-4)


def test_what_peft_has_for_texts_alone_is_graftaxs_own(tmp_path: Path) -> None:
    backbone = base(tmp_path / "base")
    for name in ("prompt", "prefix", "p_tuning"):
        save_adapter(random_adapter(backbone, name), tmp_path / name, backbone)
        assert json.loads((tmp_path / name / "adapter_config.json").read_text())["peft_type"] == "GRAFTAX"
