"""`run_suite`: every cell of a suite, searched, trained, measured; resumable at any moment, and in shards.

For each backbone and method the cells of all tasks go through one `train_many`: its programs are compiled once, and a killed run
goes on where it was. First the rounds of the search, on validation rows; then the seeds of each task's best setting, on test
rows. A cell whose record is there is never run again. What a directory holds:

    run.json              what the suite and its data are: a changed one is refused
    results.jsonl         a record per cell (`results.py`)
    predictions/          what was said about each test example
    adapters/             the adapters of the final cells: files as any others
    shard-I-of-N/         all of these of one shard; laid together from several machines they are read as one
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from .. import disk
from ..adapters.adapter import Adapter
from ..adapters.files import load_adapter
from ..adapters.head import Head
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.load import load_backbone
from ..models.tokens import Tokenizer
from ..train.job import Job, prepare
from ..train.rows import Rows
from ..train.run import Interrupted, Result, train_many
from ..train.tasks import task_named
from . import search
from .cost import JOULES_PER_FLOP, Energy, StepCost, energy, step_cost
from .measure import general_score, measure
from .results import Cell, Record, append, read
from .rows import TaskRows, read_task
from .suite import Suite, TaskSpec

Key = tuple[str, int | None]  # task and size
_GENERAL_ROWS = 50  # of each class of the general task, for its mean
LIBRARIES = ("jax", "flax", "optax", "transformers", "numpy")


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count`: of the pairs of task and size every `count`-th."""

    index: int = 0
    count: int = 1

    def folder(self, out: Path) -> Path:
        return out if self.count == 1 else out / f"shard-{self.index + 1}-of-{self.count}"

    def has(self, number: int) -> bool:
        return number % self.count == self.index


def run_suite(
    suite: Suite, out: Path, *, shard: Shard = Shard(), say: Callable[[str], None] = lambda line: print(line, flush=True)
) -> list[Record]:
    """Run what is left of a suite, and return all records of the directory.

    Raises:
        GraftaxError: bad input; a directory of another suite or other data.
        Interrupted: after SIGINT or SIGTERM; the same call goes on.
    """
    home = shard.folder(out)
    with disk.locked(home):
        tasks = {name: read_task(suite, name, spec) for name, spec in suite.tasks.items()}
        general = read_task(suite, "general", suite.general) if suite.general else None
        _settle(suite, home, {name: rows.digest for name, rows in tasks.items()})
        pairs = [(name, size) for name in tasks for size in suite.sizes]
        own = [pair for i, pair in enumerate(pairs) if shard.has(i)]
        clock = Clock(suite, tasks, own, {record.cell for record in read(home)}, say)
        for path in suite.backbones:
            backbone = load_backbone(path)
            bench = Bench(suite, backbone, Path(path).name, tasks, general, home, clock)
            for label in suite.methods:
                bench.method(label, own)
    return read(out)


def _settle(suite: Suite, home: Path, digests: dict[str, str]) -> None:
    """Note what is run in this directory, or check that it is what was begun there."""
    file, facts = home / "run.json", {"suite": suite.name, "digest": suite.digest, "data": digests}
    if not file.is_file():
        disk.write_json(file, facts | {"began": datetime.date.today().isoformat()})
        return
    there = disk.read_json(file)
    changed = [name for name, digest in digests.items() if there["data"].get(name, digest) != digest]
    if changed:
        raise GraftaxError(f"the data of {', '.join(changed)} have changed since {home} was begun; choose another --out.")
    if there["digest"] != suite.digest:
        raise GraftaxError(f"{home} was begun with another suite or another form of {suite.name}; choose another --out.")


class Clock:
    """How much is done, and about how long the rest will take: by epochs times rows."""

    def __init__(self, suite: Suite, tasks: dict[str, TaskRows], own: Sequence[Key], done: set[Cell], say: Callable[[str], None]):
        self.say, self.began = say, time.monotonic()
        self.rows = {(name, size): len(tasks[name].draw(size, 0)) for name, size in own}
        each = sum(self.rows.values()) * len(suite.backbones)
        self.total = 0.0
        for label in suite.methods:
            plan = search.rounds(suite, label)
            self.total += each * sum(count * epochs for count, epochs in plan)
            self.total += each * suite.epochs * (suite.seeds - (1 if plan else 0))  # the first seed was the search's
        self.before = self.done = sum(self.work(cell) for cell in done)

    def work(self, cell: Cell) -> float:
        return float(self.rows.get((cell.task, cell.size), 0) * cell.epochs)

    def group(self, what: str, cells: int) -> None:
        spent, new = time.monotonic() - self.began, self.done - self.before
        left = f"; about {spent * (self.total - self.done) / new / 60:.0f} min left" if new and self.done < self.total else ""
        self.say(f"[{spent / 60:5.1f} min] {what}: {cells} cells, {min(1.0, self.done / self.total):.0%} done{left}")


class Bench:
    """The cells of one backbone."""

    def __init__(
        self,
        suite: Suite,
        backbone: Backbone,
        name: str,
        tasks: dict[str, TaskRows],
        general: TaskRows | None,
        home: Path,
        clock: Clock,
    ):
        self.suite, self.backbone, self.name, self.tasks, self.general = suite, backbone, name, tasks, general
        self.home, self.adapters, self.clock = home, home / "adapters", clock
        self.tokenizer = Tokenizer.of(backbone)
        self.records = {(record.cell, record.split): record for record in read(home)}
        self.provenance = {
            "suite": suite.name,
            "commit": commit(),
            "device": device(),
            "date": datetime.date.today().isoformat(),
            "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        }
        self._rows: dict[tuple[str, str], Rows] = {}
        self._costs: dict[tuple[str, Key], StepCost] = {}
        self._base_score: float | None = None

    def method(self, label: str, pairs: Sequence[Key]) -> None:
        """Search and final cells of one method."""
        chosen = {pair: self.suite.settings(label) for pair in pairs}
        plan = search.rounds(self.suite, label)
        for number, (count, epochs) in enumerate(plan):
            chosen = {pair: settings[:count] for pair, settings in chosen.items()}
            cells = {pair: [self._cell(label, pair, *s, epochs, 0) for s in settings] for pair, settings in chosen.items()}
            where = f"{self.name} {label}, search {number + 1} of {len(plan)}"
            self._run(where, label, [cell for own in cells.values() for cell in own], "val")
            for pair, own in cells.items():
                records = [self.records[cell, "val"] for cell in own]
                chosen[pair] = search.best(records, plan[number + 1][0] if number + 1 < len(plan) else 1)
        final = [
            self._cell(label, pair, *settings[0], self.suite.epochs, seed)
            for pair, settings in chosen.items()
            if settings  # else all of the search failed, and says so in its records
            for seed in range(self.suite.seeds)
        ]
        self._run(f"{self.name} {label}, {self.suite.seeds} seeds", label, final, "test")
        searched = {cell.id for cell, split in self.records if split == "val" and cell.method == label} - {c.id for c in final}
        for name in searched:
            shutil.rmtree(self.adapters / name, ignore_errors=True)

    def _cell(self, label: str, pair: Key, lr: float, schedule: str, epochs: int, seed: int) -> Cell:
        return Cell(self.name, pair[0], label, pair[1], lr, schedule, epochs, seed)

    # -- one group of cells ---------------------------------------------------------------------------------------------

    def _run(self, what: str, label: str, cells: Sequence[Cell], split: str) -> None:
        """Train what has no adapter, measure what has no record."""
        missing = [cell for cell in cells if (cell, split) not in self.records]
        if not missing:
            return
        self.clock.group(what, len(missing))
        for kind in dict.fromkeys(self.tasks[cell.task].spec.kind for cell in missing):
            of_kind = [cell for cell in missing if self.tasks[cell.task].spec.kind == kind]
            costs, errors = self._train(label, kind, of_kind)
            for cell in of_kind:
                record = self._record(cell, split, costs.get(cell, {}), errors.get(cell))
                append(self.home, record)
                self.records[cell, split] = record
                if record.error:
                    self.clock.say(f"{cell.task} {label} lr {cell.lr:g} seed {cell.seed}: {record.error}")

    def _train(self, label: str, kind: str, cells: Sequence[Cell]) -> tuple[dict[Cell, dict[str, Any]], dict[Cell, str]]:
        """Adapters of cells that have none; the costs of those trained, and why others failed."""
        unfinished = self.adapters / ".run" / "run.json"
        begun = set(disk.read_json(unfinished)["jobs"]) if unfinished.is_file() else set()
        todo = [cell for cell in cells if cell.id in begun or not (self.adapters / cell.id).is_dir()]
        if not todo:
            return {cell: self._cost_of(cell, None, Energy()) for cell in cells}, {}
        try:
            for cell in todo:  # before training, so that it is here that programs are compiled
                self._step_cost(cell)
            with energy() as used:
                results = train_many(
                    self.backbone,
                    {cell.id: self.tasks[cell.task].draw(cell.size, cell.seed) for cell in todo},
                    self.adapters,
                    method=self.suite.methods[label].made,
                    task=kind,
                    recipe=self.suite.recipe(todo[0].lr, todo[0].schedule, todo[0].epochs, 0),
                    each={cell.id: self._own(cell) for cell in todo},
                    pack_size=self.suite.pack_size,
                    progress=sys.stderr.isatty(),
                )
        except Interrupted:
            raise
        except Exception as error:
            trained = [cell for cell in todo if (self.adapters / cell.id).is_dir()]
            if not trained and len(todo) > 1:  # one may be to blame: each by itself
                alone = [self._train(label, kind, [cell]) for cell in todo]
                return {c: v for costs, _ in alone for c, v in costs.items()}, {c: v for _, why in alone for c, v in why.items()}
            said = str(error) if isinstance(error, GraftaxError) else f"{type(error).__name__}: {error}"
            line = next(iter(said.splitlines()), type(error).__name__)
            return {c: self._cost_of(c, None, Energy()) for c in trained}, {c: line for c in todo if c not in trained}
        self.clock.done += sum(self.clock.work(cell) for cell in todo)
        steps = sum(self._seconds(cell, results[cell.id]) for cell in todo)
        shares = {cell: self._seconds(cell, results[cell.id]) / steps for cell in todo}
        parts = {c: Energy(used.joules and used.joules * share, used.source) for c, share in shares.items()}
        return {cell: self._cost_of(cell, results.get(cell.id), parts.get(cell, Energy())) for cell in cells}, {}

    def _own(self, cell: Cell) -> dict[str, Any]:
        return {"lr": cell.lr, "schedule": cell.schedule, "epochs": cell.epochs, "seed": cell.seed}

    # -- costs ----------------------------------------------------------------------------------------------------------

    def job(self, cell: Cell) -> Job:
        """A cell's job, as `train_many` makes it."""
        rows = self.tasks[cell.task]
        return prepare(
            cell.id,
            rows.draw(cell.size, cell.seed),
            None,
            backbone=self.backbone,
            task=task_named(rows.spec.kind),
            method=self.suite.methods[cell.method].made,
            recipe=self.suite.recipe(cell.lr, cell.schedule, cell.epochs, cell.seed),
            columns=rows.spec.columns,
            tokenizer=self.tokenizer,
        )

    def _step_cost(self, cell: Cell) -> StepCost:
        key = (cell.method, (cell.task, cell.size))
        if key not in self._costs:
            job = self.job(replace(cell, seed=0, epochs=1))
            self._costs[key] = step_cost(self.backbone, task_named(self.tasks[cell.task].spec.kind), job, self.tokenizer)
        return self._costs[key]

    def _steps(self, cell: Cell) -> tuple[int, int]:
        """Training rows and steps of a cell."""
        rows = len(self.tasks[cell.task].draw(cell.size, cell.seed))
        return rows, cell.epochs * -(-rows // self.suite.batch_size)

    def _seconds(self, cell: Cell, result: Result) -> float:
        assert result.step_seconds is not None
        return self._steps(cell)[1] * result.step_seconds + self._step_cost(cell).feature_seconds

    def _cost_of(self, cell: Cell, result: Result | None, used: Energy) -> dict[str, Any]:
        """Fields of a record; `result` is None where the adapter was trained before this process, and nobody timed it here."""
        (rows, steps), cost = self._steps(cell), self._step_cost(cell)
        flops = cost.flops * steps
        if used.joules is None and flops:
            used = Energy(flops * JOULES_PER_FLOP, "flops")
        return {
            "rows": rows,
            "steps": steps,
            "seconds": None if result is None else self._seconds(cell, result),
            "step_seconds": None if result is None else result.step_seconds,
            "compile_seconds": cost.compile_seconds,
            "memory_bytes": cost.memory_bytes,
            "flops": flops,
            "energy_joules": used.joules,
            "energy_source": used.source,
        }

    # -- results --------------------------------------------------------------------------------------------------------

    def _record(self, cell: Cell, split: str, costs: dict[str, Any], error: str | None) -> Record:
        spec, digest = self.tasks[cell.task].spec, self.tasks[cell.task].digest
        stage = "search" if split == "val" else "final"
        blank = Record(
            **dataclasses.asdict(cell), stage=stage, split=split, metric=spec.main_metric, data=digest, **self.provenance
        )
        if error is not None:
            return replace(blank, error=error)
        directory = self.adapters / cell.id
        adapter = load_adapter(directory, self.backbone)
        found = measure(self.backbone, adapter, self._rows_of(cell.task, split, adapter), spec.main_metric)
        file = None
        if split == "test":
            file = f"predictions/{cell.id}.npz"
            found.predictions.save(self.home / file)
        head = next((m for m in adapter.methods if isinstance(m, Head)), None)
        known = {
            "parameters": adapter.parameters,
            "head_parameters": _numbers_in(adapter, head.key) if head else 0,
            "file_bytes": sum(part.stat().st_size for part in directory.iterdir()),
            "forgetting": self._forgotten(adapter) if split == "test" else None,
            "predictions": file,
        }
        timed = self.records.get((cell, "val"))  # the first seed was trained by the search
        if timed is not None and costs.get("seconds") is None:
            costs = costs | {"seconds": timed.seconds, "step_seconds": timed.step_seconds}
        return replace(blank, **found.fields, **known, **costs)

    def _rows_of(self, name: str, split: str, adapter: Adapter) -> Rows:
        """Validation or test rows, tokenized once."""
        if (name, split) not in self._rows:
            task = self.tasks[name]
            examples = task.val if split == "val" else task.test
            kind = task_named(task.spec.kind)
            self._rows[name, split] = kind.rows(examples, adapter.labels, self.tokenizer, self.suite.max_length)
        return self._rows[name, split]

    def _forgotten(self, adapter: Adapter) -> float | None:
        if self.general is None:
            return None
        task, names = task_named("classify"), tuple(sorted({*(self.general.train.labels or ())}))
        for split, examples in (("train", self.general.draw(_GENERAL_ROWS, 0)), ("test", self.general.test)):
            if ("general", split) not in self._rows:
                rows = task.rows(examples, names, self.tokenizer, self.suite.max_length)
                self._rows["general", split] = rows
        both = self._rows["general", "train"], self._rows["general", "test"]
        if self._base_score is None:
            self._base_score = general_score(self.backbone, None, *both)
        return general_score(self.backbone, adapter, *both) - self._base_score


def _numbers_in(adapter: Adapter, key: str) -> int:
    return sum(leaf.size for trainable, _ in adapter.states[key].values() for leaf in trainable.values())


def commit() -> str:
    """Of graftax, where it runs out of a repository; else its version."""
    here = Path(__file__).resolve().parent
    out = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return out.stdout.strip() or importlib.metadata.version("graftax")


def device() -> str:
    """What JAX computes on, or the processor."""
    found = jax.devices()[0]
    return f"{os.cpu_count()} cores, {platform.machine()}" if found.platform == "cpu" else found.device_kind
