"""Programs that are compiled without weights and data are those that run with them: shape by shape, the same arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CONFIGS, TINY
from described_cpu import CPU
from tiny import toy_rows

from graftax.adapters import LoRA
from graftax.adapters.adapter import Adapter
from graftax.benchmarks.accelerators.asked_program import shapes_of
from graftax.benchmarks.accelerators.catalogue_of_programs import CATALOGUE
from graftax.benchmarks.accelerators.serving_programs import ServingPrograms
from graftax.benchmarks.accelerators.step_programs import StepPrograms, language_step, picture_step, text_step
from graftax.benchmarks.accelerators.weightless import weightless_backbone
from graftax.data.batches import Shape
from graftax.data.columns import Columns
from graftax.models.backbone import Backbone
from graftax.models.by_layer import stacked
from graftax.models.random import random_backbone
from graftax.serve.bank import Bank
from graftax.tasks.task_registry import TASKS
from graftax.train import Recipe
from graftax.train.intake import prepare
from graftax.train.pack import Pack

METHOD = LoRA(r=5, alpha=6.0)
RECIPE = Recipe(epochs=1, batch_size=8, max_length=16)


def held_by_layer(backbone: Backbone) -> Backbone:
    """A backbone with its weights held as they are off a CPU."""
    known: dict[str, Any] = {"name": "x", "fingerprint": "", "directory": backbone.directory, "remat": backbone.remat}
    arrays = {name: jax.tree.map(np.asarray, stacked(held)) for name, held in backbone.held().items()}
    return Backbone.build(backbone.family, backbone.config, arrays, by_layer=True, **known)


@pytest.mark.parametrize(("name", "held"), [("bert", None), ("albert", None), ("llama", None), ("llama", "nf4")])
def test_a_backbone_without_weights_has_the_shapes_of_one_with_them(name: str, held: str | None) -> None:
    there = held_by_layer(random_backbone(CONFIGS[name], dtype="bfloat16", quantize=held))
    without = weightless_backbone(CONFIGS[name], remat="layers", quantize=held)
    assert shapes_of(there.params) == without.params
    assert shapes_of(there.layers) == without.layers
    assert (without.dtype, without.parameters, without.sites) == (jnp.bfloat16, there.parameters, there.sites)
    assert without.unrolled is None  # layers are to be computed again


def test_a_step_on_texts_is_given_what_a_pack_gives_it(tiny: Backbone) -> None:
    assert_as_in_a_pack(tiny, "classify", lambda bare, shape: text_step(bare, (METHOD,), 3, shape, 2))


def test_a_step_of_language_modelling_is_given_what_a_pack_gives_it(teller: Backbone) -> None:
    assert_as_in_a_pack(teller, "lm", lambda bare, shape: language_step(bare, (METHOD,), 3, shape))


def assert_as_in_a_pack(backbone: Backbone, task: str, made: Callable[[Backbone, Shape], StepPrograms]) -> None:
    """The arguments of both programs of a step, in a pack of three slots."""
    backbone = held_by_layer(backbone)
    rows = [{"text": row["text"], **({} if task == "lm" else {"label": row["label"]})} for row in toy_rows()]
    settings: dict[str, Any] = {"method": METHOD, "recipe": RECIPE, "columns": Columns()}
    job = prepare("a", rows, None, backbone=backbone, task=TASKS[task], **settings)
    pack = Pack(backbone, TASKS[task], [job], 3)
    pack.admit(0, 0)
    bare = Backbone.around(backbone.family, backbone.config, shapes_of(backbone.held()), name="bare", fingerprint="")
    programs = made(bare, job.shape)
    args = (backbone.params, backbone.unrolled, pack.learners, pack._next()[1])
    assert shapes_of(programs.gradient.args) == shapes_of(args)
    losses, grads = jax.eval_shape(pack.programs.gradient, *args)
    assert shapes_of(programs.update.args) == shapes_of((pack.learners, losses, grads, args[3].live))


def test_a_step_on_pictures_has_attention_over_their_patches() -> None:
    config = {**TINY, "model_type": "vit", "image_size": 24, "patch_size": 8, "num_channels": 3}
    step = picture_step(weightless_backbone(config), (METHOD,), 2, 4, 3)
    assert step.attention[:4] == (4, 10, 10, 4)  # nine patches and what stands for all of them
    losses, grads = jax.eval_shape(step.gradient.function, *step.gradient.args)
    assert losses.shape == (2,)
    assert jax.tree.structure(grads) == jax.tree.structure(step.learner.trainable)


def test_a_bank_without_weights_has_the_shapes_of_one_with_them() -> None:
    backbone = random_backbone(CONFIGS["llama"], dtype="bfloat16")
    bank = Bank(backbone, 4)
    bank.put("a", Adapter.create((METHOD,), backbone.sites))
    assert ServingPrograms(weightless_backbone(CONFIGS["llama"]), (METHOD,), 3).state == shapes_of(bank.state)


def test_programs_that_serve_compile_and_write_texts_in_place() -> None:
    """Here, for the CPU: what texts there are is donated, and written where it was."""
    serving = ServingPrograms(weightless_backbone(CONFIGS["llama"], "float32"), (METHOD,), 3)
    read = serving.prefill(2, 16).facts(CPU)
    assert read.donated == 0
    assert read.scores[0].lengths[-1] == 16
    written = serving.decode(2, 32).facts(CPU)
    cache = 2 * CONFIGS["llama"]["num_hidden_layers"] * 2 * 2 * 32 * 8 * 4  # keys and values of two rows, two heads of 8
    assert written.donated > cache
    assert written.in_place


def test_names_say_what_is_compiled() -> None:
    assert {"decoder-step/1", "decoder-step/8/layers", "decoder-update/64", "encoder-step/8", "pictures-step/1"} < {*CATALOGUE}
    assert {"prefill", "decode", "mixed-rows"} < {*CATALOGUE}
    asked = CATALOGUE["decoder-step/8/layers"].make()
    pack, batches = asked.args[2:]
    assert batches.inputs.ids.shape == (8, 4, 1024)
    assert pack.trainable["layers.query"]["lora"]["a"].shape == (8, 4, 16, 2048)
    assert asked.args[1] is None
