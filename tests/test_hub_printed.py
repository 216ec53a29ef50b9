"""What `graftax hub` prints, on terminals of any width and in pipes, and what it says where something is wrong."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cases import random_adapter
from conftest import Graftax
from huggingface_hub import constants
from tiny import write_backbone

from graftax import Hub, LoRA, load_adapter, load_backbone, save_adapter
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone

LONG = "a-department/of-some-company/intents-of-the-bank"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub of this user, on a machine of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAFTAX_HUB", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return Hub()


@pytest.fixture
def adapter(tiny: Backbone, tmp_path: Path) -> Path:
    return save_adapter(random_adapter(tiny, (LoRA(r=2, alpha=3.0),)), tmp_path / "run" / "bank", tiny)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((width, 24)))


def test_a_list_never_breaks_a_name(hub: Hub, adapter: Path, graftax: Graftax, monkeypatch: pytest.MonkeyPatch) -> None:
    version = hub.push(LONG, adapter)
    hub.push("short", adapter)
    whole = graftax("hub", "list").out.splitlines()
    assert len(whole) == 3
    assert whole[1].startswith(f"{LONG}:1  ")
    assert whole[1].endswith(version.pushed)
    for width in (len(whole[1]), len(whole[1]) - 1, 80, 60, 40):
        on_a_terminal(monkeypatch, width)
        lines = graftax("hub", "list").out.splitlines()
        assert [line.split()[0] for line in lines] == ["version", f"{LONG}:1", "short:1"]
        assert max(map(len, lines)) <= max(width, len(f"{LONG}:1"))
        if width >= len(whole[1]) - 1:
            assert lines[1].endswith(version.pushed if width == len(whole[1]) else version.pushed[:10])


def test_a_damaged_adapter_holds_up_no_other(hub: Hub, tiny: Backbone, adapter: Path, tmp_path: Path, graftax: Graftax) -> None:
    for name in ("air", "cars"):
        save_adapter(random_adapter(tiny, (LoRA(r=2, alpha=3.0),)), tmp_path / "run" / name, tiny)
    (adapter / "adapter_model.safetensors").write_bytes(b"torn")
    said = graftax("hub", "push", "toys", "run")
    assert said.code == 2
    assert [line.split()[0] for line in said.out.splitlines()] == ["toys/air:1", "toys/cars:1"]
    reason, last = said.err.splitlines()
    assert "bank/adapter_model.safetensors" in reason
    assert last == "graftax: run: 1 of 3 adapters not pushed: bank."


def test_a_name_that_the_hub_does_not_have(hub: Hub, adapter: Path, graftax: Graftax, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert f"there is no hub at {hub.store.url}" in graftax("inspect", "bank/intnt").err
    hub.push("bank/intent", adapter)
    Path("bnk").mkdir()
    for typed in ("bank/intnt", "bnk/intent", "bank/intnt:2"):
        said = graftax("inspect", typed)
        assert (said.code, len(said.err.splitlines())) == (2, 1)
        assert said.err.startswith(f"graftax: {typed}: ")
        assert f"the hub {hub.store.url} has no such name, but bank/intent" in said.err


def test_an_adapter_of_a_hub_is_called_by_its_name_there(
    hub: Hub, adapter: Path, tiny: Backbone, graftax: Graftax, tmp_path: Path
) -> None:
    hub.push("bank/intent", adapter)
    assert graftax("inspect", "bank/intent").out.startswith("bank/intent:1  (graftax, ")
    other = write_backbone(tmp_path / "other", seed=5)
    with pytest.raises(GraftaxError, match=r"^bank/intent:1: made for another backbone"):
        load_adapter("bank/intent:1", load_backbone(other))


def test_a_directory_that_hides_a_name(hub: Hub, adapter: Path, tiny: Backbone) -> None:
    hub.push("bank/intent", adapter)
    Path("bank/intent").mkdir(parents=True)
    line = f"^bank/intent: the directory here is no adapter; the one on {hub.store.url} is bank/intent:latest.$"
    with pytest.raises(GraftaxError, match=line):
        load_adapter("bank/intent", tiny)
    assert load_adapter("bank/intent:latest", tiny)


@pytest.mark.parametrize("number", ["0", "03", "-1", "9999999999"])
def test_numbers_that_are_no_versions(number: str, hub: Hub, adapter: Path, graftax: Graftax) -> None:
    hub.push("bank/intent", adapter)
    for command in (["hub", "show"], ["inspect"]):
        said = graftax(*command, f"bank/intent:{number}")
        assert said.code == 2
        assert f"bank/intent:{number}': versions are numbers from 1 to 999,999,999, as in bank/intent:1" in said.err


def test_a_directory_pulled_by_digest_is_called_by_its_name(hub: Hub, adapter: Path, graftax: Graftax) -> None:
    version = hub.push("bank/intent", adapter)
    assert graftax("hub", "pull", f"sha256:{version.digest}").out == "intent\n"
    assert Path("intent/adapter_config.json").is_file()


def test_what_is_left_out_or_unknown_is_said(hub: Hub, adapter: Path, graftax: Graftax) -> None:
    (adapter / "graftax.json").unlink()
    (adapter / ".notes").write_text("mine")
    (adapter / "checkpoint-1").mkdir()
    (adapter / "checkpoint-1" / "adapter_config.json").write_text("{}")
    said = graftax("hub", "push", "bank/intent", adapter)
    assert said.code == 0
    assert "left out: .notes, checkpoint-1/adapter_config.json." in said.err
    assert "without a fingerprint: whether it fits is not known" in said.err


def test_copies_that_nothing_asks_for_are_deleted(
    hub: Hub, adapter: Path, tiny: Backbone, graftax: Graftax, tmp_path: Path
) -> None:
    """Of a version that is asked for the copy stays, however long ago it was made."""
    another = save_adapter(random_adapter(tiny, (LoRA(r=4),)), tmp_path / "another", tiny)
    old, used = hub.push("old", adapter), hub.push("used", another)
    copies = {version.name: hub.pull(f"{version}") for version in (old, used)}
    for copy in copies.values():
        os.utime(copy, (0, 0))
    assert hub.pull("used:1") == copies["used"]
    said = graftax("hub", "gc").out.splitlines()
    freed = f"{old.size / 1000:.1f} KB"
    assert said == ["0 files deleted, 0 B", f"copies on this machine: 1 version deleted, not used for 30d, {freed}"]
    assert [name for name, copy in copies.items() if copy.exists()] == ["used"]
    assert graftax("hub", "gc", "--unused-for", "1h").out.splitlines()[1].startswith("copies on this machine: 0 versions")
    assert hub.pull("old:1") == copies["old"]
    assert hub.forget(timedelta()).versions == 2
    assert not any(copies["old"].parent.iterdir())
    assert "--unused-for 'soon': expected a number" in graftax("hub", "gc", "--unused-for", "soon").err
