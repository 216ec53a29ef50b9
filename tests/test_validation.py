"""Validation rows: their loss, and the best epoch, which a tie in the main metric leaves to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import interrupt, stop_after
from tiny import toy_rows, weights_of

from graftax import LoRA, load_adapter
from graftax.data.prepared import Prepared
from graftax.models.backbone import Backbone
from graftax.serve import Predictor, evaluate_language
from graftax.tasks.task import Answer
from graftax.tasks.task_registry import TASKS
from graftax.train import Examples, Interrupted, Recipe, train_many
from graftax.train.pack import Pack


def tell(monkeypatch: pytest.MonkeyPatch, metric: str, scores: Sequence[float], losses: Sequence[float]) -> None:
    """What the validation of one epoch after another is to find."""
    told = iter(zip(scores, losses, strict=True))

    def evaluate(self: Pack, slot: int) -> dict[str, float]:
        score, loss = next(told)
        return {"loss": loss, metric: score}

    monkeypatch.setattr(Pack, "evaluate", evaluate)


@pytest.mark.parametrize(
    ("scores", "losses", "trained", "kept"),
    [
        ([0.5, 0.5, 0.5, 0.5], [0.9, 0.8, 0.7, 0.6], 4, 4),  # the metric ties, the loss falls
        ([0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.9, 0.9], 3, 1),  # both tie
        ([0.5, 0.5, 0.5, 0.5], [0.6, 0.7, 0.5, 0.8], 4, 3),
        ([0.5, 0.6, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1], 4, 2),  # the metric goes before the loss
        ([0.5, 0.4, 0.4, 0.4], [0.9, 0.1, 0.1, 0.1], 3, 1),
    ],
)
def test_the_loss_decides_a_tie(
    tiny: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scores: Sequence[float],
    losses: Sequence[float],
    trained: int,
    kept: int,
) -> None:
    """Patience waits for an epoch that is better in this sense, and the last such epoch is kept."""
    tell(monkeypatch, "accuracy", scores, losses)
    recipe = Recipe(epochs=4, patience=2, batch_size=32, max_length=16)
    result = train_many(tiny, {"a": toy_rows()}, tmp_path, recipe=recipe, val=0.5, progress=False)["a"]
    assert len(result.history) == trained
    assert (result.metrics["val_accuracy"], result.metrics["val_loss"]) == (scores[kept - 1], losses[kept - 1])


def test_of_a_metric_that_falls_the_lowest_is_the_best(
    teller: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, "perplexity", [5.0, 3.0, 4.0, 4.0], [0.5, 0.5, 0.1, 0.1])
    recipe = Recipe(epochs=4, patience=2, batch_size=32, max_length=16)
    lora = LoRA(r=2, alpha=3.0, targets=("q_proj",))
    data, val = {"a": [{"text": "one"}]}, {"a": [{"text": "two"}]}
    result = train_many(teller, data, tmp_path, task="lm", method=lora, recipe=recipe, val=val, progress=False)["a"]
    assert (len(result.history), result.metrics["val_perplexity"]) == (4, 3.0)


def loss_of(backbone: Backbone, adapter: Path, rows: list[dict[str, Any]]) -> float:
    """The mean of -log p(label), as it follows from what a Predictor answers with a saved adapter."""
    predictor = Predictor(backbone)
    predictor.load("a", adapter)
    answers = predictor.predict([row["text"] for row in rows], "a")
    return float(-np.mean([np.log((a.probabilities or {})[row["label"]]) for a, row in zip(answers, rows, strict=True)]))


def test_the_loss_is_that_of_the_answers(tiny: Backbone, tmp_path: Path) -> None:
    """Over several batches, the last of which is not full."""
    rows, held = toy_rows(count=24), toy_rows(count=21, seed=5)
    recipe = Recipe(epochs=1, lr=5e-3, batch_size=8, max_length=16)
    result = train_many(tiny, {"a": rows}, tmp_path, recipe=recipe, val={"a": held}, progress=False)["a"]
    assert result.metrics["val_loss"] == pytest.approx(loss_of(tiny, result.directory, held), abs=1e-4)


def test_in_a_pack_each_is_measured_and_kept_by_itself(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two adapters of two and three classes, of which one was best in its first epoch and the other in its second."""
    evaluate, best = Pack.evaluate, {"a": 0, "b": 1}

    def told(self: Pack, slot: int) -> dict[str, float] | None:
        (bookmark, job), scores = self.occupant(slot), evaluate(self, slot)
        return scores and {**scores, "accuracy": float(bookmark.epoch == best[job.name])}

    monkeypatch.setattr(Pack, "evaluate", told)
    data = {"a": toy_rows(), "b": [{**row, "label": "xyz"[i % 3]} for i, row in enumerate(toy_rows(seed=1))]}
    recipe = Recipe(epochs=2, lr=2e-2, batch_size=8, max_length=16, schedule="constant")
    settings: dict[str, Any] = {"recipe": recipe, "val": data, "pack_size": 2, "progress": False}
    for name, result in train_many(tiny, data, tmp_path, **settings).items():
        losses = [line["val_loss"] for line in result.history]
        assert abs(losses[0] - losses[1]) > 0.01
        assert losses[best[name]] == pytest.approx(loss_of(tiny, result.directory, data[name]), abs=1e-4)


def test_the_best_epoch_outlasts_a_stop(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 20: it was before the run was stopped, and none that follows is better."""
    recipe = Recipe(epochs=3, lr=2e-2, batch_size=8, max_length=16)
    settings: dict[str, Any] = {"recipe": recipe, "val": 0.3, "progress": False}
    tell(monkeypatch, "accuracy", [0.9, 0.5, 0.5] * 2, [0.1] * 6)
    whole = train_many(tiny, {"a": toy_rows()}, tmp_path / "whole", **settings)["a"]
    with monkeypatch.context() as patch:
        stop_after(patch, 4, interrupt)  # steps, of which an epoch has three
        with pytest.raises(Interrupted):
            train_many(tiny, {"a": toy_rows()}, tmp_path / "out", **settings)
    result = train_many(tiny, {"a": toy_rows()}, tmp_path / "out", **settings)["a"]
    assert [line["val_accuracy"] for line in result.history] == [0.9, 0.5, 0.5]
    assert result.metrics["val_accuracy"] == 0.9
    assert weights_of(result.directory) == weights_of(whole.directory)


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps(tiny: Backbone, tmp_path: Path) -> None:
    """Where nothing moves, that of the same rows at the epoch's end, in every epoch."""
    rows = toy_rows(count=24)
    recipe = Recipe(epochs=3, lr=1e-30, batch_size=8, max_length=16, weight_decay=0.0)
    result = train_many(tiny, {"a": rows}, tmp_path, recipe=recipe, val={"a": rows}, progress=False)["a"]
    expected = loss_of(tiny, result.directory, rows)
    assert [line["loss"] for line in result.history] == pytest.approx([expected] * 3, abs=1e-4)


#: As templates that drop what was thought in earlier turns: then every turn of the assistant is a text of its own.
FORGETS = "{% for m in messages %}{{ m.content if loop.last or m.role == 'user' else m.content[-1:] }}{% endfor %}"
LANGUAGE: dict[str, list[dict[str, Any]]] = {
    "lm": [{"text": f"{i} sheep jump over {i + 1} hedges, and over the dog. " * (i % 3 + 1)} for i in range(8)],
    "sft": [
        {"messages": [{"role": role, "content": f"{role[:1]}{i}"} for role in ("user", "assistant") * (i % 2 + 1)]}
        for i in range(8)
    ],
    "dpo": [{"prompt": f"{i}+1=", "chosen": str(i + 1), "rejected": "five, I think"[: i + 3]} for i in range(8)],
}


@pytest.mark.parametrize("task", LANGUAGE)
def test_validation_of_a_language_model_says_what_evaluation_says(teller: Backbone, tmp_path: Path, task: str) -> None:
    """Over texts that are cut into rows, the turns of chats and both responses of a pair, each with its own number of them."""
    rows = LANGUAGE[task]
    recipe = Recipe(epochs=1, lr=1e-2, batch_size=4, max_length=32, chat_template=FORGETS if task == "sft" else None)
    lora = LoRA(r=2, alpha=3.0, targets=("q_proj",))
    settings: dict[str, Any] = {"task": task, "method": lora, "recipe": recipe, "val": {"a": rows[3:]}, "progress": False}
    result = train_many(teller, {"a": rows[:3]}, tmp_path, **settings)["a"]
    template = "adapter" if task == "sft" else None
    measured = evaluate_language(teller, load_adapter(result.directory, teller), rows[3:], chat_template=template)
    assert {name: result.metrics[f"val_{name}"] for name in measured} == pytest.approx(measured, rel=1e-4)


def test_metrics_of_examples_with_several_texts_by_hand() -> None:
    """All turns of a chat count, and of a pair the first response is the chosen one."""
    examples = Examples({"text": ("a", "b")})
    answers = {i: Answer(None, sums) for i, sums in enumerate([(-1.0, 1.0, 2.0), (-3.0, 0.0, 1.0), (-2.0, 1.0, 1.0)])}
    chats = Prepared(examples, [None] * 3, [None] * 3, owners=[0, 0, 1])
    measured = TASKS["sft"].measure(chats, answers, ())
    assert measured == {"perplexity": pytest.approx(np.exp(6 / 4)), "token_accuracy": pytest.approx(2 / 4)}
    pairs = Prepared(examples, [None] * 4, [None] * 4, together=2)
    rewards = {i: Answer(None, reward) for i, reward in enumerate([2.0, 1.0, 1.0, 4.0])}
    assert TASKS["dpo"].measure(pairs, rewards, ()) == {"reward_accuracy": 0.5, "margin": -1.0}
