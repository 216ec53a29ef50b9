"""A pack: slots through which a queue of jobs of one kind (`kinds.py`) flows, in programs that are compiled once.

Each *tick* runs the compiled step at one shape of batch. Slots whose job has that shape take a step; the others wait and keep
every bit. So what an adapter becomes depends on its own rows and seed, and not on its neighbours, its slot or its
place in the queue. A job that ends, or stops early, frees its slot for the next; nothing is compiled for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.methods.head import HEADS
from ..data.batches import Planned, Shape, plan_all, plan_epoch
from ..data.prepared import Prepared
from ..models.backbone import Backbone
from ..models.inputs import Inputs
from ..tasks.task import Answer, Task
from .features import FeatureStore
from .job import Job
from .kinds import kind_of
from .method_hooks import settled
from .step import Batch, Programs, SlotState


@dataclass
class Bookmark:
    """Where a slot is in its job; JSON in a checkpoint."""

    job: int
    epoch: int = 0
    position: int = 0  # batches of this epoch that are done
    best: list[float] | None = None  # main metric and loss of the best epoch so far, both as "more is better"
    best_epoch: int = 0
    waited: int = 0  # epochs since


class Pack:
    """The device state of a run and the compiled functions over it.

    `state` holds every slot's adapter and optimizer, `best` the settled leaves of each slot's best epoch; memory is
    O(slots), however long the queue.
    """

    def __init__(self, backbone: Backbone, task: Task, jobs: Sequence[Job], slots: int):
        self.backbone, self.task, self.jobs, self.processor = backbone, task, jobs, backbone.processor
        (kind,) = {kind_of(job, backbone.sites) for job in jobs}
        self.layout = kind.layout
        self.room = next((space.size for space in self.layout.spaces if space.name in HEADS), 0)
        self.programs = Programs.of(backbone, task, slots, kind.dropout, kind.optimizer, kind.preconditioned)
        idle = jobs[0].start(self.layout, backbone.sites)
        self.state: SlotState = jax.tree.map(lambda leaf: jax.numpy.asarray(np.stack([leaf] * slots)), idle)
        self.best = jax.tree.map(lambda leaf: leaf.copy(), self._settled())
        self.bookmarks: list[Bookmark | None] = [None] * slots
        self._plans: dict[tuple[int, int], list[Planned]] = {}
        self.features: FeatureStore | None = None
        if not task.output.bare and backbone.has_frozen_layers(cut := self.layout.cut(backbone.structure)):
            compute = partial(self.programs.frozen, backbone.params, cut=cut)
            by_position = self.processor.sequences and (task.output.by_position or not cut.top)
            self.features = FeatureStore(self.processor, compute, by_position=by_position)

    # -- the queue ------------------------------------------------------------------------------------------------------

    def admit(self, slot: int, job: int) -> None:
        """Put a fresh job in a slot."""
        begun = self.jobs[job].start(self.layout, self.backbone.sites)
        self.state = self.programs.put(self.state, np.int32(slot), begun)
        self.bookmarks[slot] = Bookmark(job)
        if self.features:
            self.features.expect(self.jobs[job])

    def occupant(self, slot: int) -> tuple[Bookmark, Job]:
        """The bookmark of a slot that has a job, and the job."""
        bookmark = self.bookmarks[slot]
        assert bookmark is not None
        return bookmark, self.jobs[bookmark.job]

    def release(self, slot: int) -> None:
        bookmark = self.bookmarks[slot]
        if self.features and bookmark is not None:
            self.features.forget(self.jobs[bookmark.job])
        self.bookmarks[slot] = None

    @property
    def busy(self) -> bool:
        return any(bookmark is not None for bookmark in self.bookmarks)

    def plan(self, bookmark: Bookmark) -> list[Planned]:
        """The batches of a bookmark's epoch, the same whenever it is asked."""
        key = (bookmark.job, bookmark.epoch)
        if key not in self._plans:
            job = self.jobs[bookmark.job]
            self._plans = {k: v for k, v in self._plans.items() if k[0] != bookmark.job}
            self._plans[key] = plan_epoch(job.train.lengths, job.shape, job.recipe.seed, bookmark.epoch)
        return self._plans[key]

    # -- training -------------------------------------------------------------------------------------------------------

    def tick(self) -> list[int]:
        """One compiled step; returns the slots that took it: none where a batch of features was due instead."""
        if self.features and self.features.step():
            return []
        live, stacked = self._next()
        self.wait()  # at most one step ahead: a signal is answered within a step
        self.state = self.programs.step(self.backbone.params, self.backbone.unrolled, self.state, stacked)
        for k in live:
            if (bookmark := self.bookmarks[k]) is not None:
                bookmark.position += 1
        return live

    def wait(self) -> None:
        """Until the last step is computed."""
        jax.block_until_ready(self.state.step)

    def gradients(self, batches: int) -> Any:
        """Mean gradient of the first slot's adapter as it is, over the first batches of its epoch."""
        bookmark, _ = self.occupant(0)
        total, count = None, min(batches, len(self.plan(bookmark)))
        for bookmark.position in range(count):  # the batch that `_next` gives
            _, batch = self._next()
            _, found = self.programs.gradient(self.backbone.params, self.backbone.unrolled, self.state, batch)
            mine = jax.tree.map(lambda leaf: np.asarray(leaf[0]), found)
            total = mine if total is None else jax.tree.map(np.add, total, mine)
        return jax.tree.map(lambda leaf: leaf / np.float32(count), total)

    def step_program(self) -> Any:
        """The next step's gradient program, compiled: for what XLA knows of it."""
        _, batch = self._next()
        return self.programs.gradient.lower(self.backbone.params, self.backbone.unrolled, self.state, batch).compile()

    def _next(self) -> tuple[list[int], Batch]:
        """The slots that take part in the next tick, those of the shape that most of them have, and their batches."""
        shapes = [None if bookmark is None else self._shape(self.jobs[bookmark.job]) for bookmark in self.bookmarks]
        counts = Counter(shape for shape in shapes if shape is not None)
        shape = min(counts, key=lambda s: (-counts[s], s))
        live = [k for k, own in enumerate(shapes) if own == shape]
        batches = [self._due(self.bookmarks[k] if k in live else None, shape) for k in range(len(self.bookmarks))]
        return live, jax.tree.map(lambda *leaves: np.stack(leaves), *batches)

    def _due(self, bookmark: Bookmark | None, shape: Shape) -> Batch:
        """The next batch of a slot; an empty one of a slot that waits."""
        if bookmark is None:
            return self._batch(self.jobs[0].train, Planned((), ()), shape)._replace(live=np.bool_(False))
        return self._batch(self.jobs[bookmark.job].train, self.plan(bookmark)[bookmark.position], shape)

    def _batch(self, prepared: Prepared, planned: Planned, shape: Shape) -> Batch:
        labels = self.task.output.lay(prepared, planned, shape, self.room)
        weight = (np.arange(shape.items) < len(planned.items)).astype(np.float32)
        return Batch(self._inputs(prepared, planned, shape), labels, weight, np.bool_(True))

    def _shape(self, job: Job) -> Shape:
        return self.features.shape(job) if self.features else job.shape

    def _inputs(self, prepared: Prepared, planned: Planned, shape: Shape) -> Inputs:
        if self.features:
            return self.features.inputs(prepared, planned, shape)
        return self.processor.lay([prepared.items[i] for i in planned.items], planned.places, shape)

    def epoch_done(self, slot: int) -> bool:
        bookmark = self.bookmarks[slot]
        return bookmark is not None and bookmark.position == len(self.plan(bookmark))

    def take_loss(self, slot: int) -> tuple[float, bool]:
        """Mean loss of the epoch that has just ended, and whether the slot failed; the sum starts anew."""
        bookmark, _ = self.occupant(slot)
        total, failed = np.asarray(self.state.loss)[slot], np.asarray(self.state.failed)[slot]
        failed |= not all(np.isfinite(leaf[slot]).all() for leaf in jax.tree.leaves(self.state.trainable))
        self.state = self.state._replace(loss=self.state.loss.at[slot].set(0.0))
        return float(total) / bookmark.position, bool(failed)

    # -- validation and results -----------------------------------------------------------------------------------------

    def evaluate(self, slot: int) -> dict[str, float] | None:
        """Loss and metrics of a slot's adapter on its validation rows; None where it gives numbers that are not finite."""
        _, job = self.occupant(slot)
        assert job.val is not None
        if (found := self._answers(slot, job, job.val)) is None:
            return None
        answers, loss = found
        return {"loss": loss, **self.task.measure(job.val, answers, job.adapter.labels)}

    def _answers(self, slot: int, job: Job, prepared: Prepared) -> tuple[dict[int, Answer], float] | None:
        """What a slot's adapter says of each item of some examples, and their mean loss; None where a logit is not finite.

        The mean is over the batches', each as often as it has items.
        """
        names, answers, losses = job.adapter.labels, dict[int, Answer](), 0.0
        for planned in plan_all(prepared.lengths, job.shape):
            batch = self._batch(prepared, planned, self._shape(job))
            inputs, labels = batch.inputs, batch.labels
            outputs = self.programs.predict(self.backbone.params, self.state, np.int32(slot), inputs, labels)
            loss = self.programs.measured(self.state, np.int32(slot), outputs, labels, batch.weight)
            losses += float(loss) * len(planned.items)
            own = self.task.output.own(np.asarray(outputs), len(names))
            for i, mine in self.task.output.each(own, prepared, planned):
                if not np.isfinite(mine).all():
                    return None
                answers[i] = self.task.answer(mine, names, prepared.items[i])
        return answers, losses / len(prepared.items)

    def _settled(self) -> Any:
        return settled(self.state.trainable, self.state.fixed)

    def keep_best(self, slot: int) -> None:
        own = jax.tree.map(lambda leaf: leaf[slot], self._settled())
        self.best = self.programs.put(self.best, np.int32(slot), own)

    def result(self, slot: int, metrics: dict[str, float]) -> Adapter:
        """The trained adapter at true size: its best epoch where there were validation rows, else its last."""
        _, job = self.occupant(slot)
        tree = self.best if job.val is not None else self._settled()
        own = jax.tree.map(lambda leaf: np.asarray(leaf[slot]), tree)
        states = self.layout.unstack(job.adapter, own, self.backbone.sites)
        return replace(job.adapter, states=states, metrics=metrics)

    # -- checkpoints ----------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, Any]:
        return {"state": self.state, "best": self.best}

    def facts(self) -> list[dict[str, Any] | None]:
        return [None if bookmark is None else asdict(bookmark) for bookmark in self.bookmarks]

    def restore(self, arrays: dict[str, Any], facts: list[dict[str, Any] | None]) -> None:
        arrays = jax.tree.map(jax.numpy.asarray, arrays)
        self.state, self.best = arrays["state"], arrays["best"]
        self.bookmarks = [None if bookmark is None else Bookmark(**bookmark) for bookmark in facts]
        for bookmark in self.bookmarks:
            if self.features and bookmark is not None:
                self.features.expect(self.jobs[bookmark.job])
