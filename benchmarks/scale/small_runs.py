"""What the constants of this machine are measured on: short trainings, and single acts, each in a process of its own.

A function here is given the moment at which its process was asked for, so that starting and importing count. The tasks are cut
from CLINC150, of unlike numbers of rows and batch sizes, so that there are batches of several shapes.
"""

from __future__ import annotations

import csv
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

_LR = 3e-3
OFTEN = 15  # times that a single act is done; the quickest counts
_LONGER = 8  # times as long a long row is as a short one


@dataclass(frozen=True)
class SmallTask:
    """Some intents of CLINC150 and so many rows of them."""

    name: str
    intents: tuple[str, ...]
    rows: int
    batch_size: int


@dataclass(frozen=True)
class Trained:
    """What a process that trained some tasks can tell of it."""

    start: float  # seconds from asking for the process until everything was imported
    load: float  # of the backbone
    whole: float  # seconds from asking for the process to the last file
    positions: tuple[int, ...]  # of each job's batches
    shapes: int  # different ones
    rows: tuple[int, ...]  # of each job
    steps: tuple[int, ...]  # of each job
    step_seconds: tuple[float, ...]  # of each job, medians of its epochs' means


def small_tasks(data: Path, first: int, count: int) -> list[SmallTask]:
    """So many, of intents that others with another `first` do not have."""
    with (data / "train.csv").open(newline="", encoding="utf-8") as lines:
        intents = sorted({row["label"] for row in csv.DictReader(lines)} - {"oos"})
    cut, at = list[SmallTask](), first
    for number in range(count):
        wide = 3 + number % 3
        size = (8, 16, 32)[number % 3]
        cut.append(SmallTask(f"task{number:02}", tuple(intents[at : at + wide]), 40 + 37 * number % 160, size))
        at += wide
    return cut


def rows_of(data: Path, task: SmallTask) -> list[dict[str, str]]:
    """Its intents in turn."""
    with (data / "train.csv").open(newline="", encoding="utf-8") as lines:
        own = [row for row in csv.DictReader(lines) if row["label"] in task.intents]
    by_intent = [[row for row in own if row["label"] == intent] for intent in task.intents]
    return [row for turn in zip(*by_intent, strict=False) for row in turn][: task.rows]


def train_tasks(began: float, backbone: str, data: str, cache: str, tasks: Sequence[SmallTask], epochs: int) -> Trained:
    """One call of `train_many`, as the command does it."""
    os.environ["GRAFTAX_CACHE"] = cache
    from ...cache import use_compilation_cache

    use_compilation_cache()
    from ...models.load import load_backbone
    from ...train.recipe import Recipe
    from ...train.run import train_many

    imported = time.time()
    base = load_backbone(backbone)
    loaded = time.time()
    rows = {task.name: rows_of(Path(data), task) for task in tasks}
    each = {task.name: {"batch_size": task.batch_size} for task in tasks}
    with tempfile.TemporaryDirectory() as out:
        recipe = Recipe(epochs=epochs, lr=_LR)
        results = train_many(base, rows, Path(out) / "run", recipe=recipe, each=each, progress=False)
        ended = time.time()
    jobs = [_job(base, task, rows[task.name], epochs) for task in tasks]
    return Trained(
        imported - began,
        loaded - imported,
        ended - began,
        tuple(job.shape.rows * job.shape.length for job in jobs),
        len({job.shape for job in jobs}),
        tuple(len(rows[task.name]) for task in tasks),
        tuple(job.steps for job in jobs),
        tuple(float(results[task.name].step_seconds or 0) for task in tasks),
    )


def _job(base: Any, task: SmallTask, rows: list[dict[str, str]], epochs: int) -> Any:
    from ...adapters.methods.lora import LoRA
    from ...data.columns import Columns
    from ...tasks.task_registry import the_task
    from ...train.intake import prepare
    from ...train.recipe import Recipe

    recipe = Recipe(epochs=epochs, lr=_LR, batch_size=task.batch_size)
    settings: dict[str, Any] = {"method": LoRA(), "recipe": recipe, "columns": Columns()}
    return prepare(task.name, rows, None, backbone=base, task=the_task("classify"), **settings)


def single_acts(backbone: str, data: str, cache: str) -> dict[str, float]:
    """Seconds, bytes and numbers of files of what is done once for each adapter, on the disk of temporary files."""
    os.environ["GRAFTAX_CACHE"] = cache
    from ...cache import use_compilation_cache

    use_compilation_cache()
    import jax

    from ...adapters.files import load_adapter, save_adapter
    from ...models.load import load_backbone
    from ...serve.predictor import Predictor
    from ...store.manifest import Manifest
    from ...store.store import Store
    from ...tasks.task_registry import the_task
    from ...train.pack import Pack
    from ...train.run_checkpoint import Checkpoints

    base = load_backbone(backbone)
    few, many = small_tasks(Path(data), 0, 1)[0], SmallTask("many", ("balance", "freeze_account", "weather"), 300, 32)
    rows = {task.name: rows_of(Path(data), task) for task in (few, many)}
    found, job = _prepared_jobs(lambda texts: _job(base, many, texts, 1), rows[few.name], rows[many.name])
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        found["save"] = _often(lambda number: save_adapter(job.adapter, here / f"saved{number}", base))
        files = [file for file in (here / "saved0").rglob("*") if file.is_file()]
        found["adapter_files"], found["adapter_bytes"] = len(files), sum(file.stat().st_size for file in files)
        store = Store(str(here / "hub"))
        store.push("first/one", Manifest(files={}), _contents(here / "saved0"))
        others = [_contents(_other(job.adapter, here, number, base)) for number in range(OFTEN)]
        found["push"] = _often(lambda number: store.push(f"bank/task{number}", Manifest(files={}), others[number]))
        found["read"] = _often(lambda number: load_adapter(here / f"saved{number}", base))

        pack = Pack(base, the_task("classify"), [job], 1)
        pack.admit(0, 0)
        checkpoints = Checkpoints(here / "checkpoints")

        def save(number: int) -> None:
            checkpoints.save(number, pack.arrays(), {})
            checkpoints.wait()

        with checkpoints:
            found["checkpoint"] = _often(save)
        found["checkpoint_bytes"] = sum(leaf.nbytes for leaf in jax.tree.leaves(pack.arrays()))

        predictor = Predictor(base)
        kept = [load_adapter(here / f"saved{number}", base) for number in range(OFTEN)]
        for number in range(OFTEN):  # the bank has grown, and all programs are compiled
            predictor.load(f"task{number}", kept[number])
        predictor.predict([rows[many.name][0]["text"]], "task0")
        found["bank"] = _often(lambda number: jax.block_until_ready(predictor.load(f"task{number}", kept[number])))
        found["answer"] = _often(lambda number: predictor.predict([rows[many.name][number]["text"]], f"task{number}"))
    return found


def _prepared_jobs(job_of: Callable[[Any], Any], few: Sequence[Any], many: Sequence[Any]) -> tuple[dict[str, float], Any]:
    """Seconds and bytes of preparing a job, each of its rows and each token of these; and the job of many rows.

    They follow from three jobs: of few rows, of many, and of as many long ones.
    """
    parts = [few, many, [{**row, "text": " ".join([row["text"]] * _LONGER)} for row in many]]
    jobs = [job_of(rows) for rows in parts]  # the first reads the tokenizer
    tokens = [sum(len(item.ids) for item in job.train.items) for job in jobs]
    counts = [(len(rows), own) for rows, own in zip(parts, tokens, strict=True)]
    found = {"row_tokens": tokens[1] / len(many)}

    def seconds(rows: Any) -> float:
        return _often(lambda number: job_of(rows))

    def memory(rows: Any) -> float:
        return _memory(lambda: job_of(rows))

    for names, of in (
        (("prepare_job", "prepare_row", "prepare_token"), seconds),
        (("prepared_job_bytes", "prepared_row_bytes", "prepared_token_bytes"), memory),
    ):
        found |= zip(names, taken_apart([of(rows) for rows in parts], counts), strict=True)
    return found, jobs[1]


def taken_apart(figures: Sequence[float], counts: Sequence[tuple[int, int]]) -> tuple[float, float, float]:
    """What a job takes, each of its rows and each token, of what three jobs take with so many rows and tokens.

    None is less than nothing, whatever the clock says.
    """
    equations = [(1, *each) for each in counts]
    job, row, token = np.linalg.solve(np.array(equations, np.float64), np.array(figures))
    return max(0.0, float(job)), max(0.0, float(row)), max(0.0, float(token))


def _contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def _other(adapter: Any, folder: Path, number: int, base: Any) -> Path:
    """An adapter that no other is: the same content is not pushed twice."""
    from ...adapters.files import save_adapter

    other = {
        key: {
            site: ({name: leaf + 0.001 * (number + 1) for name, leaf in trainable.items()}, fixed)
            for site, (trainable, fixed) in sites.items()
        }
        for key, sites in adapter.states.items()
    }
    return save_adapter(replace(adapter, states=other), folder / f"other{number}", base)


def _memory(made: Callable[[], Any]) -> float:
    """Bytes that what is made takes, as Python counts them, NumPy's arrays among them."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [made()]
        took = tracemalloc.get_traced_memory()[0] - before
        kept.clear()
        return took
    finally:
        tracemalloc.stop()


def _often(act: Callable[[int], Any]) -> float:
    """The time of an act, which is given its number: the quickest of several, for other work can only make it slower."""
    times = []
    for number in range(OFTEN):
        began = time.perf_counter()
        act(number)
        times.append(time.perf_counter() - began)
    return min(times)
