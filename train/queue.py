"""A run under way: its jobs, from what the directory holds already to the last adapter saved.

`open_run` settles what is in the directory, and the `Run` that it gives goes. The jobs of one kind (`kinds.py`) flow through
a pack (`pack.py`), one kind after another. Where each of them is, what waits and what is done is checkpointed with the pack's
arrays, so that a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from .. import disk, signals
from ..adapters.directory import MARKS
from ..adapters.files import save_adapter
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..tasks.task import Task
from .begun import Begun, digest_of, machine
from .job import Job
from .journal import Metrics
from .kinds import by_kind
from .pack import Bookmark, Pack
from .pack_size import choose_pack_size
from .progress import Progress
from .result import Result, Timer
from .run_checkpoint import Checkpoints


class Interrupted(GraftaxError):
    """SIGINT or SIGTERM arrived; the state is saved."""


def open_run(
    backbone: Backbone,
    task: Task,
    jobs: list[Job],
    out: Path,
    lock: disk.Locked,
    pack_size: int | None,
    overwrite: bool,
    save_every: float,
    progress: Progress,
) -> Run:
    """The run of a directory: the unfinished one there, where it stood, or one that is begun.

    Raises GraftaxError where either would lose something: for an unfinished run of other settings, and for adapters of these
    names. With `overwrite` both are replaced.
    """
    kinds, folder = by_kind(jobs, backbone.sites), out / ".run"
    digest = digest_of(backbone, task, jobs)
    pack_size = None if pack_size is None else min(pack_size, len(jobs))
    found = _unfinished(folder / "run.json", digest, len(kinds), pack_size, overwrite, out)
    if found is None:
        _refuse_loss(jobs, out, overwrite)
        shutil.rmtree(folder, ignore_errors=True)  # a crash in the middle of removing it leaves stale checkpoints
        sizes = [pack_size or _chosen_pack_size(backbone, task, own, progress) for own in kinds]
        begun = Begun(digest, sizes, [job.name for job in jobs])
        begun.write(folder / "run.json")
    else:
        begun = found
    progress.doing("getting ready")
    return Run(backbone, task, jobs, kinds, begun, found is not None, out, lock, save_every, progress)


def _unfinished(file: Path, digest: str, kinds: int, pack_size: int | None, overwrite: bool, out: Path) -> Begun | None:
    """What the unfinished run of a directory was begun with, if there is one that this call goes on with."""
    if not file.is_file():
        return None
    try:
        begun = Begun.read(file)
        begun.check(digest, kinds, pack_size, out)
        return begun
    except GraftaxError:
        if not overwrite:
            raise
        return None


def _refuse_loss(jobs: list[Job], out: Path, overwrite: bool) -> None:
    """An error where adapters would be replaced that nobody said may be, or directories that hold something else."""
    there = [job.name for job in jobs if (out / job.name).exists()]
    if there and not overwrite:
        raise GraftaxError(f"{out} already holds {', '.join(there)}; choose another directory or pass --overwrite.")
    for name in there:
        disk.refuse_foreign(out / name, MARKS)


def _chosen_pack_size(backbone: Backbone, task: Task, jobs: list[Job], progress: Progress) -> int:
    progress.doing("choosing the pack size")
    size, why = choose_pack_size(backbone, task, jobs)
    if len(jobs) > 1:
        how = f"{size} at once" if size > 1 else "one after another"
        progress.say(f"{len(jobs)} adapters, {how}: {why}")
    return size


class Run:
    """One call of `train_many` in a settled directory, from its newest checkpoint, where it has one, to the end."""

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        jobs: list[Job],
        kinds: list[list[Job]],
        begun: Begun,
        resumed: bool,
        out: Path,
        lock: disk.Locked,
        save_every: float,
        progress: Progress,
    ):
        """`kinds`: the jobs of each kind; `begun`: what the directory says of it; `resumed`: whether it was there before."""
        self.backbone, self.task, self.jobs, self.out, self.lock = backbone, task, jobs, out, lock
        self.kinds, self.sizes = kinds, begun.pack_sizes
        self.save_every, self.progress = save_every, progress
        self.folder = out / ".run"
        self.stop = signals.Stop()
        self.ticks = 0
        self.results: dict[str, Result] = {}
        self.failures: list[str] = []
        self.timers: dict[str, Timer] = {}  # of the jobs in the slots
        self.history: dict[str, list[dict[str, Any]]] = {job.name: [] for job in jobs}

        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        facts = self.checkpoints.facts() if resumed else None
        self._open(facts["kind"] if facts else 0)
        if facts:
            self._go_on(begun, facts)
        self.metrics = Metrics(out / "metrics.jsonl", facts["offset"] if facts else None, [job.name for job in jobs])
        self._show_all()

    def _open(self, kind: int) -> None:
        """A pack for the jobs of one kind, which all wait."""
        self.kind, mine = kind, self.kinds[kind]
        self.pack = Pack(self.backbone, self.task, mine, self.sizes[kind])
        self.waiting = list(range(len(mine)))

    # -- checkpoints ----------------------------------------------------------------------------------------------------

    def _go_on(self, begun: Begun, facts: dict[str, Any]) -> None:
        """Go on from a checkpoint's facts, and its arrays."""
        self.pack.restore(self.checkpoints.arrays(like=self.pack.arrays()), facts["places"])
        self.waiting, self.failures, self.ticks = facts["waiting"], facts["failures"], facts["ticks"]
        self.history = facts["history"]
        sizes = {job.name: size for own, size in zip(self.kinds, self.sizes, strict=True) for job in own}
        self.results = {
            name: Result(name, self.out / name, **known, history=self.history[name], pack_size=sizes[name])
            for name, known in facts["done"].items()
        }
        done = f"{len(self.results)} of {len(self.jobs)} adapters done"
        self.progress.say(f"resumed: {done}, pack size {self.sizes[self.kind]}")
        if begun.machine != machine():
            self.progress.say("begun on another machine: the last bits may differ from an uninterrupted run's")

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

    # -- the loop -------------------------------------------------------------------------------------------------------

    def go(self) -> dict[str, Result]:
        kept = "run the same command again when there is room, to go on from the newest state that was saved"
        with disk.writing(self.out, left=kept), self.checkpoints, self.metrics:
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
            self._tick()
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
        for slot, bookmark in enumerate(self.pack.bookmarks):
            if bookmark is None and self.waiting:
                job = self.waiting.pop(0)
                self.pack.admit(slot, job)
                self._show(Bookmark(job))

    def _tick(self) -> None:
        """A step of the pack, and the ends of the epochs that end with it."""
        began = time.perf_counter()
        ticked = self.pack.tick()
        if any(self.pack.epoch_done(slot) for slot in ticked):
            self.pack.wait()  # it would soon, for the loss: so that its last steps are in this epoch's time
        seconds = (time.perf_counter() - began) / max(1, len(ticked))
        for slot in ticked:
            _, job = self.pack.occupant(slot)
            self.timers.setdefault(job.name, Timer()).step(seconds)
            self.progress.advance(job.name)
            if self.pack.epoch_done(slot):
                self._end_epoch(slot)

    def _end_epoch(self, slot: int) -> None:
        self.lock.check()
        bookmark, job = self.pack.occupant(slot)
        self.timers[job.name].end_epoch()
        loss, failed = self.pack.take_loss(slot)
        scores = self.pack.evaluate(slot) if job.val is not None and not failed else {}
        if failed or scores is None:
            self._give_up(slot)
            return
        if job.val is not None:
            self._compare(slot, scores)
        bookmark.epoch, bookmark.position = bookmark.epoch + 1, 0
        numbers = {"loss": loss, **{f"val_{name}": value for name, value in scores.items()}}
        line = {"adapter": job.name, "epoch": bookmark.epoch, "step": bookmark.epoch * job.steps_per_epoch, **numbers}
        self.history[job.name].append(line)
        self.metrics.write(line)
        shown = "loss" if job.val is None else f"val_{self.task.main_metric}"
        self.progress.epoch(job.name, bookmark.epoch, job.recipe.epochs, numbers, shown)
        patience = job.recipe.patience
        if bookmark.epoch == job.recipe.epochs or (patience is not None and bookmark.waited >= patience):
            self._finish(slot)

    def _compare(self, slot: int, scores: dict[str, float]) -> None:
        """The epoch that ends is the best so far, or one more since that was."""
        bookmark, _ = self.pack.occupant(slot)
        main = scores[self.task.main_metric] * (-1.0 if self.task.lower_is_better else 1.0)
        reached = [main, -scores["loss"]]  # where the main metric ties, the loss decides
        if bookmark.best is None or reached > bookmark.best:
            bookmark.best, bookmark.best_epoch, bookmark.waited = reached, bookmark.epoch + 1, 0
            self.pack.keep_best(slot)
        else:
            bookmark.waited += 1

    def _finish(self, slot: int) -> None:
        """Save a slot's adapter and free the slot."""
        bookmark, job = self.pack.occupant(slot)
        kept = bookmark.best_epoch if job.val is not None else bookmark.epoch
        line = self.history[job.name][kept - 1]
        numbers = {key: value for key, value in line.items() if isinstance(value, float)}
        adapter = self.pack.result(slot, {**numbers, "epoch": kept})
        save_adapter(adapter, self.out / job.name, self.backbone, overwrite=True)
        taken = self.timers[job.name].step_seconds
        size = len(self.pack.bookmarks)
        self.results[job.name] = Result(job.name, self.out / job.name, numbers, taken, self.history[job.name], size)
        self.progress.end(job.name, skipped=job.steps - bookmark.epoch * job.steps_per_epoch)
        self.pack.release(slot)

    def _give_up(self, slot: int) -> None:
        """Free a slot whose loss is not finite, in the epoch that ends."""
        bookmark, job = self.pack.occupant(slot)
        self.failures.append(job.name)
        self.progress.say(f"{job.name}: stopped, its loss is not finite; a lower learning rate may help.")
        self.progress.end(job.name, skipped=job.steps - (bookmark.epoch + 1) * job.steps_per_epoch)
        self.pack.release(slot)

    # -- what is shown --------------------------------------------------------------------------------------------------

    def _show_all(self) -> None:
        """How much there is to do, and a bar for each job in a slot."""
        bookmarks = [bookmark for bookmark in self.pack.bookmarks if bookmark is not None]
        ended = {*self.results, *self.failures}
        steps_done = sum(job.steps for job in self.jobs if job.name in ended) + sum(map(self._taken, bookmarks))
        self.progress.expect(len(self.jobs), len(ended), sum(job.steps for job in self.jobs), steps_done)
        for bookmark in bookmarks:
            self._show(bookmark)

    def _show(self, bookmark: Bookmark) -> None:
        job = self.pack.jobs[bookmark.job]
        self.progress.begin(job.name, job.steps, self._taken(bookmark))

    def _taken(self, bookmark: Bookmark) -> int:
        """How many steps the job in a slot has taken."""
        return bookmark.epoch * self.pack.jobs[bookmark.job].steps_per_epoch + bookmark.position
