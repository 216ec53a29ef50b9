"""A ledger that has lost an event, and places where no store is, or only what is left of one: never passed over."""

from __future__ import annotations

import shutil
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
    listed = store.objects.keys_after
    missed = event_file(hub, 3).relative_to(hub).as_posix()
    monkeypatch.setattr(store.objects, "keys_after", lambda *where: (key for key in listed(*where) if key != missed))
    assert content_of(store.index()) == content_of(store_of(hub, tmp_path / "knows all").index())


def test_nothing_new_costs_two_requests(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(hub, tmp_path / "knows all")
    store.index()
    asked: list[str] = []
    for request in ("get", "get_all", "size", "sizes", "keys_after", "is_empty"):
        real = getattr(store.objects, request)
        monkeypatch.setattr(store.objects, request, lambda *which, r=request, real=real: (asked.append(r), real(*which))[1])
    store.resolve("x")
    assert asked == ["get", "keys_after"]


def test_keys_in_their_order_over_folders(tmp_path: Path) -> None:
    objects = store_of(tmp_path / "hub", tmp_path).objects
    keys = [f"ledger/{number // 1000:06}/{number:09}.json" for number in (1, 998, 999, 1000, 1001, 2000)]
    for key in reversed(keys):
        objects.create(key, b"")
    for i, key in enumerate(keys):
        assert list(objects.keys_after("ledger", key)) == keys[i + 1 :]
    assert list(objects.keys_after("ledger", "")) == keys
    assert list(objects.keys_after("nothing", "")) == []


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
