"""The metrics of tags are of the words of whole texts, in training as in evaluation, however long the texts are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import toy_rows

from graftax import LoRA, Predictor, Recipe, train_many
from graftax.data.columns import Columns
from graftax.data.prepared import Prepared
from graftax.models.backbone import Backbone
from graftax.serve import evaluate
from graftax.tasks.task import Answer
from graftax.tasks.task_registry import TASKS
from graftax.train.intake import prepare
from graftax.train.job import Job

TAGS = {"gold": "B-METAL", "iron": "I-METAL", "apple": "B-FRUIT", "pear": "I-FRUIT", "shop": "O"}


def long_rows(count: int, words: int, seed: int) -> list[dict[str, Any]]:
    """Texts of so many words, with spans that go on over several of them, and so over the ends of pieces."""
    random = np.random.default_rng(seed)
    texts = [random.choice(list(TAGS), words, p=[0.05, 0.4, 0.05, 0.4, 0.1]).tolist() for _ in range(count)]
    return [{"text": text, "label": [TAGS[word] for word in text]} for text in texts]


@pytest.mark.parametrize("max_length", [9, 40])
def test_validation_says_what_evaluation_says(tiny: Backbone, tmp_path: Path, max_length: int) -> None:
    """The same rows and adapter: every number, where texts are cut into pieces and where none is."""
    train, held = long_rows(12, 33, seed=0), long_rows(7, 33, seed=1)
    recipe = Recipe(epochs=1, lr=1e-2, max_length=max_length, batch_size=4)
    result = train_many(tiny, {"a": train}, tmp_path, task="tag", recipe=recipe, val={"a": held}, progress=False)["a"]
    predictor = Predictor(tiny)
    predictor.load("a", result.directory)
    measured = evaluate(predictor, "a", held)
    assert 0.0 < measured["f1"] < 1.0
    assert {name: result.metrics[f"val_{name}"] for name in measured} == measured


def job_of(backbone: Backbone, rows: list[dict[str, Any]], val: Any) -> Job:
    known: dict[str, Any] = {"backbone": backbone, "task": TASKS["tag"], "method": LoRA(), "columns": Columns()}
    return prepare("a", rows, val, recipe=Recipe(max_length=9), **known)


def test_the_pieces_of_a_text_are_held_out_together(tiny: Backbone) -> None:
    """A piece begins with the end of the one before: what is trained on must not be measured."""
    job = job_of(tiny, long_rows(10, 33, seed=0), 0.3)
    assert job.val is not None
    assert (len(job.train.examples), len(job.val.examples)) == (7, 3)
    for rows in (job.train, job.val):
        assert len(rows) > 3 * len(rows.examples)
        for words, texts in zip(rows.examples.fields["text"], rows.items_of, strict=True):
            assert sum(rows.items[i].count for i in texts) == len(words)
    trained, held = ({*map(tuple, part.examples.fields["text"])} for part in (job.train, job.val))
    assert not trained & held


def test_rows_that_are_taken_have_all_their_texts(tiny: Backbone) -> None:
    """In the order in which they are taken, of pieces, pairs and single texts alike."""
    pieces = job_of(tiny, [*long_rows(2, 33, seed=0), *toy_rows("tag", 4)], None).train
    assert [len(texts) > 1 for texts in pieces.items_of] == [True, True, False, False, False, False]
    pairs = Prepared(pieces.examples, pieces.items[:12], [*range(12)], together=2)
    single = Prepared(pieces.examples, pieces.items[:6], [*range(6)])
    for rows in (pieces, pairs, single):
        taken = rows.take([4, 1])
        texts = rows.examples.fields["text"]
        assert taken.examples.fields["text"] == (texts[4], texts[1])
        wanted = [[rows.items[i] for i in rows.items_of[example]] for example in (4, 1)]
        assert [[taken.items[i] for i in texts] for texts in taken.items_of] == wanted
        assert taken.take([1]).items_of == [[*range(len(wanted[1]))]]


def test_answers_to_an_examples_texts_are_one_answer(tiny: Backbone) -> None:
    """A span that goes on in the next piece is one span, and right as a whole."""
    rows = job_of(tiny, [{"text": ["iron"] * 8, "label": ["B-X", *["I-X"] * 7]}, *toy_rows("tag", 2)], None).train
    right = {
        i: Answer(rows.examples.labels[example][begin : begin + rows.items[i].count], [1.0] * rows.items[i].count)
        for example, texts in enumerate(rows.items_of)
        for i, begin in zip(texts, np.cumsum([0, *(rows.items[i].count for i in texts)]).tolist(), strict=False)
    }
    assert len(rows.items_of[0]) > 1
    assert TASKS["tag"].measure(rows, right, ()) == {"f1": 1.0, "precision": 1.0, "recall": 1.0, "accuracy": 1.0}
