"""PEFT's files of adapters on convolutions and batch norms: its directories answer here as there, and ours there as here."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import peft
import pytest
import torch
from feature_maps import to_torch
from reference import stirred
from safetensors.numpy import load_file, save_file
from torch_resnet import mobilenet, pictures, resnet

from graftax import HRA, Adapter, DoRA, GraftaxError, load_adapter, load_backbone, save_adapter
from graftax.adapters.adapter import Layout
from graftax.adapters.method import Method
from graftax.models.inputs import ImageInputs

STEPS = ["expand_1x1.convolution", "reduce_1x1.convolution", "layer.0.conv_3x3.convolution"]  # the last is depthwise, of 10
#: A maker of a torch model and its checkpoint, and PEFT's config.
CASES: dict[str, tuple[Callable[[Path], Any], Callable[[], Any]]] = {
    "lora": (resnet, lambda: peft.LoraConfig(r=4, lora_alpha=7, target_modules=["conv1", "conv2"], modules_to_save=["linear"])),
    "dora": (
        resnet,
        lambda: peft.LoraConfig(r=4, lora_alpha=7, use_dora=True, target_modules=["conv2"], modules_to_save=["linear"]),
    ),
    "norms_beside": (
        resnet,
        lambda: peft.LoraConfig(r=4, lora_alpha=7, target_modules=["layer3.1.conv1"], modules_to_save=["linear", "bn2"]),
    ),
    "in_motion": (  # those of the norms beside LoRA, while PEFT trains in `train()`
        resnet,
        lambda: peft.LoraConfig(r=4, lora_alpha=7, target_modules=["layer3.1.conv1"], modules_to_save=["linear", "0.bn1"]),
    ),
    "ia3": (
        resnet,
        lambda: peft.IA3Config(target_modules=["conv1", "conv2"], feedforward_modules=["conv2"], modules_to_save=["linear"]),
    ),
    "adalora": (
        resnet,
        lambda: peft.AdaLoraConfig(
            init_r=4, target_r=2, total_step=9, lora_alpha=7, target_modules=["conv2"], modules_to_save=["linear"]
        ),
    ),
    "loha": (resnet, lambda: peft.LoHaConfig(r=3, alpha=7, target_modules=["conv1", "conv2"], modules_to_save=["linear"])),
    "loha_effective": (
        resnet,
        lambda: peft.LoHaConfig(r=3, alpha=7, target_modules=["conv2"], use_effective_conv2d=True, modules_to_save=["linear"]),
    ),
    "lokr_effective": (
        resnet,
        lambda: peft.LoKrConfig(r=1, alpha=7, target_modules=["conv2"], use_effective_conv2d=True, modules_to_save=["linear"]),
    ),
    "lokr": (resnet, lambda: peft.LoKrConfig(r=1, alpha=7, target_modules=["conv2"], modules_to_save=["linear"])),
    "lokr_depthwise": (
        partial(mobilenet, tf_padding=False),
        lambda: peft.LoKrConfig(r=4, alpha=7, target_modules=STEPS, modules_to_save=["classifier"]),
    ),
    "hira": (resnet, lambda: peft.HiraConfig(r=3, target_modules=["conv1", "conv2"], modules_to_save=["linear"])),
    "hra": (resnet, lambda: peft.HRAConfig(r=4, target_modules=["conv2"], modules_to_save=["linear"])),
    "boft": (
        resnet,
        lambda: peft.BOFTConfig(
            boft_block_size=2, boft_n_butterfly_factor=2, target_modules=["layer1.1.conv2"], modules_to_save=["linear"]
        ),
    ),
    "oft": (  # where kernels have one cell
        partial(mobilenet, tf_padding=False),
        lambda: peft.OFTConfig(oft_block_size=4, target_modules=STEPS[:2], modules_to_save=["classifier"]),
    ),
    "ln_tuning": (resnet, lambda: peft.LNTuningConfig(target_modules=["bn1", "bn2"], modules_to_save=["linear"])),
    "mobilenet": (
        partial(mobilenet, tf_padding=False),  # with which PEFT's convolutions have not what the model asks them for
        lambda: peft.LoraConfig(
            r=3, lora_alpha=7, rank_pattern={STEPS[2]: 20}, target_modules=STEPS, modules_to_save=["classifier"]
        ),
    ),
}


def logits_of(model: Any, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        out = model(to_torch(x))
    logits: np.ndarray = (out if isinstance(out, torch.Tensor) else out.logits).numpy()
    return logits


def made(directory: Path, case: str) -> Any:
    """PEFT's model with an adapter that changes something, which it has saved; the checkpoint beside it."""
    maker, config = CASES[case]
    (directory / "base").mkdir()
    model = peft.get_peft_model(maker(directory / "base"), config()).eval()
    stirred(model)
    if case == "in_motion":  # those of norms that are in no file would move as well, and be lost
        for name, module in model.named_modules():
            module.training = ".modules_to_save." in name
        model(to_torch(pictures(5)))
    model.eval().save_pretrained(directory / "theirs")
    return model


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd")
@pytest.mark.usefixtures("butterflies")
@pytest.mark.parametrize("case", CASES)
def test_both_ways(case: str, tmp_path: Path) -> None:
    model, x = made(tmp_path, case), pictures()
    backbone = load_backbone(tmp_path / "base")
    adapter = load_adapter(tmp_path / "theirs", backbone)
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
    wanted = logits_of(model, x)
    found = jax.jit(lambda *args: backbone.forward(*args).pooled)(backbone.params, state, ImageInputs(x))
    np.testing.assert_allclose(found, wanted, atol=1e-4)

    save_adapter(adapter, tmp_path / "ours", backbone)
    config = peft.PeftConfig.from_pretrained(tmp_path / "ours")
    config.task_type = None
    (tmp_path / "again").mkdir()
    again = peft.PeftModel(CASES[case][0](tmp_path / "again"), config).eval()
    tensors = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    there = peft.get_peft_model_state_dict(again)
    if case == "ln_tuning":  # PEFT saves the copies' statistics too, and does not ask for them
        there = {key: tensor for key, tensor in there.items() if "running_" not in key and "num_batches" not in key}
    assert there.keys() == tensors.keys()
    peft.set_peft_model_state_dict(again, {key: torch.tensor(tensor) for key, tensor in tensors.items()})
    np.testing.assert_allclose(logits_of(again, x), wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            lambda: peft.OFTConfig(oft_block_size=4, r=0, target_modules=["conv2"], modules_to_save=["linear"]),
            r"PEFT's OFT answers otherwise before it is merged than after it at layer1\.0\.conv2",
        ),
    ],
    ids=["oft"],
)
def test_what_is_not_read_is_said(
    config: Callable[[], Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CASES, "refused", (resnet, config))
    made(tmp_path, "refused")
    with pytest.raises(GraftaxError, match=said):
        load_adapter(tmp_path / "theirs", load_backbone(tmp_path / "base"))


GROUPED = {"hra": HRA(r=4, targets=("conv_3x3.convolution",)), "dora": DoRA(r=20, targets=(STEPS[2],))}


@pytest.mark.parametrize("name", GROUPED)
def test_in_groups_the_file_is_our_own(name: str, tmp_path: Path) -> None:
    """PEFT has these on convolutions in no groups alone."""
    method: Method = GROUPED[name]
    mobilenet(tmp_path)
    backbone = load_backbone(tmp_path)
    head = backbone.head(3)
    made = Adapter.create([method, head], backbone.sites, labels=("a", "b", "c"), fingerprint=backbone.fingerprint)
    save_adapter(made, tmp_path / "ours", backbone)
    assert json.loads((tmp_path / "ours" / "adapter_config.json").read_text())["peft_type"] == "GRAFTAX"
    again = load_adapter(tmp_path / "ours", backbone)
    for site, (leaves, _) in made.states[method.key].items():
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(again.states[method.key][site][0][name], leaf)


def test_new_statistics_are_whole_and_no_less_than_nothing(tmp_path: Path) -> None:
    made(tmp_path, "in_motion")
    backbone, path = load_backbone(tmp_path / "base"), tmp_path / "theirs" / "adapter_model.safetensors"
    tensors = load_file(path)
    mean, var = (next(key for key in tensors if key.endswith(f"running_{name}")) for name in ("mean", "var"))
    save_file({**tensors, var: -tensors[var]}, path)
    with pytest.raises(GraftaxError, match=r"layer.\.0\.bn1\.running_var is below zero, which no variance is"):
        load_adapter(tmp_path / "theirs", backbone)
    save_file({key: tensor for key, tensor in tensors.items() if key != mean}, path)
    said = r"bn1 has new statistics but no tensor base_model\.model\.layer.\.0\.bn1\.running_mean"
    with pytest.raises(GraftaxError, match=said):
        load_adapter(tmp_path / "theirs", backbone)
