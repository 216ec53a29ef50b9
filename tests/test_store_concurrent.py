"""Eight writers on one store, each killed at a random moment and begun again, in a folder and behind S3's protocol.

Afterwards nothing is lost that a writer was told was done, numbers have no gaps, everything can be pulled with its very bytes,
and no more blobs are there than versions need.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import s3_server
from store_writer import contents
from stores import about, content_of, store_of

from graftax.store.blobs import all_blobs
from graftax.store.store import Store

WRITERS = 8
SCRIPT = Path(__file__).with_name("store_writer.py")
PUSHED = re.compile(r"pushed (\S+) (\d+) (\d+)")
TAGGED = re.compile(r"tagged (\S+) (\S+) (\d+)")
REMOVING = re.compile(r"removing (\S+) (\d+)")


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place for a store, in a folder or in a bucket."""
    if request.param == "folder":
        return str(tmp_path / "hub")
    for name, value in request.getfixturevalue("s3").items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.BUCKET}/{request.node.name}"


def write_and_die(url: str, machine: Path, writer: int, turns: int, seconds: float) -> list[str]:
    """The lines of one writer, which is killed after some seconds, and begun again on the same machine."""
    environment = os.environ | {"XDG_CACHE_HOME": str(machine / str(writer))}
    lines = []
    for turn in range(turns):
        command = [sys.executable, str(SCRIPT), url, str(writer), str(turn)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines.append(process.stdout.readline())  # it has begun: what comes before takes long on a machine with other work
        time.sleep(random.Random(f"{writer} {turn}").uniform(0.6, 1.4) * seconds)
        assert process.poll() is None, process.communicate()[1]
        process.kill()
        lines += process.communicate()[0].splitlines()
    return lines


def check(url: str, machine: Path, lines: list[str]) -> None:
    """That a store is what its writers were told."""
    pushed = {(name, int(version)): int(seed) for name, version, seed in PUSHED.findall("\n".join(lines))}
    removed = {(name, int(version)) for name, version in REMOVING.findall("\n".join(lines))}
    assert len(pushed) >= WRITERS, f"only {len(pushed)} were pushed, which shows nothing"
    new = store_of(url, machine / "new")
    new.collect()
    index = new.index()
    for (name, number), seed in pushed.items():
        if (name, number) not in removed:
            assert new.files(new.resolve(f"{name}:{number}")) == contents(seed), f"{name}:{number}"
    for name in {name for name, _ in pushed}:
        last = index.last_number(name)
        assert all(index.version(name, number, gone_too=True) for number in range(1, last + 1))
        assert last >= max(number for other, number in pushed if other == name)
    for name, tag, number in TAGGED.findall("\n".join(lines)):
        shares = index.tags(name).get(tag)  # perhaps moved once more, to a version of which nobody could be told any more
        assert shares is None or max(shares) >= int(number)
        assert shares is not None or (name, int(number)) in removed
    assert new.verify() == []
    live = index.live_blobs()
    assert sorted(blob.digest for blob in all_blobs(new.objects)) == sorted(live)
    for writer in range(WRITERS):
        assert content_of(store_of(url, machine / str(writer)).index()) == content_of(index)
    version, added = new.push("shared/one", about("afterwards"), {"a": b"b"})
    assert (version.version, added) == (index.last_number("shared/one"), True)


def kill_and_check(url: str, machine: Path, turns: int, seconds: float) -> None:
    Store(url)  # else the first to be killed may be waiting for obstore to be loaded
    with ThreadPoolExecutor(WRITERS) as pool:
        runs = [pool.submit(write_and_die, url, machine, writer, turns, seconds) for writer in range(WRITERS)]
    check(url, machine, [line for run in runs for line in run.result()])


@pytest.mark.parametrize("url", ["folder", "s3"], indirect=True)
def test_eight_writers_killed(url: str, tmp_path: Path) -> None:
    kill_and_check(url, tmp_path / "machines", 2, 3.0)


@pytest.mark.slow
@pytest.mark.parametrize("url", ["folder", "s3"], indirect=True)
def test_eight_writers_killed_for_minutes(url: str, tmp_path: Path) -> None:
    kill_and_check(url, tmp_path / "machines", 20, 5.0)


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_what_is_asked_of_a_place_is_so_behind_s3(url: str, tmp_path: Path) -> None:
    """Of eight that create one object exactly one succeeds, and it is his that is there; the rest of what a store needs."""
    objects = Store(url).objects
    assert objects.is_empty()
    for key in (f"ledger/{i}" for i in range(20)):
        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(lambda i, key=key: objects.create(key, b"%d" % i), range(8)))
        assert told.count(True) == 1
        assert objects.get(key) == b"%d" % told.index(True)
    objects.put("ledger/0", b"another")
    assert objects.get("ledger/0") == b"another"
    assert objects.size("ledger/0") == 7
    assert objects.size("nothing") is None
    assert objects.get("nothing") is None
    large = os.urandom((1 << 20) + 1)
    objects.put("large", large)
    assert objects.download("large", tmp_path / "large") == hashlib.sha256(large).hexdigest()
    assert (tmp_path / "large").read_bytes() == large
    objects.upload("large", Path(__file__))
    assert objects.get("large") == Path(__file__).read_bytes()
    assert objects.download("nothing", tmp_path / "nothing") is None
    assert list(objects.get_all(["ledger/0", "nothing"])) == [b"another", None]
    assert len(dict(objects.sizes("ledger"))) == 20
    assert dict(objects.sizes("ledger"))["ledger/0"] == 7
    assert list(objects.sizes("led")) == []
    stamps = dict(objects.after("ledger", "ledger/18"))
    assert sorted(stamps) == ["ledger/19", *(f"ledger/{i}" for i in range(2, 10))]
    assert all(stamp and objects.get_stamped(key) == (objects.get(key), stamp) for key, stamp in stamps.items())
    objects.put("ledger/9", b"another")
    assert objects.get_stamped("ledger/9")[1] not in (None, stamps["ledger/9"])
    assert objects.get_stamped("nothing") == (None, None)
    objects.delete([f"ledger/{i}" for i in range(1, 20)])
    objects.delete(["ledger/1", "ledger/2", "large"])
    assert dict(objects.sizes("ledger")) == {"ledger/0": 7}
    assert not objects.is_empty()
