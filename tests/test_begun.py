"""What an unfinished run was begun with: another version, another call or a damaged note of it is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from cases import random_adapter
from refusals import refused
from tiny import toy_rows

import graftax
from graftax.adapters.merging import merge
from graftax.models.backbone import Backbone
from graftax.train import Recipe, train_many
from graftax.train.queue import Run

Call = Callable[..., str | None]


@pytest.fixture
def call(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """A call that begins or resumes a run and leaves it unfinished; returns the line with which it is refused."""
    monkeypatch.setattr(Run, "go", lambda self: {})

    def begin(**settings: Any) -> str | None:
        recipe = Recipe(epochs=1, batch_size=8, max_length=16)
        return refused(
            lambda: train_many(tiny, {"a": toy_rows()}, tmp_path / "out", **{"recipe": recipe, "progress": False, **settings})
        )

    assert begin() is None
    assert begin() is None
    return begin


def test_another_merge_of_the_same_backbone_does_not_go_on(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All merges of a base had one fingerprint, and half a run on each would have been one adapter."""
    monkeypatch.setattr(Run, "go", lambda self: {})
    one, other = (merge(tiny, random_adapter(tiny, "lora", seed=seed))[0] for seed in (1, 2))

    def begin(backbone: Backbone) -> str | None:
        recipe = Recipe(epochs=1, batch_size=8, max_length=16)
        return refused(lambda: train_many(backbone, {"a": toy_rows()}, tmp_path / "out", recipe=recipe, progress=False))

    assert begin(one) is None
    assert begin(one) is None
    assert "out holds an unfinished run with other settings or data" in (begin(other) or "")


@pytest.mark.parametrize(("name", "version"), [("graftax", "graftax.train.begun.__version__"), ("JAX", "jax.__version__")])
def test_another_version_does_not_go_on(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str
) -> None:
    """It might end with other bits; the line says which version could, and `overwrite` begins anew."""
    here = {"graftax": graftax.__version__, "JAX": jax.__version__}[name]
    monkeypatch.setattr(version, "9.9")
    line = call()
    assert line is not None
    assert f"out holds an unfinished run that {name} {here} began, and this is 9.9; go on with that version" in line
    assert call(overwrite=True) is None
    assert json.loads((tmp_path / "out" / ".run" / "run.json").read_text())["versions"][name] == "9.9"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            lambda facts: {key: value for key, value in facts.items() if key != "versions"},
            "that graftax of another version began",
        ),
        (lambda facts: {key: value for key, value in facts.items() if key != "digest"}, "damaged, or of another version"),
        (lambda facts: {**facts, "pack_size": 1}, "damaged, or of another version"),
        (lambda facts: {**facts, "digest": "0"}, "unfinished run with other settings or data"),
    ],
)
def test_a_note_of_another_run_is_refused(call: Call, tmp_path: Path, content: Callable[..., Any], expected: str) -> None:
    """Older files, damaged ones, other runs'; `overwrite` gets rid of each."""
    file = tmp_path / "out" / ".run" / "run.json"
    file.write_text(json.dumps(content(json.loads(file.read_text()))))
    line = call()
    assert line is not None
    assert expected in line
    assert call(overwrite=True) is None
