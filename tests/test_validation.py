"""Validation rows: their loss, and the best epoch, which a tie in the main metric leaves to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny import toy_rows

from graftax.models.backbone import Backbone
from graftax.serve import Predictor
from graftax.train import Recipe, train_many
from graftax.train.pack import Pack


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
    told = iter(zip(scores, losses, strict=True))

    def evaluate(self: Pack, slot: int) -> dict[str, float]:
        score, loss = next(told)
        return {"loss": loss, "accuracy": score}

    monkeypatch.setattr(Pack, "evaluate", evaluate)
    recipe = Recipe(epochs=4, patience=2, batch_size=32, max_length=16)
    result = train_many(tiny, {"a": toy_rows()}, tmp_path, recipe=recipe, val=0.5, progress=False)["a"]
    assert len(result.history) == trained
    assert (result.metrics["val_accuracy"], result.metrics["val_loss"]) == (scores[kept - 1], losses[kept - 1])


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
