"""Weights that devices share, each computing with its part: in a process of its own, whose CPU counts as several.

What is compared is what one device makes, up to the last bits.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from cases import METHODS
from contract import ON_TEXTS
from jax.sharding import Mesh, PartitionSpec
from tiny import toy_rows

from graftax import load_backbone, train_many
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.models.tensor_parallel import mesh_over, of_adapter, of_texts, refuse_uncut

BEGIN = """
import json, sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_default_matmul_precision", "highest")
import numpy as np
from cases import METHODS, random_adapter, randomised
from configs import WHOLE
from conftest import CONFIGS, CONVOLUTIONAL, ENCODER_DECODERS, PICTURES
from contract import a_learner
from graftax import Adapter, DoRA, Generator, LoRA, Predictor, Recipe, load_backbone, train_many
from graftax.adapters import Prefix
from graftax.adapters.adapter import Layout
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone
from graftax.models.tensor_parallel import mesh_over
from graftax.tasks.task_registry import task_named
from graftax.train.step import Programs
from tiny import toy_rows, write_decoder

EVERY = WHOLE | CONFIGS | CONVOLUTIONAL | ENCODER_DECODERS | PICTURES

def shared(whole, devices):
    known = dict(name="shared", fingerprint=whole.fingerprint, quantize=whole.quantize, directory=whole.directory)
    return Backbone.build(whole.family, whole.config, whole.held(), mesh=mesh_over(devices), remat=whole.remat, **known)
"""

GRADIENTS = """
def gradients(backbone, adapter):
    learner, batch = a_learner(backbone, adapter, Layout.of([adapter], backbone.sites))
    programs = Programs(backbone, task_named(adapter.task), slots=2)
    pack, batches = (programs.spread.placed(jax.tree.map(lambda leaf: np.stack([leaf] * 2), one)) for one in (learner, batch))
    made = programs.gradient(*programs.frozen_weights, pack, batches)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(backbone.params))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(made)], held

said = {}
for name, config, method, devices, options in json.loads(sys.argv[1]):
    whole = random_backbone(EVERY[config], seed=3, **options)
    adapter = random_adapter(whole, method if method in METHODS else (LoRA(r=4),))
    (wanted, all_held), (mine, held) = (gradients(one, adapter) for one in (whole, shared(whole, devices)))
    size = max(float(abs(leaf).max()) for leaf in wanted[1:])
    apart = max(float(abs(a - b).max()) for a, b in zip(mine, wanted, strict=True))
    said[name] = {"apart": apart / size, "size": size, "held": held / all_held}
print(json.dumps(said))
"""


def made_by(script: str, *arguments: object) -> Any:
    """What a script prints last, as JSON."""
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    command = [sys.executable, "-c", BEGIN + script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


Case = tuple[str, str, str, int, dict[str, Any]]


def check_gradients(*cases: Case) -> None:
    for name, found in made_by(GRADIENTS, json.dumps(cases)).items():
        assert found["size"] > 1e-4, name
        assert found["apart"] < 1e-5, name
        assert found["held"] < 0.75, name  # of what one device holds


def test_gradients_are_those_of_one_device() -> None:
    """Also where there are more devices than keys, of grouped attention heads."""
    check_gradients(("encoder", "bert", "lora", 2, {}), ("grouped", "llama", "dora", 4, {"remat": "layers"}))


@pytest.mark.slow
def test_gradients_on_backbones_of_every_kind() -> None:
    check_gradients(
        ("albert", "albert", "lora", 2, {}),
        ("gpt2", "gpt2", "lora", 2, {}),
        ("bart", "bart", "lora", 2, {}),
        ("t5", "t5", "lora", 2, {}),
        ("vit", "vit", "lora", 2, {}),
        ("int8", "llama", "lora", 2, {"quantize": "int8", "remat": "layers"}),
        ("nf4", "llama", "lora", 2, {"quantize": "nf4", "remat": "layers"}),
    )


@pytest.mark.slow
@pytest.mark.parametrize("half", [0, 1])
def test_gradients_of_every_method(half: int) -> None:
    check_gradients(*((name, "bert", name, 2, {}) for name in ON_TEXTS[half::2] if METHODS[name]))


SERVED = """
from graftax.adapters.methods.method_registry import method_of

out = Path(sys.argv[1])
write_decoder(out / "backbone")

def adapter(backbone, seed, *methods):
    made = Adapter.create(methods, backbone.sites, task="lm", fingerprint=backbone.fingerprint)
    return randomised(made, seed, 0.3)

said = {"texts": [], "programs": []}
for devices in (1, 2):
    backbone = load_backbone(out / "backbone", tensor_parallel_size=devices)
    generator = Generator(backbone)
    everywhere = LoRA(r=4, targets=("q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"))
    for seed, (name, method) in enumerate({"lora": everywhere, "dora": DoRA(r=4), "prefix": Prefix(tokens=2)}.items()):
        generator.load(name, adapter(backbone, seed, method))
    rows = ["lora", None, "dora", "prefix"]
    for _ in range(3):
        texts = generator.generate(["hello there", "good", "x y z", "hm"], rows, max_new_tokens=12)
    said["texts"].append([one.text for one in texts])
    said["programs"].append(generator.compilations)

bank = generator.residents.state
sites = "layers.query", "layers.attention_out"
of_lora = [next(own for key, own in bank[site].items() if method_of(key).name == "lora") for site in sites]
factors = [own[leaf] for own in of_lora for leaf in "ab"]
said["bank"] = [factor.sharding.shard_shape(factor.shape)[-1] for factor in factors]
print(json.dumps(said))
"""


def test_texts_are_those_of_one_device(tmp_path: Path) -> None:
    """Under another adapter in each batch row; and no more programs are compiled. Factors of LoRA are cut as kernels are."""
    found = made_by(SERVED, tmp_path)
    assert found["texts"][0] == found["texts"][1]
    assert found["programs"][0] == found["programs"][1]
    assert found["bank"] == [32, 16, 16, 32]  # A and B of the query, and of what reads the heads


TRAINED = """
out = Path(sys.argv[1])
write_decoder(out / "backbone")
recipe, said = Recipe(epochs=2, batch_size=8, max_length=16, lr=1e-2), []
for devices in (1, 4):
    backbone = load_backbone(out / "backbone", tensor_parallel_size=devices)
    data = {name: toy_rows(count=16, seed=seed) for seed, name in enumerate("abc")}
    train_many(backbone, data, out / f"on{devices}", method=LoRA(r=2), recipe=recipe, val=0.25, progress=False, pack_size=2)
    predictor = Predictor(backbone)
    predictor.load("a", out / f"on{devices}" / "a")
    lines = [json.loads(line) for line in (out / f"on{devices}" / "metrics.jsonl").read_text().splitlines()]
    said.append([lines, [answer.score for answer in predictor.predict(["hello there", "good"], ["a", "a"])]])
print(json.dumps(said))
"""


def test_a_run_is_that_of_one_device(tmp_path: Path) -> None:
    """Three adapters through two slots, with validation; and what one answers then."""
    (whole, answers), (shared, others) = made_by(TRAINED, tmp_path)
    assert len(whole) == len(shared) > 3
    for mine, wanted in zip(shared, whole, strict=True):
        assert mine == pytest.approx(wanted, abs=1e-5)
    assert others == pytest.approx(answers, abs=1e-5)


REWARDED = """
from graftax import GrpoSettings, grpo
from graftax.tuning.loops.loop_programs import LoopPrograms

def reward(completions, **_):
    return [float(len(set(text))) for text in completions]

out, said = Path(sys.argv[1]), []
write_decoder(out / "backbone")
for devices in (1, 2):
    backbone = load_backbone(out / "backbone", tensor_parallel_size=devices)
    settings, recipe = GrpoSettings(num_generations=2, max_new_tokens=4), Recipe(lr=1e-2, batch_size=2, epochs=2)
    run = dict(method=LoRA(r=2), settings=settings, recipe=recipe, progress=False)
    result = grpo(backbone, [{"prompt": "hello"}, {"prompt": "good"}], out / f"on{devices}", reward=reward, **run)
    steps = [[step["reward"], step["grad_norm"]] for step in result.history]
    said.append([steps, LoopPrograms.of(backbone).compilations])
print(json.dumps(said))
"""


@pytest.mark.slow
def test_reinforcement_is_that_of_one_device(tmp_path: Path) -> None:
    """And compiles no more programs."""
    (wanted, programs), (mine, those) = made_by(REWARDED, tmp_path)
    assert np.asarray(mine) == pytest.approx(np.asarray(wanted), rel=1e-4)
    assert programs == those


HEADS = """
from graftax.models.fused_attention import SameText, splash
from graftax.models.tensor_parallel import everywhere, over_heads

random = np.random.default_rng(0)
query, key, value = (random.standard_normal((2, heads, 5, 8), np.float32) for heads in (8, 2, 2))
texts = np.array([[1, 1, 1, 2, 2], [0, 1, 1, 1, 1]], np.int32)

def attend(q, k, v, of_queries, of_keys):
    return splash(q, k, v, SameText(of_queries, of_keys, causal=True), None, interpret=True)

wanted = attend(query, key, value, texts, texts)
apart = []
for devices in (1, 2, 4):
    mesh = mesh_over(devices)
    args = jax.device_put((query, key, value, texts, texts), everywhere(mesh))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        made = jax.jit(lambda *args: over_heads(attend, *args))(*args)
    apart.append([float(abs(np.asarray(made) - np.asarray(wanted)).max()), len(made.sharding.device_set)])
print(json.dumps(apart))
"""


def test_a_kernel_is_called_on_each_device_for_its_attention_heads() -> None:
    """As Splash is on TPUs; four devices share two keys."""
    assert [[apart < 1e-6, devices] for apart, devices in made_by(HEADS)] == [[True, 1], [True, 2], [True, 4]]


def mesh_of(count: int) -> Mesh:
    """So many devices, which need not be there."""
    return Mesh(np.array([mesh_over(1).devices[0]] * count), ("tensor",))


def test_where_arrays_of_adapters_and_texts_are() -> None:
    mesh, axes = mesh_of(2), ("rank", "out")
    assert of_adapter(mesh, "query", axes, (2, 9, 8, 32)).spec == PartitionSpec(None, None, None, "tensor")
    assert of_adapter(mesh, "attention_out", axes, (2, 9, 8, 32)).spec == PartitionSpec()
    assert of_adapter(mesh, "attention_out", ("rank", "in"), (9, 8, 32)).spec == PartitionSpec(None, None, "tensor")
    assert of_adapter(mesh, "query", axes, (2, 9, 8, 33)).spec == PartitionSpec()
    assert of_adapter(mesh, "query", (), (2, 9, 32)).spec == PartitionSpec()
    assert of_texts(mesh, (4, 2, 96, 8)).spec == PartitionSpec(None, "tensor")
    assert of_texts(mesh, (4, 3, 96, 8)).spec == PartitionSpec()
    assert of_texts(mesh, (4, 96)).spec == PartitionSpec()


def refused(call: Any) -> str:
    with pytest.raises(GraftaxError) as said:
        call()
    return str(said.value)


def test_what_cannot_be_shared_is_said(tiny: Backbone, tmp_path: Path) -> None:
    directory, name = tiny.directory, "tensor_parallel_size"
    assert directory is not None
    said = refused(lambda: load_backbone(directory, tensor_parallel_size=3))
    assert said == f"{name}: 3 devices are wanted, and this process has 1."
    assert refused(lambda: load_backbone(directory, tensor_parallel_size=0)) == f"{name} is a number of devices, got 0."
    said = refused(lambda: refuse_uncut(mesh_of(3), (8, 4), {}, "x"))
    assert said == f"{name}: 8 attention heads of x cannot be shared by 3 devices; by 2 or 4 they can."
    assert refused(lambda: refuse_uncut(mesh_of(2), (3,), {}, "x")).endswith(
        "3 attention heads of x cannot be shared by 2 devices; by 3 they can."
    )
    said = refused(lambda: refuse_uncut(mesh_of(2), (), {"kernel": jnp.zeros(3)}, "x"))
    assert said == f"{name}: x has no weights that 2 devices could share."
    shared = dataclasses.replace(tiny, mesh=mesh_of(2))
    said = refused(lambda: train_many(shared, {"a": toy_rows(count=8)}, tmp_path, devices=2, progress=False))
    assert said.startswith("2 devices share the weights of")
    assert said.endswith("and train all adapters together: leave out devices, or tensor_parallel_size.")
