"""Who trains the jobs of a run in place of this process: machines elsewhere.

Nothing in `train/` knows of clusters. What a run asks of a fleet is this; `graftax/fleet/` has the one that there is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from .. import disk, signals
from ..models.backbone import Backbone
from ..tasks.task import Task
from .job import Job
from .progress import Progress
from .result import Result
from .shelf import Shelf


class Opened(Protocol):
    """A run whose jobs are trained elsewhere, and whose adapters come here."""

    stop: signals.Stop

    def go(self) -> dict[str, Result]:
        """As `queue.Run.go`."""


@runtime_checkable
class Fleet(Protocol):
    """Machines that train."""

    def open_run(
        self,
        backbone: Backbone,
        task: Task,
        jobs: list[Job],
        out: Path,
        lock: disk.Locked | None,
        pack_size: int | None,
        overwrite: bool,
        save_every: float,
        progress: Progress,
        push: Shelf | None = None,
        devices: int | None = None,
    ) -> Opened:
        """As `queue.open_run`, of a run over these machines."""
