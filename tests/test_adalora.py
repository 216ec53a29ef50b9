"""AdaLoRA's budget: step by step PEFT's, and in packs, padded, stopped and resumed what it is alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
import transformers
from cases import logits
from conftest import some_inputs
from peft.tuners.adalora.layer import RankAllocator
from reference import torch_inputs, torch_logits
from runs import interrupt, run_many, stop_after, tensors
from tiny import toy_rows, weights_of

from graftax import AdaLoRA, GraftaxError, LoRA, Recipe, load_adapter, save_adapter
from graftax.adapters.formats.peft.loras import AdaLoRADialect
from graftax.adapters.methods.adalora import Budgeted
from graftax.data.columns import Columns
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokenizer
from graftax.tasks.task_registry import TASKS
from graftax.train import Interrupted
from graftax.train.intake import prepare
from graftax.train.job import Job
from graftax.train.pack import Pack

ROWS = toy_rows(count=16)  # two batches an epoch; all tests here have one shape, so they share what is compiled
SGD = Recipe(epochs=6, lr=0.3, batch_size=8, max_length=16, optimizer="sgd", schedule="constant", warmup=0.0, clip=1.0)
KEY = Budgeted.name


def begun(backbone: Backbone, method: AdaLoRA, recipe: Recipe) -> tuple[Job, Pack]:
    """A job, alone in its pack."""
    settings: dict[str, Any] = {"task": TASKS["classify"], "method": method, "columns": Columns(), "recipe": recipe}
    job = prepare("a", ROWS, None, backbone=backbone, **settings)
    pack = Pack(backbone, TASKS["classify"], [job], 1)
    pack.admit(0, 0)
    return job, pack


def tick(pack: Pack) -> tuple[int, ...]:
    """A step; the rows it took."""
    bookmark = pack.bookmarks[0]
    assert bookmark is not None
    examples = pack.plan(bookmark)[bookmark.position].items
    pack.tick()
    if pack.epoch_done(0):
        bookmark.epoch, bookmark.position = bookmark.epoch + 1, 0
    return examples


def config_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "adapter_config.json").read_text())


# -- PEFT's --------------------------------------------------------------------------------------------------------------

RUNS: dict[str, tuple[AdaLoRA, Recipe]] = {
    "sgd": (
        AdaLoRA(init_r=4, target_r=2, alpha=9.0, tinit=2, tfinal=3, deltaT=2, beta1=0.7, beta2=0.9, orth_reg_weight=0.1),
        SGD,
    ),
    "adamw": (
        AdaLoRA(init_r=5, target_r=2, alpha=7.0),
        SGD.replace(optimizer="adamw", lr=0.02, weight_decay=0.01, clip=0.5),
    ),
}


class Theirs:
    """The same training in PEFT, from a file of ours."""

    def __init__(self, base: Any, start: Path, recipe: Recipe):
        self.model = peft.PeftModel.from_pretrained(base, start, is_trainable=True).eval()
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        make: Any = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[recipe.optimizer]
        self.optimizer = make(self.trained, recipe.lr, weight_decay=recipe.weight_decay)
        self.clip = recipe.clip

    def step(self, inputs: Any, labels: list[int], number: int) -> float:
        loss = self.model(**torch_inputs(inputs, self.model), labels=torch.tensor(labels)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.clip)
        self.optimizer.step()
        self.model.base_model.update_and_allocate(number)
        self.optimizer.zero_grad()
        return loss.item()

    def left(self) -> dict[str, list[bool]]:
        """Of the sites' triplets; nothing before the first pruning."""
        found = self.model.peft_config["default"].rank_pattern or {}
        return {key.replace(".default", ""): left for key, left in found.items()}

    def tensors(self) -> dict[str, np.ndarray]:
        named = self.model.named_parameters()
        return {name.replace(".default", ""): p.detach().numpy() for name, p in named if p.requires_grad}


@pytest.mark.parametrize("case", [pytest.param("sgd", marks=pytest.mark.slow), "adamw"])
def test_every_step_is_pefts(case: str, tiny: Backbone, tiny_dir: Path, tmp_path: Path) -> None:
    """Twelve steps: after each the loss, every tensor [1e-4] and what is left; then the file, which PEFT reads."""

    def base() -> Any:
        return transformers.AutoModelForSequenceClassification.from_pretrained(tiny_dir, num_labels=2, dtype=torch.float32)

    (method, recipe), total, choices = RUNS[case], 0.0, set()
    job, pack = begun(tiny, method, recipe)
    theirs = Theirs(base(), save_adapter(job.adapter, tmp_path / "start", tiny), recipe)
    for step in range(12):
        examples = tick(pack)
        inputs = Tokenizer.of(tiny).pad([job.train.items[i] for i in examples], len(examples), 16)
        total += theirs.step(inputs, [int(job.train.labels[i]) for i in examples], step)
        np.testing.assert_allclose(pack.learners.loss[0], total, rtol=1e-4)
        mine = jax.tree.map(lambda leaf: np.asarray(leaf[0]), (pack.learners.trainable, pack.learners.fixed))
        own, known = (pack.layout.unstack(job.adapter, tree, tiny.sites)[KEY] for tree in mine)
        held, left = theirs.tensors(), theirs.left()
        for site, (leaves, _) in own.items():
            for suffix, tensor in AdaLoRADialect(method).tensors(site, leaves).items():
                key = f"base_model.model.{site.path}.{suffix}"
                np.testing.assert_allclose(tensor, held[key], atol=1e-4, err_msg=f"step {step}: {key}")
            there = known[site][1]["left"].tolist()
            assert there == left.get(f"{site.path}.lora_E", [True] * method.init_r), (step, site.path)
        choices.add(str(left))
    assert len(choices) > 2

    path = save_adapter(pack.result(0, {}), tmp_path / "ours", tiny)
    theirs.model.save_pretrained(tmp_path / "theirs")
    ours, other = config_of(path), config_of(tmp_path / "theirs")
    for key in ("rank_pattern", "init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight"):
        assert ours[key] == other[key], key
    assert ours["total_step"] == other["total_step"] == 12
    ranks = [sum(left) for left in ours["rank_pattern"].values()]
    assert (sum(ranks), len(ranks)) == (4 * method.target_r, 4)
    assert len(set(ranks)) > 1
    written = tensors(tmp_path / "theirs")
    assert tensors(path).keys() == written.keys()
    for key, tensor in tensors(path).items():
        np.testing.assert_allclose(tensor, written[key], atol=1e-4, err_msg=key)
    again, inputs = load_adapter(path, tiny), some_inputs(tiny)
    read_again = load_adapter(tmp_path / "theirs", tiny).methods[0]
    assert replace(read_again, targets=None) == again.methods[0]  # PEFT writes its targets as a set
    read = torch_logits(peft.PeftModel.from_pretrained(base(), path).eval(), inputs)
    np.testing.assert_allclose(logits(tiny, again, inputs)[:, :2], read, atol=1e-4)


@pytest.mark.parametrize("total", [1, 2, 6, 7, 100, 999])
@pytest.mark.parametrize("schedule", [(12, 8, 0, 0), (12, 8, 3, 2), (9, 0, 0, 1), (5, 4, 20, 30), (4, 4, 0, 0)])
def test_the_budget_is_pefts(schedule: tuple[int, int, int, int], total: int) -> None:
    """At every step, over six sites."""
    init_r, target_r, tinit, tfinal = schedule
    method = Budgeted(init_r=init_r, target_r=target_r, tinit=tinit, tfinal=tfinal, total_step=total)
    if tinit + tfinal >= total:
        with pytest.raises(GraftaxError, match=rf"{total} steps are too few for tinit={tinit} and tfinal={tfinal}"):
            method.falls(6 * init_r, 6 * target_r)
        return
    falls = method.falls(6 * init_r, 6 * target_r)
    allocator = RankAllocator.__new__(RankAllocator)
    allocator.peft_config = SimpleNamespace(tinit=tinit, tfinal=tfinal, total_step=total, deltaT=1)
    allocator.init_bgt, allocator.target_bgt = 6 * init_r, 6 * target_r
    budgets = [len(falls) - int(np.sum((falls > 0) & (falls <= step))) for step in range(total + 1)]
    assert budgets == [allocator.budget_schedule(step)[0] for step in range(total + 1)]


@pytest.mark.parametrize("size", [3, 8])
def test_the_penalty(size: int) -> None:
    """|P P^T - I| and |Q Q^T - I| of a site's three ranks, weighted; filling adds nothing, to the gradient neither."""
    random = np.random.default_rng(0)
    p, q = (random.standard_normal((3, n)).astype(np.float32) for n in (7, 5))
    rows = ((0, size - 3), (0, 0))
    trainable = {"x": {"p": np.pad(p, rows), "q": np.pad(q, rows)}, "filling": {"p": 0 * p, "q": 0 * q}}
    fixed = {
        "x": {"own": np.arange(size) < 3, "weight": np.float32(0.3)},
        "filling": {"own": np.zeros(3, bool), "weight": np.float32(0.0)},
    }

    def objective(leaves: Any) -> jax.Array:
        return Budgeted().objective(jnp.float32(2.0), leaves, jax.tree.map(jnp.asarray, fixed))

    found, gradient = jax.jit(jax.value_and_grad(objective))(jax.tree.map(jnp.asarray, trainable))
    expected = sum(np.linalg.norm(factor @ factor.T - np.eye(3)) for factor in (p, q))
    assert found == pytest.approx(2.0 + 0.3 * expected, rel=1e-6)
    assert not np.any(gradient["x"]["p"][3:])
    assert not np.any(gradient["filling"]["q"])
    assert np.all(gradient["x"]["p"][:3])


# -- in runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pack_is_runs_of_their_own(tiny: Backbone, tmp_path: Path) -> None:
    """Everything may differ between neighbours, the ranks they are padded to and whether there is a budget at all."""
    methods = {
        "a": AdaLoRA(init_r=5, target_r=2, alpha=7.0),
        "b": AdaLoRA(init_r=9, target_r=4, tinit=1, tfinal=2, deltaT=2, beta1=0.6, beta2=0.5, orth_reg_weight=0.1),
        "c": LoRA(r=3, alpha=5.0),
    }
    each = {name: {"method": method} for name, method in methods.items()}
    run_many(tiny, dict.fromkeys(methods, ROWS), tmp_path / "pack", each=each, recipe=SGD, pack_size=3)
    for name in methods:
        run_many(tiny, {name: ROWS}, tmp_path / "alone", each={name: each[name]}, recipe=SGD)
        packed, alone = tmp_path / "pack" / name, tmp_path / "alone" / name
        assert config_of(packed) == config_of(alone)
        for key, tensor in tensors(alone).items():
            np.testing.assert_allclose(tensors(packed)[key], tensor, atol=1e-5, err_msg=f"{name} {key}")
    kept = {name: [sum(left) for left in config_of(tmp_path / "pack" / name)["rank_pattern"].values()] for name in "ab"}
    assert (sum(kept["a"]), sum(kept["b"])) == (4 * 2, 4 * 4)


@pytest.mark.slow
def test_resume(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between two prunings, with a best epoch behind it: the bits of an uninterrupted run."""
    method, data = AdaLoRA(init_r=5, target_r=2, alpha=7.0, deltaT=3, tfinal=2), {"a": ROWS, "b": ROWS[::-1]}
    settings: dict[str, Any] = {"method": method, "recipe": SGD, "pack_size": 1, "val": data}
    run_many(tiny, data, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        stop_after(patch, 20, interrupt)  # in the second job, between two prunings
        with pytest.raises(Interrupted):
            run_many(tiny, data, tmp_path / "out", **settings)
    run_many(tiny, data, tmp_path / "out", **settings)
    for name in data:
        assert weights_of(tmp_path / "out" / name) == weights_of(tmp_path / "whole" / name)
        assert config_of(tmp_path / "out" / name) == config_of(tmp_path / "whole" / name)


def test_what_is_measured_is_what_is_saved(tiny: Backbone, tmp_path: Path) -> None:
    """Between two prunings all triplets train on; answers, the best epoch and the file have those that were left."""
    job, pack = begun(tiny, AdaLoRA(init_r=5, target_r=2, alpha=7.0, deltaT=4), SGD)
    for _ in range(10):
        tick(pack)
    own, known = (tree["layers.query"][KEY] for tree in (pack.learners.trainable, pack.learners.fixed))
    assert np.any(np.asarray(own["e"])[~np.asarray(known["left"])])
    pack.keep_best(0)
    saved = load_adapter(save_adapter(pack.result(0, {}), tmp_path / "a", tiny), tiny)
    inputs = some_inputs(tiny)
    answers = np.asarray(pack.programs.predict(tiny.params, pack.learners, np.int32(0), inputs, None))[:, :2]
    np.testing.assert_allclose(logits(tiny, saved, inputs)[:, :2], answers, atol=1e-5)
    best = jax.tree.map(lambda leaf: np.asarray(leaf[0]), pack.best)
    states = pack.layout.unstack(job.adapter, best, tiny.sites)[KEY]
    for site, (leaves, _) in job.adapter.methods[0].finished(states)[1].items():
        jax.tree.map(np.testing.assert_array_equal, leaves, saved.states["adalora"][site][0])


def test_ranks_stay_where_the_target_is_the_start(tiny: Backbone, tmp_path: Path) -> None:
    """PEFT has no such schedule; the file says that nothing was pruned."""
    run_many(tiny, {"a": ROWS}, tmp_path, method=AdaLoRA(init_r=3, target_r=3, alpha=7.0), recipe=SGD.replace(epochs=1))
    assert config_of(tmp_path / "a")["rank_pattern"] is None
    assert {len(leaves["e"]) for leaves, _ in load_adapter(tmp_path / "a", tiny).states["adalora"].values()} == {3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_r": 4}, "target_r must be from 0 to init_r, 4, got 8"),
        ({"target_r": -1}, "target_r must be a whole number, at least 0"),
        ({"tinit": -1}, "tinit must be a whole number, at least 0 .* got -1"),
        ({"tfinal": -1}, "tfinal must be a whole number, at least 0"),
        ({"deltaT": 0}, "deltaT must be a whole number, at least 1"),
        ({"orth_reg_weight": -0.1}, "orth_reg_weight must be a number, at least 0"),
        ({"beta1": 1.0}, "beta1 must be between 0 and 1"),
        ({"beta2": 0.0}, "beta2 must be between 0 and 1"),
    ],
)
def test_bad_values(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GraftaxError, match=message):
        AdaLoRA(**settings)


def test_too_short_a_run(tiny: Backbone, tmp_path: Path) -> None:
    """Found first, and nothing is written."""
    with pytest.raises(GraftaxError, match="adalora: 12 steps are too few for tinit=4 and tfinal=8"):
        run_many(tiny, {"a": ROWS}, tmp_path / "out", method=AdaLoRA(tinit=4, tfinal=8), recipe=SGD)
    assert not (tmp_path / "out").exists()
