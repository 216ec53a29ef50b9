"""Adapters exchanged with AdapterHub's `adapters`, which runs in an environment of its own (`make test-adapterhub`)."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from adapterhub_cases import FIRST_HEAD, FUSIONS, OURS, fused
from cases import LABELS, logits, only_head, random_adapter
from conftest import some_inputs
from reference import saved, torch_model
from safetensors.numpy import load_file

from graftax import (
    IA3,
    Bottleneck,
    Compacter,
    LoRA,
    Method,
    Prefix,
    PromptTuning,
    export_adapter,
    load_adapter,
    load_backbone,
    unipelt,
)
from graftax.adapters.methods.fusion import Fusion
from graftax.models.backbone import Backbone
from graftax.models.inputs import TextInputs

pytestmark = pytest.mark.adapterhub
ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-adapterhub" / "bin" / "python"
LORA_SITES = [f"attention.self.{name}" for name in ("key", "query", "value")] + ["intermediate.dense", "output.dense"]
THEIRS: dict[str, tuple[Method, ...]] = {  # what the cases of adapterhub.py are here
    "double_seq_bn": (Bottleneck(width=8, activation="silu"),),
    "seq_bn": (Bottleneck(width=8, place="pfeiffer", normed=True),),
    "seq_bn-mh": (
        Bottleneck(
            width=8,
            activation="tanh",
            place="pfeiffer",
            normed=True,
            targets=tuple(f"PREFIX.encoder.layer.{i}.attention.output" for i in range(3)),
        ),
    ),
    "seq_bn-left-out": (
        Bottleneck(
            width=8,
            activation="leaky_relu",
            place="pfeiffer",
            normed=True,
            targets=tuple(f"PREFIX.encoder.layer.{i}.output" for i in (0, 2)),
        ),
    ),
    "par_bn": (Bottleneck(width=8, place="parallel"),),
    "scaled_par_bn": (Bottleneck(width=8, activation="gelu_new", place="parallel", scaling="learned"),),
    "adapter_plus": (Bottleneck(width=8, activation="gelu", place="post"),),
    "compacter": (Compacter(width=8),),
    "compacter++": (Compacter(width=8, place="pfeiffer", normed=True),),
    "prefix_tuning": (Prefix(tokens=4, shifted=False),),
    "prefix_tuning_flat": (Prefix(tokens=3, shifted=False),),
    "prompt_tuning": (PromptTuning(tokens=4, post=True),),
    "lora": (LoRA(r=3, alpha=7, dropout=0.1),),
    "lora-everywhere": (
        LoRA(
            r=2,
            alpha=5,
            targets=tuple(f"PREFIX.encoder.layer.{i}.{module}" for i in (1, 2) for module in LORA_SITES),
        ),
    ),
    "default-head": (LoRA(r=3, alpha=7),),
    "ia3": (IA3(feedforward=(), targets=("attention.self.key", "attention.self.value", "intermediate.dense")),),
    "mam": (Prefix(tokens=3, shifted=False), Bottleneck(width=8, place="parallel")),
    "unipelt": unipelt(tokens=3, width=8, r=5),
}
#: And its fusions: what they fuse, and whether their queries are made of the norm of the sum.
THEIR_FUSIONS = {
    "fused": ("bottleneck/relu/True", True),
    "fused-static": ("bottleneck/silu/False", False),
    "fused-before-ln": ("bottleneck/relu/True", False),
    "fused-compacter": ("compacter/gelu/4/True", True),
}


def in_their_environment(command: str, backbone: Path, rows: Path, directory: Path) -> None:
    assert PYTHON.exists(), "there is no .venv-adapterhub; make test-adapterhub sets it up"
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    script = Path(__file__).with_name("adapterhub.py")
    done = subprocess.run(
        [PYTHON, script, command, backbone, rows, directory],
        env=environment | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def comparable(inputs: TextInputs, case: str) -> TextInputs:
    """The rows on which both agree: those without padding where gates are a mean over it there."""
    if case not in ("unipelt", "gated"):
        return inputs
    full = inputs.mask.all(axis=1)
    return TextInputs(*(part[full] for part in inputs[:3]))


Exchange = Callable[[str], tuple[Backbone, Path]]


@pytest.fixture(scope="session")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Exchange:
    """By family: a backbone, and the folder where it lies as torch, with rows.npz, `theirs` by them and `ours` read by them."""

    @functools.cache
    def get(family: str) -> tuple[Backbone, Path]:
        folder = tmp_path_factory.mktemp(f"hub-{family}")
        backbone = load_backbone(saved(torch_model(family), folder / "backbone"))
        inputs = some_inputs(backbone, seed=5)
        np.savez(folder / "rows.npz", ids=inputs.ids, mask=inputs.mask, types=inputs.types)
        in_their_environment("save", folder / "backbone", folder / "rows.npz", folder / "theirs")
        for name, methods in OURS.items():
            export_adapter(random_adapter(backbone, methods), folder / "ours" / name, backbone)
        for name in ("lora", "houlsby"):
            export_adapter(random_adapter(backbone, OURS[name], tokens=True), folder / "ours" / f"{name}-tokens", backbone)
        for case in FUSIONS:
            export_adapter(fused(backbone, case), folder / "ours" / case, backbone)
        in_their_environment("load", folder / "backbone", folder / "rows.npz", folder / "ours")
        return backbone, folder

    return get


def prefixed(method: Method, prefix: str) -> Method:
    targets = method.targets
    if not isinstance(targets, tuple):
        return method
    return dataclasses.replace(method, targets=tuple(t.replace("PREFIX", prefix) for t in targets))


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("case", THEIRS)
def test_we_read_their_files(case: str, family: str, exchange: Exchange, tmp_path: Path) -> None:
    """Adapters made and saved by `adapters` give its logits here, and go back as they came."""
    backbone, folder = exchange(family)
    assert {path.name for path in (folder / "theirs").iterdir() if path.is_dir()} == {*THEIRS, *THEIR_FUSIONS}
    adapter = load_adapter(folder / "theirs" / case, backbone)
    assert adapter.methods[:-1] == tuple(prefixed(method, family) for method in THEIRS[case])
    head = FIRST_HEAD if (case, family) == ("default-head", "bert") else backbone.head(3)
    assert (adapter.task, adapter.labels, adapter.method("head")) == ("classify", LABELS, head)
    inputs, theirs = comparable(some_inputs(backbone, seed=5), case), np.load(folder / "theirs" / f"{case}.npy")
    np.testing.assert_allclose(logits(backbone, adapter, inputs), theirs, atol=1e-4)
    assert np.abs(logits(backbone, only_head(adapter), inputs) - theirs).max() > 1e-2  # the method is felt
    back = export_adapter(adapter, tmp_path / "back", backbone, name="mine")
    for file in ("adapter.safetensors", "model_head.safetensors"):
        came, goes = load_file(folder / "theirs" / case / file), load_file(back / file)
        for key, tensor in goes.items():
            if "control_trans" not in key or key in came:  # a prefix's network is run and left behind
                np.testing.assert_array_equal(came[key], tensor)
        assert case in ("prefix_tuning", "mam", "unipelt", "prefix_tuning_flat") or came.keys() == goes.keys()


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("name", [*OURS, "lora-tokens", "houlsby-tokens"])
def test_they_read_our_files(name: str, family: str, exchange: Exchange) -> None:
    """Every tensor finds its place in `adapters`, and the logits are the same."""
    backbone, folder = exchange(family)
    said = json.loads((folder / "ours" / "loaded.json").read_text())[name]
    assert said["name"] == name
    assert not said["unexpected_keys"]
    assert all(".prefix_tuning.pool." in key for key in said["missing_keys"])  # copies, of one parameter
    adapter = random_adapter(backbone, OURS[name.removesuffix("-tokens")], tokens=name.endswith("-tokens"))
    inputs, theirs = comparable(some_inputs(backbone, seed=5), name), np.load(folder / "ours" / f"{name}.npy")
    ours = logits(backbone, adapter, inputs)
    if theirs.ndim == 3:
        ours, theirs = ours[inputs.mask], theirs[inputs.mask]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("case", THEIR_FUSIONS)
def test_we_read_their_fusions(case: str, family: str, exchange: Exchange) -> None:
    """A setup made and saved by `adapters` gives its logits here."""
    backbone, folder = exchange(family)
    adapter = load_adapter(folder / "theirs" / case, backbone)
    method = adapter.methods[0]
    assert isinstance(method, Fusion)
    assert (method.member, method.query_normed, method.adapters) == (*THEIR_FUSIONS[case], 2)
    inputs, theirs = some_inputs(backbone, seed=5), np.load(folder / "theirs" / f"{case}.npy")
    np.testing.assert_allclose(logits(backbone, adapter, inputs), theirs, atol=1e-4)
    assert np.abs(logits(backbone, only_head(adapter), inputs) - theirs).max() > 1e-2


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("case", FUSIONS)
def test_they_read_our_fusions(case: str, family: str, exchange: Exchange) -> None:
    backbone, folder = exchange(family)
    ours = logits(backbone, fused(backbone, case), some_inputs(backbone, seed=5))
    np.testing.assert_allclose(ours, np.load(folder / "ours" / f"{case}.npy"), atol=1e-4)
