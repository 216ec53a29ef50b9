"""`run_suite`: every cell of a suite, searched, trained, measured; resumable at any moment, and in shards.

For each backbone and method the cells of all tasks go through one `train_many` per round: its programs are compiled once, and a
killed run goes on where it was. First the rounds of the search, on validation rows; then the seeds of each task's best setting,
on all training rows, measured on test rows. A cell whose record is there is never run again. What a directory holds:

    run.json              what the suite and its data are: a changed one is refused
    results.jsonl         a record per cell (`results.py`)
    predictions/          what was said about each test example
    adapters/             the adapters of the final cells: files as any others
    backbones/            where the suite has pictures prepared in its own way, backbones that say so
    shard-I-of-N/         all of these of one shard; laid together from several machines they are read as one
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import disk, typed
from ..adapters.adapter import Adapter
from ..adapters.files import load_adapter
from ..adapters.methods.head import Head
from ..counted import counted
from ..data.examples import Examples
from ..data.prepared import Prepared, note_cut
from ..errors import GraftaxError
from ..json_files import read_object
from ..models.backbone import Backbone
from ..models.load import load_backbone
from ..tasks.task_registry import task_named
from ..train.fleet import Fleet
from .baselines import mean_features, nearest_means
from .clock import Clock
from .draws import TaskExamples, at_hand, read_task
from .measure import Measured, general_score, judged, measure
from .own_preparation import prepared_as
from .peers import Unsupported, run_peer
from .quiet import watched
from .results import RUN, Cell, Origin, Record, Stage, append, read
from .search import Search, Setting, Tried
from .suite import NEAREST_MEAN, Suite, backbone_name
from .trainer import Outcome, Trainer

_GENERAL_ROWS = 20  # of each class of the general task, for its mean
TaskSize = tuple[str, int | None]  # task and size
_SPLITS: dict[Stage, str] = {"search": "val", "final": "test"}  # what the cells of a stage are measured on
PACKAGES = ("jax", "flax", "optax", "transformers", "numpy")


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count`: of the triples of backbone, task and size every `count`-th."""

    index: int = 0
    count: int = 1

    def folder(self, out: Path) -> Path:
        return out if self.count == 1 else out / f"shard-{self.index + 1}-of-{self.count}"

    def has(self, number: int) -> bool:
        return number % self.count == self.index


def run_suite(
    suite: Suite,
    out: Path,
    *,
    shard: Shard = Shard(),
    peers: Sequence[str] = (),
    load: Callable[..., Backbone] = load_backbone,
    fleet_of: Callable[..., Fleet] | None = None,
    say: Callable[[str], None] = partial(print, flush=True),
) -> list[Record]:
    """Run what is left of a suite, and return all records of the directory.

    Args:
        suite: what to run.
        out: directory, made if need be.
        shard: the part of it to run here.
        peers: libraries that train the final cells, too ("peft", "adapters": `peers.py`).
        load: makes a backbone of its name in the suite; of a suite of towers it takes a `tower`, too.
        fleet_of: the machines that train on a backbone of a name, loaded with some settings; None: this one.
        say: takes a line for a person, now and then.

    Raises:
        GraftaxError: bad input; a directory of another suite or other data.
        Interrupted: after SIGINT or SIGTERM; the same call goes on.
    """
    home = shard.folder(out)
    with disk.locked(home):
        there, missing = at_hand(suite)
        if missing is not None:
            say(missing)
        tasks = {name: read_task(suite, name, spec) for name, spec in there.items()}
        general = read_task(suite, "general", suite.general) if suite.general else None
        _settle(suite, home, {name: task.digest for name, task in tasks.items()})
        every = [(path, *pair) for path in suite.backbones for pair in suite.pairs(path) if pair[0] in tasks]
        own = [one for number, one in enumerate(every) if shard.has(number)]
        todo = {path: suite.methods_of({name for of, name, _ in own if of == path}) for path in suite.backbones}
        clock = Clock(sum(map(len, todo.values())), say)
        for path, methods in todo.items():
            if methods:
                how = {} if suite.tower is None else {"tower": suite.tower}
                backbone = prepared_as(suite, load(suite.backbone(path), **how), home / "backbones")
                fleet = None if fleet_of is None else fleet_of(backbone.name, **how)
                bench = Bench(suite, backbone, backbone_name(path), tasks, general, home, clock, peers, fleet)
                pairs = [(name, size) for of, name, size in own if of == path]
                bench.nearest_means(pairs)
                for label in methods:
                    bench.method(label, [pair for pair in pairs if label in suite.trained(pair[0])])
    return read(out)


def _settle(suite: Suite, home: Path, digests: Mapping[str, str]) -> None:
    """Note what is run in this directory, or refuse it where something else was begun there."""
    file = home / RUN
    if not file.is_file():
        today = datetime.date.today().isoformat()
        groups = {name: spec.group for name, spec in suite.tasks.items() if spec.group}
        published = tuple(map(asdict, suite.reproduces))
        disk.write_json(file, asdict(Origin(suite.name, suite.digest, digests, today, groups, published, suite.halving_by)))
        return
    there = typed.read(Origin, read_object(file), str(file))
    changed = [name for name, digest in digests.items() if there.data.get(name, digest) != digest]
    if changed:
        raise GraftaxError(f"the data of {', '.join(changed)} have changed since {home} was begun; choose another --out.")
    if there.digest != suite.digest:
        raise GraftaxError(f"{home} was begun with another suite or another form of {suite.name}; choose another --out.")


class Bench:
    """The cells of one backbone."""

    def __init__(
        self,
        suite: Suite,
        backbone: Backbone,
        name: str,
        tasks: dict[str, TaskExamples],
        general: TaskExamples | None,
        home: Path,
        clock: Clock,
        peers: Sequence[str],
        fleet: Fleet | None = None,
    ):
        self.suite, self.backbone, self.name, self.tasks, self.general = suite, backbone, name, tasks, general
        self.home, self.clock, self.peers = home, clock, peers
        self.trainer = Trainer(suite, backbone, tasks, home / "adapters", fleet)
        self.packed = Trainer(
            suite, backbone, tasks, home / "packed", fleet
        )  # the same in one pack, where interference is measured
        self.records = {record.cell: record for record in read(home)}
        self.provenance: dict[str, Any] = {
            "suite": suite.name,
            "commit": commit(),
            "device": device(),
            "date": datetime.date.today().isoformat(),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }
        self._prepared: dict[tuple[str, str], Prepared] = {}
        self._test_features: dict[str, np.ndarray] = {}  # of the backbone alone, by task

    def method(self, label: str, pairs: Sequence[TaskSize]) -> None:
        """Search and final cells of one method."""
        began, known, rounds = time.monotonic(), len(self.records), 0
        while cells := self._next_round(label, pairs):
            rounds += 1
            self._run(f"{self.name} {label}, search {rounds}", cells)
        final = self._final(label, pairs)
        self._run(f"{self.name} {label}, {self.suite.seeds} seeds", final)
        for library in self.peers:
            self._run_peer(library, final)
        for cell in self.records:
            if cell.stage == "search" and cell.method == label:
                shutil.rmtree(self.trainer.folder / cell.id, ignore_errors=True)
        self.clock.method_done(time.monotonic() - began, len(self.records) > known)

    def _next_round(self, label: str, pairs: Sequence[TaskSize]) -> list[Cell]:
        """What a method's searches want next, on all tasks; none where all are over."""
        return [
            Cell(self.name, task, label, size, seed=0, stage="search", **setting._asdict())
            for task, size in pairs
            for setting in self._search(label, (task, size)).wanted(self._tried(label, (task, size)))
        ]

    def _final(self, label: str, pairs: Sequence[TaskSize]) -> list[Cell]:
        """A cell for every seed at what each search found."""
        cells: list[Cell] = []
        for task, size in pairs:
            found = self._search(label, (task, size)).found(self._tried(label, (task, size)))
            if found is not None:  # else all trainings of the search failed: see its records
                setting = found.setting._asdict()
                cells += [Cell(self.name, task, label, size, seed=seed, **setting) for seed in range(self.suite.seeds)]
        return cells

    def _search(self, label: str, pair: TaskSize) -> Search:
        examples = self.tasks[pair[0]].draw("search", pair[1], 0)
        return self.suite.search_of(self.suite.trained(pair[0])[label], len(examples))

    def _tried(self, label: str, pair: TaskSize) -> Tried:
        """The search's records so far."""
        where = ("search", self.name, label, *pair)
        return {
            Setting(cell.lr, cell.schedule, cell.epochs, cell.choice): record
            for cell, record in self.records.items()
            if (cell.stage, cell.backbone, cell.method, cell.task, cell.size) == where
        }

    def _run(self, what: str, cells: Sequence[Cell]) -> None:
        """Train what has no adapter, measure what has no record; the cells are of one method and stage."""
        missing = [cell for cell in cells if cell not in self.records]
        if missing:
            self.clock.tell(what, len(missing))
        apart = {cell: (self.tasks[cell.task].spec.kind, cell.choice) for cell in missing}  # what one run has one of
        for one in dict.fromkeys(apart.values()):
            of_task = [cell for cell in missing if apart[cell] == one]
            outcomes = self.trainer.train(of_task, self.suite.pack_size)
            if of_task[0].stage == "final" and self.suite.interference:
                self.packed.train([cell for cell in of_task if self.trainer.has(cell)], self.suite.seeds)
            for cell, outcome in outcomes.items():
                self._keep(self._record(cell, outcome))
            shutil.rmtree(self.packed.folder, ignore_errors=True)

    # -- the baseline, and peers ----------------------------------------------------------------------------------------

    def nearest_means(self, pairs: Sequence[TaskSize]) -> None:
        """The baseline for which nothing is trained, on the final rows of every classification task."""
        if not self.backbone.family.head.modules:  # it classifies nothing
            return
        for name, size in pairs:
            if self.tasks[name].spec.classifies:
                cells = [Cell(self.name, name, NEAREST_MEAN, size, 0.0, "none", 0, seed) for seed in range(self.suite.seeds)]
                for cell in cells:
                    if cell not in self.records:
                        self._keep(self._nearest_mean(cell))

    def _nearest_mean(self, cell: Cell) -> Record:
        task = self.tasks[cell.task]
        labels = task_named(task.spec.kind).label_names(task.whole)
        train = self._encoded(task.spec.kind, task.draw("final", cell.size, cell.seed), labels)
        test = self._prepared_of(cell.task, "test", labels)
        if cell.task not in self._test_features:
            self._test_features[cell.task] = mean_features(self.backbone, test)
        known, asked = mean_features(self.backbone, train), self._test_features[cell.task]
        near, gold = nearest_means(known, np.array(train.labels), asked), np.array(test.labels, np.int32)
        found = judged(near, gold, test.lengths, task.spec.main_metric, labels, chances=False)
        costs: dict[str, Any] = {"rows": len(train), "parameters": 0, "head_parameters": 0}
        return replace(self._blank(cell), converged=True, predictions=self._said(cell, found), **costs, **found.fields)

    def _run_peer(self, library: str, cells: Sequence[Cell]) -> None:
        """The same cells trained by another library, each in a process of its own."""
        theirs = [replace(cell, library=library) for cell in cells]
        missing = [cell for cell in theirs if cell not in self.records]
        if missing:
            self.clock.say(f"{self.name} {missing[0].method}, by {library}: {counted(len(missing), 'cell')}")
        for cell in missing:
            try:
                record = self._by_peer(cell)
            except Unsupported as error:
                self.clock.say(str(error))
                return
            except GraftaxError as error:
                record = replace(self._blank(cell), error=str(error))
            self._keep(record)

    def _by_peer(self, cell: Cell) -> Record:
        """A cell trained by the library that it names."""
        job = self.trainer.job(cell)
        test = self._prepared_of(cell.task, "test", job.adapter.labels)
        with watched() as stretch:
            peer = run_peer(cell.library, self.backbone, job, test)
        blank, gold = self._blank(cell), np.array(test.labels, np.int32)
        found = judged(peer.logits, gold, test.lengths, blank.metric, job.adapter.labels)
        costs: dict[str, Any] = {
            "rows": len(job.train),
            "steps": len(peer.step_seconds),
            "parameters": job.adapter.parameters,
            "seconds": sum(peer.step_seconds),
            "step_seconds": float(np.median(peer.step_seconds)),
            "other_cores": stretch.other_cores,
            "process_seconds": peer.process_seconds,
            "process_bytes": peer.peak_bytes,
        }
        return replace(blank, versions=peer.versions, predictions=self._said(cell, found), **costs, **found.fields)

    # -- records --------------------------------------------------------------------------------------------------------

    def _keep(self, record: Record) -> None:
        append(self.home, record)
        self.records[record.cell] = record
        if record.error:
            self.clock.say(f"{record.task} {record.method} lr {record.lr:g} seed {record.seed}: {record.error}")

    def _blank(self, cell: Cell) -> Record:
        """A record with nothing measured yet; of a trained result with how its search ended."""
        task, split = self.tasks[cell.task], _SPLITS[cell.stage]
        known: dict[str, Any] = {"split": split, "metric": task.spec.main_metric, "data": task.digest}
        if cell.stage == "final" and cell.method != NEAREST_MEAN:
            pair = cell.task, cell.size
            found = self._search(cell.method, pair).found(self._tried(cell.method, pair))
            assert found is not None
            known |= {"converged": found.converged, "edge": found.edge}
        return Record(**vars(cell), **known, **self.provenance)

    def _record(self, cell: Cell, outcome: Outcome) -> Record:
        """What became of a cell's training: its error, or what its adapter is worth and what it has cost."""
        blank = self._blank(cell)
        if outcome.error is not None:
            return replace(blank, error=outcome.error)
        adapter = load_adapter(self.trainer.folder / cell.id, self.backbone)
        prepared, spec = self._prepared_of(cell.task, blank.split, adapter.labels), self.tasks[cell.task].spec
        found = measure(self.backbone, adapter, prepared, spec)
        record = replace(blank, **found.fields, **self._size(cell, adapter), **self.trainer.fields(cell, outcome))
        if cell.stage == "search":
            return record
        record = replace(record, forgetting=self._forgotten(adapter), predictions=self._said(cell, found))
        if self.packed.has(cell):
            among = measure(self.backbone, load_adapter(self.packed.folder / cell.id, self.backbone), prepared, spec)
            record = replace(record, interference=among.fields["value"] - found.fields["value"])
        return record

    def _size(self, cell: Cell, adapter: Adapter) -> dict[str, Any]:
        """How large a cell's adapter is, in numbers and in bytes."""
        head = next((method for method in adapter.methods if isinstance(method, Head)), None)
        return {
            "parameters": adapter.parameters,
            "head_parameters": _numbers_in(adapter, head.key) if head else 0,
            "file_bytes": sum(part.stat().st_size for part in (self.trainer.folder / cell.id).iterdir()),
        }

    def _said(self, cell: Cell, found: Measured) -> str:
        file = f"predictions/{cell.id}.npz"
        found.predictions.save(self.home / file)
        return file

    # -- examples -------------------------------------------------------------------------------------------------------

    def _encoded(self, task: str, examples: Examples, labels: Sequence[str]) -> Prepared:
        return task_named(task).prepare(examples, labels, self.backbone.processor, self.suite.max_length, truncate=True)

    def _prepared_of(self, name: str, split: str, labels: Sequence[str]) -> Prepared:
        """Validation or test rows, tokenized once."""
        if (name, split) not in self._prepared:
            task = self.tasks[name]
            prepared = self._encoded(task.spec.kind, task.val if split == "val" else task.test, labels)
            note_cut(f"{name}, {split} rows", *prepared.cut, self.suite.max_length)
            self._prepared[name, split] = prepared
        return self._prepared[name, split]

    # -- forgetting -----------------------------------------------------------------------------------------------------

    def _forgotten(self, adapter: Adapter) -> float | None:
        """Change on the general task; None where the suite has none, or the backbone's features are no classifier's."""
        if self._general is None or self._general_score is None:
            return None
        return general_score(self.backbone, adapter, *self._general) - self._general_score

    @cached_property
    def _general_score(self) -> float | None:
        """Of the backbone alone."""
        return None if self._general is None else general_score(self.backbone, None, *self._general)

    @cached_property
    def _general(self) -> tuple[Prepared, Prepared] | None:
        """Those that make the means of its classes, and those that are told apart by these."""
        if self.general is None or not self.backbone.family.head.modules:
            return None
        names, kind = tuple(sorted({*(self.general.train.labels or ())})), self.general.spec.kind
        known, asked = self.general.draw("final", _GENERAL_ROWS, 0), self.general.test
        return self._encoded(kind, known, names), self._encoded(kind, asked, names)


def _numbers_in(adapter: Adapter, method_key: str) -> int:
    return sum(leaf.size for trainable, _ in adapter.states[method_key].values() for leaf in trainable.values())


def commit() -> str:
    """Of graftax, where it runs out of a repository; else its version."""
    here = Path(__file__).resolve().parent
    out = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return out.stdout.strip() or importlib.metadata.version("graftax")


def device() -> str:
    """What JAX computes on, or the processor."""
    found = jax.devices()[0]
    return f"{os.cpu_count()} cores, {platform.machine()}" if found.platform == "cpu" else found.device_kind
