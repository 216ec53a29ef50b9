"""A run as it is wanted: what `train_many` was given, read and checked, for whoever opens the run (`queue.py`, or a fleet)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import disk
from ..models.backbone import Backbone
from ..tasks.task import Task
from .job import Job
from .progress import Progress
from .shelf import Shelf


@dataclass(frozen=True)
class WantedRun:
    """The fields say as much as the arguments of `train_many` that they come from."""

    backbone: Backbone
    task: Task
    jobs: list[Job]
    out: Path
    lock: disk.Locked | None  # of several processes the first one's
    pack_size: int | None
    overwrite: bool
    save_every: float
    progress: Progress
    push: Shelf | None
    devices: int | None
    fsdp: bool

    @property
    def names(self) -> list[str]:
        return [job.name for job in self.jobs]
