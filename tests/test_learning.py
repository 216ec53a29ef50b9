"""What is learnt: every task, every method and several in one adapter train, and nothing of the backbone does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import DATA, ON_TEXTS, QUICK, SMALLER, run_many, tensors
from tiny import toy_rows, weights_of

from graftax.adapters import METHODS, LoRA, Method, mam
from graftax.models.backbone import Backbone
from graftax.tasks.task_registry import TASKS
from graftax.train import Recipe


def test_frozen_is_frozen(tiny: Backbone, tmp_path: Path) -> None:
    """Invariants 4, 5: training leaves every parameter of the backbone as it was, and changes every tensor of the adapter."""
    before = {name: array.copy() for name, array in tiny.arrays().items()}
    run_many(tiny, {"a": DATA["a"]}, tmp_path / "one")
    assert all(np.array_equal(array, before[name]) for name, array in tiny.arrays().items())
    run_many(tiny, {"a": DATA["a"]}, tmp_path / "longer", recipe=QUICK.replace(epochs=4))
    one, longer = tensors(tmp_path / "one" / "a"), tensors(tmp_path / "longer" / "a")
    assert all(not np.array_equal(one[key], longer[key]) for key in one)


@pytest.mark.parametrize(("task", "least"), [("classify", 0.95), ("multilabel", 0.95), ("regress", 0.95), ("tag", 0.7)])
def test_every_task_learns(tiny: Backbone, tmp_path: Path, task: str, least: float) -> None:
    """A toy data set is learnt by heart: the loss falls and the main metric on the same rows is high."""
    rows = toy_rows(task)
    recipe = Recipe(epochs=24, lr=1e-2, batch_size=8, max_length=16)
    method = LoRA(targets=".*(dense|query|value)")
    result = run_many(tiny, {"x": rows}, tmp_path / "out", task=task, recipe=recipe, method=method, val={"x": rows})["x"]
    assert result.metrics[f"val_{TASKS[task].main_metric}"] >= least
    assert result.history[-1]["loss"] < result.history[0]["loss"] / 2


#: Methods trained every time; a compiled step of every method is in the contract suite.
ONE_OF_EACH = ("lora", "bottleneck", "prefix", "probe")
EVERY = [*(n for n in ON_TEXTS if n != "head"), "probe"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in ONE_OF_EACH else pytest.mark.slow) for n in EVERY])
def test_every_method_trains(tiny: Backbone, tmp_path: Path, name: str) -> None:
    """One epoch of every method, twice: all its tensors are finite, moved by training, and the same bits each time."""
    method: Method | None = None if name == "probe" else METHODS[name](**SMALLER.get(name, {}))
    for out, epochs in (("one", 1), ("again", 1), ("three", 3)):
        run_many(tiny, {"a": DATA["a"]}, tmp_path / out, method=method, recipe=QUICK.replace(epochs=epochs))
    one, three = tensors(tmp_path / "one" / "a"), tensors(tmp_path / "three" / "a")
    assert weights_of(tmp_path / "one" / "a") == weights_of(tmp_path / "again" / "a")
    assert all(np.isfinite(tensor).all() for tensor in three.values())
    assert any(not np.array_equal(one[key], three[key]) for key in one if "classifier" not in key) or name == "probe"


@pytest.mark.slow
def test_a_union_trains_as_one_adapter(tiny: Backbone, tmp_path: Path) -> None:
    """Several methods in one adapter, beside one of other methods: all of it moves, and the recipe names them."""
    each = {"b": {"method": (METHODS["ia3"](), METHODS["prompt"](tokens=2))}}
    settings: dict[str, Any] = {"method": mam(tokens=2, width=3), "each": each, "pack_size": 2}
    run_many(tiny, {n: DATA[n] for n in "ab"}, tmp_path / "one", recipe=QUICK.replace(epochs=1), **settings)
    run_many(tiny, {n: DATA[n] for n in "ab"}, tmp_path / "two", **settings)
    for name, methods in (("a", "prefix+bottleneck"), ("b", "ia3+prompt")):
        assert json.loads((tmp_path / "two" / name / "graftax.json").read_text())["recipe"]["method"] == methods
        one, two = tensors(tmp_path / "one" / name), tensors(tmp_path / "two" / name)
        assert all(not np.array_equal(one[key], two[key]) for key in one)
