"""Validation rows: their loss, and the best epoch, which a tie in the main metric leaves to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import toy_rows

from graftax import LoRA, load_adapter
from graftax.data.prepared import Prepared
from graftax.models.backbone import Backbone
from graftax.serve import Predictor, evaluate_language
from graftax.tasks.task import Answer
from graftax.tasks.task_registry import TASKS
from graftax.train import Examples, Recipe, train_many
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


def test_the_loss_is_that_of_the_answers(tiny: Backbone, tmp_path: Path) -> None:
    """The mean of -log p(label), as it follows from what a Predictor answers with the saved adapter; over several batches."""
    rows, held = toy_rows(count=24), toy_rows(count=21, seed=5)
    recipe = Recipe(epochs=1, lr=5e-3, batch_size=8, max_length=16)
    result = train_many(tiny, {"a": rows}, tmp_path, recipe=recipe, val={"a": held}, progress=False)["a"]
    predictor = Predictor(tiny)
    predictor.load("a", result.directory)
    answers = predictor.predict([row["text"] for row in held], ["a"] * len(held))
    chances = [a.score if a.label == row["label"] else 1 - a.score for a, row in zip(answers, held, strict=True)]
    assert result.metrics["val_loss"] == pytest.approx(-np.log(chances).mean(), abs=1e-4)


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
