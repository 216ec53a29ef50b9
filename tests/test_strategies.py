"""Strategies of training: optimizers, rates per leaf and layer, unfreezing, and the features of frozen layers kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import toy_rows, weights_of

from graftax import large
from graftax.adapters import BitFit, Full, LoRA, Method
from graftax.adapters.adapter import Adapter, Layout
from graftax.data.columns import Columns
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.tasks.task_registry import TASKS
from graftax.train import Interrupted, Recipe, features, train_many
from graftax.train.intake import prepare
from graftax.train.job import Job
from graftax.train.optimizer import rates
from graftax.train.pack import Pack
from graftax.train.step import Programs

PLAIN = Recipe(epochs=2, lr=0.1, batch_size=8, max_length=16, optimizer="sgd", schedule="constant", warmup=0.0, clip=None)


def a_job(backbone: Backbone, method: Method | None, recipe: Recipe, rows: int = 8) -> Job:
    settings: dict[str, Any] = {"task": TASKS["classify"], "method": method, "columns": Columns(), "recipe": recipe}
    return prepare("a", toy_rows(count=rows), None, backbone=backbone, **settings)


def moves(backbone: Backbone, method: Method, recipe: Recipe, ticks: int = 1) -> dict[str, dict[str, np.ndarray]]:
    """How far each leaf has moved after so many steps on the same rows: site name -> leaf -> change."""
    pack = Pack(backbone, TASKS["classify"], [a_job(backbone, method, recipe)], 1)
    pack.admit(0, 0)
    before = jax.device_get(pack.learners.trainable)
    for _ in range(ticks):
        bookmark = pack.bookmarks[0]
        assert bookmark is not None
        bookmark.position = 0
        while not pack.tick():
            pass
    change = jax.tree.map(lambda a, b: (a - b)[0], jax.device_get(pack.learners.trainable), before)
    return {name: {leaf: v for leaves in keys.values() for leaf, v in leaves.items()} for name, keys in change.items()}


# -- optimizers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", "adam", "lion", "sgd", "rmsprop", "adafactor", "nadamw"])
def test_optimizers_are_optaxs(name: str, tiny: Backbone) -> None:
    """Three steps with decay are those of optax's optimizer of that name."""
    recipe = PLAIN.replace(optimizer=name, lr=1e-2, weight_decay=0.1)
    job = a_job(tiny, LoRA(r=2, alpha=3.0), recipe)
    layout = Layout.of([job.adapter], tiny.sites)
    programs = Programs(tiny, TASKS["classify"], 1, optimizer=name)
    slot = jax.tree.map(jnp.asarray, job.start(layout, tiny.sites))
    update, theirs = jax.jit(programs.update_one), slot.trainable
    make = getattr(optax, name)
    if name in ("adamw", "nadamw"):
        plain = make(1e-2, weight_decay=0.1)
    else:  # lion's own decay is another default; the others have none: here it is decoupled for all
        own = make(learning_rate=1.0, **({"weight_decay": 0.0} if name == "lion" else {}))
        plain = optax.chain(own, optax.add_decayed_weights(-0.1), optax.scale(1e-2))
    state = plain.init(theirs)
    for step in range(3):
        grads = jax.tree.map(lambda leaf, s=step: jnp.cos(leaf + s), slot.trainable)
        expected = jax.tree.map(lambda leaf, s=step: jnp.cos(leaf + s), theirs)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = plain.update(expected, state, theirs)
            theirs = optax.apply_updates(theirs, updates)
        slot = update(slot, jnp.float32(1.0), grads, jnp.bool_(True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), slot.trainable, theirs)


@pytest.mark.parametrize("name", ["adamv", "__doc__", "lbfgs", "scale_by_adam", "chain", "os.system"])
def test_what_is_no_optimizer(name: str) -> None:
    with pytest.raises(GraftaxError, match=f"optimizer '{name}': optax has none"):
        Recipe(optimizer=name)


def test_optimizers_may_differ_in_a_run(tiny: Backbone, tmp_path: Path) -> None:
    """Each adapter is what its optimizer makes of it in a run of its own, to the bit."""
    data = {"a": toy_rows(), "b": toy_rows(seed=1)}
    settings: dict[str, Any] = {"recipe": PLAIN, "each": {"b": {"optimizer": "lion"}}, "progress": False, "pack_size": 1}
    train_many(tiny, data, tmp_path / "both", **settings)
    for name in data:
        own = {k: v for k, v in settings["each"].items() if k == name}
        train_many(tiny, {name: data[name]}, tmp_path / "alone", **(settings | {"each": own}))
        both, alone = ((tmp_path / run / name / "adapter_model.safetensors").read_bytes() for run in ("both", "alone"))
        assert both == alone


# -- rates -----------------------------------------------------------------------------------------------------------------


def test_lora_plus(tiny: Backbone) -> None:
    """B moves as many times farther than without; A, at a second step, sees that B."""
    method = LoRA(r=2, alpha=3.0)
    plain, plus = moves(tiny, method, PLAIN), moves(tiny, method, PLAIN.replace(lora_plus=16.0))
    for name in plain:
        if "b" in plain[name]:
            np.testing.assert_allclose(plus[name]["b"], 16 * plain[name]["b"], rtol=1e-5)
            assert np.abs(plain[name]["b"]).max() > 0
        else:
            np.testing.assert_allclose(plus[name]["kernel"], plain[name]["kernel"], rtol=1e-5)


def test_discriminative_rates(tiny: Backbone) -> None:
    """A factor for every layer below the head."""
    plain, decayed = moves(tiny, BitFit(), PLAIN), moves(tiny, BitFit(), PLAIN.replace(layer_decay=0.5))
    for name in plain:
        factors = np.array([0.25, 0.5]) if name.startswith("layers.") else 1.0 if name in ("head.pooled", "pooler") else 0.125
        for leaf, change in plain[name].items():
            wanted = change * (factors if np.isscalar(factors) else factors.reshape(-1, *[1] * (change.ndim - 1)))
            np.testing.assert_allclose(decayed[name][leaf], wanted, rtol=1e-4, atol=1e-9)


def test_gradual_unfreezing(tiny: Backbone) -> None:
    """Epoch by epoch from the head down: one batch is an epoch here."""
    recipe = PLAIN.replace(unfreeze=1.0, optimizer="adamw")
    for epochs in range(1, 5):
        change = moves(tiny, BitFit(), recipe, ticks=epochs)
        assert change["head.pooled"]["kernel"].any()
        top = change["layers.query"]["bias"]
        assert [bool(layer.any()) for layer in top] == [epochs > 2, epochs > 1]
        assert change["embedding_norm"]["bias"].any() == (epochs > 3)


@pytest.mark.parametrize(("unfreeze", "layers", "below"), [(1.0, [10, 5], 15), (0.5, [5, 3], 8), (0.0, [0, 0], 0)])
def test_a_layer_begins_after_whole_steps_of_its_epochs(unfreeze: float, layers: list[int], below: int, tiny: Backbone) -> None:
    """An epoch of five steps: a layer waits as many epochs as there are layers above it, in steps rounded up."""
    adapter = Adapter.create((BitFit(), tiny.head(2)), tiny.sites)
    stacked = Layout.of([adapter], tiny.sites).stack(adapter, tiny.sites)
    _, begins = rates(Recipe(unfreeze=unfreeze), stacked, tiny.sites, 5)
    assert begins["layers.query"]["bitfit"]["bias"].ravel().tolist() == layers
    assert begins["embedding_norm"]["bitfit"]["bias"].ravel().tolist() == [below]
    assert begins["head.pooled"][tiny.head(2).key]["kernel"].ravel().tolist() == [0]


def test_preconditioning(tiny: Backbone) -> None:
    """The formula of Zhang & Pilanci, with both factors away from zero."""
    random = np.random.default_rng(0)
    leaves = {"a": random.standard_normal((3, 8)), "b": random.standard_normal((3, 5))}
    grads = {"a": random.standard_normal((3, 8)), "b": random.standard_normal((3, 5))}
    done = LoRA().precondition(*({k: jnp.asarray(v, jnp.float32) for k, v in tree.items()} for tree in (leaves, grads)))
    for own, other in (("a", "b"), ("b", "a")):
        inverse = np.linalg.inv(leaves[other] @ leaves[other].T + 1e-6 * np.eye(3))
        np.testing.assert_allclose(done[own], inverse @ grads[own], rtol=2e-4)
    method, recipe = LoRA(r=2, alpha=3.0), PLAIN.replace(lr=1e-3)
    plain, scaled = moves(tiny, method, recipe, 2), moves(tiny, method, recipe.replace(preconditioned=True), 2)
    assert not np.allclose(plain["layers.query"]["b"], scaled["layers.query"]["b"])


# -- features of frozen layers ---------------------------------------------------------------------------------------------

FROZEN = {"probe": (None, "classify"), "probe-tokens": (None, "tag"), "last": (Full(last=1), "classify")}
FROZEN |= {"last-lora": (LoRA(r=2, alpha=3.0, targets=r".*layer\.1\..*(query|value)"), "tag")}
QUICK = Recipe(epochs=3, lr=5e-3, batch_size=8, max_length=16)


def run(tiny: Backbone, out: Path, case: str, **settings: Any) -> dict[str, bytes]:
    method, task = FROZEN[case]
    data = {name: toy_rows(task, 20 + i, i) for i, name in enumerate("abc")}
    settings = {"method": method, "task": task, "recipe": QUICK, "val": 0.25, "pack_size": 2, "progress": False, **settings}
    train_many(tiny, data, out, **settings)
    return {name: weights_of(out / name) for name in data}


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c != "last-lora" else pytest.mark.slow) for c in FROZEN])
def test_kept_features_train_the_same(case: str, tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-5 of the run that computes them anew in every step; on disk bit for bit as in memory. (SGD: where a gradient is
    nothing but rounding, as that of a key's bias, Adam would make whole steps of it.)"""
    from safetensors.numpy import load

    sgd = QUICK.replace(optimizer="sgd", lr=0.05)
    kept = run(tiny, tmp_path / "kept", case, recipe=sgd)
    monkeypatch.setattr(large, "IN_MEMORY", 0)
    assert run(tiny, tmp_path / "disk", case, recipe=sgd) == kept
    monkeypatch.setattr(Backbone, "has_frozen_layers", lambda self, adapted: False)
    for name, weights in run(tiny, tmp_path / "anew", case, recipe=sgd).items():
        mine, anew = load(kept[name]), load(weights)
        for key, tensor in anew.items():
            np.testing.assert_allclose(mine[key], tensor, atol=1e-5, err_msg=f"{name} {key}")


def test_the_backbone_runs_once(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many epochs: as many batches of features as hold every text once."""
    counts = {}
    for epochs in (1, 4):
        calls: list[int] = []
        step = features.FeatureStore.step

        def counted(self: Any, calls: list[int] = calls, step: Any = step) -> bool:
            done = step(self)
            calls.append(done)
            return done

        monkeypatch.setattr(features.FeatureStore, "step", counted)
        run(tiny, tmp_path / str(epochs), "probe", recipe=QUICK.replace(epochs=epochs))
        monkeypatch.undo()
        counts[epochs] = sum(calls)
    assert counts[1] == counts[4] > 0


def test_resume_computes_the_same_features(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 20: stopped in the middle of features and in the middle of training."""
    whole = run(tiny, tmp_path / "whole", "probe")
    for stop in (2, 9):
        tick, count = Pack.tick, [0]

        def stopping(self: Pack, tick: Any = tick, count: list[int] = count, stop: int = stop) -> list[int]:
            count[0] += 1
            if count[0] == stop:
                import signal

                signal.raise_signal(signal.SIGTERM)
            return tick(self)

        monkeypatch.setattr(Pack, "tick", stopping)
        with pytest.raises(Interrupted):
            run(tiny, tmp_path / f"cut{stop}", "probe")
        monkeypatch.undo()
        assert run(tiny, tmp_path / f"cut{stop}", "probe") == whole
