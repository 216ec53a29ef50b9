"""Choosing the pack size by measuring.

On a GPU many small adapters fill the machine better than one; on a CPU packing usually gains nothing (the work is the same,
and a tick makes slots of other lengths wait). So the step is timed at a few sizes, and a larger pack is taken only where it is
faster per adapter and fits in memory. Runs so short that measuring would cost more than it can win are not measured.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence

import jax
import numpy as np

from ..models.backbone import Backbone
from ..processes import words
from ..tasks.task import Task
from .job import Job
from .pack import Pack

_SIZES = {"cpu": (4,), "gpu": (4, 16, 64), "tpu": (4, 16, 64)}
_WORTH = 1.1  # a larger pack must be this much faster per adapter
_WAITING = 0.7  # share of the slots that take part in a tick when their lengths differ
_LAPTOP = 40e9  # FLOP per second of a modest one
_SHORT = 600.0  # seconds of estimated work below which nothing is measured on CPU: it compiles a program for each size


def choose_pack_size(
    backbone: Backbone, task: Task, jobs: Sequence[Job], devices: int = 1, fsdp: bool = False
) -> tuple[int, str]:
    """The number of slots on a device that trains the jobs fastest, 1 where that cannot be told or does not matter; and why."""
    return pack_size_for(backbone, task, jobs[0], len(jobs), estimated_work(backbone, jobs), devices, fsdp)


def pack_size_for(
    backbone: Backbone, task: Task, job: Job, count: int, work: float, devices: int = 1, fsdp: bool = False
) -> tuple[int, str]:
    """The same for so many jobs like this one, of so much work in all: who measures need not hold the others."""
    platform = jax.default_backend()
    sizes = [n for n in _SIZES.get(platform, ()) if n * devices <= count]
    if not sizes:
        return 1, f"fewer than {min(_SIZES.get(platform, (2,)))} fill no pack"
    if platform == "cpu" and work / _LAPTOP < _SHORT:
        return 1, "a pack seldom gains anything on a CPU, and in a run this short no time to measure it"
    alone = _seconds_per_adapter(Pack(backbone, task, [job], devices, devices=devices, fsdp=fsdp))
    assert alone is not None
    best, chosen = alone, 1
    for size in sizes:
        seconds = _seconds_per_adapter(Pack(backbone, task, [job], size * devices, devices=devices, fsdp=fsdp))
        if seconds is None:
            return chosen, f"{size} at once do not fit in memory"
        if seconds / _WAITING > best / _WORTH:
            return chosen, f"{size} at once were measured, and are no faster"
        best, chosen = seconds / _WAITING, size
    return chosen, f"measured, {alone / best:.1f} times as fast as one after another"


def estimated_work(backbone: Backbone, jobs: Sequence[Job]) -> float:
    """The FLOPs of some jobs: 6 per weight and position."""
    weights = sum(math.prod(site.shape) for site in backbone.sites if site.kind in ("linear", "conv"))
    return 6.0 * weights * sum(positions_of(job) for job in jobs)


def positions_of(job: Job) -> int:
    """How many positions of batches a job's training goes through: the measure of its work."""
    return job.shape.rows * job.shape.length * job.steps


def _seconds_per_adapter(pack: Pack) -> float | None:
    """Median time of a tick over its slots; None where the pack would not fit in memory."""
    slots = len(pack.bookmarks)
    for slot in range(slots):
        pack.admit(slot, 0)
    if not _fits(pack):
        return None
    while not pack.tick():
        pass
    times = []
    for _ in range(3):
        for bookmark in filter(None, pack.bookmarks):
            bookmark.position = 0  # the job may have a single batch
        jax.block_until_ready(pack.learners.step)
        began = time.perf_counter()
        pack.tick()
        jax.block_until_ready(pack.learners.step)
        times.append(time.perf_counter() - began)
    return max(words("the measured time of a step", float(np.median(times)) / slots))


def _fits(pack: Pack) -> bool:
    """Whether the step's buffers, as XLA counts them, leave a third of the free memory."""
    memory = pack.step_program().memory_analysis()
    needed = memory.temp_size_in_bytes + memory.output_size_in_bytes if memory else 0
    if jax.default_backend() == "cpu":
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        stats = jax.local_devices()[0].memory_stats() or {}
        free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
    return all(words("the memory for a pack", needed < free * 2 / 3))
