"""Pictures that teach less than it seems: that cannot be read, on both sides of the split, with two labels, lone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PICTURES
from noted import noted
from PIL import Image
from refusals import refused

from graftax import Columns, Recipe
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone
from graftax.tasks.task_registry import the_task
from graftax.train.intake import prepare
from graftax.train.job import Job


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return random_backbone(PICTURES["cifar_resnet"] | {"image_size": 8}, seed=7)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(seed)).save(file, "PNG")
    return file.getvalue()


def job(backbone: Backbone, data: Any, val: Any = None) -> tuple[Job, list[str]]:
    """What becomes of rows, and the notes on them."""
    made: list[Job] = []
    how: dict[str, Any] = {"backbone": backbone, "task": the_task("image-classify"), "method": None}
    said = noted(lambda: made.append(prepare("pets", data, val, **how, recipe=Recipe(), columns=Columns())))
    return made[0], said


def rows(count: int, **changed: Any) -> list[dict[str, Any]]:
    """Pictures of two classes; `_7=...` is the picture of row 7."""
    return [{"image": changed.get(f"_{i}", noise(i)), "label": "ab"[i % 2]} for i in range(count)]


def test_some_that_cannot_be_read_are_skipped(backbone: Backbone, tmp_path: Path) -> None:
    """In training and in validation, and said; the others are what they would be without."""
    broken = rows(20, _3=b"broken", _8=str(tmp_path / "gone.png"))
    made, said = job(backbone, broken, rows(30, _24=png(5)[:60])[20:])
    (learnt, held) = said
    assert learnt.startswith("pets: 2 of 20 rows cannot be read; skipped: pets (list): row 4: no picture, or")
    assert f"pets (list): row 9: {tmp_path}/gone.png: no such file." in learnt
    assert held.startswith("pets, validation: 1 of 10 rows cannot be read; skipped: ")
    assert made.val is not None
    assert (len(made.train), len(made.val)) == (18, 9)
    whole, _ = job(backbone, [row for i, row in enumerate(rows(20)) if i not in (3, 8)])
    assert [item.tobytes() for item in made.train.items] == [item.tobytes() for item in whole.train.items]
    assert made.train.examples.labels == whole.train.examples.labels


def test_many_that_cannot_be_read_are_refused(backbone: Backbone) -> None:
    data = rows(20, **{f"_{i}": b"broken" for i in (2, 5, 7)})
    line = refused(lambda: job(backbone, data))
    assert line is not None
    assert line.startswith(
        "pets: 3 of 20 rows cannot be read, more than the tenth that would be skipped: pets (list): row 3: no"
    )
    line = refused(lambda: job(backbone, rows(20, _2=noise(0)[:7])))  # that is no damage: it does not fit
    assert line is not None
    assert line.startswith("pets (list): row 3: a picture of 8 x 7 pixels")


def test_pictures_on_both_sides_of_the_split(backbone: Backbone) -> None:
    """The same pixels, whatever the form; those that are like no other are not counted."""
    _, said = job(backbone, rows(10), rows(12, _10=png(2), _11=noise(11))[8:])
    (line,) = said
    assert line.startswith("pets: validation pictures that are training pictures, too: 3 of 4; val_ figures are better than")
    assert line.endswith(": pets, validation (list): row 1; pets, validation (list): row 2; pets, validation (list): row 3.")
    _, said = job(backbone, rows(10), rows(14)[10:])
    assert said == []


def test_copies_within_one_file_that_are_held_out(backbone: Backbone) -> None:
    _, said = job(backbone, [*rows(10), *rows(10)], 0.4)
    assert [line for line in said if "validation pictures that are training pictures, too" in line]


def test_one_picture_with_two_labels(backbone: Backbone) -> None:
    """Once for each such picture, with the rows that disagree."""
    _, said = job(backbone, rows(10, _5=png(2), _7=noise(2)))
    (line,) = said
    assert line == "pets: pictures with several labels: 1, as pets (list): row 3, 'a', which is pets (list): row 6, 'b'."


def test_a_class_with_one_picture(backbone: Backbone) -> None:
    data = rows(9)
    data[4]["label"] = "heron"
    _, said = job(backbone, data)
    (line,) = said
    assert line == "pets: classes with one picture alone, which can be learnt or measured, and not both: heron."
