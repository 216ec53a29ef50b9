"""Settings: each is of its type, finite and of a sensible size, or refused in one line before anything is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused
from tiny import toy_rows, weights_of

from graftax.adapters import LoRA
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.tasks.task_registry import TASKS
from graftax.train import Columns, Recipe, queue, train_many
from graftax.train.intake import prepare
from graftax.train.job import Job

ROWS = toy_rows()
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.sampled_from([0, 1, 2, -1, 2**31, 2**32, 10**9, 10**5000]),
    st.floats(),
    st.sampled_from([1e-50, 1e39, 1e308, -0.0, 0.5]),
    st.text(max_size=6),
    st.sampled_from(["3", "adamw", "cosine", "lora", "nan"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


def job_of(backbone: Backbone, recipe: Recipe, rows: Any = ROWS, val: Any = None) -> Job:
    return prepare(
        "a",
        rows,
        val,
        backbone=backbone,
        task=TASKS["classify"],
        method=LoRA(),
        recipe=recipe,
        columns=Columns(),
    )


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("epochs", "3", "epochs must be a whole number, at least 1 and at most 100,000, got '3'."),
        ("epochs", 1.5, "epochs must be a whole number"),
        ("epochs", True, "epochs must be a whole number"),
        ("epochs", 10**9, "epochs must be a whole number"),
        pytest.param("epochs", 10**5000, "got an integer of thousands of digits", id="digits"),
        ("batch_size", 0, "batch_size must be a whole number"),
        ("seed", -1, "seed must be a whole number"),
        ("seed", 2**32, "seed must be a whole number, at least 0 and below 4,294,967,296"),
        ("patience", 0, "patience must be a whole number"),
        ("lr", math.nan, "lr must be a number, above 0"),
        ("lr", math.inf, "lr must be a number, above 0"),
        ("lr", 1e39, "lr must be a number, above 0"),
        ("lr", 1e-50, "lr must be a number, above 0"),
        ("lr", True, "lr must be a number, above 0, got True."),
        ("weight_decay", math.nan, "weight_decay must be a number, at least 0"),
        ("weight_decay", math.inf, "weight_decay must be a number, at least 0"),
        ("warmup", math.nan, "warmup must be a number, at least 0 and below 1"),
        ("warmup", 1.0, "warmup must be a number, at least 0 and below 1"),
        ("clip", math.nan, "clip must be a number, above 0 or null"),
        ("clip", -math.inf, "clip must be a number, above 0 or null"),
        ("unfreeze", 1e30, "unfreeze must be a number, at least 0 and at most 100,000"),
        ("truncate", "no", "truncate must be true or false, got 'no'."),
        ("preconditioned", 1, "preconditioned must be true or false"),
        ("optimizer", 3, "optimizer must be a text"),
        ("schedule", ["linear"], "schedule must be a text"),
        ("schedule", "steep", "is none of linear"),
    ],
)
def test_a_recipe_refuses(field: str, value: Any, expected: str) -> None:
    """What is of another type, not finite, or nothing that a compiled program can hold."""
    line = refused(lambda: Recipe(**{field: value}))
    assert line is not None
    assert expected in line


def test_an_infinite_clip_is_none() -> None:
    """`--clip inf` is how a command says it; a file of JSON has no infinity."""
    assert Recipe(clip=math.inf) == Recipe(clip=None)


@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(st.sampled_from(list(Recipe.__dataclass_fields__)), ANYTHING, min_size=1, max_size=3))
def test_any_recipe_is_refused_or_makes_a_job(tiny: Backbone, fields: dict[str, Any]) -> None:
    """Whatever a recipe holds: one line, or a job whose hyperparameters are finite and whose batches hold the rows."""
    fields = {
        **fields,
        "epochs": min(fields.get("epochs", 2), 50) if type(fields.get("epochs")) is int else fields.get("epochs", 2),
    }

    def check() -> None:
        job = job_of(tiny, Recipe(**{"max_length": 16, **fields}), val=0.5)
        assert all(math.isfinite(float(value)) for name, value in job.hyper()._asdict().items() if name != "clip")
        assert job.hyper().lr > 0
        assert 0 < job.shape.items <= 32
        assert job.steps == job.recipe.epochs * job.steps_per_epoch

    refused(check)


@pytest.mark.parametrize(("asked", "texts"), [(4, 4), (32, 32), (10**9, 32)])
def test_a_batch_has_no_room_for_rows_that_there_are_not(tiny: Backbone, asked: int, texts: int) -> None:
    """The size of a batch is compared with the rows before anything is made of it; small ones stay as they are asked for."""
    job = job_of(tiny, Recipe(batch_size=asked, max_length=16))
    assert (job.shape.items, job.steps_per_epoch) == (texts, -(-24 // asked))


def test_more_steps_than_can_be_counted(tiny: Backbone) -> None:
    """Found before the batches of all epochs are drawn."""
    with pytest.raises(GraftaxError, match="a: 100,000 epochs are 20,000,000 steps; a run counts up to 16,777,216"):
        job_of(tiny, Recipe(epochs=100_000, batch_size=1, max_length=16), rows=toy_rows(count=200))


def test_rates_that_multiply_to_infinity(tiny: Backbone) -> None:
    """Each is finite, their product is not."""
    with pytest.raises(GraftaxError, match="layer_decay 1e\\+30 over 3 layers multiply to no finite learning rate"):
        job_of(tiny, Recipe(layer_decay=1e30, max_length=16))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"save_every": math.nan}, "save_every, seconds between checkpoints, must be a number, at least 0"),
        ({"save_every": math.inf}, "save_every, seconds between checkpoints, must be a number, at least 0"),
        ({"save_every": -1.0}, "save_every"),
        ({"pack_size": 1.5}, "the pack size must be a whole number"),
        ({"pack_size": True}, "the pack size must be a whole number"),
        ({"overwrite": "no"}, "overwrite must be true or false"),
        ({"progress": 1}, "progress must be true or false"),
        ({"recipe": {"lr": 1e-3}}, "recipe must be a Recipe, got a dict."),
        ({"columns": "text"}, "columns must be a Columns, got 'text'."),
        ({"method": "lora"}, "method must be a method such as LoRA()"),
        ({"method": [LoRA(), "lora"]}, "method must be a method such as LoRA()"),
        ({"each": {"a": {"method": "lora"}}}, "method must be a method such as LoRA()"),
        ({"each": {"a": 3}}, "settings for a must be a mapping"),
        ({"each": [("a", {})]}, "settings of single adapters must be a mapping"),
        ({"each": {"a": {"epochs": "3"}}}, "a: epochs must be a whole number"),
        ({"each": {"a": {3: "3"}}}, "a: no such setting: 3"),
        ({"val": 1}, "between 0 and 1"),
        ({"val": True}, "between 0 and 1"),
        ({"val": math.nan}, "between 0 and 1"),
        ({"data": [ROWS]}, "data must be a mapping from names to rows, got a list."),
        ({"data": {3: ROWS}}, "cannot be named 3"),
        ({"data": {"a\0": ROWS}}, "cannot be named"),
        ({"task": ["classify"]}, "task must be the name of a task, or a task; got a list."),
        ({"out": 3}, "out must be a text or a path, such as a file system can hold, got 3."),
    ],
)
def test_arguments_are_refused(tiny: Backbone, tmp_path: Path, arguments: dict[str, Any], expected: str) -> None:
    """One line, and no directory."""
    given = {"data": {"a": ROWS}, "out": tmp_path / "out", "progress": False, **arguments}
    line = refused(lambda: train_many(tiny, **given))
    assert line is not None
    assert expected in line
    assert not (tmp_path / "out").exists()


@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    given_=st.dictionaries(
        st.sampled_from(
            ["method", "task", "recipe", "each", "val", "columns", "pack_size", "overwrite", "save_every", "progress"]
        ),
        ANYTHING,
        min_size=1,
        max_size=2,
    )
)
def test_any_argument_is_refused_or_understood(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_: dict[str, Any]
) -> None:
    """One line, or a run that begins. (What it would train is another test's.)"""
    began: list[Callable[..., Any]] = []
    monkeypatch.setattr(queue.Run, "go", lambda self: began.append(self.go))
    arguments = {"recipe": Recipe(max_length=16), "progress": False, **given_}
    out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    line = refused(lambda: train_many(tiny, {"a": ROWS}, out, **arguments))
    assert (line is None) == bool(began)


def test_a_huge_batch_trains(tiny: Backbone, tmp_path: Path) -> None:
    """A thousand million rows a step, of 24: one step an epoch, with the bits of a batch that just holds them."""
    for size in (10**9, 32):
        recipe = Recipe(epochs=1, batch_size=size, max_length=16)
        train_many(tiny, {"a": ROWS}, tmp_path / str(size), recipe=recipe, progress=False)
    assert weights_of(tmp_path / str(10**9) / "a") == weights_of(tmp_path / "32" / "a")
