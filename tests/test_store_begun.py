"""The first index that a machine has of a store: the newest snapshot and what came since, whole before anybody sees it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from refusals import refused
from stores import FILES, about, content_of, store_of

from graftax.store.index import Index
from graftax.store.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Of eight events, with a snapshot behind the fifth."""
    monkeypatch.setattr("graftax.store.store.EVERY", 5)
    one = store_of(tmp_path / "hub", tmp_path / "machine")
    for i in range(7):
        one.push("x", about(str(i)), FILES)
    assert [path.name[:9] for path in (tmp_path / "hub" / "snapshots").rglob("*.sqlite")] == ["000000005"]
    return one


def test_nobody_sees_it_before_it_is_whole(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, seen, apply = store_of(store.url, tmp_path / "new"), [], Index.apply

    def watched(index: Index, events: Iterable[Any]) -> None:
        seen.append((index.position()[0], new._index.file.exists()))
        apply(index, events)

    monkeypatch.setattr(Index, "apply", watched)
    assert new.resolve("x").version == 7
    assert seen == [(5, False)]
    assert content_of(new.index()) == content_of(store.index())
    assert {path.name.removesuffix("-journal") for path in new._index.file.parent.iterdir()} == {new._index.file.name}


def test_who_is_killed_meanwhile_leaves_nothing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = store_of(store.url, tmp_path / "new")
    with monkeypatch.context() as patch:
        patch.setattr(Index, "apply", lambda *what: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            new.resolve("x")
    assert list(new._index.file.parent.iterdir()) == []
    assert new.resolve("x").version == 7


def test_another_process_that_is_quicker(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file stays, and is the one that both go on with."""
    new, other, apply = store_of(store.url, tmp_path / "new"), store_of(store.url, tmp_path / "new"), Index.apply

    def late(index: Index, events: Iterable[Any]) -> None:
        monkeypatch.setattr(Index, "apply", apply)
        assert other.resolve("x").version == 7
        apply(index, events)

    monkeypatch.setattr(Index, "apply", late)
    assert new.resolve("x").version == 7
    assert new.push("x", about("another"), FILES)[0].version == other.resolve("x").version == 8


def test_an_event_behind_the_snapshot_that_cannot_be_read(store: Store, tmp_path: Path) -> None:
    """It is named, again and again, and with it back the machine goes on from the snapshot."""
    new, file = store_of(store.url, tmp_path / "new"), tmp_path / "hub/ledger/000000/000000007.json"
    content = file.read_bytes()
    file.write_bytes(b"{")
    for _ in range(2):
        assert "000000007.json" in str(refused(lambda: new.resolve("x")))
    assert new._index.look_up(Index.position)[0] == 5
    file.write_bytes(content)
    assert new.resolve("x").version == 7
