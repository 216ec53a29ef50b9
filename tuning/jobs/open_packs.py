"""The packs through which the jobs of all tenants flow, and which job has which slot.

Jobs share a pack (`train/pack.py`) where the same compiled step trains them: the same task, traits and shape of batches. A pack
is opened for a job that finds none with room, as wide as there are jobs that could share it, and closed when the last has left.
Who comes later joins it while it has free slots. Of eight slots in all:

    two jobs of one kind wait                  [a b]
    a third of another kind comes              [a b] [c]
    b ends, and another of its kind comes      [a d] [c]

A job that has begun has a pack as wide wherever it goes on, for the width is felt in the last bits of what it learns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...models.backbone import Backbone
from ...tasks.task_registry import the_task
from ...train.pack import Pack
from .running_job import Kind, ReadyJob, RunningJob


class OpenPacks:
    """Packs with so many slots in all."""

    def __init__(self, backbone: Backbone, slots: int, folder: Path, breathe: Callable[[], None]):
        """`folder`: where states of jobs lie; `breathe`: as of `Pack`."""
        self.backbone, self.folder = backbone, folder
        self._slots, self._breathe = slots, breathe
        self._packs: list[tuple[Kind, Pack]] = []

    def enter(self, one: ReadyJob, waiting: Sequence[ReadyJob]) -> RunningJob | None:
        """Give a job a slot; it goes on from its state, if it has one. None where there is no room for it.

        `waiting`: all that wait, this one among them.
        """
        pack = self._with_room(one) or self._opened(one, waiting)
        if pack is None:
            return None
        slot = pack.bookmarks.index(None)
        running = RunningJob(one.record, one.job, pack, slot, self.folder / one.record.id)
        running.enter(0 if pack.jobs[0] is one.job else pack.join(one.job))
        return running

    def leave(self, one: RunningJob) -> None:
        """Free the slot of a job, and close its pack where it was the last there."""
        one.leave()
        if not one.pack.busy:
            self._packs = [(kind, pack) for kind, pack in self._packs if pack is not one.pack]

    def kind_of(self, pack: Pack) -> Kind:
        """Of the jobs of an open pack."""
        return next(kind for kind, there in self._packs if there is pack)

    def _with_room(self, one: ReadyJob) -> Pack | None:
        """An open pack that a job can join."""
        wanted = one.record.pack_size
        there = (pack for kind, pack in self._packs if kind == one.kind and None in pack.bookmarks)
        return next((pack for pack in there if wanted in (None, len(pack.bookmarks))), None)

    def _opened(self, one: ReadyJob, waiting: Sequence[ReadyJob]) -> Pack | None:
        """A new pack for a job, if there are slots for it."""
        free = self._slots - sum(len(pack.bookmarks) for _, pack in self._packs)
        width = one.record.pack_size
        if width is None:
            alike = sum(other.kind == one.kind and other.record.pack_size is None for other in waiting)
            width = min(_power_of_two_for(alike), _power_of_two_within(max(1, free)))
        if width > free and self._packs:  # one that began where there were more slots has them when nobody else has any
            return None
        pack = Pack(self.backbone, the_task(one.kind.task), [one.job], width, breathe=self._breathe)
        self._packs.append((one.kind, pack))
        return pack


def _power_of_two_for(count: int) -> int:
    """The smallest that is not below a count."""
    return 1 << (count - 1).bit_length()


def _power_of_two_within(count: int) -> int:
    """The largest that is not above a count."""
    return 1 << (count.bit_length() - 1)
