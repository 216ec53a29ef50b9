"""`train_many`: many adapters on one frozen backbone, resumable at any moment.

A run's directory holds an adapter per job and `metrics.jsonl`; while it is unfinished also `.run/`, with what the run is
(`run.json`) and its newest checkpoints. The same call with the same settings goes on from there, and ends with the adapters of
an uninterrupted run, bit for bit.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import disk
from ..adapters.adapter import Adapter
from ..adapters.files import save_adapter
from ..adapters.lora import LoRA
from ..adapters.method import Method
from ..errors import GraftaxError
from ..json_files import read_object
from ..models.backbone import Backbone
from ..models.tokens import Tokenizer
from ..shown import Shown
from .checkpoint import Checkpoints
from .data import Columns
from .job import Job, prepare, select_overrides
from .kinds import by_kind
from .pack import Pack, Place
from .progress import Metrics, Progress
from .recipe import Recipe
from .tasks import Task, task_named
from .tune import choose_pack_size


@dataclass(frozen=True, repr=False)
class Result(Shown):
    """What became of one adapter."""

    name: str  # the adapter's
    directory: Path  # where it was saved
    metrics: dict[str, float]  # of the validation rows at the kept epoch, and the loss
    step_seconds: float | None = None  # wall clock of a step, shared by the slots that took it: median of the epochs' means
    history: list[dict[str, Any]] = field(default_factory=list)  # the lines of metrics.jsonl about this adapter
    pack_size: int = 1  # adapters that were trained at once, this one among them

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "directory": str(self.directory), "epochs": len(self.history), "metrics": self.metrics}


class Interrupted(GraftaxError):
    """SIGINT or SIGTERM arrived; the state is saved."""


def train(backbone: Backbone, data: Any, out: str | Path, **settings: Any) -> Result:
    """Train one adapter into directory `out`: `train_many` of one."""
    out = Path(out)
    return train_many(backbone, {out.name: data}, out.parent, **settings)[out.name]


def train_many(
    backbone: Backbone,
    data: Mapping[str, Any],
    out: str | Path,
    *,
    method: Method | Sequence[Method] | None = LoRA(),
    task: str = "classify",
    recipe: Recipe = Recipe(),
    each: Mapping[str, Mapping[str, Any]] | None = None,
    val: Any = None,
    columns: Columns = Columns(),
    pack_size: int | None = None,
    overwrite: bool = False,
    save_every: float = 30.0,
    progress: bool = True,
) -> dict[str, Result]:
    """Train an adapter for every entry of `data` and save it to `out/NAME`.

    Args:
        backbone: frozen; not changed.
        data: name -> path of a .csv, .jsonl or .parquet file (for "lm" also .txt), or a `datasets.Dataset`, or dicts.
        out: directory of the run. A finished run there is refused unless `overwrite`; an unfinished one is resumed.
        method: the adapter method, or several that form one adapter together; `None` trains the head alone (a linear probe).
        task: "classify", "multilabel", "regress" or "tag"; of a language model "lm", "sft" or "dpo"; of an encoder-decoder
            "seq2seq".
        recipe: hyperparameters, for all adapters.
        each: name -> fields of the recipe (and "method") that differ for this adapter.
        val: a fraction of the rows to hold out, or name -> data. With validation rows the best epoch is kept, else the last.
        columns: which columns hold texts and labels.
        pack_size: how many adapters are trained at once; None measures, once per run.
        overwrite: replace adapters that are there, and throw away an unfinished run of other settings.
        save_every: seconds between checkpoints.
        progress: show bars, or a line per epoch, on standard error.

    Returns:
        name -> `Result`, in the order of `data`.

    Raises:
        GraftaxError: bad input, found before anything is trained; or adapters whose loss was not finite, after the rest.
        Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    out = Path(out)
    each = each or {}
    if not data:
        raise GraftaxError("there is no data to train on.")
    if pack_size is not None and pack_size < 1:
        raise GraftaxError(f"the pack size must be at least 1, got {pack_size}.")
    if out.exists() and not out.is_dir():
        raise GraftaxError(f"{out} is not a directory.")
    for name in data:
        if not name or name.startswith(".") or "/" in name or name == "metrics.jsonl":
            raise GraftaxError(f"an adapter cannot be named {name!r}: its files go to a directory of that name.")
    select_overrides(each, list(data))
    if isinstance(val, Mapping):
        select_overrides(val, list(data), "validation rows")
    tokenizer, kind = Tokenizer.of(backbone), task_named(task)
    jobs = []
    for name, rows in data.items():
        changes = dict(each.get(name, {}))
        own_method = changes.pop("method", method)
        held = val.get(name) if isinstance(val, Mapping) else val
        jobs.append(
            prepare(
                name,
                rows,
                held,
                backbone=backbone,
                task=kind,
                method=own_method,
                recipe=recipe.replace(**changes),
                columns=columns,
                tokenizer=tokenizer,
            )
        )
    with disk.locked(out):
        run = Run(backbone, kind, jobs, out, tokenizer, pack_size, overwrite, save_every, progress)
        with run.signals():
            return run.go()


@dataclass
class Timer:
    """Of one job's steps, those of this process. A step returns before it is computed, so that epochs are what can be timed."""

    seconds: float = 0.0  # of this epoch
    steps: int = 0
    means: list[float] = field(default_factory=list)  # of the epochs before

    def step(self, seconds: float) -> None:
        self.seconds, self.steps = self.seconds + seconds, self.steps + 1

    def end_epoch(self) -> None:
        self.means.append(self.seconds / self.steps)
        self.seconds, self.steps = 0.0, 0

    @property
    def step_seconds(self) -> float:
        return float(np.median(self.means))


class Run:
    """One call of `train_many`, new or resumed."""

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        jobs: list[Job],
        out: Path,
        tokenizer: Tokenizer,
        pack_size: int | None,
        overwrite: bool,
        save_every: float,
        progress: bool,
    ):
        self.backbone, self.task, self.jobs, self.out, self.save_every = backbone, task, jobs, out, save_every
        self.tokenizer = tokenizer
        self.folder = out / ".run"
        self.stopped: int | None = None  # the signal that arrived
        self.results: dict[str, Result] = {}
        self.failures: list[str] = []
        self.timers: dict[str, Timer] = {}  # of the jobs in the slots
        self.history: dict[str, list[dict[str, Any]]] = {job.name: [] for job in jobs}

        self.kinds = by_kind(jobs, backbone.sites)
        if pack_size is not None:
            pack_size = min(pack_size, len(jobs))
        started = self._settle(overwrite, pack_size)
        self.sizes = started or [pack_size or choose_pack_size(backbone, task, own, tokenizer) for own in self.kinds]
        self.ticks, offset = 0, None
        if started is None:
            shutil.rmtree(self.folder, ignore_errors=True)  # a crash in the middle of removing it leaves stale checkpoints
            what = {"digest": self._digest(), "pack_sizes": self.sizes, "jobs": [j.name for j in jobs], "machine": _machine()}
            disk.write_json(self.folder / "run.json", what)
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        facts = self.checkpoints.facts() if started is not None else None
        self._open(facts["kind"] if facts else 0)
        if facts:
            self.pack.restore(self.checkpoints.arrays(like=self.pack.arrays()), facts["places"])
            self.waiting, self.failures, self.ticks = facts["waiting"], facts["failures"], facts["ticks"]
            self.history, offset = facts["history"], facts["offset"]
            sizes = {job.name: size for own, size in zip(self.kinds, self.sizes, strict=True) for job in own}
            self.results = {
                name: Result(name, out / name, **known, history=self.history[name], pack_size=sizes[name])
                for name, known in facts["done"].items()
            }
        self.metrics = Metrics(out / "metrics.jsonl", offset, [job.name for job in jobs])
        total = sum(job.recipe.epochs * job.steps_per_epoch for job in jobs)
        ended = {*self.results, *self.failures}
        done_steps = sum(job.recipe.epochs * job.steps_per_epoch for job in jobs if job.name in ended)
        done_steps += sum(self._steps(place) for place in self.pack.places if place)
        self.progress = Progress(total, done_steps, progress)
        if offset is not None:
            done = len(self.results)
            self.progress.say(f"resumed: {done} of {len(jobs)} adapters done, pack size {self.sizes[self.kind]}")
            if read_object(self.folder / "run.json").get("machine") != _machine():
                self.progress.say("begun on another machine: the last bits may differ from an uninterrupted run's")
        for place in self.pack.places:
            if place is not None:
                self._begin(self.pack.jobs[place.job], self._steps(place))

    def _open(self, kind: int) -> None:
        """A pack for the jobs of one kind, which all wait."""
        self.kind, mine = kind, self.kinds[kind]
        self.pack = Pack(self.backbone, self.task, mine, self.sizes[kind], self.tokenizer)
        self.waiting = list(range(len(mine)))

    def _steps(self, place: Place) -> int:
        """How many steps the job in a slot has taken."""
        return place.epoch * self.pack.jobs[place.job].steps_per_epoch + place.position

    # -- what is in the directory already -------------------------------------------------------------------------------

    def _digest(self) -> str:
        # the fingerprint leaves out what the weights are held as
        facts = [
            jax.__version__,
            self.backbone.fingerprint,
            f"{self.backbone.dtype.name} {self.backbone.quantize}",
            self.task.name,
            *(job.digest() for job in self.jobs),
        ]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()

    def _settle(self, overwrite: bool, pack_size: int | None) -> list[int] | None:
        """The pack sizes, by kind, of an unfinished run to go on with, or None to begin; refuses what would lose something."""
        file = self.folder / "run.json"
        if file.is_file():
            facts = read_object(file)
            sizes = facts.get("pack_sizes")
            if sizes and facts.get("digest") == self._digest() and pack_size in (None, *sizes):
                return list(sizes)
            if not overwrite:
                raise GraftaxError(
                    f"{self.out} holds an unfinished run with other settings or data; repeat its command to resume it, choose "
                    "another directory, or pass --overwrite."
                )
            shutil.rmtree(self.folder)
        there = [job.name for job in self.jobs if (self.out / job.name).exists()]
        if there and not overwrite:
            raise GraftaxError(f"{self.out} already holds {', '.join(there)}; choose another directory or pass --overwrite.")
        return None

    # -- the loop -------------------------------------------------------------------------------------------------------

    def go(self) -> dict[str, Result]:
        try:
            with disk.full_disk(self.out):
                self._loop()
        finally:
            self.metrics.close()
            self.progress.close()
            with disk.full_disk(self.folder):
                self.checkpoints.close()
        (self.folder / "run.json").unlink()  # first: without it the rest is no unfinished run
        shutil.rmtree(self.folder)
        if self.failures:
            raise GraftaxError(
                f"no adapter for {', '.join(self.failures)}: the loss was not finite; try a lower learning rate. "
                f"Saved: {', '.join(self.results) or 'none'}."
            )
        return {job.name: self.results[job.name] for job in self.jobs}

    def _loop(self) -> None:
        saved = time.monotonic()
        self._fill()
        while self.pack.busy:
            began = time.perf_counter()
            ticked = self.pack.tick()
            if any(self.pack.epoch_done(slot) for slot in ticked):
                self.pack.wait()  # it would soon, for the loss: so that its last steps are in this epoch's time
            seconds = (time.perf_counter() - began) / max(1, len(ticked))
            for slot in ticked:
                place = self.pack.places[slot]
                assert place is not None
                name = self.pack.jobs[place.job].name
                self.timers.setdefault(name, Timer()).step(seconds)
                self.progress.advance(name)
                if self.pack.epoch_done(slot):
                    self._end_epoch(slot)
            self._fill()
            self.ticks += 1
            if self.stopped is not None:
                self._checkpoint()
                raise Interrupted(f"interrupted, state saved in {self.folder}; run the same command again to go on.")
            if time.monotonic() - saved > self.save_every:
                self._checkpoint()
                saved = time.monotonic()

    def _fill(self) -> None:
        """Put waiting jobs in free slots; when all jobs of a kind are done, those of the next."""
        if not self.waiting and not self.pack.busy and self.kind + 1 < len(self.kinds):
            self._open(self.kind + 1)
        for slot, place in enumerate(self.pack.places):
            if place is None and self.waiting:
                job = self.waiting.pop(0)
                self.pack.admit(slot, job)
                self._begin(self.pack.jobs[job])

    def _begin(self, job: Job, done: int = 0) -> None:
        self.progress.begin(job.name, job.recipe.epochs * job.steps_per_epoch, done)

    def _end_epoch(self, slot: int) -> None:
        place = self.pack.places[slot]
        assert place is not None
        job = self.pack.jobs[place.job]
        step = (place.epoch + 1) * job.steps_per_epoch
        self.timers[job.name].end_epoch()
        loss, failed = self.pack.take_loss(slot)
        scores = self.pack.evaluate(slot) if job.val is not None and not failed else {}
        if failed or scores is None:
            self.failures.append(job.name)
            self.progress.say(f"{job.name}: stopped, its loss is not finite; a lower learning rate may help.")
            self.progress.end(job.name)
            self.pack.release(slot)
            return
        numbers: dict[str, float] = {"loss": loss}
        if job.val is not None:
            numbers |= {f"val_{name}": value for name, value in scores.items()}
            main = scores[self.task.main_metric] * (-1.0 if self.task.lower_is_better else 1.0)
            if place.best is None or main > place.best:
                place.best, place.best_epoch, place.waited = main, place.epoch + 1, 0
                self.pack.keep_best(slot)
            else:
                place.waited += 1
        place.epoch, place.position = place.epoch + 1, 0
        line = {"adapter": job.name, "epoch": place.epoch, "step": step, **numbers}
        self.history[job.name].append(line)
        self.metrics.write(line)
        self.progress.epoch(job.name, place.epoch, job.recipe.epochs, numbers)
        patience = job.recipe.patience
        if place.epoch == job.recipe.epochs or (patience is not None and place.waited >= patience):
            self._finish(slot)

    def _finish(self, slot: int) -> None:
        place = self.pack.places[slot]
        assert place is not None
        job = self.pack.jobs[place.job]
        kept = place.best_epoch if job.val is not None else place.epoch
        line = self.history[job.name][kept - 1]
        numbers = {key: value for key, value in line.items() if isinstance(value, float)}
        adapter: Adapter = self.pack.result(slot, {**numbers, "epoch": kept})
        save_adapter(adapter, self.out / job.name, self.backbone, overwrite=True)
        taken = self.timers[job.name].step_seconds
        size = len(self.pack.places)
        self.results[job.name] = Result(job.name, self.out / job.name, numbers, taken, self.history[job.name], size)
        self.progress.end(job.name, skipped=(job.recipe.epochs - place.epoch) * job.steps_per_epoch)
        self.pack.release(slot)

    def _checkpoint(self) -> None:
        facts = {
            "kind": self.kind,
            "places": self.pack.facts(),
            "waiting": self.waiting,
            "failures": self.failures,
            "ticks": self.ticks,
            "history": self.history,
            "offset": self.metrics.offset,
            "done": {name: {"metrics": r.metrics, "step_seconds": r.step_seconds} for name, r in self.results.items()},
        }
        self.checkpoints.save(self.ticks, self.pack.arrays(), facts)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Remember SIGINT and SIGTERM until the step is done; a second one acts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def remember(number: int, frame: Any) -> None:
            if self.stopped is not None:
                raise KeyboardInterrupt
            self.stopped = number
            self.progress.interject("stopping after this step; once more to stop at once")

        before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _machine() -> dict[str, Any]:
    """What the last bits of a run depend on, beside its settings."""
    return {"cores": os.cpu_count(), "device": jax.devices()[0].device_kind}
