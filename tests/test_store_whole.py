"""A ledger that has lost an event, and places where no store is, or only what is left of one: never passed over."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from refusals import refused
from stores import FILES, about, content_of, pulled, store_of

from graftax.store.query import Query
from graftax.store.store import Store

VERBS: dict[str, Callable[[Store], Any]] = {
    "index": lambda store: store.index(),
    "search": lambda store: store.search(Query()),
    "resolve": lambda store: store.resolve("x"),
    "digest": lambda store: store.resolve("sha256:" + "0" * 64),
    "verify": lambda store: store.verify(),
    "collect": lambda store: store.collect(),
    "scores": lambda store: store.scores("classify"),
    "point": lambda store: store.point("x", "prod", {1: 1.0}),
    "yank": lambda store: store.yank("x", 1, "why"),
    "remove": lambda store: store.remove("x", 1),
}


def event_file(hub: Path, number: int) -> Path:
    return hub / "ledger" / "000000" / f"{number:09}.json"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A store with six versions, of whose seven events one machine has seen two, and another all."""
    folder = tmp_path / "hub"
    knows_all = store_of(folder, tmp_path / "knows all")
    knows_all.push("x", about("0"), FILES)
    store_of(folder, tmp_path / "knows two").index()
    for i in range(1, 6):
        knows_all.push("x", about(str(i)), {"a": b"%d" % i})
    return folder


def push_another(store: Store) -> None:
    store.push("x", about("new"), {"new": b"new"})


@pytest.mark.parametrize("lost", [[3], [3, 4, 5], [6], [2]])
def test_a_lost_event(hub: Path, tmp_path: Path, lost: list[int]) -> None:
    """Named to whoever would read past it; nobody's event takes its place, and with it back everything is."""
    (tmp_path / "aside").mkdir()
    for number in lost:
        event_file(hub, number).rename(tmp_path / "aside" / f"{number}")
    left = pulled(hub)
    for machine in ("knows two", "new"):
        for verb in (VERBS["resolve"], VERBS["verify"], VERBS["collect"], push_another):
            line = str(refused(partial(verb, store_of(hub, tmp_path / machine))))
            assert f"{lost[0]:09}.json: the ledger has lost this event" in line
    assert f"{lost[0]:09}.json: the ledger has lost this event" in str(refused(store_of(hub, tmp_path / "knows all").verify))
    assert pulled(hub) == left
    for number in lost:
        (tmp_path / "aside" / f"{number}").rename(event_file(hub, number))
    assert store_of(hub, tmp_path / "knows two").verify() == []


def test_a_lost_beginning(hub: Path, tmp_path: Path) -> None:
    event_file(hub, 1).unlink()
    for verb in [*VERBS.values(), push_another, Store.exists, Store.count]:
        line = str(refused(partial(verb, store_of(hub, tmp_path / "new"))))
        assert "000000001.json: the ledger has lost this event" in line


def test_an_altered_event_that_an_index_has_read(hub: Path, tmp_path: Path) -> None:
    """Who has read it before does not ask again, but `verify` reads everything."""
    store = store_of(hub, tmp_path / "knows all")
    event_file(hub, 4).write_bytes(event_file(hub, 4).read_bytes().replace(b'"x"', b'"y"'))
    assert "000000005.json: does not follow the event before it" in str(refused(store.verify))


def test_events_that_are_added_while_it_is_listed(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing that saw the later of two new events and not the earlier is no hole."""
    store = store_of(hub, tmp_path / "knows two")
    listed = store.objects.after
    missed = event_file(hub, 3).relative_to(hub).as_posix()
    monkeypatch.setattr(store.objects, "after", lambda *where: (one for one in listed(*where) if one[0] != missed))
    assert content_of(store.index()) == content_of(store_of(hub, tmp_path / "knows all").index())


def test_keys_in_their_order_over_folders(tmp_path: Path) -> None:
    objects = store_of(tmp_path / "hub", tmp_path).objects
    objects.begin()
    keys = [f"ledger/{number // 1000:06}/{number:09}.json" for number in (1, 998, 999, 1000, 1001, 2000)]
    for key in reversed(keys):
        objects.create(key, b"")
    for i, key in enumerate(keys):
        assert [there for there, _ in objects.after("ledger", key)] == keys[i + 1 :]
    assert [there for there, _ in objects.after("ledger", "")] == keys
    assert list(objects.after("nothing", "")) == []


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("place", ["nothing", "an empty folder", "a file", "other things", "a hub without its ledger"])
def test_no_hub(hub: Path, tmp_path: Path, verb: str, place: str) -> None:
    """Everything but a push says so, and changes nothing; a machine that knew a hub there too."""
    if place == "a hub without its ledger":
        shutil.rmtree(hub / "ledger")
    else:
        shutil.rmtree(hub)
    if place == "a file":
        hub.write_bytes(b"text")
    if place in ("an empty folder", "other things"):
        hub.mkdir()
    if place == "other things":
        (hub / "photo.png").write_bytes(b"cat")
    left = pulled(hub)
    for machine in ("new", "knows all"):
        store = store_of(hub, tmp_path / machine)
        assert str(refused(partial(VERBS[verb], store))).startswith(f"there is no hub at {hub}")
        assert not store.has("x")
        assert store.count() == (0, 0)
    assert pulled(hub) == left


def test_kept_for_a_while_and_then_for_good(tmp_path: Path) -> None:
    """In whichever order: a version with an end and one without are two."""
    store = store_of(tmp_path / "hub", tmp_path / "machine")
    assert store.push("x", about("a"), FILES, expires="2999-01-01T00:00:00Z")[0].version == 1
    assert store.push("x", about("a"), FILES, expires="2999-01-01T00:00:00Z")[1] is False
    found, added = store.push("x", about("a"), FILES)
    assert (found.version, found.expires, added) == (2, None, True)
    assert store.push("x", about("a"), FILES, expires="2999-01-01T00:00:00Z")[0].version == 3


def test_a_folder_is_listed_again_where_it_may_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its time: what has not changed for a while is known, and whatever is added, taken away or put there is seen."""
    objects, folder, listed = store_of(tmp_path / "hub", tmp_path).objects, tmp_path / "hub" / "ledger", os.listdir
    objects.begin()
    counted: list[str] = []
    monkeypatch.setattr(os, "listdir", lambda path: (counted.append(path), listed(path))[1])

    def keys(ago: float) -> list[str]:
        """What is found, twice, as if the last change was so many seconds ago; `counted` are the listings."""
        os.utime(folder, (time.time() - ago,) * 2)
        counted.clear()
        found = [[key for key, _ in objects.after("ledger", "")] for _ in range(2)]
        assert found[0] == found[1]
        return found[0]

    objects.create("ledger/1", b"")
    assert (keys(60), len(counted)) == (["ledger/1"], 1)
    assert (keys(1), len(counted)) == (["ledger/1"], 2)  # another change may have the same time
    assert (keys(50), len(counted)) == (["ledger/1"], 1)
    objects.create("ledger/2", b"")
    assert [key for key, _ in objects.after("ledger", "")] == ["ledger/1", "ledger/2"]
    assert keys(40) == ["ledger/1", "ledger/2"]
    (folder / "1").unlink()
    assert [key for key, _ in objects.after("ledger", "")] == ["ledger/2"]
    assert keys(30) == ["ledger/2"]
    folder.rename(tmp_path / "aside")
    assert list(objects.after("ledger", "")) == []
    shutil.copytree(tmp_path / "aside", folder)
    (folder / "3").touch()
    assert keys(30) == ["ledger/2", "ledger/3"]  # of the same time, and another folder


def test_a_listing_that_missed_something_is_no_trap(tmp_path: Path) -> None:
    """On a disk whose folders' times stand still a writer that finds the next number taken lists again."""
    one, other = (store_of(tmp_path / "hub", tmp_path / name) for name in ("one", "other"))
    one.push("x", about("0"), FILES)
    folder = tmp_path / "hub" / "ledger" / "000000"
    os.utime(folder, (1, 1))
    assert one.resolve("x").version == 1
    other.push("x", about("1"), FILES)
    os.utime(folder, (1, 1))
    assert one.push("x", about("2"), FILES)[0].version == 3
