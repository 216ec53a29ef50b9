"""A run under way: its jobs, from what its directory holds already to the last adapter saved.

`open_run` looks what is in the directory and returns a `Run`, and `Run.go` trains. The jobs of one cohort (`cohorts.py`) flow
through a pack (`pack.py`), and the cohorts come one after another. For instance, a run of five jobs in a pack of two slots:

    tick     slot 0      slot 1      waiting
    1        law         medicine    news, sport, music
    ...      medicine ends first, after its three epochs, is saved, and its slot is free
    31       law         news        sport, music

A checkpoint holds the arrays of the pack together with how far each job is, which jobs wait and which are done. So a run that
was stopped goes on as if it had not been stopped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import disk, processes, signals, watchdog
from ..adapters.directory import MARKS
from ..adapters.files import save_adapter
from ..counted import counted
from ..errors import GraftaxError
from ..exit_codes import INTERRUPTED
from ..models.backbone import Backbone
from ..notes import note
from ..tasks.task import some_of
from .begun import Begun, digest_of, machine, versions
from .cohorts import cohorts_of, traits_of
from .epoch_end import end_epoch, outcome
from .job import Job
from .journal import Metrics, NoMetrics
from .meetings import Meetings
from .outcomes import NotAll, pushed, said_of_failures, said_of_unpushed
from .pack import Bookmark, Pack
from .pack_size import choose_pack_size
from .result import Result, Timer
from .run_checkpoint import Checkpoints
from .spreading import devices_for
from .wanted_run import WantedRun

_SEEN_WITHIN = 30.0  # seconds, by other processes than the one that has written it


class Interrupted(GraftaxError):
    """SIGINT or SIGTERM has arrived, and a checkpoint is saved from which the same call goes on."""

    exit_code = INTERRUPTED


def open_run(wanted: WantedRun) -> Run:
    """The run of its directory: the unfinished run that is there, where it stopped, or else a new one.

    Raises GraftaxError where a run would destroy something: an unfinished run of other settings, or adapters of the same names.
    With `overwrite` both are replaced.
    """
    backbone, jobs, out = wanted.backbone, wanted.jobs, wanted.out
    cohorts, folder = cohorts_of(jobs, backbone.sites), out / ".run"
    note_what_is_not_kept(backbone, cohorts)
    digest = digest_of(backbone, wanted.task, jobs)
    _refuse_unlike(digest)
    with processes.sound("the devices"):
        spread = 1 if backbone.mesh is not None else devices_for(len(jobs), wanted.devices)
        if wanted.fsdp and spread == 1:
            raise GraftaxError(
                "--fsdp is for weights that several devices share, and this run has one (--devices says how many)."
            )
    pack_size = wanted.pack_size
    if pack_size is not None:
        pack_size = -(-min(pack_size, len(jobs)) // spread) * spread  # every device has as many slots

    def what_is_there() -> dict[str, Any] | None:
        found = unfinished(folder / "run.json", digest, len(cohorts), pack_size, wanted.overwrite, out)
        if found is None:
            refuse_loss(wanted.names, out, wanted.overwrite)
            shutil.rmtree(folder, ignore_errors=True)  # a crash in the middle of removing it leaves stale checkpoints
        return None if found is None else asdict(found)

    found = processes.first_says("what the directory holds", what_is_there)
    if found is None:
        begun = Begun(
            digest,
            [pack_size or _chosen_pack_size(wanted, own, spread) for own in cohorts],
            wanted.names,
            machine(spread),
        )
        processes.first_says("the beginning", lambda: begun.write(folder / "run.json"))
    else:
        begun = Begun(**found)
    _refuse_another_disk(folder / "run.json", digest)
    wanted.progress.doing("getting ready")
    if any(size % spread for size in begun.pack_sizes):
        packs, began = some_of([str(size) for size in begun.pack_sizes]), begun.machine.get("devices", 1)
        raise GraftaxError(
            f"{out} holds an unfinished run of packs of {packs}, which cannot be spread over {spread} devices; "
            f"resume it with --devices {began}, or pass --overwrite."
        )
    return Run(wanted, cohorts, begun, resumed=found is not None, devices=spread)


def _refuse_unlike(digest: str) -> None:
    """An error where other processes are about to train something else."""
    mine = {**versions(), "data and settings": digest}
    said = processes.words("what is trained", mine)
    for process, other in enumerate(said):
        if unlike := [name for name in mine if other[name] != said[0][name]]:
            (what, there, here), more = (unlike[0], said[0][unlike[0]], other[unlike[0]]), ""
            if what != "data and settings":
                more = f" ({there} and {here})"
            raise GraftaxError(f"process {process} has other {what} than process 0{more}: all of them run the same command.")


def _refuse_another_disk(file: Path, digest: str) -> None:
    """An error where a process does not see what the first has written: then a checkpoint would lie here and there in parts."""
    with processes.sound("the directory"):
        until = time.monotonic() + _SEEN_WITHIN
        while not (there := file.is_file() and Begun.read(file).digest == digest) and time.monotonic() < until:
            time.sleep(0.1)  # a network's disk may show it later
        if not there:
            raise GraftaxError(
                f"{file}, which process 0 has written, is not seen: --out must be on a disk that all processes share."
            )


def note_what_is_not_kept(backbone: Backbone, cohorts: list[list[Job]]) -> None:
    """A note where augmentation costs what `features.py` would save."""
    traits = [traits_of(own[0], backbone.sites) for own in cohorts]
    unkept = [
        job.name
        for own, of_each in zip(cohorts, traits, strict=True)
        if of_each.augment is not None and backbone.has_frozen_layers(of_each.layout.cut(backbone.structure))
        for job in own
    ]
    if unkept:
        kept = "what frozen layers make of them is not kept, and every epoch costs as much as the first"
        note(f"{some_of(unkept)}: augmented pictures are others in every epoch: {kept}.")


def unfinished(
    file: Path, digest: str, cohorts: int, pack_size: int | None, overwrite: bool, out: Path, *, by_fleet: bool = False
) -> Begun | None:
    """The content of `run.json`, of a run that this call goes on with; None where there is none, or it is overwritten.

    `by_fleet`: as of a `Begun`, of this call.
    """
    if not file.is_file():
        return None
    try:
        begun = Begun.read(file)
        begun.check(digest, cohorts, pack_size, out, by_fleet)
        return begun
    except GraftaxError:
        if not overwrite:
            raise
        return None


def refuse_loss(names: list[str], out: Path, overwrite: bool) -> None:
    """An error where adapters would be replaced without `overwrite`, or with it directories that hold something else."""
    there = [name for name in names if (out / name).exists()]
    if there and not overwrite:
        raise GraftaxError(f"{out} already holds {', '.join(there)}; choose another directory or pass --overwrite.")
    for name in there:
        disk.refuse_foreign(out / name, MARKS)


def _chosen_pack_size(wanted: WantedRun, jobs: list[Job], devices: int) -> int:
    """The pack size of a cohort, measured (`pack_size.py`) and said on the display."""
    wanted.progress.doing("choosing the pack size")
    size, why = choose_pack_size(wanted.backbone, wanted.task, jobs, devices, wanted.fsdp)
    if len(jobs) > 1:
        how = f"{size} at once" if size > 1 else "one after another"
        where = f" on each of {devices} devices" if devices > 1 else ""
        wanted.progress.say(f"{len(jobs)} adapters, {how}{where}: {why}")
    return size * devices


class Run:
    """One call of `train_many` in a directory that `open_run` has looked at, from the newest checkpoint there to the end."""

    def __init__(self, wanted: WantedRun, cohorts: list[list[Job]], begun: Begun, *, resumed: bool, devices: int = 1):
        """`devices`: over how many the slots are spread; `resumed`: whether an earlier call began the run.

        `cohorts`: the jobs of each; `begun`: what `run.json` says.
        """
        self.backbone, self.task, self.jobs = wanted.backbone, wanted.task, wanted.jobs
        self.out, self.lock, self.progress, self.push = wanted.out, wanted.lock, wanted.progress, wanted.push
        self.cohorts, self.sizes = cohorts, begun.pack_sizes  # as many sizes as cohorts
        self.save_every, self.devices, self.fsdp = wanted.save_every, devices, wanted.fsdp
        self.folder = self.out / ".run"
        self.stop = signals.Stop()
        self.first = processes.is_first()  # which alone writes; a checkpoint all of them do
        self.ticks = 0
        self.results: dict[str, Result] = {}
        self.failures: list[str] = []
        self.unpushed: list[str] = []
        self.timers: dict[str, Timer] = {}  # of the jobs in the slots
        self.history: dict[str, list[dict[str, Any]]] = {job.name: [] for job in self.jobs}

        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        facts = self.checkpoints.facts() if resumed else None
        self._open(facts["kind"] if facts else 0)  # in files a cohort is called so
        if facts:
            self._go_on(begun, facts)
        self.metrics: Metrics | NoMetrics = NoMetrics()
        if self.first:
            self.metrics = Metrics(self.out / "metrics.jsonl", facts["offset"] if facts else None, wanted.names)
        self._show_all()

    def _open(self, cohort: int) -> None:
        """Make a pack for the jobs of one cohort, all of which wait."""
        self.cohort, mine = cohort, self.cohorts[cohort]
        self.pack = Pack(
            self.backbone, self.task, mine, self.sizes[cohort], devices=self.devices, fsdp=self.fsdp, breathe=watchdog.beat
        )
        self.waiting = list(range(len(mine)))

    # -- checkpoints ----------------------------------------------------------------------------------------------------

    def _go_on(self, begun: Begun, facts: dict[str, Any]) -> None:
        """Go on from the facts of a checkpoint and the arrays beside them."""
        self.pack.restore(self.checkpoints.arrays(like=self.pack.arrays()), facts["places"])
        self.waiting, self.failures, self.ticks = facts["waiting"], facts["failures"], facts["ticks"]
        self.history = facts["history"]
        sizes = {job.name: size for own, size in zip(self.cohorts, self.sizes, strict=True) for job in own}
        self.results = {
            name: Result(name, self.out / name, **known, history=self.history[name], pack_size=sizes[name])
            for name, known in facts["done"].items()
        }
        done = f"{len(self.results)} of {counted(len(self.jobs), 'adapter')} done"
        self.progress.say(f"resumed: {done}, pack size {self.sizes[self.cohort]}")
        if begun.machine != machine(self.devices):
            self.progress.say("begun on another machine: the last bits may differ from an uninterrupted run's")

    def _checkpoint(self) -> None:
        """Start to save a checkpoint. The names of the facts are those in its files."""
        self._check_lock()
        facts = {
            "kind": self.cohort,
            "places": self.pack.facts(),
            "waiting": self.waiting,
            "failures": self.failures,
            "ticks": self.ticks,
            "history": self.history,
            "offset": self.metrics.offset,
            "done": {name: {"metrics": r.metrics, "step_seconds": r.step_seconds} for name, r in self.results.items()},
        }
        self.checkpoints.save(self.ticks, self.pack.arrays(), facts)

    def _check_lock(self) -> None:
        """Refuse to go on in a directory that was removed meanwhile."""
        if self.lock is not None:
            self.lock.check()

    # -- the loop -------------------------------------------------------------------------------------------------------

    def go(self) -> dict[str, Result]:
        """Train to the end. Returns the result of each job; GraftaxError, when all else is done, for those that failed."""
        kept = "run the same command again when there is room, to go on from the newest state that was saved"
        with disk.writing(self.out, left=kept), self.checkpoints, self.metrics:
            for name in self.results:  # of a run that goes on: perhaps it ended before these were pushed
                self._push(name)
            self._loop()

        def done() -> list[str]:
            self._check_lock()
            (self.folder / "run.json").unlink()  # first: without it the rest is no unfinished run
            shutil.rmtree(self.folder)
            return list(self._faults())

        if faults := processes.first_says("the end", done):
            raise NotAll(" ".join(faults))
        return {job.name: self.results[job.name] for job in self.jobs}

    def _faults(self) -> Iterator[str]:
        """What did not become of the run."""
        yield from said_of_failures(self.failures, self.results)
        yield from said_of_unpushed(self.unpushed, self.results, self.push, self.out)

    def _loop(self) -> None:
        """Tick until no job is left, with a checkpoint now and then, and one when a signal asks to stop."""
        saved, meetings = time.monotonic(), Meetings(self.ticks)
        self._fill()
        self.progress.doing("the first step")
        while self.pack.busy:
            self._tick()
            watchdog.beat()
            self._fill()
            self.ticks += 1
            if not meetings.due(self.ticks):
                continue
            stop, save = meetings.hold(self.ticks, self.stop.asked, time.monotonic() - saved > self.save_every)
            if stop:
                self._checkpoint()
                self.checkpoints.wait()
                raise Interrupted(f"interrupted, state saved in {self.folder}; run the same command again to go on.")
            if save:
                self._checkpoint()
                saved = time.monotonic()

    def _fill(self) -> None:
        """Put waiting jobs in free slots; when all jobs of a cohort are done, begin with those of the next."""
        if not self.waiting and not self.pack.busy and self.cohort + 1 < len(self.cohorts):
            self._open(self.cohort + 1)
        for slot, bookmark in enumerate(self.pack.bookmarks):
            if bookmark is None and self.waiting:
                job = self.waiting.pop(0)
                self.pack.admit(slot, job)
                self._show(Bookmark(job))

    def _tick(self) -> None:
        """Run one step of the pack, and end the epochs of which it was the last step."""
        began = time.perf_counter()
        ticked = self.pack.tick()
        if any(self.pack.epoch_done(slot) for slot in ticked):
            self.pack.wait()  # for the loss it would soon; here, so that the last steps count in this epoch's time
        seconds = (time.perf_counter() - began) / max(1, len(ticked))
        for slot in ticked:
            _, job = self.pack.occupant(slot)
            self.timers.setdefault(job.name, Timer()).step(seconds)
            self.progress.advance(job.name)
            if self.pack.epoch_done(slot):
                self._end_epoch(slot)

    def _end_epoch(self, slot: int) -> None:
        """End the epoch of a slot's job: measure it, write its line, and end the job where this was its last epoch."""
        self._check_lock()
        bookmark, job = self.pack.occupant(slot)
        self.timers[job.name].end_epoch()
        if (ended := end_epoch(self.pack, slot)) is None:
            self._give_up(slot)
            return
        line = {"adapter": job.name, "epoch": bookmark.epoch, "step": bookmark.epoch * job.steps_per_epoch, **ended.numbers}
        self.history[job.name].append(line)
        self.metrics.write(line)
        shown = "loss" if job.val is None else f"val_{self.task.main_metric}"
        self.progress.epoch(job.name, bookmark.epoch, job.recipe.epochs, ended.numbers, shown)
        if ended.is_last:
            self._finish(slot)

    def _finish(self, slot: int) -> None:
        """Save the adapter of a slot whose job is done, and free the slot."""
        bookmark, job = self.pack.occupant(slot)
        adapter, numbers = outcome(self.pack, slot, self.history[job.name])
        if self.first:
            save_adapter(adapter, self.out / job.name, self.backbone, overwrite=True)
        taken = self.timers[job.name].step_seconds
        size = len(self.pack.bookmarks)
        self.results[job.name] = Result(job.name, self.out / job.name, numbers, taken, self.history[job.name], size)
        self.progress.end(job.name, skipped=job.steps - bookmark.epoch * job.steps_per_epoch)
        self.pack.release(slot)
        self._push(job.name)

    def _push(self, name: str) -> None:
        """Put a saved adapter on the shelf, where there is one; where that fails a note says why, and the run goes on."""
        if self.push is None or not self.first:
            return
        if (result := pushed(self.results[name], self.push, self.progress)) is None:
            self.unpushed.append(name)
        else:
            self.results[name] = result

    def _give_up(self, slot: int) -> None:
        """Free the slot of a job whose loss was not finite in the epoch that ends."""
        bookmark, job = self.pack.occupant(slot)
        self.failures.append(job.name)
        self.progress.say(f"{job.name}: stopped, its loss is not finite; a lower learning rate may help.")
        self.progress.end(job.name, skipped=job.steps - (bookmark.epoch + 1) * job.steps_per_epoch)
        self.pack.release(slot)

    # -- what is shown --------------------------------------------------------------------------------------------------

    def _show_all(self) -> None:
        """Show how much there is to do in all, and a bar for each job in a slot."""
        bookmarks = [bookmark for bookmark in self.pack.bookmarks if bookmark is not None]
        ended = {*self.results, *self.failures}
        steps_done = sum(job.steps for job in self.jobs if job.name in ended) + sum(map(self._taken, bookmarks))
        self.progress.expect(len(self.jobs), len(ended), sum(job.steps for job in self.jobs), steps_done)
        for bookmark in bookmarks:
            self._show(bookmark)

    def _show(self, bookmark: Bookmark) -> None:
        """Show a bar for the job at a bookmark."""
        job = self.pack.jobs[bookmark.job]
        self.progress.begin(job.name, job.steps, self._taken(bookmark))

    def _taken(self, bookmark: Bookmark) -> int:
        """How many steps the job at a bookmark has taken."""
        return bookmark.epoch * self.pack.jobs[bookmark.job].steps_per_epoch + bookmark.position
