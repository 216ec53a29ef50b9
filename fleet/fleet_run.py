"""The driver's side: a run whose jobs are trained by the workers of a cluster, and whose adapters are written here.

    OUT/NAME/            a finished adapter
    OUT/metrics.jsonl    a line per epoch and adapter
    OUT/.run/            only while unfinished: run.json (`train/begun.py`); token; shards.json, which jobs form a shard;
                         finished/, what is known of each adapter that has come; and where workers see this disk
                         shards/, their checkpoints

Each adapter comes when it is done, and is saved, written down and pushed before anything else. So whatever is lost, be it a
worker, a machine or the driver itself, an adapter that has come is never trained again; and the same call goes on.

A shard whose worker is lost is given to another with those of its jobs that have not come. That its machine is gone says
nothing about the shard, however often it happens. But a worker that dies alone may have died of what it trained: of memory
that does not suffice, say. So such deaths are counted as long as nothing new comes of the shard. After the second its jobs
are given away one by one, and one of which a worker dies the third time is given up.
"""

from __future__ import annotations

import math
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .. import disk, signals, watchdog
from ..adapters.directory import MARKS
from ..counted import counted
from ..errors import GraftaxError
from ..json_files import json_line, read_object, read_value
from ..notes import note
from ..tasks.task import some_of
from ..train.begun import Begun, digest_of
from ..train.cohorts import cohorts_of
from ..train.job import Job
from ..train.journal import Metrics
from ..train.outcomes import NotAll, pushed, said_of_failures, said_of_unpushed
from ..train.pack_size import estimated_work
from ..train.queue import Interrupted, note_what_is_not_kept, refuse_loss, unfinished
from ..train.result import Result
from ..train.wanted_run import WantedRun
from .messages import (
    EpochEnds,
    Finished,
    Measure,
    Message,
    NotFinite,
    Order,
    Seen,
    ShardBegins,
    ShardEnds,
    ShardLost,
    ShardRefused,
    Steps,
    Work,
)
from .shards import shards_of
from .shipping import sent

_SPLIT, _MOST = 2, 3  # deaths of workers after which a shard is cut into its jobs, and is given up
_PATIENCE = 10.0  # seconds without a worker after which that is said


class Cluster(Protocol):
    """Where shards are trained."""

    def workers(self) -> int:
        """How many workers it has room for now, at least 1."""

    def look(self, order: Order, cohorts: Sequence[Measure]) -> Seen:
        """What a worker sees (`shard_worker.look`); a GraftaxError is what it refuses."""

    def submit(self, order: Order, work: Work) -> None:
        """Let a worker train a shard, as soon as there is one."""

    def messages(self) -> list[Message]:
        """What was told meanwhile; of each shard that was submitted the last is how it ended. Waits a moment for some."""

    def stop(self) -> None:
        """Let the workers end that are under way, with their states saved."""


@dataclass
class Shard:
    """Jobs that one worker trains, as the driver knows them."""

    jobs: list[Job]
    width: int
    deaths: int = 0  # of its workers alone, since anything new came of it
    node: str = ""  # where it is trained

    def names(self) -> list[str]:
        return [job.name for job in self.jobs]


@dataclass
class _Told:
    """What the driver knows of a job that has no result yet."""

    job: Job
    shard: int
    lines: int = 0  # of metrics.jsonl that are written
    taken: int | None = None  # steps, where a bar is shown


def open_fleet_run(cluster: Cluster, order: Order, wanted: WantedRun) -> FleetRun:
    """The run of its directory: the unfinished one that is there, or else a new one.

    Raises GraftaxError as `queue.open_run`, and where a worker refuses what it sees.
    """
    backbone, jobs, out, progress = wanted.backbone, wanted.jobs, wanted.out, wanted.progress
    cohorts, folder = cohorts_of(jobs, backbone.sites), out / ".run"
    note_what_is_not_kept(backbone, cohorts)
    digest = digest_of(backbone, wanted.task, jobs)
    pack_size = None if wanted.pack_size is None else min(wanted.pack_size, len(jobs))  # as one machine has it
    begun = unfinished(folder / "run.json", digest, len(cohorts), pack_size, wanted.overwrite, out, by_fleet=True)
    if begun is None:
        refuse_loss(wanted.names, out, wanted.overwrite)
    progress.doing("waiting for a first worker")
    measures = [Measure(sent(own[:1], backbone.sites), len(own), estimated_work(backbone, own)) for own in cohorts]
    seen = cluster.look(order, measures if begun is None and pack_size is None else ())
    if begun is None:
        shutil.rmtree(folder, ignore_errors=True)
        for own, (size, why) in zip(cohorts, seen.sizes, strict=False):  # none, where it was said
            how = f"{size} at once" if size > 1 else "one after another"
            progress.say(f"{counted(len(own), 'adapter')}, on each worker {how}: {why}")
        sizes = [pack_size] * len(cohorts) if pack_size is not None else [size for size, _ in seen.sizes]
        planned = [[job.name for job in shard] for shard in shards_of(cohorts, sizes, cluster.workers())]
        disk.write_json(folder / "shards.json", planned)
        begun = Begun(digest, sizes, wanted.names, seen.machine, by_fleet=True)
        begun.write(folder / "run.json")  # last: with it there is an unfinished run
    elif begun.machine["device"] != seen.machine["device"]:
        progress.say("begun on machines of another kind: the last bits may differ from an uninterrupted run's")
    disk.write_text(folder / "token", order.token)
    by_name = {job.name: job for job in jobs}
    width_of = {job.name: size for own, size in zip(cohorts, begun.pack_sizes, strict=True) for job in own}
    shards = [Shard([by_name[name] for name in names], width_of[names[0]]) for names in read_value(folder / "shards.json")]
    return FleetRun(cluster, order, wanted, begun, shards)


class FleetRun:
    """One call of `train_many` over a cluster, from what its directory holds to the last adapter."""

    def __init__(self, cluster: Cluster, order: Order, wanted: WantedRun, begun: Begun, shards: list[Shard]):
        assert wanted.lock is not None, "one process has it, and several have no fleet"
        self.cluster, self.order, self.shards = cluster, order, shards
        self.jobs, self.sites = wanted.jobs, wanted.backbone.sites
        self.out, self.lock, self.progress, self.push = wanted.out, wanted.lock, wanted.progress, wanted.push
        self.folder = self.out / ".run"
        self.stop = signals.Stop()
        self.device = begun.machine["device"]  # on which kind adapters were trained so far
        self.number_of = {job.name: number for number, job in enumerate(self.jobs)}
        self.results: dict[str, Result] = {}
        self.failures: list[str] = []  # whose loss was not finite
        self.given_up: dict[str, str] = {}  # by name, of what their workers died
        self.unpushed: list[str] = []
        self.told = {job.name: _Told(job, number) for number, shard in enumerate(shards) for job in shard.jobs}
        self.under_way: set[int] = set()  # shards that are submitted
        self._read_finished()
        self.metrics = Metrics(self.out / "metrics.jsonl", None, list(self.told))
        steps = sum(job.steps for job in self.jobs)
        done = steps - sum(told.job.steps for told in self.told.values())
        self.progress.expect(len(self.jobs), len(self.results), steps, done)

    # -- on the disk ----------------------------------------------------------------------------------------------------

    def _read_finished(self) -> None:
        """Know again what an earlier call was told of adapters that have come."""
        for job in self.jobs:
            file, directory = self.folder / "finished" / f"{self.number_of[job.name]}.json", self.out / job.name
            if file.is_file() and directory.is_dir():
                known = read_object(file)
                metrics = _with_nan(known["metrics"])
                history = [_with_nan(line) for line in known["history"]]
                width = self.shards[self.told[job.name].shard].width
                self.results[job.name] = Result(job.name, directory, metrics, known["step_seconds"], history, width)
                del self.told[job.name]
        if self.results:
            self.progress.say(f"resumed: {len(self.results)} of {counted(len(self.jobs), 'adapter')} done")

    def _keep(self, message: Finished) -> Result:
        """Save an adapter, and write down what is known of it: first the adapter, for what is written down is done."""
        directory = self.out / message.name
        with disk.new_directory(directory, overwrite=True, marks=MARKS) as draft:
            for name, content in message.files.items():
                (draft / name).write_bytes(content)
        facts = {"metrics": message.metrics, "step_seconds": message.step_seconds, "history": message.history}
        disk.write_text(self.folder / "finished" / f"{self.number_of[message.name]}.json", json_line(facts) + "\n")
        width = self.shards[self.told[message.name].shard].width
        return Result(message.name, directory, message.metrics, message.step_seconds, list(message.history), width)

    # -- the loop -------------------------------------------------------------------------------------------------------

    def go(self) -> dict[str, Result]:
        """Train to the end. Returns the result of each job; GraftaxError, when all else is done, for those that failed."""
        kept = "run the same command again when there is room: finished adapters are saved"
        with disk.writing(self.out, left=kept), self.metrics:
            for name in self.results:  # perhaps the driver ended before these were pushed
                self._push(name)
            try:
                self._loop()
            finally:
                self.cluster.stop()
        self.lock.check()
        (self.folder / "run.json").unlink()  # first: without it the rest is no unfinished run
        shutil.rmtree(self.folder, ignore_errors=True)  # a worker that was given up may be writing there
        if faults := self._faults():
            raise NotAll(" ".join(faults))
        return {job.name: self.results[job.name] for job in self.jobs}

    def _loop(self) -> None:
        for number in range(len(self.shards)):
            self._submit(number)
        began, silent = time.monotonic(), True  # whether no worker has begun, and nothing was said of that
        self.progress.doing("waiting for workers")
        while self.under_way:
            for message in self.cluster.messages():
                watchdog.beat()
                self._hear(message)
            if self.stop.asked:
                raise Interrupted(f"interrupted, finished adapters are in {self.out}; run the same command again to go on.")
            silent = silent and not any(shard.node for shard in self.shards)
            if silent and time.monotonic() - began > _PATIENCE:
                self.progress.say("no worker has begun yet: nothing is free in the cluster, or the backbone takes long to load")
                silent = False

    def _submit(self, number: int) -> None:
        """Give away those jobs of a shard that have not come, where there are any."""
        shard = self.shards[number]
        shard.node = ""
        if any(name in self.told for name in shard.names()):
            finished = frozenset(name for name in shard.names() if name not in self.told)
            jobs = sent(shard.jobs, self.sites)
            self.cluster.submit(self.order, Work(number, shard.width, jobs, finished))
            self.under_way.add(number)

    def _hear(self, message: Message) -> None:
        self.lock.check()
        match message:
            case ShardBegins():
                self._begins(message)
            case Steps():
                for name, taken in message.taken.items():
                    if name in self.told:
                        self._show(self.told[name], taken)
            case EpochEnds():
                self._write(message.name, message.history)
            case Finished():
                self._finish(message)
            case NotFinite():
                self._give_up(message)
            case ShardEnds():
                self.under_way.remove(message.shard)
                if left := [name for name in self.shards[message.shard].names() if name in self.told]:
                    raise GraftaxError(f"a worker has ended, and told nothing of {some_of(left)}.")
            case ShardLost():
                self._lost(message)
            case ShardRefused():
                raise GraftaxError(message.why)

    # -- what workers tell ----------------------------------------------------------------------------------------------

    def _begins(self, message: ShardBegins) -> None:
        shard = self.shards[message.shard]
        shard.node = message.node
        self.progress.say(f"{message.node}: trains {some_of([name for name in shard.names() if name in self.told])}")
        if (device := message.machine["device"]) != self.device:
            note(
                f"some adapters are trained on {self.device}, others on {device}: their last bits are those of these machines."
            )
            self.device = device

    def _show(self, told: _Told, taken: int) -> None:
        """Show a bar of so many steps of a job; fewer than before, where it was lost and has begun again."""
        name = told.job.name
        if told.taken is not None and taken < told.taken:
            self._forget_steps(told)
        if told.taken is None:
            self.progress.begin(name, told.job.steps)
        for _ in range(taken - (told.taken or 0)):
            self.progress.advance(name)
        told.taken = taken

    def _write(self, name: str, history: Sequence[Mapping[str, Any]]) -> None:
        """Write those lines about an adapter that are not written yet."""
        if (told := self.told.get(name)) is None:
            return
        job, shard = told.job, self.shards[told.shard]
        for line in history[told.lines :]:
            numbers = {key: value for key, value in line.items() if key not in ("adapter", "epoch", "step")}
            self.metrics.write(dict(line))
            self._show(told, max(told.taken or 0, line["step"]))
            shown = "loss" if job.val is None else f"val_{self.order.task.main_metric}"
            self.progress.epoch(name, line["epoch"], job.recipe.epochs, numbers, shown)
            shard.deaths = 0
        told.lines = max(told.lines, len(history))

    def _finish(self, message: Finished) -> None:
        """Take an adapter that has come; one that has come before changes nothing."""
        if message.name not in self.told:
            return
        self._write(message.name, message.history)
        self.results[message.name] = self._keep(message)
        self._end(message.name)
        self._push(message.name)

    def _give_up(self, message: NotFinite) -> None:
        if message.name not in self.told:
            return
        self._write(message.name, message.history)
        self.failures.append(message.name)
        self.progress.say(f"{message.name}: stopped, its loss is not finite; a lower learning rate may help.")
        self._end(message.name)

    def _end(self, name: str) -> None:
        """Nothing more is to come of a job."""
        told = self.told[name]
        self._show(told, told.taken or 0)
        self.progress.end(name, skipped=told.job.steps - (told.taken or 0))
        self.shards[told.shard].deaths = 0
        del self.told[name]

    def _push(self, name: str) -> None:
        """Put a saved adapter on the shelf, where there is one."""
        if self.push is None:
            return
        if (result := pushed(self.results[name], self.push, self.progress)) is None:
            self.unpushed.append(name)
        else:
            self.results[name] = result

    # -- what is lost ---------------------------------------------------------------------------------------------------

    def _lost(self, message: ShardLost) -> None:
        """Give a shard away again whose worker is no more; or give it up (see the module's docstring)."""
        self.under_way.remove(message.shard)
        shard = self.shards[message.shard]
        left = [job for job in shard.jobs if job.name in self.told]
        names, where = some_of([job.name for job in left]), f"{shard.node}: " if shard.node else ""
        if not left:
            return
        for job in left:
            self._forget_steps(self.told[job.name])
        if message.with_node:
            self.progress.say(f"{where}the machine is gone; {names} will be trained elsewhere")
            self._submit(message.shard)
            return
        shard.deaths += 1
        if shard.deaths >= _MOST:
            self.progress.say(f"{where}the worker has died {shard.deaths} times of {names}, given up: {message.why}")
            for job in left:
                self.given_up[job.name] = message.why
                self._end(job.name)
            return
        self.progress.say(f"{where}the worker has died; {names} will be trained by another: {message.why}")
        if shard.deaths < _SPLIT or len(left) == 1:
            self._submit(message.shard)
            return
        for job in left:
            self.told[job.name].shard = len(self.shards)
            self.shards.append(Shard([job], shard.width, shard.deaths))
            self._submit(len(self.shards) - 1)

    def _forget_steps(self, told: _Told) -> None:
        """Take down the bar of a job that is lost, where it has one."""
        if told.taken is not None:
            self.progress.lose(told.job.name)
            told.taken = None

    def _faults(self) -> list[str]:
        """What did not become of the run."""
        faults = said_of_failures(self.failures, self.results)
        if self.given_up:
            whys = "; ".join(dict.fromkeys(self.given_up.values()))
            faults.append(f"no adapter for {', '.join(self.given_up)}: every worker died that trained them ({whys}).")
        return faults + said_of_unpushed(self.unpushed, self.results, self.push, self.out)


def _with_nan(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as they were before JSON, which has no word for what is no number."""
    return {name: math.nan if value is None else value for name, value in numbers.items()}


def new_token() -> str:
    """What tells a run's directory from every other."""
    return secrets.token_hex(16)
