"""A run stopped at any moment goes on to the bits of an uninterrupted one."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import DATA, QUICK, interrupt, lines, run_many, stop_after
from tiny import weights_of

from graftax.adapters import LoRA
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.train import Interrupted
from graftax.train.journal import Metrics


@pytest.mark.parametrize("ticks", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_a_run_of_several_kinds_resumes(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticks: int) -> None:
    """Invariant 20: stopped while the first cohort of jobs trains, or the second: the bits of an uninterrupted run."""
    data, each = {n: DATA[n] for n in "abd"}, {"b": {"method": LoRA(r=20, alpha=6.0)}}
    settings: dict[str, Any] = {"pack_size": 1, "each": each, "recipe": QUICK.replace(epochs=1)}
    run_many(tiny, data, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        stop_after(patch, ticks, interrupt)
        with pytest.raises(Interrupted):
            run_many(tiny, data, tmp_path / "out", **settings)
    results = run_many(tiny, data, tmp_path / "out", **settings)
    assert list(results) == list(data)
    for name in data:
        assert weights_of(tmp_path / "out" / name) == weights_of(tmp_path / "whole" / name)


@pytest.mark.parametrize(
    ("ticks", "dropout"), [pytest.param(1, 0.2, marks=pytest.mark.slow), (3, 0.2), pytest.param(6, 0.2, marks=pytest.mark.slow)]
)
def test_resume_in_process(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticks: int, dropout: float) -> None:
    """Invariant 20: stopped at any tick (in an epoch, between jobs): the bits and metrics of an uninterrupted run."""
    recipe = QUICK.replace(epochs=4)
    settings: dict[str, Any] = {"pack_size": 2, "val": 0.3, "recipe": recipe, "method": LoRA(r=4, alpha=6.0, dropout=dropout)}
    data = {n: DATA[n] for n in "abd"}
    whole = run_many(tiny, data, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        stop_after(patch, ticks, interrupt)
        with pytest.raises(Interrupted, match=r"state saved in .*; run the same command again to go on"):
            run_many(tiny, data, tmp_path / "out", **settings)
    again = run_many(tiny, data, tmp_path / "out", **settings)
    for name in data:
        assert weights_of(tmp_path / "out" / name) == weights_of(tmp_path / "whole" / name)
        assert again[name].metrics == whole[name].metrics
        assert again[name].history == whole[name].history
    assert lines(tmp_path / "out") == lines(tmp_path / "whole")


def test_settings_of_an_unfinished_run_are_fixed(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another recipe, data, pack size or dtype is refused; `overwrite` begins anew; asking for more slots than jobs resumes."""
    data = {n: DATA[n] for n in "ab"}
    with monkeypatch.context() as patch:
        stop_after(patch, 2, interrupt)
        with pytest.raises(Interrupted):
            run_many(tiny, data, tmp_path, pack_size=9)
    for changes in ({"recipe": QUICK.replace(lr=1e-4)}, {"pack_size": 1}, {"method": None}, {"task": "classify", "val": 0.5}):
        with pytest.raises(GraftaxError, match="unfinished run with other settings"):
            run_many(tiny, data, tmp_path, **{"pack_size": 9, **changes})
    with pytest.raises(GraftaxError, match="unfinished run with other settings"):
        run_many(tiny, {"a": DATA["b"], "b": DATA["a"]}, tmp_path, pack_size=9)
    run_many(tiny, data, tmp_path, pack_size=9)
    assert not (tmp_path / ".run").exists()


def test_stale_checkpoints_are_not_resumed(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a crash left of a finished run's state is no part of the next run."""
    data = {n: DATA[n] for n in "ab"}
    with monkeypatch.context() as patch:
        stop_after(patch, 5, interrupt)
        with pytest.raises(Interrupted):
            run_many(tiny, data, tmp_path / "out")
    (tmp_path / "out" / ".run" / "run.json").unlink()
    with monkeypatch.context() as patch:
        stop_after(patch, 1, interrupt)
        with pytest.raises(Interrupted):
            run_many(tiny, data, tmp_path / "out", recipe=QUICK.replace(seed=3), overwrite=True)
    run_many(tiny, data, tmp_path / "out", recipe=QUICK.replace(seed=3), overwrite=True)
    run_many(tiny, data, tmp_path / "fresh", recipe=QUICK.replace(seed=3))
    assert weights_of(tmp_path / "out" / "a") == weights_of(tmp_path / "fresh" / "a")


def test_a_checkpoint_is_of_one_moment(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The background save writes what was true when it began, whatever training adds meanwhile."""
    from graftax.train.run_checkpoint import Checkpoints

    dumps = json.dumps

    def late(*args: Any, **kwargs: Any) -> str:
        time.sleep(0.0 if threading.current_thread() is threading.main_thread() else 0.3)
        return dumps(*args, **kwargs)

    monkeypatch.setattr(json, "dumps", late)
    facts: dict[str, Any] = {"history": [1]}
    array = np.arange(3.0)
    with Checkpoints(tmp_path / "checkpoints") as saves:
        saves.save(1, {"x": array}, facts)
        facts["history"].append(2)
        array[:] = -1.0
    with Checkpoints(tmp_path / "checkpoints") as again:
        assert again.arrays(like={"x": np.zeros(3)})["x"].tolist() == [0.0, 1.0, 2.0]
        assert again.facts() == {"history": [1]}


def test_what_an_earlier_run_does_in_the_background_is_waited_for(tmp_path: Path) -> None:
    """Ctrl-C does not wait for it; the same call again, in a notebook, met files that came and went."""
    from graftax.train.run_checkpoint import Checkpoints

    closed: list[int] = []

    def left() -> None:
        with Checkpoints(tmp_path / "checkpoints") as saves:
            saves.save(3, {"a": np.arange(3)}, {"step": 3})
            close = saves._manager.close
            saves._manager.close = lambda: closed.append(3) or close()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        left()
    assert not closed
    with Checkpoints(tmp_path / "checkpoints") as again:
        assert closed == [3]
        assert again.facts() == {"step": 3}


def test_training_leaves_no_state_of_a_removed_run(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the state deleted by hand the run begins anew, where nothing was saved yet."""
    with monkeypatch.context() as patch:
        stop_after(patch, 1, interrupt)
        with pytest.raises(Interrupted):
            run_many(tiny, {"a": DATA["a"]}, tmp_path)
    shutil.rmtree(tmp_path / ".run")
    run_many(tiny, {"a": DATA["a"]}, tmp_path)
    assert [(line["adapter"], line["epoch"]) for line in lines(tmp_path)] == [("a", 1), ("a", 2)]


def test_lines_behind_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    file, kept = tmp_path / "metrics.jsonl", '{"adapter": "a", "epoch": 1}\n'
    file.write_text(kept + '{"adapter": "a", "epoch": 2}\n')
    with Metrics(file, len(kept), ["a"]) as metrics:
        metrics.write({"adapter": "a", "epoch": 2, "step": 6})
    assert file.read_text() == kept + '{"adapter": "a", "epoch": 2, "step": 6}\n'
