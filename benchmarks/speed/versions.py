"""This checkout beside another commit of graftax, through calls that both have: nothing should have become slower.

    git worktree add --detach ../before COMMIT
    python benchmarks/speed/versions.py ../before [--repeats 15]

What is timed: a training step (a short run, its steps), twelve small tasks in one run, a mixed batch under twelve adapters, an
adapter from disk into a resident predictor, generation under four adapters, and a whole process to its first answer on the
command line. In a row's ratio above one this checkout is the faster.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import DATA, MINILM, ROOT, Work, Worker, clinc, duel, peak_mb, report, row, summary

STORIES = Path(MINILM).with_name("stories260K")
TASKS, LABELS = 12, 5  # small tasks, and labels of each
_TEXTS = 64  # of the mixed batch


def version_in(folder: str) -> Any:
    """The package of a checkout, with compiled programs kept where both versions find theirs."""
    sys.path.insert(0, folder)
    import jax

    jax.config.update("jax_compilation_cache_dir", os.path.join(tempfile.gettempdir(), "graftax-versions"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    import graftax

    assert Path(graftax.__file__).is_relative_to(folder), graftax.__file__
    return graftax


def _tasks(count: int) -> dict[str, list[dict[str, str]]]:
    """Rows of some intents each."""
    rows = sorted(clinc("train"), key=lambda one: hash_of(one["text"]))
    names = sorted({one["label"] for one in rows})
    each = [names[k * LABELS : (k + 1) * LABELS] for k in range(TASKS)]
    return {f"task{k}": [one for one in rows if one["label"] in own][:count] for k, own in enumerate(each)}


def hash_of(text: str) -> int:
    """The same in every process, as Python's own is not."""
    import zlib

    return zlib.crc32(text.encode())


def step(folder: str) -> Work:
    graftax = version_in(folder)
    backbone, (data, *_) = graftax.load_backbone(MINILM), _tasks(320).values()
    yield {}
    while True:
        with tempfile.TemporaryDirectory() as out:
            known = {"recipe": graftax.Recipe(epochs=1), "progress": False}
            yield {"seconds": graftax.train_many(backbone, {"a": data}, out, **known)["a"].step_seconds}


def many(folder: str) -> Work:
    graftax = version_in(folder)
    backbone, data = graftax.load_backbone(MINILM), _tasks(100)
    yield {}
    while True:
        with tempfile.TemporaryDirectory() as out:
            began = time.perf_counter()
            graftax.train_many(backbone, data, out, recipe=graftax.Recipe(epochs=1), progress=False)
            yield {"seconds": time.perf_counter() - began}


def _loaded(folder: str) -> tuple[Any, list[Path]]:
    """A predictor with twelve adapters, and their directories, which stay."""
    graftax = version_in(folder)
    predictor, out = graftax.Predictor(graftax.load_backbone(MINILM)), Path(tempfile.mkdtemp())
    graftax.train_many(predictor.backbone, _tasks(40), out, recipe=graftax.Recipe(epochs=1), progress=False)
    directories = [out / name for name in _tasks(1)]
    for directory in directories:
        predictor.load(directory.name, directory)
    return predictor, directories


def mixed(folder: str) -> Work:
    predictor, directories = _loaded(folder)
    texts = [one["text"] for one in clinc("test")[::80]][:_TEXTS]
    names = [directories[i % TASKS].name for i in range(len(texts))]
    yield {}
    while True:
        began = time.perf_counter()
        predictor.predict(texts, names)
        yield {"seconds": time.perf_counter() - began}


def swap(folder: str) -> Work:
    import jax

    predictor, directories = _loaded(folder)
    yield {}
    while True:
        began = time.perf_counter()
        for directory in directories:
            predictor.load("swapped", directory)
        jax.block_until_ready(predictor.bank.state)
        yield {"seconds": (time.perf_counter() - began) / TASKS}


def generation(folder: str) -> Work:
    graftax = version_in(folder)
    generator, names = graftax.Generator(graftax.load_backbone(STORIES)), [str(i) for i in range(4)]
    for seed, name in enumerate(names):
        sites = generator.backbone.sites
        generator.load(name, graftax.Adapter.create((graftax.LoRA(),), sites, seed=seed, task="lm"))
    prompts, how = ["Once upon a time, there was", "One day a dog"] * 8, graftax.Sampling(max_new_tokens=48)
    yield {}
    while True:
        began = time.perf_counter()
        generator.generate(prompts, names * 4, how)
        yield {"seconds": time.perf_counter() - began}


def cold(folder: str, adapter: str) -> dict[str, float]:
    """A process to its first answer, with programs in the cache that the command line keeps."""
    command = [sys.executable, "-m", "graftax", "predict", "-b", MINILM, "-a", adapter, "-i", "-"]
    began = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": folder, "GRAFTAX_CACHE": os.path.join(tempfile.gettempdir(), "graftax-versions")}
    subprocess.run(command, input=b'{"text": "my card is gone"}\n', env=environment, check=True, capture_output=True)
    return {"seconds": time.perf_counter() - began, "peak_mb": peak_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    chosen = parser.parse_args()
    here, there = str(ROOT), str(chosen.other.resolve())
    name = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=there, capture_output=True, text=True).stdout.strip()
    for work in (step, many, mixed, swap, generation):
        for folder in (here, there):  # a process that has compiled is slower for it: both sides are to find their programs
            worker = Worker(work, folder=folder)
            worker.step(), worker.close()
        found = duel(Worker(work, folder=here), Worker(work, folder=there), chosen.repeats)
        report(row(f"{work.__name__}, against {name}", found, "both columns graftax (`versions.py`)"))
    assert DATA.is_dir()
    with tempfile.TemporaryDirectory() as out:
        graftax = version_in(here)
        graftax.train_many(graftax.load_backbone(MINILM), {"a": _tasks(40)["task0"]}, out, progress=False)
        pairs = [(cold(here, f"{out}/a"), cold(there, f"{out}/a")) for _ in range(chosen.repeats + 1)][1:]
        report(row(f"cold process to a first answer, against {name}", summary(pairs), "both columns graftax (`versions.py`)"))


if __name__ == "__main__":
    main()
