"""The adapters of a run on a hub: each as it finishes, or all of a finished one; what cannot be put there holds up no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Graftax
from refusals import refused
from runs import DATA, nan_rows, run_many, tensors
from tiny import write_csv

from graftax import GraftaxError, Hub, load_adapter
from graftax.models.backbone import Backbone
from graftax.train.shelf import Shelf


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub of this user, on a machine of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAFTAX_HUB", str(tmp_path / "hub"))
    return Hub()


class Picky:
    """A shelf that does not take everything, and remembers what it took and when."""

    def __init__(self, without: str = "", interrupted_by: str = ""):
        self.without, self.interrupted_by = without, interrupted_by
        self.expected: list[str] = []
        self.took: list[str] = []

    def expect(self, names: Sequence[str]) -> None:
        self.expected += names

    def put(self, name: str, directory: Path) -> str:
        assert tensors(directory)
        if name == self.interrupted_by:
            raise KeyboardInterrupt  # nothing less: what a shelf cannot do is an error, and the run goes on
        if name == self.without:
            raise GraftaxError(f"no room for {name}.")
        self.took.append(name)
        return f"here/{name}"

    def later(self, out: Path) -> str:
        return f"carry {out.name}"


def some(names: str) -> dict[str, list[dict[str, str]]]:
    return {name: DATA[name] for name in names}


def test_a_run_is_on_the_hub_with_one_option(hub: Hub, tiny: Backbone, tmp_path: Path) -> None:
    results = run_many(tiny, some("ba"), tmp_path / "run", push=hub.under("toys/", tags=["prod"]))
    assert {name: result.pushed for name, result in results.items()} == {"b": "toys/b:1", "a": "toys/a:1"}
    assert hub.resolve("toys/a:prod").version == 1
    with pytest.warns(match="toys/a is toys/a:1"):
        assert load_adapter("toys/a", tiny).labels == load_adapter(tmp_path / "run" / "a", tiny).labels
    without = run_many(tiny, some("a"), tmp_path / "another")
    assert without["a"].pushed is None


def test_each_is_put_as_it_finishes_and_one_that_fails_holds_up_no_other(tiny: Backbone, tmp_path: Path) -> None:
    shelf = Picky(without="b")
    assert isinstance(shelf, Shelf)
    with pytest.warns(match="no room for b"):
        said = refused(lambda: run_many(tiny, some("abc"), tmp_path / "run", pack_size=1, push=shelf)) or ""
    assert said == "1 of 3 adapters not pushed: b. Everything is trained; once that is mended: carry run"
    assert (shelf.expected, shelf.took) == (["a", "b", "c"], ["a", "c"])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["a", "b", "c", "metrics.jsonl"]


def test_what_was_trained_is_pushed_beside_what_could_not_be(hub: Hub, tiny: Backbone, tmp_path: Path) -> None:
    """Of a run with a loss that was not finite."""
    data = {"bad": nan_rows(), "good": [{"text": "red", "label": 0.5}] * 8}
    said = refused(lambda: run_many(tiny, data, tmp_path / "run", task="regress", push=hub.under(""))) or ""
    assert said.startswith("no adapter for bad: the loss was not finite")
    assert "pushed" not in said
    assert [str(version) for version in hub.list()] == ["good:1"]


def test_a_run_that_goes_on_puts_what_finished_before(tiny: Backbone, tmp_path: Path) -> None:
    """Whoever was killed may have saved an adapter and not put it anywhere."""
    killed = Picky(interrupted_by="b")
    with pytest.raises(KeyboardInterrupt):
        run_many(tiny, some("ab"), tmp_path / "run", pack_size=1, save_every=0.0, push=killed)
    assert killed.took == ["a"]
    shelf = Picky()
    results = run_many(tiny, some("ab"), tmp_path / "run", pack_size=1, push=shelf)
    assert shelf.took == ["a", "b"]
    assert [result.pushed for result in results.values()] == ["here/a", "here/b"]


def test_what_cannot_be_pushed_is_said_before_training(hub: Hub, tiny: Backbone, tmp_path: Path) -> None:
    data = {"my bank": DATA["a"]}
    assert "'toys/my bank' is no name" in (refused(lambda: run_many(tiny, data, tmp_path / "a", push=hub.under("toys"))) or "")
    assert "Hub().under('bank')" in (refused(lambda: run_many(tiny, some("a"), tmp_path / "a", push="toys")) or "")
    assert not (tmp_path / "a").exists()


def test_a_damaged_adapter_holds_up_no_other_of_a_run(hub: Hub, tiny: Backbone, tmp_path: Path) -> None:
    """In Python as on the command line (`test_hub_printed.py`)."""
    run_many(tiny, some("abc"), tmp_path / "run")
    (tmp_path / "run" / "a" / "adapter_model.safetensors").write_bytes(b"gone")
    with pytest.warns(match="checksum"):
        said = refused(lambda: hub.push_run("toys", tmp_path / "run")) or ""
    assert said == f"{tmp_path / 'run'}: 1 of 3 adapters not pushed: a."
    assert [str(version) for version in hub.list()] == ["toys/b:1", "toys/c:1"]


def test_the_command_says_what_was_not_pushed(
    hub: Hub, graftax: Graftax, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [write_csv(tmp_path / f"{name}.csv", DATA[name]) for name in "ab"]
    push = Hub.push

    def push_but_one(self: Hub, name: str, directory: Path, **how: Any) -> Any:
        if name == "toys/a":
            raise GraftaxError("toys/a: the disk is full.")
        return push(self, name, directory, **how)

    monkeypatch.setattr(Hub, "push", push_but_one)
    fast = ["--epochs", "1", "--batch-size", "8", "--max-length", "16"]
    files = [word for file in data for word in ("-d", file)]
    said = graftax("train", "-b", tiny_dir, "-o", tmp_path / "run", *files, *fast, "--push", "toys")
    assert said.code == 2
    error = said.err.splitlines()[-1]
    assert "1 of 2 adapters not pushed: a. Everything is trained" in error
    assert error.endswith(f"graftax hub push toys {tmp_path / 'run'} --hub {hub.store.url}")
    assert "toys/a: the disk is full." in said.err
    assert "b: pushed, toys/b:1" in said.err
    assert [str(version) for version in hub.list()] == ["toys/b:1"]
