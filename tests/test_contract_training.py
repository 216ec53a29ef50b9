"""The contract of methods: a step of training moves the adapter and nothing else, over a rough backbone too."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    as_saved,
    logits,
    random_adapter,
)
from conftest import CONFIGS, GetBackbone, some_inputs
from contract import (
    MAIN,
    ON_TEXTS,
    a_learner,
    assert_same_states,
    assert_step_moves_adapter_alone,
    cross,
)

from graftax import LayerNormTuning, load_adapter, save_adapter
from graftax.adapters.adapter import Layout
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone
from graftax.tasks.task_registry import task_named
from graftax.train.step import Programs

#: Of the pairs that are tried every time, the ones whose training step is compiled every time.
FAST_STEPS = {("bert", name, "pooled") for name in MAIN}
FAST_STEPS |= {("cifar_resnet", name, "pooled") for name in ("lora", "dora", "loha", "hra", "adalora", "houlsby", "full")}
FAST_STEPS |= {("llama", "lora-dense", "tokens"), ("bart", "lora-dense", "said"), ("clip_pair", "lora-dense", "both")}


@cross(FAST_STEPS)
def test_a_step_moves_the_adapter_alone(family: str, name: str, head: str, backbone_of: GetBackbone) -> None:
    """Invariants 4, 5, in three steps of a pack of one."""
    backbone = backbone_of(family)
    seed = 2 if head == "said" else 1  # under seed 1 all of the five ReLUs at one of BART's sites are shut
    assert_step_moves_adapter_alone(backbone, random_adapter(backbone, name, head == "tokens", seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_TEXTS)
def test_gradient_is_the_same_uncompiled_and_in_a_loop(name: str, backbone_of: GetBackbone) -> None:
    """Invariant 21: with or without jit, with layers unrolled (as in training) or scanned, to 1e-5."""
    backbone, adapter = backbone_of("bert"), random_adapter(backbone_of("bert"), name)
    slot, batch = jax.tree.map(jnp.asarray, a_learner(backbone, adapter, Layout.of([adapter], backbone.sites)))
    gradient = Programs(backbone, task_named("classify"), 1, False).gradient_one
    compiled = jax.jit(gradient)(backbone.params, backbone.layers, slot, batch)
    scanned = jax.jit(gradient)(backbone.params, None, slot, batch)
    with jax.disable_jit():
        plain = gradient(backbone.params, backbone.layers, slot, batch)
    for other in (scanned, plain):
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), compiled, other)


@pytest.fixture(scope="module")
def rough() -> Backbone:
    """The tiny BERT with bfloat16 parameters."""
    return random_backbone(CONFIGS["bert"], seed=7, dtype="bfloat16")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "lora" else pytest.mark.slow) for n in ON_TEXTS])
def test_bfloat16_backbone_keeps_adapters_float32(name: str, rough: Backbone, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """Invariant 28: after load, save and three steps; and the logits are the float32 ones, roughly."""
    exact = backbone_of("bert")
    assert rough.fingerprint == exact.fingerprint
    adapter = random_adapter(exact, name)
    loaded = load_adapter(save_adapter(adapter, tmp_path / "a", rough), rough)
    whole = any(isinstance(m, LayerNormTuning) for m in adapter.methods)  # whole weights, less the frozen ones in bfloat16
    assert_same_states(loaded, as_saved(adapter), 1e-2 if whole else 0.0)
    layout = Layout.of([loaded], rough.sites)
    near = logits(rough, loaded, some_inputs(rough), layout)
    assert near.dtype == np.float32
    np.testing.assert_allclose(near, logits(exact, adapter, some_inputs(exact)), atol=0.1)
    pack, batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], a_learner(rough, loaded, layout))
    programs = Programs(rough, task_named(loaded.task), slots=1, dropout=False)
    for _ in range(3):
        pack = programs.step(rough.params, rough.layers, pack, batch)
    assert not np.asarray(pack.failed).any()
    assert {leaf.dtype for leaf in jax.tree.leaves((pack.trainable, pack.moments[0].mu))} == {np.dtype(np.float32)}
