"""`train_many`: many adapters on one frozen backbone, resumable at any moment.

A run's directory holds an adapter per job and `metrics.jsonl`; while it is unfinished also `.run/`, with what the run is
(`run.json`) and its newest checkpoints. The same call with the same settings goes on from there, and ends with the adapters of
an uninterrupted run, bit for bit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import disk, signals
from ..adapters.adapter import Adapter
from ..adapters.directory import MARKS
from ..adapters.files import save_adapter
from ..adapters.lora import LoRA
from ..adapters.method import Method
from ..errors import GraftaxError
from ..models.backbone import Backbone, expect_backbone
from ..models.tokens import Tokenizer
from ..shown import Shown
from ..typed import checked
from .arguments import changed, check_arguments
from .begun import Begun, digest_of, machine
from .checkpoint import Checkpoints
from .data import Columns
from .job import Job, prepare
from .journal import Metrics
from .kinds import by_kind
from .pack import Pack, Place
from .progress import Progress
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
        data: name -> path of a .csv, .jsonl or .parquet file (for "lm" also .txt), or a `datasets.Dataset`, a pandas DataFrame,
            or dicts (docs/data.md).
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
    each = {} if each is None else each
    expect_backbone(backbone)
    check_arguments(data, out, method, task, recipe, each, val, columns, pack_size, save_every)
    for name, value in {"overwrite": overwrite, "progress": progress}.items():
        checked(value, bool, name)
    out, kind, tokenizer = Path(out), task_named(task), Tokenizer.of(backbone)
    with Progress(progress) as shown:
        jobs = []
        for number, (name, rows) in enumerate(data.items(), 1):
            shown.doing(f"reading {name}, {number} of {len(data)}")
            changes = each.get(name, {})
            jobs.append(
                prepare(
                    name,
                    rows,
                    val.get(name) if isinstance(val, Mapping) else val,
                    backbone=backbone,
                    task=kind,
                    method=changes.get("method", method),
                    recipe=changed(recipe, name, changes),
                    columns=columns,
                    tokenizer=tokenizer,
                )
            )
        with disk.locked(out) as lock:
            run = Run(backbone, kind, jobs, out, lock, tokenizer, pack_size, overwrite, save_every, shown)
            with signals.remembered(shown.stopping) as run.stop:
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
        lock: disk.Locked,
        tokenizer: Tokenizer,
        pack_size: int | None,
        overwrite: bool,
        save_every: float,
        progress: Progress,
    ):
        self.backbone, self.task, self.jobs, self.out, self.lock = backbone, task, jobs, out, lock
        self.tokenizer, self.save_every, self.progress = tokenizer, save_every, progress
        self.folder = out / ".run"
        self.stop = signals.Stop()
        self.results: dict[str, Result] = {}
        self.failures: list[str] = []
        self.timers: dict[str, Timer] = {}  # of the jobs in the slots
        self.history: dict[str, list[dict[str, Any]]] = {job.name: [] for job in jobs}

        self.kinds = by_kind(jobs, backbone.sites)
        pack_size = None if pack_size is None else min(pack_size, len(jobs))
        digest = digest_of(backbone, task, jobs)
        begun = self._settle(digest, overwrite, pack_size)
        if begun is None:
            shutil.rmtree(self.folder, ignore_errors=True)  # a crash in the middle of removing it leaves stale checkpoints
            self.sizes = [pack_size or self._choose_pack_size(own) for own in self.kinds]
            Begun(digest, self.sizes, [job.name for job in jobs]).write(self.folder / "run.json")
        else:
            self.sizes = begun.pack_sizes
        progress.doing("getting ready")
        self.ticks, offset = 0, None
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        facts = None if begun is None else self.checkpoints.facts()
        self._open(facts["kind"] if facts else 0)
        if begun and facts:
            self.pack.restore(self.checkpoints.arrays(like=self.pack.arrays()), facts["places"])
            self.waiting, self.failures, self.ticks = facts["waiting"], facts["failures"], facts["ticks"]
            self.history, offset = facts["history"], facts["offset"]
            sizes = {job.name: size for own, size in zip(self.kinds, self.sizes, strict=True) for job in own}
            self.results = {
                name: Result(name, out / name, **known, history=self.history[name], pack_size=sizes[name])
                for name, known in facts["done"].items()
            }
            done = f"{len(self.results)} of {len(jobs)} adapters done"
            progress.say(f"resumed: {done}, pack size {self.sizes[self.kind]}")
            if begun.machine != machine():
                progress.say("begun on another machine: the last bits may differ from an uninterrupted run's")
        self.metrics = Metrics(out / "metrics.jsonl", offset, [job.name for job in jobs])
        places = [place for place in self.pack.places if place is not None]
        ended = {*self.results, *self.failures}
        steps_done = sum(job.steps for job in jobs if job.name in ended) + sum(map(self._taken, places))
        progress.expect(len(jobs), len(ended), sum(job.steps for job in jobs), steps_done)
        for place in places:
            self._begin(place)

    def _open(self, kind: int) -> None:
        """A pack for the jobs of one kind, which all wait."""
        self.kind, mine = kind, self.kinds[kind]
        self.pack = Pack(self.backbone, self.task, mine, self.sizes[kind], self.tokenizer)
        self.waiting = list(range(len(mine)))

    def _taken(self, place: Place) -> int:
        """How many steps the job in a slot has taken."""
        return place.epoch * self.pack.jobs[place.job].steps_per_epoch + place.position

    # -- what is in the directory already -------------------------------------------------------------------------------

    def _settle(self, digest: str, overwrite: bool, pack_size: int | None) -> Begun | None:
        """The unfinished run to go on with, or None to begin; refuses what would lose something."""
        file = self.folder / "run.json"
        if file.is_file():
            try:
                begun = Begun.read(file)
                begun.check(digest, pack_size, self.out)
                return begun
            except GraftaxError:
                if not overwrite:
                    raise
        there = [job.name for job in self.jobs if (self.out / job.name).exists()]
        if there and not overwrite:
            raise GraftaxError(f"{self.out} already holds {', '.join(there)}; choose another directory or pass --overwrite.")
        for name in there:
            disk.refuse_foreign(self.out / name, MARKS)
        return None

    def _choose_pack_size(self, jobs: list[Job]) -> int:
        self.progress.doing("choosing the pack size")
        size, why = choose_pack_size(self.backbone, self.task, jobs, self.tokenizer)
        if len(jobs) > 1:
            how = f"{size} at once" if size > 1 else "one after another"
            self.progress.say(f"{len(jobs)} adapters, {how}: {why}")
        return size

    # -- the loop -------------------------------------------------------------------------------------------------------

    def go(self) -> dict[str, Result]:
        kept = "run the same command again when there is room, to go on from the newest state that was saved"
        with disk.full_disk(self.out, left=kept), self.checkpoints, self.metrics:
            self._loop()
        self.lock.check()
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
        self.progress.doing("the first step")
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
            if self.stop.asked:
                self._checkpoint()
                self.checkpoints.wait()
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
                self._begin(Place(job))

    def _begin(self, place: Place) -> None:
        job = self.pack.jobs[place.job]
        self.progress.begin(job.name, job.steps, self._taken(place))

    def _end_epoch(self, slot: int) -> None:
        self.lock.check()
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
            self.progress.end(job.name, skipped=job.steps - step)
            self.pack.release(slot)
            return
        numbers: dict[str, float] = {"loss": loss}
        if job.val is not None:
            numbers |= {f"val_{name}": value for name, value in scores.items()}
            main = scores[self.task.main_metric] * (-1.0 if self.task.lower_is_better else 1.0)
            reached = [main, -scores["loss"]]  # where the main metric ties, the loss decides
            if place.best is None or reached > place.best:
                place.best, place.best_epoch, place.waited = reached, place.epoch + 1, 0
                self.pack.keep_best(slot)
            else:
                place.waited += 1
        place.epoch, place.position = place.epoch + 1, 0
        line = {"adapter": job.name, "epoch": place.epoch, "step": step, **numbers}
        self.history[job.name].append(line)
        self.metrics.write(line)
        shown = "loss" if job.val is None else f"val_{self.task.main_metric}"
        self.progress.epoch(job.name, place.epoch, job.recipe.epochs, numbers, shown)
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
        self.progress.end(job.name, skipped=job.steps - place.epoch * job.steps_per_epoch)
        self.pack.release(slot)

    def _checkpoint(self) -> None:
        self.lock.check()
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
