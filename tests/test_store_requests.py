"""What a store asks of the place where it lies: as little as can be, for behind S3 each request takes its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import s3_server
from refusals import refused
from stores import FILES, about, pulled, store_of

from graftax.store.objects import RemoteObjects
from graftax.store.store import Store

REQUESTS = ("get_stamped", "size", "sizes", "after", "create", "put", "delete", "is_empty")


@pytest.fixture
def store(s3: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Behind S3, with two versions of one name."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    one = store_of(f"s3://{s3_server.BUCKET}/{request.node.name}", tmp_path / "machine")
    one.push("x", about("first"), FILES)
    one.push("x", about("second"), {**FILES, "weights.bin": b"others"})
    return one


@pytest.fixture
def asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that are made from now on."""
    asked: list[str] = []

    def noted(request: str) -> Any:
        real = getattr(RemoteObjects, request)
        return lambda *which: (asked.append(request), real(*which))[1]

    for request in REQUESTS:
        monkeypatch.setattr(RemoteObjects, request, noted(request))
    return asked


def test_whether_there_is_anything_new_is_one_request(store: Store, asked: list[str], tmp_path: Path) -> None:
    """Beside the one by which a process sees first that the last event is what its index has of it."""
    process = store_of(store.url, tmp_path / "machine")
    assert process.resolve("x").version == 2
    assert asked == ["after", "get_stamped"]
    asked.clear()
    assert [process.resolve("x").version, process.resolve("x:1").version] == [2, 1]
    assert asked == ["after"] * 2


def test_a_version_is_its_files(store: Store, asked: list[str], tmp_path: Path) -> None:
    """Its manifest is asked for where it is signed, or must be; of what this machine keeps nothing is."""
    version = store.resolve("x")
    asked.clear()
    assert pulled(store.pull(version, tmp_path / "x")) == {**FILES, "weights.bin": b"others"}
    assert asked == ["get_stamped"] * len(FILES)
    store.pull(version)
    asked.clear()
    store.pull(version)
    assert asked == []
    (tmp_path / "keys").touch()
    trusting = store_of(store.url, tmp_path / "machine", trusted=tmp_path / "keys")
    assert "not signed" in str(refused(lambda: trusting.pull(version)))
    assert asked == ["get_stamped"]


def test_what_is_put_in_the_place_of_the_last_event_is_seen(store: Store, asked: list[str]) -> None:
    """Whatever the index has, and though the event was read before: here the hub is put back by one event."""
    store.index()
    keys = [key for key, _ in store.objects.after("ledger", "")]
    store.objects.delete([keys[-1]])
    assert store.resolve("x").version == 1
    assert "has no tag" in str(refused(lambda: store.resolve("x:nothing")))
    store.objects.put(keys[-1], store.objects.get(keys[0]) or b"")
    assert "does not follow the event before it" in str(refused(lambda: store.resolve("x")))


def test_many_are_asked_for_at_once(store: Store, asked: list[str], tmp_path: Path) -> None:
    """Whether there is anything new is asked once, and each blob once that this machine does not keep."""
    store.push("y", about("third"), {"weights.bin": b"of y"}, tags=["prod"])
    asked.clear()
    names = ["x:1", "y:prod", "x", "y", "x:1"]
    found = store.pull_all(names)
    assert [pulled(one)["weights.bin"] for one in found] == [b"weights", b"of y", b"others", b"of y", b"weights"]
    assert asked.count("after") == 1
    assert set(asked) == {"after", "get_stamped"}
    asked.clear()
    assert store.pull_all(names) == found
    assert asked == ["after"]
    elsewhere = store_of(store.url, tmp_path / "elsewhere")
    assert "z is not on" in str(refused(lambda: elsewhere.pull_all(["x", "z"])))
    assert not elsewhere.copies.folder.exists()


def test_a_name_that_is_not_there_makes_nothing_on_this_machine(tmp_path: Path) -> None:
    nothing = store_of(tmp_path / "hub", tmp_path / "machine")
    assert nothing.find("x") is None
    assert not (tmp_path / "machine").exists()
    nothing.push("x", about("first"), FILES)
    assert nothing.find("y:3") is None
    assert str(nothing.find("x")) == "x:1"
    assert "there are versions 1" in str(refused(lambda: nothing.find("x:2")))
