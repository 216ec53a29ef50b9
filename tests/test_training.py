"""Training in packs: equal to training alone, reproducible, resumable at any moment, and robust against bad neighbours."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import toy_rows, weights_of

from graftax.adapters import METHODS, LoRA, Method, mam
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.models.load import load_backbone
from graftax.models.tokens import Tokenizer
from graftax.serve import Predictor
from graftax.train import Examples, Interrupted, Recipe, Result, train, train_many, tune
from graftax.train.data import Columns, read_examples, split
from graftax.train.job import prepare
from graftax.train.pack import Pack
from graftax.train.run import Run
from graftax.train.tasks import TASKS, Answer

QUICK = Recipe(epochs=2, lr=5e-3, batch_size=8, max_length=16)
SIZES = {"a": 21, "b": 12, "c": 30, "d": 9, "e": 17}
DATA = {name: toy_rows(count=count, seed=ord(name)) for name, count in SIZES.items()}


def run_many(backbone: Backbone, data: dict[str, Any], out: Path, **settings: Any) -> dict[str, Result]:
    return train_many(backbone, data, out, **{"recipe": QUICK, "progress": False, **settings})


def tensors(directory: Path) -> dict[str, np.ndarray]:
    return load_file(directory / "adapter_model.safetensors")


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def nan_rows() -> Examples:
    """Regression rows whose labels are NaN, past the reader that would refuse them."""
    rows = toy_rows("regress", 16)
    return Examples(tuple(row["text"] for row in rows), None, (float("nan"),) * 16)


# -- packs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_packed_equals_alone(tiny: Backbone, tmp_path: Path, dropout: float) -> None:
    """Adapters of packs of two and four are those of runs of their own [1e-5 of each tensor's largest entry; 1e-3 in one
    entry of a hundred, where the gradient is at rounding level and Adam makes a whole step of it]."""
    settings: dict[str, Any] = {"method": LoRA(r=4, alpha=6.0, dropout=dropout), "recipe": QUICK.replace(epochs=1)}
    data = {n: DATA[n] for n in "abde"}
    for size in (1, 2, 4):
        run_many(tiny, data, tmp_path / str(size), pack_size=size, **settings)
    for size in (2, 4):
        for name in data:
            packed, alone = tensors(tmp_path / str(size) / name), tensors(tmp_path / "1" / name)
            off = np.concatenate([(np.abs(packed[k] - t) / np.abs(t).max()).ravel() for k, t in alone.items()])
            assert off.max() < 1e-3, (size, name)
            assert np.quantile(off, 0.99) < 1e-5, (size, name)


@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_neighbours_slots_and_queue_change_no_bit(tiny: Backbone, tmp_path: Path, dropout: float) -> None:
    """At one pack size an adapter's bits depend on its own rows and seed alone: not on who trains beside it (NaN rows, a
    learning rate of 1e30), in which slot, or how late in the queue."""
    mine = {"mine": toy_rows("regress", 20)}
    others = {name: toy_rows("regress", 12, ord(name)) for name in "pqr"}
    settings: dict[str, Any] = {"task": "regress", "pack_size": 2, "method": LoRA(r=4, alpha=6.0, dropout=dropout)}
    orders: dict[str, dict[str, Any]] = {
        "first": mine | others,
        "second": {"p": others["p"]} | mine | {"q": others["q"]},
        "last": others | mine,
        "beside NaN": {"bad": nan_rows()} | mine,
        "beside 1e30": {"wild": others["p"]} | mine,
    }
    found = {}
    for label, data in orders.items():
        each: dict[str, Any] = {"wild": {"lr": 1e30}} if "wild" in data else {}
        each |= {name: {"seed": 11} for name in data if name in others}
        with pytest.raises(GraftaxError, match="no adapter for") if label.startswith("beside") else nullcontext():
            run_many(tiny, data, tmp_path / label, each=each, **settings)
        found[label] = weights_of(tmp_path / label / "mine")
    assert len(set(found.values())) == 1, {label: hash(weights) for label, weights in found.items()}


@pytest.mark.parametrize("size", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_neighbours_sizes_and_method_change_no_bit(tiny: Backbone, tmp_path: Path, size: int) -> None:
    """At one pack size a neighbour with more labels, a larger rank, another method, dropout or optimizer is not felt, wherever
    it stands in the queue."""
    mine = {"mine": toy_rows(count=20), "alike": toy_rows(count=12, seed=1)}
    many_labels = [{"text": f"word {i % 20}", "label": f"label {i % 20}"} for i in range(40)]
    others: dict[str, tuple[Any, dict[str, Any]]] = {
        "labels": (many_labels, {}),
        "rank": (toy_rows(seed=2), {"method": LoRA(r=20, alpha=6.0)}),
        "method": (toy_rows(seed=3), {"method": METHODS["ia3"]()}),
        "dropout": (toy_rows(seed=4), {"method": LoRA(r=4, alpha=6.0, dropout=0.2)}),
        "optimizer": (toy_rows(seed=5), {"optimizer": "lion"}),
    }
    settings: dict[str, Any] = {"pack_size": size, "method": LoRA(r=4, alpha=6.0), "recipe": QUICK.replace(epochs=1)}
    neighbours, each = ({name: two[i] for name, two in others.items()} for i in (0, 1))
    run_many(tiny, mine | {"third": toy_rows(seed=6)}, tmp_path / "alone", **settings)
    run_many(tiny, neighbours | mine, tmp_path / "last", each=each, **settings)
    for name in mine:
        assert weights_of(tmp_path / "last" / name) == weights_of(tmp_path / "alone" / name), name


def test_idle_slots_keep_every_bit(tiny: Backbone) -> None:
    """A slot whose job has another shape of batch, and an empty one, are the same bits after a tick."""
    jobs = []
    for name, text in (("short", "a shop"), ("long", "a shop sells " + "old and new " * 30)):
        examples = Examples((text,) * 8, None, ("x", "y") * 4)
        settings: dict[str, Any] = {"backbone": tiny, "task": TASKS["classify"], "method": LoRA(), "columns": None}
        jobs.append(prepare(name, examples, None, recipe=QUICK, tokenizer=Tokenizer.of(tiny), **settings))
    pack = Pack(tiny, TASKS["classify"], jobs, 3, Tokenizer.of(tiny))
    pack.admit(0, 0)
    pack.admit(1, 1)
    before = jax.tree.map(np.array, pack.state)
    assert pack.tick() == [0]
    after = jax.tree.map(np.array, pack.state)
    changed = jax.tree.map(lambda a, b: [bool((a[k] != b[k]).any()) for k in range(3)], before, after)
    found = jax.tree.leaves(changed, is_leaf=lambda x: isinstance(x, list))
    assert any(slot[0] for slot in found)
    assert not any(slot[1] or slot[2] for slot in found)


def test_a_queue_compiles_nothing(tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven jobs through two slots: a program per shape of batch for training, and one for predicting; a second run, none."""
    packs: list[Pack] = []
    create = Pack.__init__

    def remember(self: Pack, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        packs.append(self)

    monkeypatch.setattr(Pack, "__init__", remember)
    data = {f"job{i}": toy_rows(count=9 + i, seed=i) for i in range(7)}
    backbone = load_backbone(tiny_dir)
    run_many(backbone, data, tmp_path / "out", pack_size=2, val=0.3)
    (pack,) = packs
    shapes = {job.shape for job in pack.jobs}
    programs = pack.programs
    assert programs.gradient._cache_size() == programs.predict._cache_size() == len(shapes) <= 2
    assert programs.update._cache_size() == 1
    assert programs.put._cache_size() == 2  # the state, and the best leaves
    run_many(backbone, data, tmp_path / "again", pack_size=2, val=0.3)
    assert packs[1].programs is programs
    assert programs.gradient._cache_size() == len(shapes)


def test_frozen_is_frozen(tiny: Backbone, tmp_path: Path) -> None:
    """Training leaves every parameter of the backbone as it was, and changes every tensor of the adapter."""
    before = {name: array.copy() for name, array in tiny.arrays().items()}
    run_many(tiny, {"a": DATA["a"]}, tmp_path / "one")
    assert all(np.array_equal(array, before[name]) for name, array in tiny.arrays().items())
    run_many(tiny, {"a": DATA["a"]}, tmp_path / "longer", recipe=QUICK.replace(epochs=4))
    one, longer = tensors(tmp_path / "one" / "a"), tensors(tmp_path / "longer" / "a")
    assert all(not np.array_equal(one[key], longer[key]) for key in one)


@pytest.mark.parametrize("single_batch", [False, True])
def test_the_pack_size_can_be_measured(tiny: Backbone, monkeypatch: pytest.MonkeyPatch, single_batch: bool) -> None:
    """Measuring works on jobs of any length, also of a single batch, and gives a size there is."""
    monkeypatch.setattr(tune, "_SHORT", 0.0)
    settings: dict[str, Any] = {"backbone": tiny, "task": TASKS["classify"], "method": LoRA(), "columns": None}
    recipe = QUICK.replace(batch_size=32 if single_batch else 8)
    examples = Examples(tuple(row["text"] for row in DATA["a"]), None, tuple(row["label"] for row in DATA["a"]))
    jobs = [prepare(str(i), examples, None, recipe=recipe, tokenizer=Tokenizer.of(tiny), **settings) for i in range(4)]
    assert tune.choose_pack_size(tiny, TASKS["classify"], jobs, Tokenizer.of(tiny))[0] in (1, 4)


# -- what is learnt ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "least"), [("classify", 0.95), ("multilabel", 0.95), ("regress", 0.95), ("tag", 0.7)])
def test_every_task_learns(tiny: Backbone, tmp_path: Path, task: str, least: float) -> None:
    """A toy data set is learnt by heart: the loss falls and the main metric on the same rows is high."""
    rows = toy_rows(task)
    recipe = Recipe(epochs=24, lr=1e-2, batch_size=8, max_length=16)
    method = LoRA(targets=".*(dense|query|value)")
    result = run_many(tiny, {"x": rows}, tmp_path / "out", task=task, recipe=recipe, method=method, val={"x": rows})["x"]
    assert result.metrics[f"val_{TASKS[task].main_metric}"] >= least
    assert result.history[-1]["loss"] < result.history[0]["loss"] / 2


#: Methods whose default size is too large for the tiny backbone.
SMALLER: dict[str, dict[str, Any]] = {"miss": {"r": 6}, "road": {"group_size": 8}, "shira": {"r": 4}}
SMALLER |= {"alora": {"invocation": (2,)}, "trainable_tokens": {"ids": (5, 11)}}  # and those that must be told of tokens


#: Methods trained every time; a compiled step of every method is in the contract suite.
ONE_OF_EACH = ("lora", "bottleneck", "prefix", "probe")
EVERY = [*(n for n in METHODS if n != "head"), "probe"]


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


#: Methods whose packs are trained every time; the others' are slow.
PACKED = ("dora",)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in PACKED else pytest.mark.slow) for n in METHODS])
def test_every_method_trains_in_a_pack(tiny: Backbone, tmp_path: Path, name: str) -> None:
    """19: a pack of two is two runs of their own [1e-5]. With SGD: Adam makes whole steps of gradients at rounding level."""
    method: Method | None = None if name == "head" else METHODS[name](**SMALLER.get(name, {}))
    data, recipe = {n: DATA[n] for n in "ab"}, QUICK.replace(optimizer="sgd", lr=0.05)
    for size in (1, 2):
        run_many(tiny, data, tmp_path / str(size), method=method, recipe=recipe, pack_size=size)
    for n in data:
        packed, alone = tensors(tmp_path / "2" / n), tensors(tmp_path / "1" / n)
        for key, tensor in alone.items():
            np.testing.assert_allclose(packed[key], tensor, atol=1e-5, err_msg=f"{n} {key}")


def test_methods_and_settings_may_differ_in_one_pack(tiny: Backbone, tmp_path: Path) -> None:
    """Method, rank, learning rate, epochs and seed of one adapter differ from its neighbours'; each file says its own."""
    each = {"a": {"method": METHODS["ia3"](), "lr": 1e-2}, "b": {"method": LoRA(r=3, alpha=5.0), "epochs": 1}, "c": {"seed": 5}}
    results = run_many(tiny, {n: DATA[n] for n in "abcd"}, tmp_path, each=each, pack_size=2)
    configs = {n: json.loads((tmp_path / n / "adapter_config.json").read_text()) for n in "abcd"}
    assert [configs[n]["peft_type"] for n in "abcd"] == ["IA3", "LORA", "LORA", "LORA"]
    assert [configs[n].get("r") for n in "abcd"] == [None, 3, 8, 8]
    assert [len(results[n].history) for n in "abcd"] == [2, 1, 2, 2]
    assert json.loads((tmp_path / "c" / "graftax.json").read_text())["recipe"]["seed"] == 5


@pytest.mark.slow
def test_a_union_trains_as_one_adapter(tiny: Backbone, tmp_path: Path) -> None:
    """Several methods in one adapter, beside one of another kind: all of it moves, and the recipe names them."""
    each = {"b": {"method": (METHODS["ia3"](), METHODS["prompt"](tokens=2))}}
    settings: dict[str, Any] = {"method": mam(tokens=2, width=3), "each": each, "pack_size": 2}
    run_many(tiny, {n: DATA[n] for n in "ab"}, tmp_path / "one", recipe=QUICK.replace(epochs=1), **settings)
    run_many(tiny, {n: DATA[n] for n in "ab"}, tmp_path / "two", **settings)
    for name, methods in (("a", "prefix+bottleneck"), ("b", "ia3+prompt")):
        assert json.loads((tmp_path / "two" / name / "graftax.json").read_text())["recipe"]["method"] == methods
        one, two = tensors(tmp_path / "one" / name), tensors(tmp_path / "two" / name)
        assert all(not np.array_equal(one[key], two[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classify", "tag"])
def test_a_prompt_trains_beside_another_method(tiny: Backbone, tmp_path: Path, task: str) -> None:
    """A prompt's texts have rows of their own, a LoRA's share them; in one pack each becomes what it does in a run of its
    own, to rounding, and answers as it was measured."""
    settings: dict[str, Any] = {"task": task, "recipe": QUICK.replace(epochs=1), "val": 0.25}
    methods: dict[str, Method] = {"a": LoRA(r=4, alpha=6.0), "b": METHODS["prompt"](tokens=3)}
    data = {name: toy_rows(task, 20, seed=ord(name)) for name in methods}
    each = {name: {"method": method} for name, method in methods.items()}
    together = run_many(tiny, data, tmp_path / "pack", each=each, pack_size=2, **settings)
    predictor = Predictor(tiny)
    for name, method in methods.items():
        run_many(tiny, {name: data[name]}, tmp_path / "alone", method=method, **settings)
        packed, alone = tensors(tmp_path / "pack" / name), tensors(tmp_path / "alone" / name)
        off = np.concatenate([(np.abs(packed[k] - t) / np.abs(t).max()).ravel() for k, t in alone.items()])
        assert np.quantile(off, 0.99) < 1e-4, name
        predictor.load(name, tmp_path / "pack" / name)
        examples = read_examples(data[name], Columns(), task)
        held = examples.take(split(examples, 0.25, 0)[1])
        said = [Answer(p.label, p.score) for p in predictor.predict(list(held.texts), name)]
        labels = predictor.labels(name)
        assert (
            TASKS[task].score(held, said, labels).items()
            <= {key.removeprefix("val_"): value for key, value in together[name].metrics.items()}.items()
        )


# -- epochs, metrics, failures ----------------------------------------------------------------------------------------


def test_best_epoch_is_kept_and_stops_early(tiny: Backbone, tmp_path: Path) -> None:
    """The first best epoch on the validation rows is saved; training ends `patience` epochs after it."""
    data, val = {"a": toy_rows(count=16, seed=1)}, {"a": toy_rows(count=20, seed=2)}
    recipe = QUICK.replace(epochs=12, lr=1e-2, schedule="constant", patience=2)
    result = run_many(tiny, data, tmp_path / "out", recipe=recipe, val=val)["a"]
    scores = [line["val_accuracy"] for line in lines(tmp_path / "out")]
    best = int(np.argmax(scores))
    assert len(scores) == min(12, best + 1 + 2)
    assert result.metrics["val_accuracy"] == max(scores)
    saved = json.loads((tmp_path / "out" / "a" / "graftax.json").read_text())["metrics"]
    assert (saved["epoch"], saved["val_accuracy"]) == (best + 1, max(scores))
    run_many(tiny, data, tmp_path / "to best", recipe=recipe.replace(epochs=best + 1, patience=None))
    assert weights_of(tmp_path / "to best" / "a") == weights_of(tmp_path / "out" / "a")


def test_metrics_have_a_line_per_epoch(tiny: Backbone, tmp_path: Path) -> None:
    """metrics.jsonl: each epoch of each adapter once; a later run in the directory keeps the lines about other adapters."""
    run_many(tiny, {n: DATA[n] for n in "ab"}, tmp_path)
    run_many(tiny, {n: DATA[n] for n in "bc"}, tmp_path, overwrite=True)
    assert sorted((line["adapter"], line["epoch"]) for line in lines(tmp_path)) == [(n, e) for n in "abc" for e in (1, 2)]


@pytest.mark.parametrize("how", ["NaN labels", "huge rate", "huge rate, one step"])
def test_diverged_adapters_are_reported(tiny: Backbone, tmp_path: Path, how: str) -> None:
    """The others are trained and saved; the error names the one that failed; no run is left to resume."""
    good, bad = toy_rows("regress", 16), toy_rows("regress", 16 if how == "huge rate" else 8)
    data: dict[str, Any] = {"good": good, "bad": nan_rows() if how == "NaN labels" else bad}
    each = {} if how == "NaN labels" else {"bad": {"lr": 1e30}}
    val = None if how == "NaN labels" else {"good": good, "bad": bad}
    with pytest.raises(GraftaxError, match=r"no adapter for bad: the loss was not finite.*Saved: good") as error:
        run_many(tiny, data, tmp_path, task="regress", each=each, val=val, pack_size=2)
    assert "\n" not in str(error.value)
    assert (tmp_path / "good" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "bad").exists()
    assert not (tmp_path / ".run").exists()


def test_rare_labels_may_be_held_out(tiny: Backbone, tmp_path: Path) -> None:
    """A tag that only a held-out row has is a class all the same, not an unknown label."""
    rows = [{"text": ["iron", "shop"], "label": ["B-M", "O"]}] * 9 + [{"text": ["plum"], "label": ["B-RARE"]}]
    recipe = QUICK.replace(epochs=1)
    for seed in range(3):
        run_many(tiny, {"x": rows}, tmp_path / str(seed), task="tag", recipe=recipe.replace(seed=seed), val=0.5)
        assert json.loads((tmp_path / str(seed) / "x" / "graftax.json").read_text())["labels"] == ["B-M", "B-RARE", "O"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"data": {}}, "no data"),
        ({"pack_size": 0}, "the pack size must be a whole number, at least 1"),
        ({"each": {"z": {"lr": 1e-2}}}, "settings for z, but the adapters are a"),
        ({"each": {"a": {"rank": 2}}}, "no such setting: rank"),
        ({"val": {"z": DATA["b"]}}, "validation rows for z"),
        ({"val": 1.5}, "between 0 and 1"),
        ({"val": {"a": [{"text": "x", "label": "new"}]}}, "label 'new', which the adapter does not know"),
        ({"recipe": QUICK.replace(patience=2)}, "patience needs validation rows"),
        ({"recipe": QUICK.replace(max_length=41)}, "max length 41 is more than the 40 tokens"),
        ({"method": METHODS["prefix"](tokens=20), "recipe": QUICK.replace(max_length=32)}, "more than the 20 tokens"),
        ({"method": LoRA(targets="nothing")}, "matches no site. Sites there are: "),
        ({"task": "translate"}, "unknown task"),
        ({"data": {"../a": DATA["a"]}}, "cannot be named"),
        ({"data": {".run": DATA["a"]}}, "cannot be named"),
        ({"data": {256 * "n": DATA["a"]}}, "has 256 bytes; file systems have room for 255"),
    ],
)
def test_bad_settings_are_found_first(tiny: Backbone, tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    """One line, and nothing is written."""
    with pytest.raises(GraftaxError) as error:
        run_many(tiny, settings.pop("data", {"a": DATA["a"]}), tmp_path / "out", **settings)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


# -- what is on disk --------------------------------------------------------------------------------------------------


def test_existing_adapters_are_refused_or_replaced(tiny: Backbone, tmp_path: Path) -> None:
    """A second run into the directory is refused unless `overwrite`; new names beside the old ones are welcome."""
    run_many(tiny, {"a": DATA["a"]}, tmp_path)
    before = weights_of(tmp_path / "a")
    with pytest.raises(GraftaxError, match="already holds a; choose another directory or pass --overwrite"):
        run_many(tiny, {"a": DATA["b"]}, tmp_path)
    assert weights_of(tmp_path / "a") == before
    run_many(tiny, {"b": DATA["b"]}, tmp_path)
    run_many(tiny, {"a": DATA["b"]}, tmp_path, overwrite=True)
    assert weights_of(tmp_path / "a") != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "metrics.jsonl"]


def test_train_is_train_many_of_one(tiny: Backbone, tmp_path: Path) -> None:
    """`train` writes the same bits."""
    result = train(tiny, DATA["a"], tmp_path / "one" / "a", recipe=QUICK, progress=False)
    run_many(tiny, {"a": DATA["a"]}, tmp_path / "many")
    assert result.directory == tmp_path / "one" / "a"
    assert weights_of(result.directory) == weights_of(tmp_path / "many" / "a")


def stop_after(monkeypatch: pytest.MonkeyPatch, ticks: int, then: Callable[[Run], None]) -> None:
    """Call `then(run)` at the end of a tick."""
    fill = Run._fill

    def counted(self: Run) -> None:
        fill(self)
        if self.ticks == ticks:
            then(self)

    monkeypatch.setattr(Run, "_fill", counted)


def interrupt(run: Run) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("ticks", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_a_run_of_several_kinds_resumes(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticks: int) -> None:
    """Stopped while the first kind of jobs trains, or the second: the bits of an uninterrupted run."""
    data, each = {n: DATA[n] for n in "abd"}, {"b": {"method": LoRA(r=20, alpha=6.0)}}
    settings: dict[str, Any] = {"pack_size": 1, "each": each, "recipe": QUICK.replace(epochs=1)}
    run_many(tiny, data, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        stop_after(patch, ticks, interrupt)
        with pytest.raises(Interrupted):
            run_many(tiny, data, tmp_path / "out", **settings)
    results = run_many(tiny, data, tmp_path / "out", **settings)
    assert list(results) == list(data)
    for name in data:
        assert weights_of(tmp_path / "out" / name) == weights_of(tmp_path / "whole" / name)


@pytest.mark.parametrize(
    ("ticks", "dropout"), [pytest.param(1, 0.2, marks=pytest.mark.slow), (3, 0.2), pytest.param(6, 0.2, marks=pytest.mark.slow)]
)
def test_resume_in_process(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticks: int, dropout: float) -> None:
    """Stopped at any tick (in an epoch, between jobs) and called again: the bits and metrics of an uninterrupted run."""
    recipe = QUICK.replace(epochs=4)
    settings: dict[str, Any] = {"pack_size": 2, "val": 0.3, "recipe": recipe, "method": LoRA(r=4, alpha=6.0, dropout=dropout)}
    data = {n: DATA[n] for n in "abd"}
    whole = run_many(tiny, data, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        stop_after(patch, ticks, interrupt)
        with pytest.raises(Interrupted, match=r"state saved in .*; run the same command again to go on"):
            run_many(tiny, data, tmp_path / "out", **settings)
    again = run_many(tiny, data, tmp_path / "out", **settings)
    for name in data:
        assert weights_of(tmp_path / "out" / name) == weights_of(tmp_path / "whole" / name)
        assert again[name].metrics == whole[name].metrics
        assert again[name].history == whole[name].history
    assert lines(tmp_path / "out") == lines(tmp_path / "whole")


def test_settings_of_an_unfinished_run_are_fixed(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another recipe, data, pack size or dtype is refused; `overwrite` begins anew; asking for more slots than jobs resumes."""
    data = {n: DATA[n] for n in "ab"}
    with monkeypatch.context() as patch:
        stop_after(patch, 2, interrupt)
        with pytest.raises(Interrupted):
            run_many(tiny, data, tmp_path, pack_size=9)
    for changes in ({"recipe": QUICK.replace(lr=1e-4)}, {"pack_size": 1}, {"method": None}, {"task": "classify", "val": 0.5}):
        with pytest.raises(GraftaxError, match="unfinished run with other settings"):
            run_many(tiny, data, tmp_path, **{"pack_size": 9, **changes})
    with pytest.raises(GraftaxError, match="unfinished run with other settings"):
        run_many(tiny, {"a": DATA["b"], "b": DATA["a"]}, tmp_path, pack_size=9)
    run_many(tiny, data, tmp_path, pack_size=9)
    assert not (tmp_path / ".run").exists()


def test_stale_checkpoints_are_not_resumed(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a crash left of a finished run's state is no part of the next run."""
    data = {n: DATA[n] for n in "ab"}
    with monkeypatch.context() as patch:
        stop_after(patch, 5, interrupt)
        with pytest.raises(Interrupted):
            run_many(tiny, data, tmp_path / "out")
    (tmp_path / "out" / ".run" / "run.json").unlink()
    with monkeypatch.context() as patch:
        stop_after(patch, 1, interrupt)
        with pytest.raises(Interrupted):
            run_many(tiny, data, tmp_path / "out", recipe=QUICK.replace(seed=3), overwrite=True)
    run_many(tiny, data, tmp_path / "out", recipe=QUICK.replace(seed=3), overwrite=True)
    run_many(tiny, data, tmp_path / "fresh", recipe=QUICK.replace(seed=3))
    assert weights_of(tmp_path / "out" / "a") == weights_of(tmp_path / "fresh" / "a")


def test_a_checkpoint_is_of_one_moment(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The background save writes what was true when it began, whatever training adds meanwhile."""
    from graftax.train.checkpoint import Checkpoints

    dumps = json.dumps

    def late(*args: Any, **kwargs: Any) -> str:
        time.sleep(0.0 if threading.current_thread() is threading.main_thread() else 0.3)
        return dumps(*args, **kwargs)

    monkeypatch.setattr(json, "dumps", late)
    facts: dict[str, Any] = {"history": [1]}
    array = np.arange(3.0)
    with Checkpoints(tmp_path / "checkpoints") as saves:
        saves.save(1, {"x": array}, facts)
        facts["history"].append(2)
        array[:] = -1.0
    with Checkpoints(tmp_path / "checkpoints") as again:
        assert again.arrays(like={"x": np.zeros(3)})["x"].tolist() == [0.0, 1.0, 2.0]
        assert again.facts() == {"history": [1]}


def test_training_leaves_no_state_of_a_removed_run(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the state deleted by hand the run begins anew, where nothing was saved yet."""
    with monkeypatch.context() as patch:
        stop_after(patch, 1, interrupt)
        with pytest.raises(Interrupted):
            run_many(tiny, {"a": DATA["a"]}, tmp_path)
    shutil.rmtree(tmp_path / ".run")
    run_many(tiny, {"a": DATA["a"]}, tmp_path)
    assert [(line["adapter"], line["epoch"]) for line in lines(tmp_path)] == [("a", 1), ("a", 2)]
