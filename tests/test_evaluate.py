"""Measuring adapters: labels they do not know count as wrong, and a table says what was taken for what."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from tiny import FRUIT, METAL, command_line, toy_rows, write_csv, write_jsonl

from graftax import GraftaxError, Predictor, Recipe, train_many
from graftax.models.backbone import Backbone
from graftax.serve.confusion import Confusion
from graftax.serve.evaluation import evaluate, measure
from graftax.tasks.metrics import multilabel

RECIPE = Recipe(epochs=4, lr=1e-2, max_length=16, batch_size=8)


def predictor_of(backbone: Backbone, folder: Path, task: str) -> Predictor:
    train_many(backbone, {task: toy_rows(task, 24)}, folder, task=task, recipe=RECIPE, progress=False)
    predictor = Predictor(backbone)
    predictor.load(task, folder / task)
    return predictor


def test_unknown_labels_count_as_wrong(tiny: Backbone, tmp_path: Path) -> None:
    """A row whose label the adapter does not know is one that it cannot get right: so the figures and the table count it."""
    predictor = predictor_of(tiny, tmp_path, "classify")
    known = toy_rows(count=12, seed=5)
    before = measure(predictor, "classify", known)
    assert before.unknown == {}
    assert "unknown_labels" not in before.metrics
    found = measure(predictor, "classify", [*known, {"text": "gold", "label": "colour"}, {"text": "iron", "label": "colour "}])
    assert found.unknown == {"colour": 2}
    assert found.metrics["unknown_labels"] == 2.0
    assert found.metrics["accuracy"] == pytest.approx(before.metrics["accuracy"] * 12 / 14)
    assert found.metrics["macro_f1"] < before.metrics["macro_f1"]
    assert found.confusion is not None
    assert found.confusion.labels == ("fruit", "metal", "colour")
    assert sum(found.confusion.counts.values()) == 14
    assert sum(n for (label, _), n in found.confusion.counts.items() if label == "colour") == 2
    with pytest.raises(GraftaxError, match=r"classify knows none of its labels \(colour\), but fruit, metal"):
        evaluate(predictor, "classify", [{"text": "gold", "label": "colour"}])


def test_unknown_labels_of_other_tasks(tiny: Backbone, tmp_path: Path) -> None:
    """Tags and sets of labels, too; numbers have no table."""
    words = [FRUIT[0], METAL[0]]
    found = measure(predictor_of(tiny, tmp_path, "tag"), "tag", [{"text": words, "label": ["B-FRUIT", "B-COLOUR"]}])
    assert found.unknown == {"B-COLOUR": 1}
    assert found.metrics["accuracy"] <= 0.5
    row = {"text": FRUIT[0], "label": ["any", "colour"]}
    found = measure(predictor_of(tiny, tmp_path, "multilabel"), "multilabel", [row])
    assert found.unknown == {"colour": 1}
    assert found.metrics["accuracy"] == 0.0
    assert found.confusion is not None
    assert found.confusion.counts["colour", None] == 1
    assert multilabel([["a", "x"]], [["a"]], ["a", "b"])["micro_f1"] == pytest.approx(2 / 3)
    assert measure(predictor_of(tiny, tmp_path, "regress"), "regress", toy_rows("regress", 6)).confusion is None


def test_a_table_of_few_classes() -> None:
    """Counts by label and answer, with a row for labels that are unknown, and "(none)" where a label was missed."""
    counts = {("a", "a"): 90, ("a", "b"): 8, ("b", "b"): 1, ("new\x1b[31m", "a"): 2, ("b", None): 3}
    assert Confusion(("a", "b", "new\x1b[31m"), counts).lines() == [
        "rows: labels, columns: answers",
        "                1   2   3   4",
        "1 a            90   8   .   .",
        "2 b             .   1   .   3",
        "3 new\\x1b[31m   2   .   .   .",
        "4 (none)        .   .   .   .",
    ]


def test_a_table_of_short_names() -> None:
    """It is no wider than it need be."""
    assert Confusion(("a", "b"), {("a", "a"): 2, ("b", "a"): 1}).lines(40)[1:] == ["     1  2", "1 a  2  .", "2 b  1  ."]


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("classes", [2, 12, 13, 150])
@pytest.mark.parametrize(
    "name", ["label {}", "a rather long name of a label, too long for a table, number {}", "\u65e5\u672c\u8a9e" * 9 + "{}"]
)
def test_a_table_fits_the_terminal(width: int, classes: int, name: str) -> None:
    """At 80 columns a table of twelve classes fits; of more classes, or on less room, the largest confusions do."""
    names = tuple(name.format(i) for i in range(classes))
    counts = {(label, names[(i + 1) % classes]): i + 1 for i, label in enumerate(names)} | {(names[0], names[0]): 999}
    lines = Confusion(names, counts).lines(width)
    assert max(map(cell_len, lines)) <= width
    table = lines[0].startswith("rows")
    assert table == (classes <= 12 and (width == 80 or classes == 2))
    if not table:
        assert lines[0] == f"the largest of {classes} confusions:"
        assert [int(line.split()[0]) for line in lines[1:]] == list(range(classes, max(0, classes - 12), -1))


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["PYTHONIOENCODING", "LC_ALL"])
def test_labels_that_the_terminal_has_no_letters_for(tiny_dir: Path, tmp_path: Path, setting: str) -> None:
    """Under an ASCII locale everything works: tables are written with escapes, and JSON says the same as ever."""
    ascii_only = {"PYTHONIOENCODING": "ascii"} if setting == "PYTHONIOENCODING" else {"LC_ALL": "C", "PYTHONUTF8": "0"}
    environment = os.environ | ascii_only | {"PYTHONCOERCECLOCALE": "0"}
    labels = {"fruit": "fr\xfcchte \u65e5\u672c", "metal": "metall"}
    rows = [row | {"label": labels[row["label"]]} for row in toy_rows(count=16)]
    data = write_csv(tmp_path / "a.csv", rows)
    asked = write_jsonl(tmp_path / "asked.jsonl", [{"text": row["text"]} for row in rows])

    def said(*arguments: object) -> str:
        run = subprocess.run(command_line(*arguments), env=environment, capture_output=True, check=True)
        return run.stdout.decode("ascii")

    said("train", "-b", tiny_dir, "--data", data, "--out", tmp_path / "out", "--epochs", 1, "--max-length", 16)
    adapter = tmp_path / "out" / "a"
    answers = [json.loads(line)["label"] for line in said("predict", "-b", tiny_dir, "-a", adapter, "-i", asked).splitlines()]
    assert len(answers) == 16
    assert set(answers) <= set(labels.values())
    assert "fr\\xfcchte" in said("eval", "-b", tiny_dir, "-a", adapter, "--data", data)
    facts = json.loads(said("eval", "-b", tiny_dir, "-a", adapter, "--data", data, "--json"))
    accuracy = np.mean([answer == row["label"] for answer, row in zip(answers, rows, strict=True)])
    assert facts["accuracy"] == pytest.approx(accuracy)
    assert sum(pair["count"] for pair in facts["confusion"] if pair["label"] == pair["answer"]) == round(16 * accuracy)
    said("inspect", adapter)
