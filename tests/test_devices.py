"""Slots over several devices: in a process of its own, whose CPU counts as four devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

TRAINING = """
import json, sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_default_matmul_precision", "highest")
from graftax import LoRA, Recipe, load_backbone, train_many
from graftax.errors import GraftaxError
from graftax.train.pack import Pack
from tiny import write_backbone

out = Path(sys.argv[1])
backbone = load_backbone(write_backbone(out / "backbone"))
rows = [{"text": f"{'good' if i % 2 else 'bad'} {i}", "label": f"{i % 2}"} for i in range(24)]
data = {f"t{n}": rows[n:] for n in range(6)}
recipe = Recipe(epochs=2, batch_size=8, max_length=16, lr=1e-2)
settings = dict(method=LoRA(r=2), recipe=recipe, val=0.25, progress=False, save_every=0.0)
packs, made = [], Pack.__init__
def noted(self, *args, **kwargs):
    made(self, *args, **kwargs)
    packs.append(self)
Pack.__init__ = noted
train_many(backbone, data, out / "one", pack_size=4, devices=1, **settings)
ticks, tick = [0], Pack.tick
class Stopped(Exception): pass
def stops(self):
    ticks[0] += 1
    if ticks[0] == 5:
        raise Stopped
    return tick(self)
Pack.tick = stops
try:
    train_many(backbone, data, out / "four", pack_size=4, devices=4, **settings)
except Stopped:
    pass
Pack.tick = tick
try:
    train_many(backbone, data, out / "four", devices=3, **settings)
    refused = ""
except GraftaxError as error:
    refused = str(error)
train_many(backbone, data, out / "four", pack_size=4, devices=4, **settings)
train_many(backbone, data, out / "whole", pack_size=4, devices=4, **settings)
train_many(backbone, data, out / "two", pack_size=3, devices=2, **settings)  # two slots on each
pack = packs[-1]
for slot in range(4):
    pack.admit(slot, slot)
step = pack.step_program()
_, batch = pack._next()
grads = pack.programs.gradient(*pack.programs.frozen_weights, pack.learners, batch)
update = pack.programs.update.lower(pack.learners, *grads, batch.live).compile()
try:
    train_many(backbone, data, out / "five", devices=5, **settings)
    too_many = ""
except GraftaxError as error:
    too_many = str(error)
from graftax.models.backbone import Backbone
from graftax.tasks.task_registry import task_named
from graftax.train.step import Programs
by_layer = Backbone.build(backbone.family, backbone.config, backbone.arrays(), by_layer=True, fingerprint="", name="by layer")
params, layers = Programs(by_layer, task_named("classify"), 4, devices=4).frozen_weights
places = {leaf.unsafe_buffer_pointer() for one in (params, layers) for whole in jax.tree.leaves(one)
          for leaf in (shard.data for shard in whole.addressable_shards)}
print(json.dumps({
    "copies": len(places) / (4 * len(jax.tree.leaves(params))),
    "texts": [step.as_text(), update.as_text()],
    "devices": [len(leaf.sharding.device_set) for leaf in jax.tree.leaves(pack.learners)],
    "compiled": pack.programs.gradient._cache_size(),
    "refused": refused, "too_many": too_many,
}))
"""
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out, tests = tmp_path_factory.mktemp("devices"), Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    command = [sys.executable, "-c", TRAINING, str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "out": out}


def adapters(run: Path) -> list[np.ndarray]:
    return [leaf for n in range(6) for _, leaf in sorted(load_file(run / f"t{n}" / "adapter_model.safetensors").items())]


def test_nothing_is_exchanged(said: dict) -> None:
    assert said["devices"]
    assert {*said["devices"]} == {2}  # of the last pack
    assert not [name for text in said["texts"] for name in COLLECTIVES if f"{name}(" in text or f"{name}-start(" in text]


def test_weights_that_are_held_by_layer_are_on_each_device_once(said: dict) -> None:
    """As off a CPU: those of all layers and those of each are the same arrays."""
    assert said["copies"] == 1.0


def test_adapters_are_those_of_one_device(said: dict) -> None:
    for other in ("four", "two"):
        for mine, wanted in zip(adapters(said["out"] / other), adapters(said["out"] / "one"), strict=True):
            np.testing.assert_allclose(mine, wanted, atol=2e-5)


def test_a_run_that_was_stopped_ends_with_the_same_bits(said: dict) -> None:
    for mine, wanted in zip(adapters(said["out"] / "four"), adapters(said["out"] / "whole"), strict=True):
        np.testing.assert_array_equal(mine, wanted)


def test_what_cannot_be_spread_is_refused(said: dict) -> None:
    assert "cannot be spread over 3 devices; resume it with --devices 4" in said["refused"]
    assert said["too_many"] == "5 devices are wanted, and this process has 4."
