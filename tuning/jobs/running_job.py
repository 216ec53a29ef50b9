"""A job that waits for a slot, and one in a slot, with the state from which it goes on after the process was killed.

The state is that of the slot: the learner, the adapter of its best epoch, how far it is in its data, and what has been told of
its epochs. It is one checkpoint (`train/run_checkpoint.py`), so all of it is from one moment.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ... import disk
from ...adapters.sites import Site
from ...data.batches import Shape
from ...train.cohorts import Traits, traits_of
from ...train.job import Job
from ...train.pack import Pack
from ...train.run_checkpoint import Checkpoints
from ..training_cost import Cost
from .job_record import JobRecord


@dataclass(frozen=True)
class Kind:
    """What jobs have in common that share a pack."""

    task: str
    traits: Traits
    shape: Shape  # of batches


@dataclass(frozen=True)
class ReadyJob:
    """A job whose files were read, and which waits for a slot: a party of its own among those that take turns."""

    record: JobRecord
    job: Job
    kind: Kind

    @classmethod
    def of(cls, record: JobRecord, job: Job, sites: Sequence[Site]) -> ReadyJob:
        """A job of a backbone with these sites."""
        return cls(record, job, Kind(record.request.task, traits_of(job, sites), job.shape))

    @property
    def tenant(self) -> str | None:
        return self.record.tenant

    @property
    def adapters(self) -> frozenset[str]:
        return frozenset({self.record.id})


@dataclass(eq=False)
class RunningJob:
    """A job in a slot, as a party likewise."""

    record: JobRecord
    job: Job
    pack: Pack
    slot: int
    folder: Path  # of its state
    cost: Cost = Cost()
    history: list[dict[str, Any]] = field(default_factory=list)  # a line for each epoch that has ended
    saved: float = field(default_factory=time.monotonic)
    saved_steps: int = 0  # how many it had taken then
    _checkpoints: Checkpoints | None = None  # made for the first save: most jobs end before it

    @property
    def tenant(self) -> str | None:
        return self.record.tenant

    @property
    def adapters(self) -> frozenset[str]:
        return frozenset({self.record.id})

    @property
    def steps(self) -> int:
        """How many steps it has taken."""
        bookmark, job = self.pack.occupant(self.slot)
        return bookmark.epoch * job.steps_per_epoch + bookmark.position

    @property
    def tokens_of_next_step(self) -> int:
        """How many positions the items of its next batch have."""
        bookmark, job = self.pack.occupant(self.slot)
        items = self.pack.plan(bookmark)[bookmark.position].items
        return sum(len(job.train.items[item]) for item in items)

    def charge(self, steps: int, tokens: int, seconds: float) -> None:
        """Count what was done for it."""
        self.cost += Cost(steps, tokens, seconds)

    def enter(self, index: int) -> None:
        """Put it into its slot, as job `index` of the pack: as it was saved, or from its beginning."""
        facts = self._kept().facts() if self.folder.is_dir() else None
        if facts is None:
            self.pack.admit(self.slot, index)
            return
        like = jax.tree.map(lambda leaf: np.zeros(leaf.shape[1:], leaf.dtype), self.pack.arrays())
        self.pack.readmit(self.slot, index, self._kept().arrays(like), facts["bookmark"])
        self.cost, self.history = Cost(**facts["cost"]), facts["history"]
        self.saved_steps = self.steps

    def save(self) -> None:
        """Begin to save its state, unless it is saved as it is."""
        self.saved = time.monotonic()  # where it fails, too: it is tried again when the next one is due
        if self.steps > self.saved_steps:
            arrays, bookmark = self.pack.of_slot(self.slot)
            facts = {"bookmark": bookmark, "history": self.history, "cost": asdict(self.cost)}
            self._kept().save(self.steps, arrays, facts)
        self.saved_steps = self.steps

    def leave(self) -> None:
        """Free its slot, when what is being saved is on the disk."""
        bookmark, _ = self.pack.occupant(self.slot)
        self.pack.release(self.slot)
        if bookmark.job:  # the pack's first is what its idle slots are laid out like
            del self.pack.jobs[bookmark.job]
        if self._checkpoints is not None:
            with self._checkpoints:
                self._checkpoints.wait()

    def forget(self) -> None:
        """Remove its state, when it has left."""
        if self.folder.is_dir():
            disk.remove_directory(self.folder)

    def _kept(self) -> Checkpoints:
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(self.folder)
        return self._checkpoints
