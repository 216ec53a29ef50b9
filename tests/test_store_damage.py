"""What may be wrong with a store or with what is said to it: each is one line, and nothing is lost by it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noted import noted
from refusals import refused
from stores import FILES, NOTHING, about, clock, content_of, digest, pulled, store_of

from graftax.errors import GraftaxError
from graftax.store import blobs, snapshots
from graftax.store.events import Begun, Pushed, event_text, parse_event
from graftax.store.manifest import File, Manifest
from graftax.store.names import parse_reference
from graftax.store.objects import LocalObjects
from graftax.store.store import Store


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """Where a store lies."""
    return tmp_path / "hub"


@pytest.fixture
def store(hub: Path, tmp_path: Path) -> Store:
    """With two versions of one name."""
    one = store_of(hub, tmp_path / "machine")
    one.push("bank/intent", about("first"), FILES, tags=["prod"])
    one.push("bank/intent", about("second"), {**FILES, "weights.bin": b"others"})
    return one


def event_file(hub: Path, number: int) -> Path:
    return hub / "ledger" / "000000" / f"{number:09}.json"


# -- what is said to it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../x",
        "a/../b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a.",
        "-a",
        "a b",
        "ä",
        "a\n",
        "a:b",
        "a@b",
        "x" * 129,
        "sha256",
        "\ud800",
    ],
)
def test_no_name(store: Store, name: str) -> None:
    assert "is no name for a hub" in str(refused(lambda: store.push(name, NOTHING, FILES)))


@pytest.mark.parametrize("tag", ["", "latest", "3", "a/b", "-a", "a b", "../x", "x" * 129])
def test_no_tag(store: Store, tag: str) -> None:
    assert "is no tag" in str(refused(lambda: store.push("bank/intent", about("third"), FILES, tags=[tag])))
    assert "is no tag" in str(refused(lambda: store.point("bank/intent", tag, {1: 1.0})))
    assert store.resolve("bank/intent").version == 2


@given(text=st.text(max_size=20) | st.from_regex(r"[a-z0-9/:@._-]{0,12}(sha256:)?[0-9a-f]{0,9}", fullmatch=True))
@settings(derandomize=True, deadline=None, max_examples=300)
def test_any_text_is_a_reference_or_a_line(text: str) -> None:
    """And a reference says itself in the form that is read as the same one."""
    found: list[Any] = []
    if refused(lambda: found.append(parse_reference(text))) is None:
        assert parse_reference(str(found[0])) == found[0]


def test_a_number_given_to_another(store: Store) -> None:
    assert store.push("bank/intent", about("first"), FILES, version=1)[1] is False
    assert refused(lambda: store.push("bank/intent", about("other"), FILES, version=1)) == (
        "bank/intent:1 is there already, or was; the next is bank/intent:3."
    )
    assert "at most 999,999,999" in str(refused(lambda: store.push("bank/intent", about("other"), FILES, version=10**9)))


def test_two_pushes_of_one_version_at_once(hub: Path, tmp_path: Path) -> None:
    """Exactly one of eight has the number; the others are told so."""
    stores = [store_of(hub, tmp_path / str(i)) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        pushes = [(one, about(str(i)), {"a": b"%d" % i}) for i, one in enumerate(stores)]
        lines = list(pool.map(lambda push: refused(lambda: push[0].push("x", *push[1:], version=1)), pushes))
    assert lines.count(None) == 1
    assert set(lines) - {None} == {"x:1 is there already, or was; the next is x:2."}
    assert stores[0].files(stores[0].resolve("x:1")) == {"a": b"%d" % lines.index(None)}


def test_removal_of_what_others_refer_to(store: Store) -> None:
    store.push("bank/child", about("third", parents=(digest(FILES["weights.bin"]),)), {"x": b"child"})
    assert refused(lambda: store.remove("bank/intent", 1)) == (
        "bank/intent:1: tag prod, bank/child:1 refers to it; --force removes it all the same."
    )
    store.remove("bank/intent", 1, force=True)
    assert "has no tag prod" in str(refused(lambda: store.resolve("bank/intent:prod")))


RECIPES = [{"rate": float("nan")}, {"path": Path()}, {"text": "\ud800"}, {1: 1, "1": 2}, {"big": 10**5000}]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_that_cannot_be_written_or_read_again(store: Store, hub: Path, recipe: dict[Any, Any]) -> None:
    """It does not get into the ledger, where nobody could read on behind it."""
    assert refused(lambda: store.push("bank/intent", about("third", recipe=recipe), FILES)) is not None
    assert not event_file(hub, 4).exists()


def test_a_recipe_nested_without_end(store: Store, hub: Path) -> None:
    recipe: dict[str, Any] = {}
    for _ in range(3000):
        recipe = {"in": recipe}
    assert refused(lambda: store.push("bank/intent", about("third", recipe=recipe), FILES)) is not None
    assert not event_file(hub, 4).exists()


@pytest.mark.parametrize("expires", ["2020-01-01T00:00:00Z", "2999-01-01", "tomorrow", "2999-01-01T00:00:00+02:00"])
def test_no_moment_to_come(store: Store, expires: str) -> None:
    assert refused(lambda: store.push("bank/intent", about("third"), FILES, expires=expires)) is not None
    assert store.resolve("bank/intent").version == 2


# -- what lies in it ---------------------------------------------------------------------------------------------------


def test_a_damaged_blob(store: Store, hub: Path) -> None:
    """Nothing of it is given out, and the version is named; whoever pushes the content again mends it."""
    (blob,) = hub.glob(f"blobs/*/{digest(b'others')}")
    blob.write_bytes(b"OTHERS")
    assert "is damaged: its content has another digest" in str(refused(lambda: store.pull(store.resolve("bank/intent"))))
    assert [str(one.version) for one in store.verify()] == ["bank/intent:2"]
    assert pulled(store.pull(store.resolve("bank/intent:1"))) == FILES
    store.push("bank/other", about("again"), {"weights.bin": b"others"})
    assert store.verify() == []


def test_a_missing_blob(store: Store, hub: Path) -> None:
    (blob,) = hub.glob(f"blobs/*/{digest(b'others')}")
    blob.unlink()
    assert f"the blob sha256:{digest(b'others')} is missing" in str(refused(lambda: store.pull(store.resolve("bank/intent"))))


NO_EVENTS = [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"what": "begun"}', b'{"schema": 1, "what": "?"}', b"9" * 5000]


@pytest.mark.parametrize("content", NO_EVENTS)
def test_a_damaged_event(store: Store, hub: Path, tmp_path: Path, content: bytes) -> None:
    """A line that names it and says how to go on; with the event back nothing is lost."""
    kept = event_file(hub, 3).read_bytes()
    event_file(hub, 3).write_bytes(content)
    new = store_of(hub, tmp_path / "new")
    line = str(refused(lambda: new.resolve("bank/intent")))
    assert "000000003.json" in line
    assert "put this one object back from a copy of the hub" in line
    assert refused(lambda: new.push("bank/intent", about("third"), FILES)) is not None
    event_file(hub, 3).write_bytes(kept)
    assert [one.resolve("bank/intent").version for one in (new, store)] == [2, 2]
    assert new.verify() == []


def test_an_event_that_follows_another(store: Store, hub: Path, tmp_path: Path) -> None:
    event, _ = parse_event(event_file(hub, 3).read_text(), "")
    event_file(hub, 3).write_text(event_text(event, "0" * 64))
    assert "does not follow the event before it" in str(refused(lambda: store_of(hub, tmp_path / "new").index()))


def test_a_newer_event_and_a_newer_manifest(store: Store, hub: Path, tmp_path: Path) -> None:
    """Nothing is done by who cannot know what it says: garbage would be collected wrongly, say."""
    whole = json.loads(event_file(hub, 3).read_text())
    newer_manifest = whole["manifest"].replace('"schema":1', '"schema":3')
    for newer in (whole | {"schema": 2, "more": 1}, whole | {"manifest": newer_manifest}):
        event_file(hub, 3).write_text(json.dumps(newer))
        line = str(refused(lambda: store_of(hub, tmp_path / "new").collect()))
        assert re.search("schema (2 is newer than this graftax, which knows 1|3 is .* knows 2); update graftax.", line)


@pytest.mark.parametrize(
    "path", ["../evil", "/etc/evil", "a/../../evil", "a\\evil", "C:evil", ".", "a/./b", "a//b", "x" * 201, "a\nb", "evil."]
)
def test_a_hostile_path(hub: Path, tmp_path: Path, path: str) -> None:
    """Neither pushed nor, from a hub whose keeper is a stranger, pulled."""
    assert refused(lambda: store_of(hub, tmp_path / "machine").push("x", NOTHING, {path: b"evil"})) is not None
    text = Manifest(files={"good": File(digest(b"evil"), 4)}).text().replace('"good"', json.dumps(path))
    begun = event_text(Begun(), "")
    hostile = event_text(Pushed("x", 1, digest(text.encode()), text), digest(begun.encode()))
    objects = LocalObjects(hub)
    objects.begin()
    objects.create("ledger/000000/000000001.json", begun.encode())
    objects.create("ledger/000000/000000002.json", hostile.encode())
    blobs.put_blob(objects, digest(b"evil"), 0, b"evil")
    line = str(refused(lambda: store_of(hub, tmp_path / "machine").pull(store_of(hub, tmp_path / "m").resolve("x"))))
    assert "a path within the directory that every machine can have" in line
    assert not list(tmp_path.rglob("evil*"))


def test_two_paths_that_are_one_file_elsewhere(store: Store) -> None:
    line = str(refused(lambda: store.push("x", NOTHING, {"README.md": b"a", "readme.md": b"b"})))
    assert "two of these are one file on some machines" in line


def test_a_push_that_ended_half_way(store: Store, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs without an event: nothing can be seen of them, and the next collection deletes them."""
    with monkeypatch.context() as patch:
        patch.setattr(store._ledger, "append", lambda *event: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.push("bank/intent", about("third"), {"weights.bin": b"half written"})
    assert store.resolve("bank/intent").version == 2
    drafts = [hub / folder / ".graftax-draft-killed" for folder in ("blobs/00", "ledger/000000", "snapshots", ".")]
    for draft in drafts:
        draft.mkdir(parents=True)
        (draft / "new").write_bytes(b"half")
    assert store.collect().blobs == 1
    assert not any(draft.exists() for draft in drafts)
    assert store.verify() == []


def test_collected_while_it_is_pushed_again(store: Store, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine gives up a blob between the look whether it is there and the event that refers to it, and is slow to
    delete it: the blob is put once more, under a name that this deletion does not touch."""
    other = store_of(hub, tmp_path / "other")
    store.remove("bank/intent", 2)
    late: list[str] = []
    monkeypatch.setattr(other.objects, "delete", late.extend)
    append = store._ledger.append

    def append_too_late(*event: Any) -> bool:
        monkeypatch.setattr(store._ledger, "append", append)
        assert other.collect().blobs == 1
        return append(*event)

    monkeypatch.setattr(store._ledger, "append", append_too_late)
    version, _ = store.push("bank/intent", about("third"), {"weights.bin": b"others"})
    assert len(list(hub.glob(f"blobs/*/{digest(b'others')}*"))) == 2
    store.objects.delete(late)
    assert store.files(version) == {"weights.bin": b"others"}
    assert store.collect().blobs == 0
    assert store.verify() == []


def test_begun_and_killed_at_once(hub: Path, tmp_path: Path) -> None:
    """A draft of the very first event is nothing that stands in the way."""
    (hub / "ledger" / "000000" / ".graftax-draft-killed").mkdir(parents=True)
    (hub / "ledger" / "000000" / ".graftax-draft-killed" / "new").write_bytes(b"half")
    assert store_of(hub, tmp_path / "machine").push("x", NOTHING, FILES)[1]


def test_a_place_where_other_things_are(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
    line = str(refused(lambda: store_of(tmp_path / "photos", tmp_path / "machine").push("x", NOTHING, FILES)))
    assert "there is no hub here, and other things are; a hub begins in an empty place." in line
    assert pulled(tmp_path / "photos") == {"cat.png": b"cat"}


def test_a_hub_put_back_to_an_older_state(store: Store, hub: Path, tmp_path: Path) -> None:
    """What was pushed since is not there; numbers go on from what is; machines that had seen more begin anew."""
    shutil.copytree(hub, tmp_path / "copy")
    store.push("bank/intent", about("third"), FILES)
    store.push("bank/intent", about("fourth"), FILES)
    shutil.rmtree(hub)
    (tmp_path / "copy").rename(hub)
    assert store.resolve("bank/intent").version == 2
    assert store.push("bank/intent", about("another third"), FILES)[0].version == 3
    assert content_of(store_of(hub, tmp_path / "new").index()) == content_of(store.index())


def test_put_back_with_a_snapshot_of_what_is_no_more(store: Store, hub: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A snapshot that is ahead of the ledger is passed over."""
    monkeypatch.setattr("graftax.store.store.EVERY", 5)
    ledger = hub / "ledger"
    shutil.copytree(ledger, tmp_path / "ledger")
    store.push("bank/intent", about("third"), FILES)
    store.push("bank/intent", about("fourth"), FILES)
    assert len(list((hub / "snapshots").rglob("*.sqlite"))) == 1
    shutil.rmtree(ledger)
    (tmp_path / "ledger").rename(ledger)
    assert store_of(hub, tmp_path / "new").resolve("bank/intent").version == 2


def test_two_hubs_in_turn_at_one_url(store: Store, hub: Path, tmp_path: Path) -> None:
    other = store_of(tmp_path / "other", tmp_path / "machine")
    for i in range(5):
        other.push("bank/intent", about(f"other {i}"), FILES)
    for expected in (5, 2, 5):
        (tmp_path / "other").rename(tmp_path / "aside")
        hub.rename(tmp_path / "other")
        (tmp_path / "aside").rename(hub)
        assert store.resolve("bank/intent").version == expected


def test_a_damaged_snapshot(store: Store, hub: Path, tmp_path: Path) -> None:
    """It is passed over, whatever is wrong with it, and so is one that holds other tables than it should."""
    index = content_of(store.index())
    snapshots.write_snapshot(store.index(), store.objects)
    (file,) = (hub / "snapshots").rglob("*.sqlite")
    for content in (b"", file.read_bytes()[:5000], b"SQLite format 3\0" + b"\xff" * 5000):
        file.write_bytes(content)
        named = file.with_name(f"000000003-{digest(content)}.sqlite")  # its digest is right, and it is none
        named.write_bytes(content)
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        assert content_of(store_of(hub, tmp_path / "new").index()) == index
        named.unlink()


# -- this machine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["deleted", "empty", "truncated", "garbage", "zeroed", "another layout"])
@pytest.mark.parametrize("opened", [True, False])
def test_a_damaged_index(store: Store, hub: Path, tmp_path: Path, damage: str, opened: bool) -> None:
    """It is only a copy, and made anew."""
    whole, file = content_of(store.index()), store._index.file
    one = store if opened else store_of(hub, tmp_path / "machine")
    if damage == "deleted":
        file.unlink()
    elif damage == "another layout":
        store.index()._tables.execute("DROP TABLE tags")
    else:
        content = file.read_bytes()
        others = {"empty": b"", "truncated": content[:9000], "garbage": os.urandom(len(content)), "zeroed": bytes(len(content))}
        file.write_bytes(others[damage])
    assert one.resolve("bank/intent:prod").version == 1
    assert content_of(one.index()) == whole


def test_a_kept_directory_that_somebody_changed(store: Store) -> None:
    """What is given out is what was pushed."""
    kept = store.pull(store.resolve("bank/intent"))
    (kept / "weights.bin").write_bytes(b"changed")
    (kept / "config.json").unlink()
    assert pulled(store.pull(store.resolve("bank/intent"))) == {**FILES, "weights.bin": b"others"}


def test_a_pull_into_a_directory_that_holds_other_things(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "photo").write_bytes(b"cat")
    assert "exists already" in str(refused(lambda: store.pull(store.resolve("bank/intent"), target)))
    assert "holds other things" in str(refused(lambda: store.pull(store.resolve("bank/intent"), target, overwrite=True)))
    assert pulled(target) == {"photo": b"cat"}


def test_no_room_in_the_hub(store: Store, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever write it is that finds none: a line, and the store is as it was."""
    whole = content_of(store.index())
    fsync, left = os.fsync, [0]

    def until_full(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    for writes in range(5):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", until_full)
            left[0] = writes
            line = str(refused(lambda n=writes: store.push("bank/intent", about("third"), {"a": b"%d" % n, "b": b"b%d" % n})))
            assert "no space left on the disk; nothing was changed there" in line
        assert content_of(store.index()) == whole
    assert store.push("bank/intent", about("third"), FILES)[0].version == 3


def test_no_room_for_a_snapshot(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The push is done all the same, and says so."""
    monkeypatch.setattr("graftax.store.store.EVERY", 4)
    monkeypatch.setattr(store.objects, "upload", lambda *what: (_ for _ in ()).throw(GraftaxError("full")))
    notes = noted(lambda: store.push("bank/intent", about("third"), FILES))
    assert notes == ["no snapshot of the index could be left in the hub, and others will read longer: full"]
    assert store.resolve("bank/intent").version == 3


AS_NOBODY = """
import os, sys
import filelock, platformdirs
from graftax.errors import GraftaxError
from graftax.store.manifest import Manifest
from graftax.store.store import Store
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
os.environ["XDG_CACHE_HOME"] = sys.argv[2]
try:
    store = Store(sys.argv[1])
    print(store.resolve("bank/intent"), sorted(store.files(store.resolve("bank/intent"))))
    store.push("bank/intent", Manifest({}, description="third"), {"a": b"a"})
except GraftaxError as error:
    print(error)
"""


def as_nobody(hub: Path, cache: Path) -> list[str]:
    """The lines that a user gets who may read and write what all may."""
    run = subprocess.run([sys.executable, "-c", AS_NOBODY, str(hub), str(cache)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@pytest.fixture
def of_all(store: Store, hub: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder that all may look into, with a hub and a cache in it."""
    for path in (tmp_path, *tmp_path.parents):
        if not path.stat().st_mode & 0o001:  # pytest's own folders, of which there is one more with several workers
            path.chmod(0o755)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    yield tmp_path
    for path in (hub, tmp_path / "cache"):
        path.chmod(0o755)


def test_a_hub_that_may_only_be_read(of_all: Path, hub: Path) -> None:
    """It is read, and a push is one line."""
    for path in (hub, *hub.rglob("*")):
        path.chmod(0o555)
    there, line = as_nobody(hub, of_all / "cache")
    for path in (hub, *hub.rglob("*")):
        path.chmod(0o755)
    assert there == "bank/intent:2 ['config.json', 'weights.bin']"
    assert line.startswith(f"{hub}")
    assert "Permission denied" in line


def test_a_hub_that_may_not_be_read(of_all: Path, hub: Path) -> None:
    hub.chmod(0o000)
    (line,) = as_nobody(hub, of_all / "cache")
    assert line.startswith(f"{hub}")
    assert "Permission denied" in line


def test_no_place_for_an_index(of_all: Path, hub: Path) -> None:
    (of_all / "cache").chmod(0o555)
    (line,) = as_nobody(hub, of_all / "cache")
    assert line.startswith(f"{of_all / 'cache'}")
    assert "no directory can be made there (Permission denied)" in line
    assert line.endswith("This is this machine's copy of what the hub says, which XDG_CACHE_HOME moves to another place.")


def test_a_clock_that_is_wrong(hub: Path, tmp_path: Path) -> None:
    """A machine whose clock is ahead collects what is over for it alone: then it is so for all, and nobody sees half of it."""
    one, other = store_of(hub, tmp_path / "one"), store_of(hub, tmp_path / "other")
    with clock() as time_now:
        one.push("x", about("for a while"), {"a": b"a"}, expires=time_now.at(60))
        one.push("x", about("for good"), {"b": b"b"})
        right = time_now.time
        time_now.time = right.replace(year=2036)
        assert [version.version for version in one.index().versions("x")] == [2]
        time_now.time = right
        assert [version.version for version in one.index().versions("x")] == [1, 2]
        time_now.time = right.replace(year=2036)
        assert one.collect().blobs == 1
        time_now.time = right
        for each in (one, other, store_of(hub, tmp_path / "new")):
            assert [version.version for version in each.index().versions("x")] == [2]
            assert each.verify() == []


def test_eight_threads_on_one_store(hub: Path, tmp_path: Path) -> None:
    """Each pushes, points, searches, reads and collects; all that they pushed is there."""
    store = store_of(hub, tmp_path / "machine")

    def work(thread: int) -> None:
        for i in range(4):
            version, _ = store.push(f"of/{thread}", about(f"{i}"), {"a": b"%d %d" % (thread, i), "b": b"shared"})
            store.point(f"of/{thread}", "last", {version.version: 1.0})
            assert store.files(store.resolve(f"of/{thread}:last"))["a"] == b"%d %d" % (thread, i)
            store.collect()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    assert [len(store.index().versions(f"of/{thread}")) for thread in range(8)] == [4] * 8
    assert store.verify() == []
