"""A worker's side: trains a shard as one machine would, and tells the driver what becomes of its jobs.

It is a run like any other (`train/queue.py`), in a directory of its own, with checkpoints there. In place of showing its
progress to a person it tells it (`Telling`). Where the driver's directory is on a disk that the worker has too, the shard's
lies within it, and whoever trains the shard next goes on from its newest checkpoint; else it is a temporary one.

The backbone stays in the process when a shard is done, with all that was compiled for it, for the next shard.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import jax

from .. import disk, signals
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.load import load_backbone
from ..notes import silenced
from ..tasks.task_registry import the_task
from ..train.begun import Begun, digest_of, machine
from ..train.job import Job
from ..train.outcomes import NotAll
from ..train.pack_size import pack_size_for
from ..train.progress import Progress
from ..train.queue import Run, unfinished
from ..train.wanted_run import WantedRun
from .messages import EpochEnds, Finished, Measure, Message, NotFinite, Order, Seen, ShardBegins, Steps, Work
from .shipping import received

Tell = Callable[[Message], None]

_BETWEEN = 1.0  # seconds between messages about steps
_loaded: dict[str, Backbone] = {}  # the backbone of this process, by where it comes from and how it is loaded


def look(order: Order, cohorts: Sequence[Measure]) -> Seen:
    """Look at the backbone, and choose the pack sizes of some cohorts."""
    backbone = _backbone(order)
    sizes = []
    for one in cohorts:
        (job,) = received(one.job, backbone.sites)
        sizes.append(pack_size_for(backbone, order.task, job, one.count, one.flops))
    return Seen(machine(), sizes)


def train_shard(order: Order, work: Work, node: str, tell: Tell) -> None:
    """Train the jobs of a shard, and tell what becomes of each; `node`: what this machine is called."""
    backbone = _backbone(order)
    tell(ShardBegins(work.shard, node, machine()))
    with silenced(), _folder(order, work.shard) as (folder, lock):
        telling = Telling(tell)
        run = telling.run = _opened(backbone, order, work, folder, lock, telling)
        for name in run.results:  # of a run that goes on: perhaps they were never heard of
            telling.end(name)
        with signals.remembered(lambda: None) as run.stop, suppress(NotAll):  # which was told
            run.go()
        shutil.rmtree(folder, ignore_errors=True)


def _backbone(order: Order) -> Backbone:
    """The backbone of this process, which is the driver's, or a GraftaxError."""
    key = repr((order.backbone, sorted(order.loading.items())))
    if key not in _loaded:
        for setting, value in order.jax.items():
            jax.config.update(setting, value)
        with silenced():  # the driver has told its user
            loaded = load_backbone(order.backbone, **order.loading)
        _loaded.clear()  # there may be no room for two
        _loaded[key] = loaded
    the_task(order.task)  # by whose name adapters are saved
    if (there := _loaded[key].fingerprint) != order.fingerprint:
        raise GraftaxError(
            f"{order.backbone} is another backbone there (fingerprint {there[:12]}, the driver's is {order.fingerprint[:12]})."
        )
    return _loaded[key]


@contextmanager
def _folder(order: Order, shard: int) -> Iterator[tuple[Path, disk.Locked]]:
    """A shard's directory, held: within the driver's where that is here too, else a temporary one."""
    state = Path(order.out) / ".run"
    with ExitStack() as stack:
        try:
            if (state / "token").read_text() != order.token:
                raise FileNotFoundError
            folder = state / "shards" / str(shard)
            lock = stack.enter_context(disk.locked(folder))
        except (OSError, GraftaxError):  # or it is held by a worker that was given up, and does not know it
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="graftax-", ignore_cleanup_errors=True)))
            lock = stack.enter_context(disk.locked(folder))
        yield folder, lock


def _opened(backbone: Backbone, order: Order, work: Work, folder: Path, lock: disk.Locked, telling: Telling) -> Run:
    """The run of a shard's directory: the one that was begun there, or a new one of the jobs that are not finished.

    The pack is as wide as it is to be, however few the jobs are.
    """
    state = folder / ".run"
    given = received(work.jobs, backbone.sites)
    jobs = _jobs_of_state(state, given, work.finished) or [job for job in given if job.name not in work.finished]
    digest = digest_of(backbone, order.task, jobs)
    begun = unfinished(state / "run.json", digest, 1, work.width, True, folder)
    if resumed := begun is not None:
        found = begun
    else:
        shutil.rmtree(state, ignore_errors=True)
        found = Begun(digest, [work.width], [job.name for job in jobs])
        found.write(state / "run.json")
    wanted = WantedRun(
        backbone,
        order.task,
        jobs,
        folder,
        lock,
        pack_size=work.width,
        overwrite=True,
        save_every=order.save_every,
        progress=telling,
        push=None,
        devices=None,
        fsdp=False,
    )
    return Run(wanted, [jobs], found, resumed=resumed)


def _jobs_of_state(state: Path, given: Sequence[Job], finished: Collection[str]) -> list[Job]:
    """Those jobs of which a directory has a checkpoint; none where it has none, or not of all that are to be trained."""
    if not any(path.name.isdigit() for path in (state / "checkpoints").glob("*")):
        return []
    try:
        names = {*Begun.read(state / "run.json").jobs}
    except GraftaxError:
        return []
    if {job.name for job in given} - {*finished} - names:
        return []
    return [job for job in given if job.name in names]


class Telling(Progress):
    """A run's progress, told to the driver in place of being shown."""

    run: Run

    def __init__(self, tell: Tell):
        super().__init__(False)
        self._tell = tell
        self._taken: dict[str, int] = {}  # steps, of the jobs in the slots
        self._told = 0.0  # when steps were last told

    def begin(self, name: str, steps: int, done: int = 0) -> None:
        self._taken[name] = done
        self._tell_steps()

    def advance(self, name: str) -> None:
        self._taken[name] += 1
        if time.monotonic() - self._told > _BETWEEN:
            self._tell_steps()

    def epoch(self, name: str, epoch: int, epochs: int, numbers: dict[str, float], main: str) -> None:
        self._tell(EpochEnds(name, list(self.run.history[name])))

    def end(self, name: str, skipped: int = 0) -> None:
        """Tell what has become of a job: its adapter, or nothing."""
        self._taken.pop(name, None)
        history = list(self.run.history[name])
        if (result := self.run.results.get(name)) is None:
            self._tell(NotFinite(name, history))
            return
        files = {file.name: file.read_bytes() for file in sorted(result.directory.iterdir())}
        self._tell(Finished(name, files, result.metrics, result.step_seconds, history))

    def _tell_steps(self) -> None:
        self._told = time.monotonic()
        self._tell(Steps(dict(self._taken)))


def settings_of_jax() -> dict[str, Any]:
    """The settings of JAX's on which numbers depend, as they are in this process."""
    return {name: getattr(jax.config, name) for name in _SETTINGS}


_SETTINGS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_threefry_partitionable",
)
