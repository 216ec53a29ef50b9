"""Frozen weights that several devices share: in a process of its own, whose CPU counts as eight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import toy_rows

from graftax import Recipe, train_many
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.models.sharded import split_by
from graftax.notes import GraftaxNote
from graftax.train.frozen_weights import shared_by_all
from graftax.train.spreading import Spread

STEPS = """
import json, sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")
import numpy as np
from cases import random_adapter
from conftest import CONFIGS, CONVOLUTIONAL, ENCODER_DECODERS, PICTURES
from contract import a_learner
import graftax.models.backbone
from graftax import LoRA
from graftax.adapters.adapter import Layout
from graftax.models.random import random_backbone
from graftax.models.sharded import Split
from graftax.tasks.task_registry import task_named
from graftax.train.step import Programs

graftax.models.backbone.share_memory = lambda: False  # weights are held by layer, as off a CPU

def is_cut(leaf):
    return isinstance(leaf, Split)

def stepped(backbone, devices, fsdp):
    adapter = random_adapter(backbone, (LoRA(r=4),))
    learner, batch = a_learner(backbone, adapter, Layout.of([adapter], backbone.sites))
    programs = Programs(backbone, task_named(adapter.task), slots=4, devices=devices, fsdp=fsdp)
    pack, batches = (programs.spread.placed(jax.tree.map(lambda leaf: np.stack([leaf] * 4), one)) for one in (learner, batch))
    args = (*programs.frozen_weights, pack, batches)
    lowered = programs.gradient.lower(*args)
    program, gathers = lowered.compile(), lowered.as_text().count("stablehlo.all_gather")
    cut = [one for one in jax.tree.leaves(programs.frozen_weights[0], is_leaf=is_cut) if is_cut(one)]
    weights = {id(leaf): leaf for leaf in jax.tree.leaves(programs.frozen_weights)}.values()
    held = sum(shard.data.nbytes for leaf in weights for shard in leaf.addressable_shards) // devices
    made = [np.asarray(leaf) for leaf in jax.tree.leaves(programs.gradient(*args))]
    return made, held, program.memory_analysis().argument_size_in_bytes, program.as_text(), (gathers, len(cut))

said = {}
for name, config, options in json.loads(sys.argv[1]):
    backbone = random_backbone((CONFIGS | CONVOLUTIONAL | ENCODER_DECODERS | PICTURES)[config], seed=3, **options)
    whole, cut = (stepped(backbone, 4, fsdp) for fsdp in (False, True))
    named = {name: held for name, held in backbone.held().items() if name.endswith(("kernel", "table"))}
    large = sum(leaf.nbytes for leaf in jax.tree.leaves(named))
    said[name] = {
        "bits": all((mine == wanted).all() for mine, wanted in zip(cut[0], whole[0], strict=True)),
        "loss": bool((cut[0][0] == whole[0][0]).all()),
        "apart": max(float(abs(mine - wanted).max()) for mine, wanted in zip(cut[0], whole[0], strict=True)),
        "moves": max(float(abs(leaf).max()) for leaf in whole[0][1:]),
        "large": large, "held": [whole[1], cut[1]], "arguments": [whole[2], cut[2]], "text": cut[3], "gathers": cut[4],
    }
print(json.dumps(said))
"""
QUICK: dict[str, Any] = {"recipe": Recipe(max_length=16), "progress": False}
COLLECTIVES = ("all-reduce", "all-to-all", "reduce-scatter", "collective-permute")


def made_of(*cases: tuple[str, str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each case, by its name, the gradients of four adapters on four devices, with whole weights and with shared ones."""
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    command = [sys.executable, "-c", STEPS, json.dumps(cases)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(found: dict[str, Any]) -> None:
    """Every device holds a quarter of what is large and is given no more; nothing is exchanged but that."""
    assert found["held"][0] - found["held"][1] == found["large"] * 3 // 4
    assert found["arguments"][0] - found["arguments"][1] > 0.7 * found["large"]
    assert "all-gather" in found["text"]
    gathers, cut = found["gathers"]
    assert gathers > cut  # again on the way back; a CPU's compiler makes one of both, those of accelerators keep them apart
    assert not [name for name in COLLECTIVES if f"{name}(" in found["text"] or f"{name}-start(" in found["text"]]
    assert found["moves"] > 1e-4


def test_gradients_are_those_of_whole_weights() -> None:
    """Bit for bit where layers are computed again anyway; else XLA fuses other operations on the way back."""
    found = made_of(("again", "bert", {"remat": "layers"}), ("kept", "bert", {}))
    for one in found.values():
        check(one)
    assert found["again"]["bits"]
    assert found["kept"]["loss"]
    assert found["kept"]["apart"] < 1e-6


@pytest.mark.slow
def test_backbones_of_every_kind_are_shared() -> None:
    again = {"remat": "layers"}
    found = made_of(
        ("albert", "albert", again),
        ("llama", "llama", again),
        ("bart", "bart", again),
        ("vit", "vit", again),
        ("cifar_resnet", "cifar_resnet", {}),
        ("int8", "bert", {**again, "quantize": "int8"}),
    )
    for name, one in found.items():
        assert one["loss"], name
        assert one["apart"] < 1e-6, name
        least = 0.1 if name == "cifar_resnet" else 0.3  # many of its kernels have 6 or 10 channels
        assert one["arguments"][0] - one["arguments"][1] > least * one["large"], name


RUNS = """
import sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 8)
from graftax import DoRA, LoRA, Recipe, load_backbone, train_many
from tiny import toy_rows, write_backbone

out = Path(sys.argv[1])
backbone = load_backbone(write_backbone(out / "backbone"))
methods = {"lora": LoRA(r=2), "probe": None, "dora": DoRA(r=2)}
methods |= {start: LoRA(r=2, start=start) for start in ("pissa", "eva")}
data = {name: toy_rows(count=16, seed=seed) for seed, name in enumerate(methods)}
recipe = Recipe(epochs=2, batch_size=8, max_length=16, lr=1e-2)
each = {name: {"method": method} for name, method in methods.items()}
settings = dict(each=each, recipe=recipe, val=0.25, progress=False, pack_size=2)
train_many(backbone, data, out / "whole", devices=2, **settings)
train_many(backbone, data, out / "shared", devices=2, fsdp=True, **settings)
unread = load_backbone(out / "backbone", unread=True)
train_many(unread, data, out / "unread", devices=2, fsdp=True, **settings)
"""


@pytest.mark.slow
def test_a_run_with_shared_weights(tmp_path: Path) -> None:
    """Training, validation, and features of frozen layers; of weights that are left in their files to the same bytes."""
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    command = [sys.executable, "-c", RUNS, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("lora", "probe", "dora", "pissa", "eva"):
        files = [tmp_path / run / name / "adapter_model.safetensors" for run in ("unread", "shared")]
        assert files[0].read_bytes() == files[1].read_bytes()
        mine, wanted = (load_file(tmp_path / run / name / "adapter_model.safetensors") for run in ("shared", "whole"))
        assert mine.keys() == wanted.keys()
        for key in wanted:
            np.testing.assert_allclose(mine[key], wanted[key], atol=2e-5)
    lines = [(tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("shared", "whole")]
    for mine, wanted in zip(*([json.loads(line) for line in of_run] for of_run in lines), strict=True):
        assert mine == pytest.approx(wanted, abs=1e-6)


def test_what_cannot_be_shared_is_said(tiny: Backbone, tmp_path: Path) -> None:
    """Never is a backbone whole on every device without a word."""
    with pytest.raises(GraftaxError) as refused:
        shared_by_all(tiny, Spread(7, 7))
    said = "cannot be divided by 7 devices; by 2 or 3 or 4 or 5 or 6 they can."
    assert str(refused.value) == f"--fsdp: the weights of {tiny.name} {said}"
    with pytest.raises(GraftaxError) as refused:
        train_many(tiny, {"a": toy_rows(count=8)}, tmp_path / "out", devices=1, fsdp=True, **QUICK)
    assert (
        str(refused.value)
        == "--fsdp is for weights that several devices share, and this run has one (--devices says how many)."
    )
    with pytest.warns(GraftaxNote, match=r"--fsdp: .*kernel.* cannot be divided by 5 devices: each has all of that\."):
        shared_by_all(tiny, Spread(5, 5))


def test_a_weight_is_cut_along_what_divides() -> None:
    """By hand."""
    assert [split_by(("in", "out"), shape, 4) for shape in ((8, 12), (8, 6), (6, 8), (6, 6))] == [-2, -2, -1, None]
    assert [split_by(("rows", "dim"), shape, 3) for shape in ((10, 12), (12, 12))] == [-1, -2]
    assert split_by(("high", "wide", "in", "out"), (4, 4, 3, 6), 4) is None
    assert split_by((), (768,), 4) is None
