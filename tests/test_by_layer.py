"""Weights held layer by layer, as off a CPU: one copy, and the same answers as of stacked ones."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import random_adapter
from conftest import CONFIGS, ENCODER_DECODERS, GetBackbone, some_inputs
from contract import a_learner

from graftax import LoRA
from graftax.adapters.adapter import Layout
from graftax.adapters.structure import Cut
from graftax.models.backbone import Backbone
from graftax.models.by_layer import held_by_layer
from graftax.models.load import stack_weights
from graftax.models.random import random_backbone, random_tensors
from graftax.serve.bank import Bank
from graftax.tasks.task_registry import task_named
from graftax.train.step import Programs

FAMILIES = ("bert", "albert", "llama", "bart")


def split(backbone: Backbone, **changes: Any) -> Backbone:
    """The same weights, layer by layer."""
    known: dict[str, Any] = {"fingerprint": backbone.fingerprint, "name": backbone.name}
    return Backbone.build(backbone.family, backbone.config, backbone.arrays(), by_layer=True, **known, **changes)


def assert_near(found: Any, wanted: Any) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), jax.device_get(found), jax.device_get(wanted))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_the_same(family: str, backbone_of: GetBackbone) -> None:
    """Loss and gradients of an adapter that begins in the second layer, those below it frozen."""
    made = []
    for backbone in (backbone_of(family), split(backbone_of(family)), split(backbone_of(family), remat="layers")):
        adapter = random_adapter(backbone, (LoRA(r=4),))
        layout = Layout.of([adapter], backbone.sites)
        pack, batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], a_learner(backbone, adapter, layout))
        programs = Programs(backbone, task_named(adapter.task), slots=1)
        made.append(programs.gradient(backbone.params, backbone.unrolled, pack, batch))
    assert_near(made[1], made[0])
    assert_near(made[2], made[0])


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_mixed_rows_and_kept_features_are_the_same(family: str, backbone_of: GetBackbone) -> None:
    """DoRA's leaves are prepared from the weights when an adapter joins the bank."""
    made = []
    for backbone in (backbone_of(family), split(backbone_of(family))):
        bank = Bank(backbone)
        for seed, name in enumerate(("dora", "houlsby")):
            bank.add(name, random_adapter(backbone, name, seed=seed))
        inputs = some_inputs(backbone)
        mixed = jax.jit(backbone.forward)(backbone.params, bank.state, inputs, np.array([1, 2, 0], np.int32))
        kept = backbone.frozen(backbone.params, inputs, Cut("layers", 1, top=False), pooled=False)
        made.append((mixed, kept, jax.jit(partial(backbone.encode, intermediates=True))(backbone.params, {}, inputs).layers))
    assert_near(made[1], made[0])


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_writing_is_the_same(family: str, backbone_of: GetBackbone) -> None:
    made = []
    for backbone in (backbone_of(family), split(backbone_of(family))):
        inputs = some_inputs(backbone)._replace(target=None)
        logits, cache = jax.jit(partial(backbone.prefill, columns=16))(backbone.params, backbone.layers, {}, inputs)
        made.append(
            (logits, jax.jit(backbone.step)(backbone.params, backbone.layers, {}, np.array([5, 6, 7], np.int32), cache)[0])
        )
    assert_near(made[1], made[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_there_is_one_copy(family: str, backbone_of: GetBackbone) -> None:
    """The layers' arrays are those of the parameters, together as large as the weights; as a checkpoint they are the same."""
    backbone = split(backbone_of(family))
    assert held_by_layer(backbone.params)
    held = {id(leaf) for leaf in jax.tree.leaves(backbone.params)}
    assert {id(leaf) for leaf in jax.tree.leaves(backbone.layers)} <= held
    assert sum(leaf.size for leaf in jax.tree.leaves(backbone.params)) == backbone.parameters
    for name, array in backbone.arrays().items():
        np.testing.assert_array_equal(array, backbone_of(family).arrays()[name])


def test_quantised_kernels_too() -> None:
    pytest.importorskip("qwix")
    config = (CONFIGS | ENCODER_DECODERS)["llama"]
    plain = random_backbone(config, seed=7, quantize="int8")
    arrays, _ = stack_weights(plain.family, plain.config, random_tensors(config, 7), "float32", "int8")
    known: dict[str, Any] = {"fingerprint": plain.fingerprint, "name": plain.name}
    split = Backbone.build(plain.family, plain.config, arrays, quantize="int8", by_layer=True, **known)
    said = [jax.jit(b.encode)(b.params, {}, some_inputs(b)).hidden for b in (plain, split)]
    assert_near(said[1], said[0])


@pytest.mark.parametrize(("stages", "unrolled"), [([12, 2], True), ([2, 13], False)])
def test_short_stacks_are_unrolled_whatever_their_sum(stages: list[int], unrolled: bool) -> None:
    sizes = {"image_size": 16, "patch_size": 2, "embed_dim": 4, "num_heads": [1, 2], "window_size": 2}
    backbone = random_backbone({"model_type": "swin", "depths": stages, **sizes})
    assert (backbone.unrolled is not None) == (unrolled or jax.default_backend() != "cpu")
