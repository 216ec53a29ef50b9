"""Preference tuning: what is read, pairs that stay together, the loss and its gradient against torch, whole runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import peft
import pytest
import torch
import transformers
from cases import mapped, randomised
from of_texts import read_examples
from runs import interrupt, stop_after
from safetensors.numpy import load_file
from tiny import weights_of

from graftax import Columns, GraftaxError, LoRA, PromptTuning, Recipe, load_adapter, save_adapter, train_many
from graftax.data.batches import plan_all, plan_epoch, shape_alone, shape_for
from graftax.data.prepared import Prepared
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokenizer
from graftax.serve import evaluate_language
from graftax.tasks.outputs import IGNORE
from graftax.tasks.task_registry import TASKS
from graftax.train import Interrupted
from graftax.train.intake import prepare
from graftax.train.job import Job
from graftax.train.pack import Pack

DPO = TASKS["dpo"]
ROWS = [
    {"prompt": "2+2=", "chosen": "4", "rejected": "five, I think"},
    {"prompt": "Say hello.", "chosen": " Hello! How are you?", "rejected": " No."},
    {"prompt": "A colour", "chosen": ": red", "rejected": ": seven"},
]
LAST = ("layers.1.self_attn.q_proj", "layers.1.mlp.down_proj")


def rows_of(backbone: Backbone, data: list[dict[str, Any]], max_length: int = 64) -> Prepared:
    return DPO.prepare(read_examples(data, Columns(), "dpo"), (), Tokenizer.of(backbone), max_length)


def said(backbone: Backbone, rows: Prepared) -> list[str]:
    """What each text is trained to say."""
    backend = Tokenizer.of(backbone).backend
    return [backend.decode(own[own != IGNORE].tolist(), skip_special_tokens=False) for own in rows.labels]


# -- what is read --------------------------------------------------------------------------------------------------------


def test_a_row_is_two_texts(teller: Backbone) -> None:
    rows = rows_of(teller, ROWS)
    assert len(rows) == 3
    assert said(teller, rows)[:4] == ["4</s>", "five, I think</s>", " Hello! How are you?</s>", " No.</s>"]
    assert [Tokenizer.of(teller).text(row.ids) for row in rows.items[:2]] == ["2+2=4", "2+2=five, I think"]
    assert said(teller, rows.take([2, 0])) == [": red</s>", ": seven</s>", "4</s>", "five, I think</s>"]


def test_chats_with_and_without_a_prompt(teller: Backbone) -> None:
    """Whole chats, answers behind a prompt of messages, and answers behind a text: the same tokens."""
    asked = {"role": "user", "content": "2+2="}
    answers = [[{"role": "assistant", "content": text}] for text in ("4", "five")]
    whole = {"chosen": [asked, *answers[0]], "rejected": [asked, *answers[1]]}
    behind = [{"prompt": prompt, "chosen": answers[0], "rejected": answers[1]} for prompt in ([asked], "2+2=")]
    found = [rows_of(teller, [row]) for row in (whole, *behind)]
    assert said(teller, found[0]) == ["4</s>", "five</s>"]
    for other in found[1:]:
        assert all(np.array_equal(a.ids, b.ids) for a, b in zip(found[0].items, other.items, strict=True))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "no column 'rejected'"),
        ({"chosen": "b", "rejected": "c"}, "no column 'prompt'"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "row 1 has nothing in column 'rejected'"),
        (
            {"prompt": "a", "chosen": [{"role": "assistant", "content": "b"}], "rejected": "c"},
            "a text is no list of messages .*'rejected'",
        ),
        ({"chosen": [{"role": "assistant", "content": "b"}], "rejected": []}, "row 1 has nothing in column 'prompt'"),
        ({"prompt": "a" * 40, "chosen": "b", "rejected": "c"}, "row 1 has 43 tokens, more than the 32 of max_length"),
    ],
)
def test_rows_that_are_refused(row: dict[str, Any], message: str, teller: Backbone) -> None:
    with pytest.raises(GraftaxError, match=message):
        rows_of(teller, [row], max_length=32)


@pytest.mark.parametrize("shared", [True, False])
def test_pairs_stay_together(shared: bool) -> None:
    """In one batch, one behind the other; each pair once in an epoch; no two texts overlap."""
    lengths = np.random.default_rng(0).integers(2, 40, 2 * 33).tolist()
    shape = shape_for(lengths, 78, 4, 0, 2, together=2) if shared else shape_alone(40, 4, together=2)
    assert shape.items == 8
    for plan in (plan_epoch(lengths, shape, 0, 1), plan_all(lengths, shape)):
        assert sorted(i for planned in plan for i in planned.items) == list(range(66))
        for planned in plan:
            assert all(i % 2 == 0 and j == i + 1 for i, j in zip(planned.items[::2], planned.items[1::2], strict=True))
            assert len(planned.items) <= shape.items
            taken = np.zeros((shape.rows, shape.length), int)
            for i, (batch_row, begin) in zip(planned.items, planned.places, strict=True):
                assert begin + lengths[i] <= shape.length
                taken[batch_row, begin : begin + lengths[i]] += 1
            assert taken.max() == 1


# -- the loss ------------------------------------------------------------------------------------------------------------


def a_job(backbone: Backbone, targets: tuple[str, ...], **settings: Any) -> Job:
    """With a random adapter."""
    known: dict[str, Any] = {"backbone": backbone, "task": DPO, "columns": Columns()}
    recipe = Recipe(max_length=64, **settings)
    job = prepare("a", ROWS, None, method=LoRA(r=3, alpha=7.0, targets=targets), recipe=recipe, **known)
    return dataclasses.replace(job, adapter=randomised(job.adapter, size=0.1))


def by_torch(directory: Path, adapter: Path, rows: Prepared, beta: float) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradient as the paper has them: a sequence at a time, PEFT's LoRA on transformers' model."""
    base = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    model = peft.PeftModel.from_pretrained(base, adapter, is_trainable=True).eval()

    def likelihoods() -> torch.Tensor:
        found = []
        for row, own in zip(rows.items, rows.labels, strict=True):
            logs = model(input_ids=torch.tensor(row.ids[None].astype(np.int64))).logits[0].log_softmax(-1)
            counted = torch.tensor(np.flatnonzero(own != IGNORE))
            found.append(logs[counted, torch.tensor(own[own != IGNORE].astype(np.int64))].sum())
        return torch.stack(found)

    with torch.no_grad(), model.disable_adapter():
        before = likelihoods()
    rewards = likelihoods() - before
    loss = -torch.nn.functional.logsigmoid(beta * (rewards[::2] - rewards[1::2])).mean()
    loss.backward()
    grads = {name.replace(".default", ""): p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), grads


@pytest.mark.parametrize(
    "targets", [("q_proj", "v_proj"), pytest.param(LAST, marks=pytest.mark.slow)], ids=["everywhere", "last layer"]
)
def test_loss_and_gradient_equal_torch(targets: tuple[str, ...], teller: Backbone, teller_dir: Path, tmp_path: Path) -> None:
    """[1e-4] also where the layers below the adapter are frozen, which the reference runs through all the same."""
    job = a_job(teller, targets, beta=0.3)
    save_adapter(job.adapter, tmp_path / "adapter", teller)
    loss, grads = by_torch(teller_dir, tmp_path / "adapter", job.train, 0.3)
    pack = Pack(teller, DPO, [job], 1)
    pack.admit(0, 0)
    (mine,), found = pack.programs.gradient(teller.params, teller.unrolled, pack.learners, pack._next()[1])
    np.testing.assert_allclose(mine, loss, atol=1e-4)
    states = pack.layout.unstack(job.adapter, jax.tree.map(lambda leaf: np.asarray(leaf[0]), found), teller.sites)["lora"]
    slopes = mapped(job.adapter, lambda site, name, leaf: states[site][0][name])
    save_adapter(slopes, tmp_path / "slopes", teller)
    ours = load_file(tmp_path / "slopes" / "adapter_model.safetensors")
    assert ours.keys() == grads.keys()
    for name, slope in grads.items():
        np.testing.assert_allclose(ours[name], slope, atol=1e-4, rtol=1e-4, err_msg=name)
    assert max(np.abs(slope).max() for slope in grads.values()) > 1e-2


@pytest.mark.slow
def test_a_fresh_adapter_is_undecided(teller: Backbone, tmp_path: Path) -> None:
    """The loss of the first step is log 2, whatever beta."""
    recipe = Recipe(epochs=1, batch_size=3, max_length=64, beta=0.7)
    settings: dict[str, Any] = {"task": "dpo", "recipe": recipe, "progress": False}
    assert train_many(teller, {"a": ROWS}, tmp_path, **settings)["a"].metrics["loss"] == pytest.approx(np.log(2), abs=1e-6)


# -- runs ----------------------------------------------------------------------------------------------------------------

LORA = LoRA(r=4, alpha=8.0, targets=("q_proj", "v_proj", "down_proj"))
TASTES = {
    name: [{"prompt": f"{i}: ", "chosen": good * 5, "rejected": bad * 4} for i in range(16)]
    for name, good, bad in (("one", "ab", "xyz"), ("two", "xyz", "ab"))
}


@pytest.mark.slow
def test_a_pack_learns(teller: Backbone, tmp_path: Path) -> None:
    """Two adapters of opposite tastes in one pack learn theirs; each prefers the other's the less."""
    recipe = Recipe(epochs=4, lr=1e-2, batch_size=4, max_length=32)
    settings: dict[str, Any] = {"task": "dpo", "method": LORA, "recipe": recipe, "val": 0.25, "progress": False}
    for result in train_many(teller, TASTES, tmp_path, pack_size=2, **settings).values():
        assert result.metrics["val_reward_accuracy"] == 1.0
        assert result.history[-1]["loss"] < 0.5 * np.log(2)
        assert result.history[-1]["val_margin"] > result.history[0]["val_margin"] > 0
    one = load_adapter(tmp_path / "one", teller)
    assert one.task == "dpo"
    assert evaluate_language(teller, one, TASTES["two"])["reward_accuracy"] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("method", [LORA, PromptTuning(tokens=2)], ids=["lora", "prompt"])
def test_measuring_is_validating(method: Any, teller: Backbone, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"task": "dpo", "method": method, "progress": False, "val": {"a": ROWS}}
    recipe = Recipe(epochs=1, lr=1e-2, batch_size=2, max_length=48)
    result = train_many(teller, {"a": ROWS}, tmp_path, recipe=recipe, **settings)["a"]
    found = evaluate_language(teller, load_adapter(tmp_path / "a", teller), ROWS)
    assert found == pytest.approx({name: result.metrics[f"val_{name}"] for name in found}, rel=1e-4)


@pytest.mark.slow
def test_packs_and_resuming(teller: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack of two is two runs of their own [1e-5]; interrupted and called again, the same bits."""
    recipe = Recipe(epochs=2, lr=0.05, batch_size=8, max_length=32, optimizer="sgd")
    each = {"two": {"beta": 0.4}}
    settings: dict[str, Any] = {"task": "dpo", "method": LORA, "recipe": recipe, "each": each, "progress": False}
    for size in (1, 2):
        train_many(teller, TASTES, tmp_path / str(size), pack_size=size, **settings)
    with monkeypatch.context() as patch:
        stop_after(patch, 3, interrupt)
        with pytest.raises(Interrupted):
            train_many(teller, TASTES, tmp_path / "again", pack_size=2, **settings)
    train_many(teller, TASTES, tmp_path / "again", pack_size=2, **settings)
    for name in TASTES:
        assert weights_of(tmp_path / "again" / name) == weights_of(tmp_path / "2" / name)
        packed, alone = (load_file(tmp_path / size / name / "adapter_model.safetensors") for size in "21")
        for key, tensor in alone.items():
            np.testing.assert_allclose(packed[key], tensor, atol=1e-5, err_msg=f"{name} {key}")
