"""A hub of 100,000 adapters: opened, searched and pushed to; and pulls beside what the disk and the S3 server do by themselves.

    python benchmarks/speed/store_speed.py [--adapters N] [--pulls N] [--no-s3]

The hub is made up: names, labels and descriptions of made-up words, 200 backbones of which few have most adapters. It ends one
event before a snapshot is due: who opens it cold reads the last snapshot and 1,023 events. Each measurement is taken in a
process that imports the store alone. A search is what a user waits for, with the look into the ledger whether anything is new.

Pulls are of one file of 300 KB each, by `name:version`, one after another: each asks whether there is anything new. From a
folder they go into new directories that are on the disk when the call returns; beside them plain copies of the same files, each
with `fsync`. From S3 (moto's server, on this machine, which answers one request at a time) they go into memory, and with
`pull_all` many at once into this machine's copies; beside both plain gets by obstore, one after another. A row has the limit
in the place of a peer where there is none.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import ROOT, Work, Worker, report, row, summary

sys.path.insert(0, str(ROOT / "tests"))  # for its S3 server

EVERY = 1024  # events between two snapshots, of store/snapshots.py
FILE = 300_000  # bytes of a pulled adapter
TASKS = ("classification", "multilabel", "regression", "tagging", "pairs", "causal", "seq2seq", "preference")
METHODS = ("lora", "dora", "adalora", "vera", "ia3", "oft", "prefix", "bottleneck")


# -- a hub that is made up ------------------------------------------------------------------------------------------------


def made_up_words(count: int, draw: random.Random) -> list[str]:
    syllables = [a + b for a in "bcdfgklmnprstvw" for b in "aeiou"]
    return sorted({"".join(draw.choices(syllables, k=draw.randint(2, 4))) for _ in range(count)})


def adapters(count: int) -> Iterator[tuple[str, int, Any]]:
    """Names, versions and manifests; every fifth is the second version of a name."""
    from graftax.store.manifest import DataFacts, File, Manifest

    draw = random.Random(16)
    words = made_up_words(6000, draw)
    backbones = [(f"{draw.choice(words)}-{draw.choice(words)}-{i}", draw.randbytes(32).hex()) for i in range(200)]
    for i in range(count):
        name, fingerprint = backbones[min(int(draw.expovariate(0.05)), 199)]
        second = i % 5 == 4
        who = i - 1 if second else i
        manifest = Manifest(
            files={
                "adapter.safetensors": File(draw.randbytes(32).hex(), FILE),
                "graftax.json": File(draw.randbytes(32).hex(), 900),
            },
            backbone=name,
            model_type="bert",
            fingerprint=fingerprint,
            methods=(draw.choice(METHODS), "linear_head"),
            task=draw.choice(TASKS),
            labels=tuple(f"{draw.choice(words)} {draw.choice(words)}" for _ in range(draw.randint(2, 16))),
            parameters=draw.randrange(10**6),
            recipe={"epochs": 5, "learning_rate": 1e-3, "seed": i},
            data=DataFacts(draw.randbytes(32).hex(), 1000, draw.choice(words)),
            metrics={"accuracy": draw.random(), "f1": draw.random(), "loss": draw.random() * 3},
            description=" ".join(draw.choices(words, k=12)),
        )
        yield f"team{who % 50}/{words[who % len(words)]}-{who}", 2 if second else 1, manifest


def make(folder: str, count: int) -> Work:
    """Write the hub: its ledger, and the snapshot that whoever pushed would have left last."""
    from graftax.store import snapshots
    from graftax.store.events import Begun, Pushed, event_text
    from graftax.store.index import Index
    from graftax.store.objects import LocalObjects

    hub, previous, applied = Path(folder, "hub"), "", []
    index = Index(Path(folder, "all.sqlite"))
    events = [Begun(), *(Pushed(name, version, m.digest, m.text()) for name, version, m in adapters(count))]
    for number, event in enumerate(events, 1):
        file = hub / f"ledger/{number // 1000:06}/{number:09}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        text = event_text(event, previous)
        file.write_text(text, "utf-8")
        previous = hashlib.sha256(text.encode()).hexdigest()
        applied.append((number, previous, event))
        if number % EVERY == 0:
            with index.writing():
                index.apply(applied)
            applied.clear()
    snapshots.write_snapshot(index, LocalObjects(hub))
    yield {"snapshot_mb": next(hub.glob("snapshots/*/*")).stat().st_size / 1e6}


# -- opened and searched --------------------------------------------------------------------------------------------------


def opening(folder: str, cache: str) -> Work:
    """The first yield is when the store is imported, the second the opening."""
    os.environ["XDG_CACHE_HOME"] = cache
    from graftax.store.store import Store

    yield {}
    began = time.perf_counter()
    Store(f"{folder}/hub").index()
    yield {"seconds": time.perf_counter() - began, "own_mb": largest_mb()}


def copying_a_snapshot(folder: str, to: str) -> Work:
    """What an opening needs at least: the file that it begins from, brought to this machine's disk."""
    yield {}
    began = time.perf_counter()
    with open(shutil.copyfile(next(Path(folder, "hub").glob("snapshots/*/*")), to), "rb") as file:
        os.fsync(file.fileno())
    yield {"seconds": time.perf_counter() - began}


def queries(folder: str) -> dict[str, dict[str, Any]]:
    """What is searched for, of each kind the worst and the usual."""
    _, _, one = next(adapters(1))
    word, label = one.description.split()[0], one.labels[0]
    return {
        "everything": {},
        "one word": {"text": word},
        "two words": {"text": " ".join(one.description.split()[:2])},
        "two letters that many words begin with": {"text": "ba"},
        "a word of every name": {"text": "team"},
        "nothing": {"text": "nothingatall"},
        "words that are never together": {"text": "team ba nothingatall"},
        "what fits": {"fingerprint": one.fingerprint},
        "what fits and does a task": {"fingerprint": one.fingerprint, "task": one.task},
        "what fits, by a name": {"backbone": one.backbone},
        "a task": {"task": one.task},
        "no such task": {"task": "nothing"},
        "a task, a method": {"task": one.task, "method": "oft"},
        "no such method": {"method": "nothing"},
        "a label": {"label": label},
        "a label that is only half there": {"label": label.split()[0]},
        "no such label": {"label": "nothing at all"},
        "a metric that most have": {"metric": "accuracy>=0.1"},
        "a metric that few have": {"metric": "accuracy>=0.9999"},
        "a metric that none has": {"metric": "accuracy>=2"},
        "a metric that nobody measured": {"metric": "nothing>=0"},
        "all of it": {"text": "ba", "fingerprint": one.fingerprint, "task": one.task, "method": "oft", "metric": "f1>=0.5"},
        "a common word, and a metric that few have": {"text": "team", "metric": "accuracy>=0.9999"},
        "a common word, and a metric that none has": {"text": "team", "metric": "accuracy>=2"},
        "a common word, and no such method": {"text": "team", "method": "nothing"},
        "every version of it": {"text": "team", "task": one.task, "all_versions": True},
    }


def searching(folder: str, cache: str) -> Work:
    """A pass over all queries; each is timed."""
    os.environ["XDG_CACHE_HOME"] = cache
    from graftax.store.query import Query
    from graftax.store.store import Store

    store, asked = Store(f"{folder}/hub"), {what: Query(**query) for what, query in queries(folder).items()}
    store.index()
    yield {}
    while True:
        taken = {}
        for what, query in asked.items():
            began = time.perf_counter()
            found = store.search(query)
            taken[what] = time.perf_counter() - began
            taken[f"found: {what}"] = float(len(found))
        yield {**taken, "own_mb": largest_mb()}


def pushing(folder: str, cache: str) -> Work:
    os.environ["XDG_CACHE_HOME"] = cache
    from graftax.store.manifest import Manifest
    from graftax.store.store import Store

    store, draw = Store(f"{folder}/hub"), random.Random()
    store.index()
    yield {}
    while True:
        content = {"adapter.safetensors": draw.randbytes(FILE), "graftax.json": draw.randbytes(900)}
        began = time.perf_counter()
        store.push("bank/pushed", Manifest({}, description=str(draw.random())), content)
        yield {"seconds": time.perf_counter() - began, "own_mb": largest_mb()}


# -- pulled ---------------------------------------------------------------------------------------------------------------


def fill(url: str, cache: str, count: int) -> Work:
    """Push what will be pulled, and note where each blob is."""
    os.environ["XDG_CACHE_HOME"] = cache
    from graftax.store.manifest import Manifest
    from graftax.store.store import Store

    store, draw = Store(url), random.Random(1)
    for i in range(count):
        store.push(f"pulled/{i}", Manifest({}, description=str(i)), {"adapter.safetensors": draw.randbytes(FILE)})
    time.sleep(4.0)  # a folder that has just changed is listed each time, which a hub's rarely has
    yield {}


def pulling(url: str, cache: str, to: str | None, some: int, count: int) -> Work:
    """One step is some pulls, each of another adapter."""
    os.environ["XDG_CACHE_HOME"] = cache
    from graftax.store.store import Store

    store, target = Store(url), Path(to) if to else None
    store.index()
    yield {}
    done = 0
    while True:
        began = time.perf_counter()
        for i in range(done, done + some):
            version = store.resolve(f"pulled/{i % count}:1")
            if target is None:
                store.files(version)
            else:
                store.pull(version, target / str(i))
        done += some
        yield {"seconds": time.perf_counter() - began, "own_mb": largest_mb()}


def pulling_all(url: str, cache: str, some: int, count: int) -> Work:
    """One step is the same pulls by one call, none of which this machine has kept."""
    os.environ["XDG_CACHE_HOME"] = cache
    from graftax.store.store import Store

    store, done = Store(url), 0
    store.index()
    yield {}
    while True:
        shutil.rmtree(store.copies.folder, ignore_errors=True)
        began = time.perf_counter()
        store.pull_all([f"pulled/{i % count}:1" for i in range(done, done + some)])
        done += some
        yield {"seconds": time.perf_counter() - began, "own_mb": largest_mb()}


def copying(url: str, to: str, some: int) -> Work:
    """The same by hand: a directory, the file in it, and both brought to the disk."""
    files = [one for one in sorted(Path(url, "blobs").glob("*/*")) if one.stat().st_size == FILE]
    yield {}
    done = 0
    while True:
        began = time.perf_counter()
        for i in range(done, done + some):
            folder = Path(to, str(i))
            folder.mkdir()
            with (folder / "adapter.safetensors").open("wb") as file:
                file.write(files[i % len(files)].read_bytes())
                os.fsync(file.fileno())
            for directory in (folder, folder.parent):
                handle = os.open(directory, os.O_RDONLY)
                os.fsync(handle)
                os.close(handle)
        done += some
        yield {"seconds": time.perf_counter() - began, "own_mb": largest_mb()}


def getting(url: str, some: int) -> Work:
    import obstore
    from obstore.store import from_url

    place = from_url(url, client_options={"allow_http": True})
    keys = [one["path"] for page in obstore.list(place, "blobs") for one in page]
    yield {}
    done = 0
    while True:
        began = time.perf_counter()
        for i in range(done, done + some):
            bytes(obstore.get(place, keys[i % len(keys)]).bytes())
        done += some
        yield {"seconds": time.perf_counter() - began, "own_mb": largest_mb()}


# -- rows -----------------------------------------------------------------------------------------------------------------


def largest_mb() -> float:
    """The largest resident set of this program; `ru_maxrss` has that of the one it was started from as well."""
    return float(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1e3


def against(limit: float, seconds: list[float], peak_mb: float) -> dict[str, float]:
    """What `row` needs, with a limit on the other side."""
    return summary([({"seconds": one, "peak_mb": peak_mb}, {"seconds": limit, "peak_mb": 200.0}) for one in seconds])


def open_and_search(folder: str, count: int, repeats: int) -> None:
    made = Worker(make, folder=folder, count=count)
    made.close()
    note = f"{count:,} versions; the snapshot has {made.ready['snapshot_mb']:.0f} MB"
    copies = []
    for i in range(repeats):
        worker = Worker(copying_a_snapshot, folder=folder, to=f"{folder}/copy{i}")
        copies.append(worker.step()["seconds"])
        worker.close()
    note += f", a plain copy of which takes {min(copies):.2f} to {max(copies):.2f} s"
    for how, cache in (("cold: the last snapshot and 1,023 events", "cold{}"), ("warm", "cold0")):
        runs = []
        for i in range(repeats):
            worker = Worker(opening, folder=folder, cache=f"{folder}/{cache.format(i)}")
            runs.append(worker.step())
            worker.close()
        taken = against(1.0, [run["seconds"] for run in runs], max(run["own_mb"] for run in runs))
        report(row(f"hub of {count:,}: opened {how}, against the limit", taken, note))
    worker = Worker(searching, folder=folder, cache=f"{folder}/cold0")
    runs = [worker.step() for _ in range(repeats + 1)][1:]
    worker.close()
    for what in queries(folder):
        taken = against(0.05, [run[what] for run in runs], runs[-1]["own_mb"])
        report(row(f"hub of {count:,}: search for {what}", taken, f"{runs[-1][f'found: {what}']:.0f} found"))
    worker = Worker(pushing, folder=folder, cache=f"{folder}/cold0")
    runs = [worker.step() for _ in range(1 + 2 * repeats)]
    worker.close()
    leaves = against(0.2, [runs[0]["seconds"]], runs[0]["own_mb"])
    report(row(f"hub of {count:,}: the push of 300 KB that leaves a snapshot, one in 1,024", leaves, "one run"))
    pushes = against(0.2, [run["seconds"] for run in runs[1:]], runs[-1]["own_mb"])
    report(row(f"hub of {count:,}: push of 300 KB, against the limit", pushes))


def take_turns(what: str, ours: Worker, theirs: Worker, rounds: int, note: str) -> None:
    steps = [(ours.step(), theirs.step()) for _ in range(rounds)]
    pairs = [tuple({"seconds": one["seconds"], "peak_mb": one["own_mb"]} for one in pair) for pair in steps]
    report(row(what, summary(pairs), note))
    ours.close(), theirs.close()


def pull_from_disk(folder: str, pulls: int) -> None:
    url, cache, count, some = f"{folder}/pulled", f"{folder}/pulling", min(pulls, 200), pulls // 10
    Worker(fill, url=url, cache=cache, count=count).close()
    for to in ("ours", "theirs"):
        Path(folder, to).mkdir()
    ours = Worker(pulling, url=url, cache=cache, to=f"{folder}/ours", some=some, count=count)
    theirs = Worker(copying, url=url, to=f"{folder}/theirs", some=some)
    take_turns(f"{some} pulls of 300 KB from a folder, against plain copies with fsync", ours, theirs, 10, f"ten times {some}")


def pull_from_s3(folder: str, pulls: int) -> None:
    import s3_server

    with s3_server.running() as environment:
        os.environ |= environment
        url, cache, count, some = f"s3://{s3_server.BUCKET}/pulled", f"{folder}/s3", min(pulls, 200), pulls // 10
        Worker(fill, url=url, cache=cache, count=count).close()
        ours = Worker(pulling, url=url, cache=cache, to=None, some=some, count=count)
        theirs = Worker(getting, url=url, some=some)
        take_turns(f"{some} pulls of 300 KB from moto's S3, against plain gets", ours, theirs, 10, f"ten times {some}")
        ours, theirs = Worker(pulling_all, url=url, cache=cache, some=some, count=count), Worker(getting, url=url, some=some)
        take_turns(
            f"{some} pulls of 300 KB from moto's S3 by pull_all, against plain gets", ours, theirs, 10, f"ten times {some}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--adapters", type=int, default=98 * EVERY - 2, help="versions; with the first event one less than is due"
    )
    parser.add_argument("--pulls", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-s3", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        open_and_search(folder, args.adapters, args.repeats)
        pull_from_disk(folder, args.pulls)
        if not args.no_s3:
            pull_from_s3(folder, args.pulls)
