"""Writing: whole or not at all, on full disks and in directories that vanish; and what killed processes left is swept."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from runs import run_many
from tiny import toy_rows, weights_of

from graftax import disk, export_adapter, load_adapter, save_adapter
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.train.queue import Run

DATA = {"a": toy_rows(count=21, seed=1), "b": toy_rows(count=12, seed=2)}


def full(*args: Any, **kwargs: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_while_saving_an_adapter(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear line; the adapter that was there is intact; with space again the same call goes on."""
    run_many(tiny, {"a": DATA["a"]}, tmp_path)
    before = weights_of(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(GraftaxError, match="no space left on the disk") as error:
            run_many(tiny, {"a": DATA["b"]}, tmp_path, overwrite=True)
    assert "\n" not in str(error.value)
    assert weights_of(tmp_path / "a") == before
    run_many(tiny, {"a": DATA["b"]}, tmp_path, overwrite=True)
    assert weights_of(tmp_path / "a") != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "metrics.jsonl"]


def test_full_disk_while_checkpointing(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that does not fit is one clear line too."""
    from graftax.train.run_checkpoint import Checkpoints

    monkeypatch.setattr(Checkpoints, "save", full)
    with pytest.raises(GraftaxError, match="no space left on the disk"):
        run_many(tiny, {"a": DATA["a"]}, tmp_path, save_every=0.0)


def test_full_disk_behind_the_run(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint that fails in orbax's own threads is one line that says how to go on, and none of its log; so it goes on."""
    dumps = json.dumps

    def full_in_threads(*args: Any, **kwargs: Any) -> str:
        return dumps(*args, **kwargs) if threading.current_thread() is threading.main_thread() else full()

    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", full_in_threads)
        with pytest.raises(GraftaxError, match="no space left on the disk; run the same command again when there is room"):
            run_many(tiny, {"a": DATA["a"]}, tmp_path, save_every=0.0)
    assert caplog.records == []
    run_many(tiny, {"a": DATA["a"]}, tmp_path)


@pytest.mark.parametrize("failing", ["block", "fsync", "rename"])
def test_a_directory_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """A failure while filling, syncing or renaming leaves the old directory and nothing else."""
    target = tmp_path / "target"
    with disk.new_directory(target) as draft:
        (draft / "file").write_text("old")
    rename = Path.rename

    def refuse(self: Path, to: Path) -> Path:
        return full() if to == target and (self / "new").exists() else rename(self, to)

    def replace() -> None:
        with disk.new_directory(target, overwrite=True) as draft:
            (draft / "file").write_text("new")
            (draft / "new").write_text("new")
            if failing == "block":
                full()

    with monkeypatch.context() as patch:
        if failing == "fsync":
            patch.setattr(os, "fsync", full)
        if failing == "rename":
            patch.setattr(Path, "rename", refuse)
        with pytest.raises(GraftaxError, match="no space left"):
            replace()
    assert (target / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    with disk.new_directory(target, overwrite=True) as draft:
        (draft / "file").write_text("new")
    assert (target / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_disk_refuses_what_it_must_not_replace(tmp_path: Path) -> None:
    """An existing directory needs `overwrite`; a file in its place is never replaced; other errors pass unchanged."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(GraftaxError, match="exists already"), disk.new_directory(tmp_path / "dir"):
        pass
    with pytest.raises(GraftaxError, match="is not a directory"), disk.new_directory(tmp_path / "file", overwrite=True):
        pass
    with pytest.raises(ZeroDivisionError), disk.new_directory(tmp_path / "new"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """`write_text` leaves the old content when it fails."""
    disk.write_text(tmp_path / "file", "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(GraftaxError, match="no space left"):
            disk.write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_one_process_at_a_time(tiny: Backbone, tmp_path: Path) -> None:
    """A second process (here: a second lock) in one output directory is refused, and nothing there is touched."""
    with disk.locked(tmp_path / "out"):
        with pytest.raises(GraftaxError, match="another process is training"):
            run_many(tiny, {"a": DATA["a"]}, tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())
    run_many(tiny, {"a": DATA["a"]}, tmp_path / "out")


# -- drafts -----------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from graftax import disk, export_adapter, load_adapter, save_adapter

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

target, moment = Path(sys.argv[1]), sys.argv[2]
if moment == "between renames":
    rename = Path.rename
    Path.rename = lambda self, to: die() if to == target else rename(self, to)
if moment == "file":
    os.replace = die
    disk.write_text(target, "new")
with disk.new_directory(target, overwrite=True) as draft:
    (draft / "file").write_text("new")
    (draft / "old").mkdir()
    (draft / "old" / "within").write_text("of the draft's own")
    if moment == "filling":
        die()
"""


def killed(target: Path, moment: str) -> None:
    """A process that writes `target` and is killed at a moment of it."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(target), moment], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done


@pytest.mark.parametrize("moment", ["filling", "between renames", "file"])
def test_drafts_of_killed_processes_are_swept(tmp_path: Path, moment: str) -> None:
    """The next write there removes them, puts back what was moved away, and touches nothing that only looks like one."""
    others = [".target.settings", ".graftax", "graftax-draft-x"]
    for name in others:
        (tmp_path / name).mkdir()
    with disk.new_directory(tmp_path / "target") as draft:
        (draft / "file").write_text("old")
    killed(tmp_path / ("notes" if moment == "file" else "target"), moment)
    assert len(list(tmp_path.iterdir())) == 5  # one draft more than before; between the renames "target" lies aside
    disk.write_text(tmp_path / "other", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "other", "target"])
    assert (tmp_path / "target" / "file").read_text() == "old"


def test_a_draft_that_is_being_written_stays(tmp_path: Path) -> None:
    """Another process's sweep leaves it alone, and so does that of this one."""
    sweep = f"from pathlib import Path; from graftax import disk; disk.sweep(Path({str(tmp_path)!r}))"
    with disk.new_directory(tmp_path / "target") as draft:
        (draft / "file").write_text("new")
        subprocess.run([sys.executable, "-c", sweep], check=True)
        disk.write_text(tmp_path / "other", "x")
        assert (draft / "file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "target"]


def test_a_run_sweeps_where_it_is_refused(tiny: Backbone, tmp_path: Path) -> None:
    """Killed in its last write, a run is done; the next call says so, and has cleaned up."""
    (tmp_path / "a").mkdir()
    killed(tmp_path / "a", "filling")
    with pytest.raises(GraftaxError, match="already holds a"):
        run_many(tiny, {"a": DATA["a"]}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_any_name_that_the_disk_takes_can_be_written(tmp_path: Path) -> None:
    """A draft's name does not grow with what it is a draft of."""
    name = "n" * 255
    with disk.new_directory(tmp_path / name) as draft:
        (draft / "file").write_text("new")
    disk.write_text(tmp_path / name / name, "text")
    assert (tmp_path / name / name).read_text() == "text"


# -- a directory that vanishes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("save_every", [0.0, 100.0])
def test_a_directory_that_is_removed_in_mid_run(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_every: float, again: bool
) -> None:
    """One line at the next checkpoint, or the next epoch; also where another directory has its name meanwhile."""
    fill, ticks = Run._fill, []

    def remove(run: Run) -> None:
        fill(run)
        ticks.append(run.ticks)
        if run.ticks == 1:
            run.checkpoints.wait()  # orbax would make the directory again
            shutil.rmtree(tmp_path / "out")
            if again:
                (tmp_path / "out").mkdir()

    monkeypatch.setattr(Run, "_fill", remove)
    with pytest.raises(GraftaxError, match="out was removed while it was written to"):
        run_many(tiny, {"a": DATA["a"]}, tmp_path / "out", save_every=save_every)
    assert max(ticks) <= 3  # of six; an epoch has three
    monkeypatch.setattr(Run, "_fill", fill)
    run_many(tiny, {"a": DATA["a"]}, tmp_path / "out")


def test_only_what_graftax_wrote_is_replaced(tiny: Backbone, tmp_path: Path) -> None:
    """`overwrite` is for adapters: a folder of other things keeps every file, and is refused before anything is trained."""
    photos = tmp_path / "a" / "photos"
    photos.mkdir(parents=True)
    (photos / "one.jpg").write_text("me")
    with pytest.raises(GraftaxError, match="holds other things"):
        run_many(tiny, {"a": DATA["a"]}, tmp_path, overwrite=True)
    trained = run_many(tiny, {"a": DATA["a"]}, tmp_path / "out")["a"].directory
    adapter = load_adapter(trained, tiny)
    for write in (save_adapter, export_adapter):
        with pytest.raises(GraftaxError, match="holds other things"):
            write(adapter, tmp_path / "a", tiny, overwrite=True)
        with pytest.raises(GraftaxError, match="overwrite must be true or false, got 'no'"):
            write(adapter, trained, tiny, overwrite="no")
    assert (photos / "one.jpg").read_text() == "me"
    (tmp_path / "empty").mkdir()
    save_adapter(adapter, tmp_path / "empty", tiny, overwrite=True)
    assert weights_of(tmp_path / "empty") == weights_of(trained)
