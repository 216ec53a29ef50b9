"""What a run keeps, reports and refuses: epochs, metrics, adapters that diverge, settings, directories that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import DATA, QUICK, lines, nan_rows, run_many
from tiny import toy_rows, weights_of

from graftax.adapters import METHODS, LoRA
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.train import train


def test_best_epoch_is_kept_and_stops_early(tiny: Backbone, tmp_path: Path) -> None:
    """The first best epoch on the validation rows is saved; training ends `patience` epochs after it."""
    data, val = {"a": toy_rows(count=16, seed=1)}, {"a": toy_rows(count=20, seed=2)}
    recipe = QUICK.replace(epochs=12, lr=1e-2, schedule="constant", patience=2)
    result = run_many(tiny, data, tmp_path / "out", recipe=recipe, val=val)["a"]
    scores = [line["val_accuracy"] for line in lines(tmp_path / "out")]
    best = int(np.argmax(scores))
    assert len(scores) == min(12, best + 1 + 2)
    assert result.metrics["val_accuracy"] == max(scores)
    saved = json.loads((tmp_path / "out" / "a" / "graftax.json").read_text())["metrics"]
    assert (saved["epoch"], saved["val_accuracy"]) == (best + 1, max(scores))
    run_many(tiny, data, tmp_path / "to best", recipe=recipe.replace(epochs=best + 1, patience=None))
    assert weights_of(tmp_path / "to best" / "a") == weights_of(tmp_path / "out" / "a")


def test_metrics_have_a_line_per_epoch(tiny: Backbone, tmp_path: Path) -> None:
    """metrics.jsonl: each epoch of each adapter once; a later run in the directory keeps the lines about other adapters."""
    run_many(tiny, {n: DATA[n] for n in "ab"}, tmp_path)
    run_many(tiny, {n: DATA[n] for n in "bc"}, tmp_path, overwrite=True)
    assert sorted((line["adapter"], line["epoch"]) for line in lines(tmp_path)) == [(n, e) for n in "abc" for e in (1, 2)]


@pytest.mark.parametrize("how", ["NaN labels", "huge rate", "huge rate, one step"])
def test_diverged_adapters_are_reported(tiny: Backbone, tmp_path: Path, how: str) -> None:
    """The others are trained and saved; the error names the one that failed; no run is left to resume."""
    good, bad = toy_rows("regress", 16), toy_rows("regress", 16 if how == "huge rate" else 8)
    data: dict[str, Any] = {"good": good, "bad": nan_rows() if how == "NaN labels" else bad}
    each = {} if how == "NaN labels" else {"bad": {"lr": 1e30}}
    val = None if how == "NaN labels" else {"good": good, "bad": bad}
    with pytest.raises(GraftaxError, match=r"no adapter for bad: the loss was not finite.*Saved: good") as error:
        run_many(tiny, data, tmp_path, task="regress", each=each, val=val, pack_size=2)
    assert "\n" not in str(error.value)
    assert (tmp_path / "good" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "bad").exists()
    assert not (tmp_path / ".run").exists()


def test_rare_labels_may_be_held_out(tiny: Backbone, tmp_path: Path) -> None:
    """A tag that only a held-out row has is a class all the same, not an unknown label."""
    rows = [{"text": ["iron", "shop"], "label": ["B-M", "O"]}] * 9 + [{"text": ["plum"], "label": ["B-RARE"]}]
    recipe = QUICK.replace(epochs=1)
    for seed in range(3):
        run_many(tiny, {"x": rows}, tmp_path / str(seed), task="tag", recipe=recipe.replace(seed=seed), val=0.5)
        assert json.loads((tmp_path / str(seed) / "x" / "graftax.json").read_text())["labels"] == ["B-M", "B-RARE", "O"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"data": {}}, "no data"),
        ({"pack_size": 0}, "the pack size must be a whole number, at least 1"),
        ({"each": {"z": {"lr": 1e-2}}}, "settings for z, but the adapters are a"),
        ({"each": {"a": {"rank": 2}}}, "no such setting: rank"),
        ({"val": {"z": DATA["b"]}}, "validation rows for z"),
        ({"val": 1.5}, "between 0 and 1"),
        ({"val": {"a": [{"text": "x", "label": "new"}]}}, "label 'new', which the adapter does not know"),
        ({"recipe": QUICK.replace(patience=2)}, "patience needs validation rows"),
        ({"recipe": QUICK.replace(max_length=41)}, "max length 41 is more than the 40 tokens"),
        ({"method": METHODS["prefix"](tokens=20), "recipe": QUICK.replace(max_length=32)}, "more than the 20 tokens"),
        ({"method": LoRA(targets="nothing")}, "matches no site. Sites there are: "),
        ({"task": "translate"}, "unknown task"),
        ({"data": {"../a": DATA["a"]}}, "cannot be named"),
        ({"data": {".run": DATA["a"]}}, "cannot be named"),
        ({"data": {256 * "n": DATA["a"]}}, "has 256 bytes; file systems have room for 255"),
    ],
)
def test_bad_settings_are_found_first(tiny: Backbone, tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    """One line, and nothing is written."""
    with pytest.raises(GraftaxError) as error:
        run_many(tiny, settings.pop("data", {"a": DATA["a"]}), tmp_path / "out", **settings)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_existing_adapters_are_refused_or_replaced(tiny: Backbone, tmp_path: Path) -> None:
    """A second run into the directory is refused unless `overwrite`; new names beside the old ones are welcome."""
    run_many(tiny, {"a": DATA["a"]}, tmp_path)
    before = weights_of(tmp_path / "a")
    with pytest.raises(GraftaxError, match="already holds a; choose another directory or pass --overwrite"):
        run_many(tiny, {"a": DATA["b"]}, tmp_path)
    assert weights_of(tmp_path / "a") == before
    run_many(tiny, {"b": DATA["b"]}, tmp_path)
    run_many(tiny, {"a": DATA["b"]}, tmp_path, overwrite=True)
    assert weights_of(tmp_path / "a") != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "metrics.jsonl"]


def test_train_is_train_many_of_one(tiny: Backbone, tmp_path: Path) -> None:
    """`train` writes the same bits."""
    result = train(tiny, DATA["a"], tmp_path / "one" / "a", recipe=QUICK, progress=False)
    run_many(tiny, {"a": DATA["a"]}, tmp_path / "many")
    assert result.directory == tmp_path / "one" / "a"
    assert weights_of(result.directory) == weights_of(tmp_path / "many" / "a")
