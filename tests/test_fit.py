"""A task, its rows and a backbone that do not belong together: one line that says so, and what would work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Graftax
from refusals import refused
from tiny import toy_rows, write_csv
from torch_resnet import RESNET

from graftax import train_many
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone
from graftax.tasks.fit import refuse_unfit_task
from graftax.tasks.task_registry import task_named

PICTURES = [{"image": np.zeros((8, 8, 3), np.uint8), "label": label} for label in ("cat", "dog")]


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return random_backbone(RESNET)


def test_a_task_about_pictures_on_a_backbone_of_texts(tiny: Backbone, tmp_path: Path) -> None:
    """Whatever the rows are: texts, which have no column of pictures, or pictures, which have none of texts."""
    for rows in (toy_rows(), PICTURES):
        line = refused(lambda rows=rows: train_many(tiny, {"a": rows}, tmp_path, task="image-classify", progress=False))
        assert line == (
            f"task 'image-classify' is about images, and {tiny.name} reads texts; it can do classify, multilabel, regress, tag."
        )


def test_on_the_command_line(graftax: Graftax, tiny_dir: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "reviews.csv", toy_rows())
    said = graftax("train", "-b", tiny_dir, "--data", data, "-o", tmp_path / "out", "--task", "image-classify")
    assert (said.code, said.err.count("task 'image-classify' is about images")) == (2, 1)


@pytest.mark.parametrize("task", ["tag", "lm", "sft", "dpo", "seq2seq"])
def test_a_task_about_texts_on_a_backbone_of_pictures(task: str, resnet: Backbone, tmp_path: Path) -> None:
    line = refused(lambda: train_many(resnet, {"a": toy_rows()}, tmp_path, task=task, progress=False))
    can = "it can do classify, multilabel, regress, image-classify, image-segment, image-detect"
    assert line == f"task {task!r} is about texts, and {resnet.name} reads images; {can}."


@pytest.mark.parametrize("task", ["classify", "regress", "image-classify"])
def test_texts_on_a_backbone_of_pictures(task: str, resnet: Backbone, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "reviews.csv", toy_rows())
    line = refused(lambda: train_many(resnet, {"a": data}, tmp_path, task=task, progress=False))
    assert line == f"{data} has texts (column 'text'), and this backbone reads images (column 'image')."


def test_pictures_on_a_backbone_of_texts(tiny: Backbone, tmp_path: Path) -> None:
    line = refused(lambda: train_many(tiny, {"a": PICTURES}, tmp_path, progress=False))
    assert line == "a (list) has images (column 'image'), and this backbone reads texts (column 'text')."


@pytest.mark.parametrize(
    ("backbone", "task", "can"),
    [
        ("teller", "seq2seq", "classify, multilabel, regress, tag, lm, sft, dpo"),
        ("tiny", "lm", "classify, multilabel, regress, tag"),
    ],
)
def test_what_it_can_do_is_named(backbone: str, task: str, can: str, request: pytest.FixtureRequest) -> None:
    """What cannot be done is not named: a decoder is no encoder-decoder, an encoder no language model."""
    line = refused(lambda: refuse_unfit_task(task_named(task), request.getfixturevalue(backbone)))
    assert line is not None
    assert line.endswith(f"; it can do {can}.")
