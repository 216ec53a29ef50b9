"""What trains the jobs of all tenants, beside the serving and on its frozen weights: two threads that look into the table.

    validating_files --[intake: the files are read and checked]--> queued --[trainer: a slot of a pack]--> running --> succeeded

Whose pack steps next is decided as the engine decides whose text begins next (`serve/turns.py`): that of the tenant for whom
the device has worked least. Whose job begins next is decided likewise, among those of the highest priority.

What a job becomes depends on its rows, its settings, its seed and the width of its pack, and not on its neighbours, on the
time when it came or on how often the server was killed. Its state is saved once in a while, and after a kill it goes on from
there and comes to the same bytes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from ... import disk
from ...adapters.files import save_adapter
from ...errors import GraftaxError, in_a_line
from ...models.backbone import Backbone
from ...notes import heard
from ...serve.turns import Turns
from ...train.epoch_end import end_epoch, outcome
from ...train.job import Job
from ...train.pack import Pack
from ..device_time import DeviceTime
from ..training_cost import Cost
from .job_record import JobError, JobRecord, Status, unfit
from .job_table import JobTable
from .open_packs import OpenPacks
from .running_job import ReadyJob, RunningJob
from .step_metrics import step_metrics

_KEPT_EPOCHS = 3  # of a job, whose adapters can be asked
_NOT_OVER: tuple[Status, ...] = ("validating_files", "queued", "running", "paused")
_TOLD = {"cancelled": "The job was cancelled.", "paused": "The job was paused.", "queued": "The job was resumed."}


class JobTrainer:
    """Trains what lies in a table. Its public methods may be called from any thread."""

    def __init__(
        self,
        backbone: Backbone,
        table: JobTable,
        folder: Path,
        *,
        make: Callable[[JobRecord], Job],
        called: Callable[[JobRecord], str],
        publish: Callable[[JobRecord, str, Path], None],
        publish_again: Callable[[JobRecord, str, Path], None],
        withdraw: Callable[[str], object],
        device: DeviceTime,
        allow: Callable[[JobRecord, Cost], str | None] = lambda record, cost: None,
        report: Callable[[JobRecord, bytes], None] = lambda record, content: None,
        afterwards: Callable[[], bool] = lambda: False,
        slots: int = 8,
        save_every: float = 60.0,
    ):
        """Nothing is done before `start`.

        Args:
            backbone: frozen; what is served.
            table: of jobs, which says what is to be done.
            folder: where adapters (`models/`) and the states of unfinished jobs (`states/`) lie.
            make: reads a job's files, checks them, and makes a job of them that can begin; GraftaxError where they do not fit.
            called: what a job's finished adapter is to be called.
            publish: lets the adapter in a directory, which a job has made, be asked by a name.
            publish_again: the same of one that the process before this one has published.
            withdraw: takes such a name away, if it is there, and removes the directory.
            device: which is shared with the serving.
            report: is handed what the epochs of a job came to that is about to succeed, as `step_metrics.py` has it.
            afterwards: does something of what is left to be done for jobs that have ended; False where there is nothing.
            allow: why a job that has cost so much may not go on; None: it may.
            slots: adapters that are trained at once.
            save_every: seconds between two saves of a job's state.
        """
        self.backbone, self.table, self.folder = backbone, table, folder
        self._make, self._called, self._withdraw = make, called, withdraw
        self._publish, self._publish_again = publish, publish_again
        self._allow, self._report, self._afterwards = allow, report, afterwards
        self._device, self._slots, self._save_every = device, slots, save_every
        self._packs = OpenPacks(backbone, slots, folder / "states", device.breathe)
        self._ready: dict[str, ReadyJob] = {}
        self._running: dict[str, RunningJob] = {}
        self._leaving: set[str] = set()  # jobs in slots that were cancelled or paused
        self._given_up: list[tuple[RunningJob, JobError]] = []  # of which the table does not know yet
        self._compiled: set[Any] = set()  # calls that were made once, and so have their programs
        self._turns = Turns()  # belongs to the trainer's thread, as all that is in slots does
        self._changed = threading.Condition()  # of the three above
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, args=(advance,), name=f"graftax-{name}", daemon=True)
            for name, advance in (("intake", self.take_in), ("trainer", self.train))
        ]
        self.failure: str | None = None  # what went wrong last that is nobody's job

    # -- what others call -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, and go on with what was under way when the process before this one ended."""
        self.take_up()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End when the step under way is over and the state of every job is saved."""
        self._stopping = True
        self.look()
        for thread in self._threads:
            thread.join()
        self.lay_down()

    def take_up(self) -> None:
        """What is done before the threads begin: what was running waits, and what was trained can be asked."""
        for record in self.table.in_states("running"):
            self.table.change(record.id, status="queued")
        unfinished = {record.id for record in self.table.not_over()}
        for state in (self.folder / "states").glob("*"):
            if state.name not in unfinished:  # of a job that ended a moment before a kill
                disk.remove_directory(state)
        known = {path.name for record in self.table.in_states(*get_args(Status)) for path in self._publish_all(record)}
        for left in (self.folder / "models").glob("*"):
            if left.is_dir() and left.name not in known:  # it was saved a moment before a kill, and nobody was told its name
                disk.remove_directory(left)

    def lay_down(self) -> None:
        """What is done when they have ended: the state of every job is saved."""
        for one in [*self._running.values()]:
            self._save(one)
            self._leave(one)

    def look(self) -> None:
        """Say that something in the table is new."""
        with self._changed:
            self._changed.notify_all()

    def cancel(self, job: str) -> JobRecord:
        """End a job that is not over; what it has learnt is dropped. Raises GraftaxError where it is over, or there is none."""
        return self._ask(job, "cancelled", _NOT_OVER, "it is over", finished=int(time.time()))

    def pause(self, job: str) -> JobRecord:
        """Let a job wait, and give its slot to others. Raises GraftaxError where it is neither queued nor running."""
        return self._ask(job, "paused", ("queued", "running"), "only a queued or running job can be paused")

    def resume(self, job: str) -> JobRecord:
        """Let a paused job go on. Raises GraftaxError where it is not paused."""
        return self._ask(job, "queued", ("paused",), "only a paused job can be resumed")

    @property
    def slots(self) -> int:
        """How many jobs are trained at once."""
        return self._slots

    def share(self) -> float:
        """As of `DeviceTime`."""
        return self._device.share()

    def progress(self, job: str) -> Cost | None:
        """What a job that has a slot has cost so far, its steps among it; None where it has none."""
        with self._changed:
            running = self._running.get(job)
        return None if running is None else running.cost

    def _ask(self, job: str, status: Status, only_if: Sequence[Status], otherwise: str, **changes: Any) -> JobRecord:
        """Bring a job into a state. One that is in a slot leaves it before its next step."""
        done = self.table.change(job, only_if=only_if, status=status, **changes)
        record = self.table.job(job)
        if record is None:
            raise GraftaxError(f"there is no job {job}.")
        if not done:
            raise GraftaxError(f"{job}: {otherwise} (status: {record.status}).")
        self.table.tell(job, _TOLD[status])
        with self._changed:
            if status != "queued":
                self._ready.pop(job, None)
                self._leaving.update({job} & self._running.keys())
            self._changed.notify_all()
        return record

    def _run(self, advance: Callable[[], bool]) -> None:
        """A thread: advance as long as there is something to do, and else wait to be told."""
        while not self._stopping:
            try:
                busy = advance()
            except Exception as error:  # of one job they are caught where the job is known: this is a mistake of ours
                logging.getLogger("graftax").exception("the training failed")
                self.failure, busy = in_a_line(f"{type(error).__name__}: {error}"), False
            with self._changed:
                if not busy and not self._stopping:
                    self._changed.wait(1.0)  # what was missed, and what is due by the clock, is found then

    # -- intake -----------------------------------------------------------------------------------------------------------

    def take_in(self) -> bool:
        """What one thread does: read the files of the next job that needs it, or do what is left to be done for another.

        False where there is nothing to do.
        """
        for record in [*self.table.in_states("validating_files"), *self._next_in_line()]:
            if record.id not in self._ready:
                self._take_in_one(record)
                return True
        return self._afterwards()

    def _next_in_line(self) -> list[JobRecord]:
        """Of every tenant the queued jobs that could begin next: as many as there are slots."""
        found, count = list[JobRecord](), Counter[str | None]()
        for record in sorted(self.table.in_states("queued"), key=lambda record: -record.request.priority):
            count[record.tenant] += 1
            if count[record.tenant] <= self._slots:
                found.append(record)
        return found

    def _take_in_one(self, record: JobRecord) -> None:
        try:
            with heard() as notes:
                job = self._make(record)
        except GraftaxError as error:
            self._fail(record, unfit(record.request, str(error)))
            return
        except Exception as error:  # a mistake of ours; the job would else be tried again for ever
            logging.getLogger("graftax").exception("a job could not be read")
            self._fail(record, JobError("server_error", in_a_line(f"{type(error).__name__}: {error}")))
            return
        if record.status == "validating_files":
            if not self.table.change(record.id, only_if=("validating_files",), status="queued", steps_in_all=job.steps):
                return  # it was cancelled meanwhile
            said = f"The files are valid: {len(job.train):,} rows, {job.steps:,} steps. The job is queued."
            self.table.tell(record.id, said)
            for one in notes:
                self.table.tell(record.id, one, level="warn")
        if record.id not in {other.id for other in self._next_in_line()}:
            return  # its files are read again when its turn is near: of a thousand jobs few are in memory
        ready = ReadyJob.of(record, job, self.backbone.sites)
        with self._changed:
            self._ready[record.id] = ready
            self._changed.notify_all()

    # -- training ---------------------------------------------------------------------------------------------------------

    def train(self) -> bool:
        """What the other does: let jobs leave and begin, and take a step of one pack. False where there is nothing to train."""
        self._tell_of_given_up()
        self._let_leave()
        self._admit()
        if not self._running:
            return False
        self._step(next(self._turns.order([*self._running.values()], self._waiting())).pack)
        for one in [*self._running.values()]:
            if time.monotonic() - one.saved > self._save_every:
                self._save(one)
        return True

    def _step(self, pack: Pack) -> None:
        """Take a step of a pack, and end the epochs of which it was the last."""
        jobs = [one for one in self._running.values() if one.pack is pack]
        tokens = {one: one.tokens_of_next_step for one in jobs}
        try:
            with self._turn("step", pack) as took:
                ticked = pack.tick()
                pack.wait()
        except Exception as error:  # for lack of memory, say: it is the affair of the jobs of this pack
            logging.getLogger("graftax").exception("a step of the training failed")
            for one in jobs:
                self._give_up(one, JobError("training_failed", in_a_line(f"{type(error).__name__}: {error}")))
            return
        seconds = took() / len(jobs)
        for one in jobs:  # where no slot took a step, features of frozen layers were computed
            stepped = one.slot in ticked
            one.charge(int(stepped), tokens[one] if stepped else 0, seconds)
            self._turns.charge(one, seconds)
            try:
                if stepped and pack.epoch_done(one.slot):
                    self._end_epoch(one)
                elif (refusal := self._allow(one.record, one.cost)) is not None:
                    self._give_up(one, JobError("quota_exceeded", refusal))
            except Exception as error:  # its disk is full, say: its neighbours go on
                logging.getLogger("graftax").exception("a job failed at the end of its epoch")
                self._give_up(one, JobError("training_failed", in_a_line(f"{type(error).__name__}: {error}")))

    @contextmanager
    def _turn(self, what: str, pack: Pack) -> Iterator[Callable[[], float]]:
        """The device for a call, and what tells afterwards for how many seconds.

        Of a call whose programs are yet to be compiled, which takes seconds, none: others go on, and no job has to pay for it.
        """
        call = (what, self._packs.kind_of(pack), len(pack.bookmarks))
        if call not in self._compiled:
            self._compiled.add(call)
            yield lambda: 0.0
            return
        with self._device.step():
            began, ended = time.perf_counter(), list[float]()
            yield lambda: ended[0] - began
            ended.append(time.perf_counter())

    def _end_epoch(self, one: RunningJob) -> None:
        """End an epoch of a job, and the job where it was its last."""
        with self._turn("end", one.pack) as took:
            ended = end_epoch(one.pack, one.slot)
        seconds = took()
        one.charge(0, 0, seconds)
        self._turns.charge(one, seconds)
        if ended is None:
            self._give_up(one, JobError("training_failed", "the loss is not finite; try a lower learning rate."))
            return
        one.history.append({"epoch": len(one.history) + 1, "step": one.steps, **ended.numbers})
        said = f"Epoch {len(one.history)} of {one.job.recipe.epochs}: training loss {ended.numbers['loss']:.4g}."
        self.table.tell(one.record.id, said, data=one.history[-1], step=one.steps)
        if ended.is_last:
            self._finish(one)
        else:
            self._keep_epoch(one, ended.numbers)

    def _keep_epoch(self, one: RunningJob, numbers: dict[str, float]) -> None:
        """Let the adapter be asked that a job has become by the end of an epoch, and the oldest of its epochs no longer."""
        step, directory = one.steps, self._directory(one.record, one.steps)
        save_adapter(one.pack.now(one.slot, numbers), directory, self.backbone, overwrite=True)
        self.table.keep(one.record.id, step, f"{self._called(one.record)}:ckpt-step-{step}", numbers)
        newest, *older = self.table.checkpoints(one.record.id)
        self._publish(one.record, newest.model, directory)
        for kept in older[_KEPT_EPOCHS - 1 :]:
            self._withdraw(kept.model)

    def _finish(self, one: RunningJob) -> None:
        """Save what has become of a job, and let it be asked."""
        adapter, _ = outcome(one.pack, one.slot, one.history)
        directory, name = self._directory(one.record), self._called(one.record)
        save_adapter(adapter, directory, self.backbone, overwrite=True)
        self._publish(one.record, name, directory)
        self._report(one.record, step_metrics(one.history))
        ended: dict[str, Any] = {"status": "succeeded", "finished": int(time.time()), "model": name, "cost": one.cost}
        if self.table.change(one.record.id, only_if=_NOT_OVER, **ended):  # who pauses a job at this moment is too late
            self.table.tell(one.record.id, f"The job has succeeded: its model is {name}.")
        else:  # it was cancelled
            self._withdraw(name)
        self._leave(one)
        one.forget()

    def _give_up(self, one: RunningJob, error: JobError) -> None:
        """End a job that cannot go on; its neighbours do."""
        self._leave(one)
        self._given_up.append((one, error))
        try:
            self._tell_of_given_up()
        except disk.DiskFull:
            logging.getLogger("graftax").exception("a job has failed, and the table cannot be told")

    def _tell_of_given_up(self) -> None:
        """Have the table know of jobs that were given up; DiskFull where that must wait."""
        while self._given_up:
            one, error = self._given_up[0]
            self.table.change(one.record.id, cost=one.cost)
            self._fail(one.record, error)
            one.forget()
            del self._given_up[0]

    def _fail(self, record: JobRecord, error: JobError) -> None:
        if self.table.change(record.id, only_if=_NOT_OVER, status="failed", error=error, finished=int(time.time())):
            self.table.tell(record.id, f"The job has failed: {error.message}", level="error")

    # -- slots ------------------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Give slots to jobs that wait: those of a higher priority first, and among these in turns of tenants."""
        waiting = self._waiting()
        for priority in sorted({one.record.request.priority for one in waiting}, reverse=True):
            alike = [one for one in waiting if one.record.request.priority == priority]
            for one in self._turns.order(alike, [*self._running.values(), *waiting]):
                if not self._begin(one, waiting):
                    return  # it is next, whatever could begin before it: one that needs a wide pack would wait for ever
                self._turns.charge(one, 0.0)
                waiting.remove(one)

    def _waiting(self) -> list[ReadyJob]:
        with self._changed:
            return [one for job, one in self._ready.items() if job not in self._running]

    def _begin(self, one: ReadyJob, waiting: Sequence[ReadyJob]) -> bool:
        """Put a job in a slot. False where there is none for it."""
        running = self._packs.enter(one, waiting)
        if running is None:
            return False
        with self._changed:
            self._running[one.record.id] = running
            self._ready.pop(one.record.id, None)
        began = one.record.began or int(time.time())
        width = len(running.pack.bookmarks)
        if not self.table.change(one.record.id, only_if=("queued",), status="running", pack_size=width, began=began):
            self._leave(running)  # it was cancelled or paused at this moment
            return True
        self.table.forget_metrics_beyond(one.record.id, running.steps)
        goes_on = f"The training goes on from step {running.steps:,}."
        self.table.tell(one.record.id, goes_on if running.steps else "The training has begun.")
        return True

    def _let_leave(self) -> None:
        """Free the slots of jobs that were cancelled or paused."""
        with self._changed:
            leaving = [self._running[job] for job in self._leaving if job in self._running]
            self._leaving.clear()
        for one in leaving:
            record = self.table.job(one.record.id)
            is_cancelled = record is None or record.status == "cancelled"
            if not is_cancelled:
                self._save(one)
            self._leave(one)
            if is_cancelled:
                self.table.change(one.record.id, cost=one.cost)
                one.forget()

    def _leave(self, one: RunningJob) -> None:
        with self._changed:
            del self._running[one.record.id]
        self._packs.leave(one)

    # -- what is on the disk ------------------------------------------------------------------------------------------------

    def _save(self, one: RunningJob) -> None:
        """Begin to save the state of a job."""
        one.save()
        self.table.change(one.record.id, cost=one.cost)

    def _directory(self, record: JobRecord, step: int | None = None) -> Path:
        """Where a job's adapter lies, or that of the end of an epoch."""
        return self.folder / "models" / (record.id if step is None else f"{record.id}-step-{step}")

    def _publish_all(self, record: JobRecord) -> list[Path]:
        """Let a job's adapters be asked, as in the process that trained them; where they lie."""
        named = [(kept.model, self._directory(record, kept.step)) for kept in self.table.checkpoints(record.id)]
        named += [] if record.model is None else [(record.model, self._directory(record))]
        there = [(name, directory) for name, directory in named if directory.is_dir()]
        for name, directory in there:
            self._publish_again(record, name, directory)
        return [directory for _, directory in there]
