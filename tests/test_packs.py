"""Packs: training in one is training alone, and neighbours, slots and queues change no bit."""

from __future__ import annotations

import itertools
import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from of_texts import of_texts, read_examples
from runs import DATA, ON_TEXTS, QUICK, SMALLER, nan_rows, run_many, tensors
from tiny import toy_rows, weights_of

from graftax.adapters import METHODS, LoRA, Method
from graftax.data.columns import Columns
from graftax.data.examples import split
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.models.load import load_backbone
from graftax.serve import Predictor
from graftax.tasks.task import Answer
from graftax.tasks.task_registry import TASKS
from graftax.train import pack_size as tune
from graftax.train.intake import prepare
from graftax.train.pack import Pack


@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_packed_equals_alone(tiny: Backbone, tmp_path: Path, dropout: float) -> None:
    """Invariant 19: adapters of packs of two and four are those of runs of their own [1e-5 of each tensor's largest entry;
    1e-3 in one entry of a hundred, where the gradient is at rounding level and Adam makes a whole step of it]."""
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
    """Invariant 19: at one pack size an adapter's bits depend on its own rows and seed alone: not on who trains beside it
    (NaN rows, a learning rate of 1e30), in which slot, or how late in the queue."""
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
        examples = of_texts([text] * 8, ["x", "y"] * 4)
        settings: dict[str, Any] = {"backbone": tiny, "task": TASKS["classify"], "method": LoRA(), "columns": Columns()}
        jobs.append(prepare(name, examples, None, recipe=QUICK, **settings))
    pack = Pack(tiny, TASKS["classify"], jobs, 3)
    pack.admit(0, 0)
    pack.admit(1, 1)
    before = jax.tree.map(np.array, pack.learners)
    assert pack.tick() == [0]
    after = jax.tree.map(np.array, pack.learners)
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
    shapes = {job.shape for job in pack.jobs.values()}
    programs = pack.programs
    assert programs.gradient._cache_size() == programs.predict._cache_size() == len(shapes) <= 2
    assert programs.update._cache_size() == 1
    assert programs.put._cache_size() == 3  # the state, the best leaves, and the losses
    run_many(backbone, data, tmp_path / "again", pack_size=2, val=0.3)
    assert packs[1].programs is programs
    assert programs.gradient._cache_size() == len(shapes)


@pytest.mark.parametrize("single_batch", [False, True])
def test_the_pack_size_can_be_measured(tiny: Backbone, monkeypatch: pytest.MonkeyPatch, single_batch: bool) -> None:
    """Of jobs of any length, also of a single batch. By a clock on which every tick takes a second, four adapters at once are
    four times as fast as one, of which 0.7 are counted on: their lengths may differ."""
    monkeypatch.setattr(tune, "_SHORT", 0.0)
    clock = SimpleNamespace(perf_counter=partial(next, itertools.count()))
    monkeypatch.setattr(tune, "time", clock)
    settings: dict[str, Any] = {"backbone": tiny, "task": TASKS["classify"], "method": LoRA(), "columns": Columns()}
    recipe = QUICK.replace(batch_size=32 if single_batch else 8)
    examples = of_texts([row["text"] for row in DATA["a"]], [row["label"] for row in DATA["a"]])
    jobs = [prepare(str(i), examples, None, recipe=recipe, **settings) for i in range(4)]
    assert tune.choose_pack_size(tiny, TASKS["classify"], jobs) == (4, "measured, 2.8 times as fast as one after another")
    assert clock.perf_counter() == 2 * 2 * 3  # three ticks of each size, begun and ended


@pytest.mark.parametrize(
    ("platform", "seconds", "jobs", "size", "why"),
    [
        ("gpu", {1: 1.0, 4: 0.5, 16: 0.4, 64: 0.2}, 64, 64, "measured, 3.5 times as fast as one after another"),
        ("gpu", {1: 1.0, 4: 0.5, 16: 0.49, 64: 0.2}, 64, 4, "16 at once were measured, and are no faster"),
        ("gpu", {1: 1.0, 4: 0.65}, 64, 1, "4 at once were measured, and are no faster"),  # by 1.08, as not all take part
        ("gpu", {1: 1.0, 4: 0.5, 16: None}, 64, 4, "16 at once do not fit in memory"),
        ("gpu", {1: 1.0, 4: 0.5}, 15, 4, "measured, 1.4 times as fast as one after another"),
        ("gpu", {}, 3, 1, "fewer than 4 fill no pack"),
        ("cpu", {}, 64, 1, "a pack seldom gains anything on a CPU, and in a run this short no time to measure it"),
    ],
)
def test_a_larger_pack_must_be_worth_it(
    tiny: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    seconds: dict[int, float | None],
    jobs: int,
    size: int,
    why: str,
) -> None:
    """By the seconds per adapter that each size is measured to take; None: it does not fit."""
    monkeypatch.setattr(tune.jax, "default_backend", lambda: platform)
    monkeypatch.setattr(tune, "Pack", lambda backbone, task, jobs, slots, devices, fsdp: slots)
    monkeypatch.setattr(tune, "_seconds_per_adapter", lambda slots: seconds[slots])
    monkeypatch.setattr(tune, "estimated_work", lambda backbone, jobs: 599.0 * 40e9)
    waiting: Any = [None] * jobs
    assert tune.choose_pack_size(tiny, TASKS["classify"], waiting) == (size, why)


#: Methods whose packs are trained every time; the others' are slow.
PACKED = ("dora",)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in PACKED else pytest.mark.slow) for n in ON_TEXTS])
def test_every_method_trains_in_a_pack(tiny: Backbone, tmp_path: Path, name: str) -> None:
    """Invariant 19: a pack of two is two runs [1e-5]. With SGD: Adam makes whole steps of gradients at rounding level."""
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
        said = [Answer(p.label, p.score) for p in predictor.predict(list(held.fields["text"]), name)]
        labels = predictor.labels(name)
        assert (
            TASKS[task].score(held, said, labels).items()
            <= {key.removeprefix("val_"): value for key, value in together[name].metrics.items()}.items()
        )
