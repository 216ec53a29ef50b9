"""Slips of the pen that would train something all the same: they are refused, or a note says what was made of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Graftax
from hypothesis import given, settings
from hypothesis import strategies as st
from noted import noted
from of_texts import read_examples
from refusals import refused
from tiny import toy_rows, write_csv

from graftax import GraftaxError, Recipe, train_many
from graftax.models.backbone import Backbone
from graftax.tasks.task_registry import TASKS
from graftax.train import Columns
from graftax.train.checks import check_name

SETTINGS: dict[str, Any] = {"recipe": Recipe(epochs=1, max_length=16), "progress": False, "pack_size": 1}
ROW = {"text": "a", "label": "x", "prompt": "p", "completion": "c", "chosen": "d", "rejected": "e"}


@pytest.mark.parametrize(
    ("task", "columns", "said"),
    [
        ("classify", {"text": "label"}, "the column 'label' is named as text and as label"),
        ("classify", {"label": "text"}, "the column 'text' is named as text and as label"),
        ("classify", {"pair": "text"}, "the column 'text' is named as text and as pair"),
        ("regress", {"pair": "label"}, "the column 'label' is named as pair and as label"),
        ("multilabel", {"text": "label"}, "the column 'label' is named as text and as label"),
        ("tag", {"text": "label"}, "the column 'label' is named as text and as label"),
        ("tag", {"pair": "prompt"}, "task 'tag' reads no 'pair', so the column 'prompt' cannot be one"),
        ("lm", {"pair": "label"}, "task 'lm' reads no 'pair'"),
        ("sft", {"prompt": "completion"}, "the column 'completion' is named as prompt and as completion"),
        ("sft", {"prompt": "messages"}, "the column 'messages' is named as prompt and as messages"),
        ("seq2seq", {"completion": "prompt"}, "the column 'prompt' is named as prompt and as completion"),
        ("dpo", {"rejected": "chosen"}, "the column 'chosen' is named as chosen and as rejected"),
        ("dpo", {"prompt": "rejected"}, "the column 'rejected' is named as prompt and as rejected"),
    ],
)
def test_one_column_for_two_things(tiny: Backbone, tmp_path: Path, task: str, columns: dict[str, str], said: str) -> None:
    """The label as text is learnt by heart. It is refused before anything is read, where one trains and where one measures."""
    line = refused(lambda: read_examples([ROW], Columns(**columns), task))
    assert line is not None
    assert line.startswith(said)
    line = refused(lambda: train_many(tiny, {"a": tmp_path / "none.csv"}, tmp_path, task=task, columns=Columns(**columns)))
    assert line is not None
    assert line.startswith(said)


def test_columns_of_other_tasks_may_be_anything() -> None:
    """A task minds the columns that it reads."""
    assert read_examples([ROW], Columns(text="label"), "lm").fields["text"] == ("x",)
    assert read_examples([ROW], Columns(prompt="label", completion="text"), "sft").fields["prompt"] == ("x",)
    assert read_examples([ROW], Columns(chosen="good", rejected="bad"), "classify").labels == ("x",)


def test_validation_on_the_training_rows(graftax: Graftax, tiny: Backbone, tiny_dir: Path, tmp_path: Path) -> None:
    """It is one way to see whether rows are learnt at all, and no way to see more: a note says so, however they come."""
    rows, others = toy_rows(count=12), toy_rows(count=6, seed=8)
    said = "a: its validation rows are training rows, too: "
    for held in (rows, rows[3:9], [dict(row) for row in reversed(rows)]):
        (line,) = noted(lambda held=held: train_many(tiny, {"a": rows}, tmp_path, val={"a": held}, overwrite=True, **SETTINGS))
        assert line.startswith(said)
    assert noted(lambda: train_many(tiny, {"a": rows}, tmp_path, val={"a": others}, overwrite=True, **SETTINGS)) == []
    file = write_csv(tmp_path / "a.csv", rows)
    common = ["-b", tiny_dir, "-d", file, "--epochs", 1, "--max-length", 16]
    assert f"graftax: {said}" in graftax("train", *common, "-o", tmp_path / "one", "--val", file).err
    (tmp_path / "val").mkdir()
    shutil.copyfile(file, tmp_path / "val" / "a.csv")
    assert f"graftax: {said}" in graftax("train", *common, "-o", tmp_path / "two", "--val", tmp_path / "val").err


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([f"id-{i}" for i in range(12)], "DATA: 12 different labels on 12 rows: "),
        ([f"id-{i % 7}" for i in range(12)], "DATA: 7 different labels on 12 rows: "),
        ([f"id-{i % 6}" for i in range(12)], None),
        (["x", "y", "x"], None),
    ],
)
def test_labels_of_one_row_each(labels: list[str], said: str | None) -> None:
    """Where rows have on average less than two neighbours of their label, it may be a column of something else."""
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    examples = read_examples(rows, Columns(), "classify", called="DATA")
    notes = noted(lambda: TASKS["classify"].label_names(examples))
    assert len(notes) == (said is not None)
    assert all(line.startswith("DATA (list): " + str(said).removeprefix("DATA: ")) for line in notes)


def test_validation_rows_of_nobody(tiny: Backbone, tmp_path: Path) -> None:
    """An empty mapping meant no validation; rows for some alone mean none for the others, which is said."""
    data = {"a": toy_rows(count=12), "b": toy_rows(count=12, seed=1), "c": toy_rows(count=12, seed=2)}
    with pytest.raises(GraftaxError, match="val names validation rows of no adapter"):
        train_many(tiny, data, tmp_path / "x", val={}, **SETTINGS)
    held = {"b": toy_rows(count=6, seed=3)}
    assert noted(lambda: train_many(tiny, data, tmp_path / "y", val=held, **SETTINGS)) == [
        "no validation rows for a, c: their last epoch is kept, not the best."
    ]


@pytest.mark.parametrize("out", ["", "  "])
def test_an_empty_directory_name(graftax: Graftax, tiny: Backbone, tiny_dir: Path, tmp_path: Path, out: str) -> None:
    """As of a variable that is not set; it is not the current directory, in no command that writes one."""
    with pytest.raises(GraftaxError, match="out must be a text or a path"):
        train_many(tiny, {"a": toy_rows()}, out, **SETTINGS)
    file = write_csv(tmp_path / "a.csv", toy_rows())
    for command in (
        ["train", "-b", tiny_dir, "-d", file],
        ["merge", "-b", tiny_dir, "-a", tmp_path],
        ["combine", "-b", tiny_dir, "-a", tmp_path],
        ["export", "-b", tiny_dir, "-a", tmp_path, "--format", "graftax"],
        ["bench"],
        ["demo"],
    ):
        said = graftax(*command, "--out", out)
        assert (said.code, said.out) == (2, "")
        assert said.err == "graftax: --out is empty, and names no directory; '.' is the current one.\n"
    said = graftax("train", "-b", tiny_dir, "-d", file, "-o", tmp_path / "o", "--val", out)
    assert (said.code, said.err) == (2, "graftax: --val is empty: give a share of the rows, a file, or a directory.\n")


@pytest.mark.parametrize(
    "name", ["a\nb", "a\rb", "a\tb", "\x1b[31ma", "a\x7f", "a\x85b", "a\u2028b", " a", "a ", "a\u3000", "\ta"]
)
def test_names_that_cannot_be_read(name: str) -> None:
    line = refused(lambda: check_name(name))
    assert line is not None
    assert "a name has no blanks at its ends" in line


@settings(max_examples=200, deadline=None, derandomize=True)
@given(name=st.text(max_size=12) | st.text(st.sampled_from("a\u0301\u200c \u200d.日\n/\0"), max_size=5))
def test_a_name_is_refused_or_a_directory_can_have_it(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """And it is one line where it is printed; letters of all scripts, joined or with marks, are as good as any."""
    check_name("\u0645\u06cc\u200c\u062e")  # Persian, with the sign that keeps two letters apart
    if refused(lambda: check_name(name)) is not None:
        return
    assert name == name.strip()
    assert len(name.splitlines()) == 1
    folder = tmp_path_factory.mktemp("names")
    (folder / name).mkdir()
    assert [path.name for path in folder.iterdir()] == [name]


def test_columns_are_named_once() -> None:
    """By a field's name, or the first three in their order; a field that is None is not named."""
    assert Columns("a", None, "b") == Columns(text="a", label="b")
    assert (Columns("a")["text"], Columns("a")["label"], Columns("a")["image"]) == ("a", "label", "image")
    for wrong in (lambda: Columns("a", text="b"), lambda: Columns("a", "b", "c", "d"), lambda: Columns(image="")):
        line = refused(wrong)
        assert line is not None
        assert line.startswith("columns: ")
    said = "task 'classify' reads no 'image', so the column 'x' cannot be one; it reads text, pair, label."
    assert refused(lambda: read_examples([ROW], Columns(image="x"), "classify")) == said
