"""One optimizer step of one adapter, by hand: clipping, decay, rates, and who takes part in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import random_adapter
from contract import a_learner

from graftax import LoRA, Recipe
from graftax.adapters.adapter import Layout, Stacked
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs, PairInputs, TextInputs, positions_of
from graftax.models.random import random_backbone
from graftax.platforms import compiling_for
from graftax.tasks.task_registry import task_named
from graftax.train.step import Learner, Programs, hyper, start

TINY_PICTURES: dict[str, dict[str, Any]] = {
    "resnet": {"model_type": "cifar_resnet", "image_size": 8},
    "vit": {
        **{"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 32, "image_size": 8, "patch_size": 4},
    },
}
#: Two leaves, of two and one numbers; the learning rate is 0.5 throughout.
BEFORE, GRADIENT = {"a": [1.0, 2.0], "b": [-4.0]}, {"a": [3.0, 0.0], "b": [4.0]}

State = dict[str, Any]
Step = Callable[..., Learner]


def tree(leaves: dict[str, Any], dtype: Any = np.float32) -> State:
    """Leaves at one site of one method, which makes nothing of them beside its forward pass."""
    return {"site": {"lora": {name: np.asarray(values, dtype) for name, values in leaves.items()}}}


def numbers(state: State) -> dict[str, list[float]]:
    return {name: np.asarray(leaf).tolist() for name, leaf in state["site"]["lora"].items()}


@pytest.fixture(scope="module")
def step(tiny: Backbone) -> Step:
    """One step of plain gradient descent, from `BEFORE` along `GRADIENT` unless told otherwise; one program for all."""
    update = jax.jit(Programs(tiny, task_named("classify"), slots=1, optimizer="sgd").update_one)

    def take(
        gradient: dict[str, Any] = GRADIENT,
        *,
        at: int = 0,
        loss: float = 2.0,
        live: bool = True,
        failed: bool = False,
        rate: dict[str, Any] | None = None,
        begins: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Learner:
        recipe = Recipe(**{"lr": 0.5, "schedule": "constant", "warmup": 0.0, "clip": None, **settings})
        rates = tree(rate or {"a": [1.0], "b": [1.0]}), tree(begins or {"a": [0], "b": [0]}, np.int32)
        begun = start(Stacked(tree(BEFORE), tree({}), rates[0]), rates, hyper(recipe, total=10, classes=2), "sgd")
        learner = begun._replace(step=np.int32(at), loss=np.float32(7.0), failed=np.bool_(failed))
        return update(learner, np.float32(loss), tree(gradient), np.bool_(live))

    return take


def test_down_the_gradient(step: Step) -> None:
    after = step()
    assert numbers(after.trainable) == {"a": [-0.5, 2.0], "b": [-6.0]}
    assert (int(after.step), float(after.loss), bool(after.failed)) == (1, 9.0, False)


@pytest.mark.parametrize(("clip", "scale"), [(1.0, 0.2), (2.5, 0.5), (5.0, 1.0), (20.0, 1.0), (None, 1.0)])
def test_the_norm_over_all_leaves_is_clipped(step: Step, clip: float | None, scale: float) -> None:
    """The gradient's norm is 5; one below the limit is left alone."""
    after = numbers(step(clip=clip).trainable)
    np.testing.assert_allclose(after["a"], [1.0 - 0.5 * 3.0 * scale, 2.0], rtol=1e-6)
    np.testing.assert_allclose(after["b"], [-4.0 - 0.5 * 4.0 * scale], rtol=1e-6)


def test_decay_is_of_the_weights_and_of_no_gradient(step: Step) -> None:
    """Decoupled (Loshchilov & Hutter): lr * decay * p, and not clipped."""
    after = numbers(step({"a": [0.0, 0.0], "b": [0.0]}, weight_decay=0.25, clip=1e-3).trainable)
    assert after == {"a": [1.0 - 0.125, 2.0 - 0.25], "b": [-4.0 + 0.5]}


def test_the_schedule_is_at_the_learners_own_step(step: Step) -> None:
    assert numbers(step(at=0, warmup=0.4).trainable)["b"] == [-4.0 - 0.5 * 0.25 * 4.0]
    assert numbers(step(at=5, schedule="linear").trainable)["b"] == [-4.0 - 0.5 * 0.5 * 4.0]


def test_leaves_at_rates_of_their_own(step: Step) -> None:
    """A leaf at three times the rate moves, and decays, three times as far."""
    after = numbers(step(rate={"a": [3.0], "b": [1.0]}, weight_decay=0.5).trainable)
    assert after == {"a": [1.0 - 1.5 * (3.0 + 0.5), 2.0 - 1.5 * 1.0], "b": [-4.0 - 0.5 * (4.0 - 2.0)]}


def test_filling_neither_moves_nor_counts_in_the_norm(step: Step) -> None:
    after = numbers(step(rate={"a": [0.0], "b": [1.0]}, weight_decay=0.25, clip=2.0).trainable)
    assert after == {"a": [1.0, 2.0], "b": [-4.0 - 0.5 * (2.0 - 1.0)]}


@pytest.mark.parametrize(("at", "trains"), [(2, False), (3, True), (4, True)])
def test_a_leaf_begins_at_its_step(step: Step, at: int, trains: bool) -> None:
    after = numbers(step(at=at, begins={"a": [0], "b": [3]}, weight_decay=0.5).trainable)
    assert after["a"] == [1.0 - 0.5 * 3.5, 2.0 - 0.5 * 1.0]
    assert after["b"] == ([-4.0 - 0.5 * 2.0] if trains else [-4.0])


@pytest.mark.parametrize("why", ["idle", "failed before", "loss", "gradient", "gradient, idle"])
def test_who_takes_no_step_keeps_every_bit(step: Step, why: str) -> None:
    """An idle learner is not failed by what is computed for it, and a failed one stays so."""
    gradient = {"a": [np.nan, 0.0], "b": [1.0]} if "gradient" in why else GRADIENT
    loss = np.inf if why == "loss" else 2.0
    after = step(gradient, at=4, loss=loss, live="idle" not in why, failed=why == "failed before", weight_decay=0.5)
    assert numbers(after.trainable) == BEFORE
    assert (int(after.step), float(after.loss), bool(after.failed)) == (4, 7.0, "idle" not in why)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_what_is_dropped_is_of_the_seed_and_the_step(tiny: Backbone, dropout: float) -> None:
    """The loss of one learner at two steps and under two seeds: four values where something is dropped, else one."""
    adapter = random_adapter(tiny, (LoRA(r=2, alpha=30.0, dropout=dropout),))
    learner, batch = a_learner(tiny, adapter, Layout.of([adapter], tiny.sites, bucket=True))
    loss = jax.jit(Programs(tiny, task_named("classify"), slots=1, dropout=True).loss)

    def found(seed: int, at: int) -> float:
        changed = learner._replace(step=np.int32(at), hyper=learner.hyper._replace(seed=np.uint32(seed)))
        return float(loss(learner.trainable, tiny.params, tiny.layers, changed, batch))

    losses = [found(seed, at) for seed in (0, 1) for at in (0, 1)]
    assert found(0, 1) == losses[1]
    assert len({*losses}) == (4 if dropout else 1)


@pytest.mark.parametrize(("positions", "wanted"), [(1, 3), (2500, 3), (4096, 2), (5000, 1), (100_000, 1)])
def test_an_accelerator_computes_as_many_slots_at_once_as_keep_it_busy(tiny: Backbone, positions: int, wanted: int) -> None:
    """Losses and gradients are those of all at once."""
    with compiling_for("tpu"):
        ids = np.zeros((3, 1, positions), np.int32)
        assert Programs(tiny, task_named("classify"), slots=3).at_once(TextInputs(ids, ids, ids)) == wanted
    programs = Programs(tiny, task_named("classify"), slots=3)
    numbers = np.arange(3, dtype=np.float32)
    found = programs.over_slots(lambda shared, own: shared + own, shared=1, at_once=wanted)(jnp.float32(1), numbers)
    np.testing.assert_array_equal(found, numbers + 1)


def test_positions_are_tokens_and_squares_of_pixels() -> None:
    ids = np.zeros((4, 20), np.int32)
    texts, pictures = TextInputs(ids, ids > 0, ids), ImageInputs(np.zeros((2, 32, 48, 3), np.float32))
    assert positions_of(texts) == 80
    assert positions_of(texts._replace(target=texts)) == 160
    assert positions_of(pictures) == 2 * 6
    assert positions_of(PairInputs(pictures, texts)) == 92
    assert positions_of(texts._replace(hidden=np.zeros((4, 5, 8)))) == 20
    assert positions_of({"numbers": np.zeros((7, 3))}) == 7  # of another package's kind


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere slots are computed at once")
@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_slots_take_turns_where_layers_make_maps_of_maps(kind: str) -> None:
    """The losses and gradients of two adapters are those of either alone."""
    backbone = random_backbone(TINY_PICTURES[kind])
    adapters = [random_adapter(backbone, (LoRA(r=2),), seed=seed) for seed in (1, 2)]
    layout = Layout.of(adapters, backbone.sites, bucket=True)
    own = [a_learner(backbone, adapter, layout) for adapter in adapters]
    one, two = (Programs(backbone, task_named("image-classify"), slots=slots) for slots in (1, 2))
    learners, batches = jax.tree.map(lambda *leaves: np.stack(leaves), *own)
    lowered = two.gradient.lower(backbone.params, backbone.layers, learners, batches)
    assert two.at_once(batches.inputs) == (1 if kind == "resnet" else 2)
    assert ("stablehlo.while" in lowered.as_text()) == (kind == "resnet")
    together = lowered.compile()(backbone.params, backbone.layers, learners, batches)
    for slot, (learner, batch) in enumerate(own):
        alone = one.gradient(
            backbone.params, backbone.layers, *jax.tree.map(lambda leaf: np.asarray(leaf)[None], (learner, batch))
        )
        for found, wanted in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(found[slot], wanted[0], rtol=1e-4, atol=1e-6)
