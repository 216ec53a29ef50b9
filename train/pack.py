"""A pack: a fixed number of slots through which the jobs of one cohort (`cohorts.py`) flow, in programs that are compiled once.

Each *tick* runs the compiled step once, for all slots, at one shape of batch. The slots whose job has that shape take a step,
and the others wait and keep every bit. A job that ends frees its slot for the next job that waits, and nothing is compiled
for that.

For instance, three slots hold jobs of which two have batches of 6 batch rows and one has batches of 4. The ticks at 6 batch
rows move the first two jobs; when these are done, ticks at 4 move the third. So what an adapter becomes depends on its own
data and seed, and not on its neighbours, on its slot or on its turn in the queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.methods.head import HEADS, OF_MAPS
from ..adapters.structure import Cut
from ..data.batches import Planned, Shape, plan_all, plan_epoch
from ..data.prepared import Prepared
from ..models.backbone import Backbone
from ..models.inputs import Inputs
from ..tasks.task import Answer, Task
from .augmentation import Draws
from .cohorts import traits_of
from .features import FeatureStore
from .job import Job
from .method_hooks import settled
from .step import Batch, Learner, Programs


@dataclass
class Bookmark:
    """How far the job in a slot is in its data. A checkpoint holds it as JSON."""

    job: int  # its index among the pack's jobs
    epoch: int = 0  # epochs that are done
    position: int = 0  # batches of this epoch that are done
    best: list[float] | None = None  # main metric and loss of the best epoch so far, with signs such that more is better
    best_epoch: int = 0
    waited: int = 0  # epochs since the best one


class Pack:
    """The learners in the slots, on the device, and the compiled functions over them.

    `learners` holds what every slot's job has become so far, and `best` the settled leaves of each slot's best epoch. Both
    have a leading slot axis, so memory grows with the number of slots, and not with the number of jobs.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        jobs: Sequence[Job],
        slots: int,
        *,
        devices: int = 1,
        fsdp: bool = False,
        breathe: Callable[[], None] = lambda: None,
    ):
        """`slots`: a multiple of the `devices` that they are spread over; `fsdp`: these share the frozen weights.

        `breathe`: called between the batches of a validation, so that who shares the device gets a turn.
        """
        self.backbone, self.task, self.processor = backbone, task, backbone.processor
        self.jobs, self.breathe = dict(enumerate(jobs)), breathe
        (traits,) = {traits_of(job, backbone.sites) for job in jobs}
        self.layout = traits.layout
        self.room = next((space.size for space in self.layout.spaces if space.name in HEADS), 0)
        self.augment = traits.augment
        settings = traits.dropout, traits.optimizer, traits.preconditioned, traits.augment, devices, fsdp
        self.programs = Programs.of(backbone, task, slots, *settings)
        idle = jobs[0].start(self.layout, backbone.sites)
        self.spread = self.programs.spread
        first: Learner = jax.tree.map(lambda leaf: np.stack([leaf] * slots), idle)
        self.learners: Learner = self.spread.placed(first)
        first = jax.tree.map(jnp.asarray, first._replace(moments=()))
        self.best = self.spread.placed(jax.tree.map(np.array, settled(first.trainable, first.fixed)))
        self.bookmarks: list[Bookmark | None] = [None] * slots
        self._plans: dict[tuple[int, int], list[Planned]] = {}  # by job and epoch; of each job the newest alone
        self.features: FeatureStore | None = None
        cut = self.layout.cut(backbone.structure)
        several = any(space.name in OF_MAPS for space in self.layout.spaces)  # maps from below the cut are read, too
        if not (task.output.bare or several or self.augment is not None) and backbone.has_frozen_layers(cut):
            compute = partial(self._frozen, cut=cut)
            by_position = self.processor.sequences and (task.output.by_position or not cut.top)
            beside = by_position or (self.processor.several and not cut.top)
            self.features = FeatureStore(self.processor, compute, by_position=by_position, beside=beside)

    def _frozen(self, inputs: Inputs, cut: Cut) -> jax.Array:
        """What enters the first adapted layer."""
        return self.programs.frozen(*self.programs.asked(inputs), cut=cut)

    # -- the queue ------------------------------------------------------------------------------------------------------

    def join(self, job: Job) -> int:
        """Take in a further job, whose traits are those of the others. Returns the index by which it is admitted."""
        self.jobs[index := max(self.jobs) + 1] = job
        return index

    def admit(self, slot: int, job: int) -> None:
        """Put a job that has not begun in a free slot; `job` is its index."""
        begun = self.jobs[job].start(self.layout, self.backbone.sites)
        self.learners = self.programs.put(self.learners, np.int32(slot), begun)
        self.bookmarks[slot] = Bookmark(job)
        if self.features:
            self.features.expect(self.jobs[job])

    def occupant(self, slot: int) -> tuple[Bookmark, Job]:
        """The bookmark of a slot that has a job, and the job."""
        bookmark = self.bookmarks[slot]
        assert bookmark is not None
        return bookmark, self.jobs[bookmark.job]

    def release(self, slot: int) -> None:
        """Free a slot, whose job has ended."""
        bookmark = self.bookmarks[slot]
        if self.features and bookmark is not None:
            self.features.forget(self.jobs[bookmark.job])
        self.bookmarks[slot] = None

    @property
    def busy(self) -> bool:
        """Whether some slot has a job."""
        return any(bookmark is not None for bookmark in self.bookmarks)

    def plan(self, bookmark: Bookmark) -> list[Planned]:
        """The batches of the epoch that a job is in. They follow from its seed, and are the same whenever this is asked."""
        wanted = (bookmark.job, bookmark.epoch)
        if wanted not in self._plans:
            job = self.jobs[bookmark.job]
            self._plans = {known: plan for known, plan in self._plans.items() if known[0] != bookmark.job}
            self._plans[wanted] = plan_epoch(job.train.lengths, job.shape, job.recipe.seed, bookmark.epoch)
        return self._plans[wanted]

    # -- training -------------------------------------------------------------------------------------------------------

    def tick(self) -> list[int]:
        """Run the compiled step once and return the slots that took it.

        Where features of frozen layers are still to be computed, a batch of these is computed instead, and no slot takes a
        step.
        """
        if self.features and self.features.step():
            return []
        live, stacked = self._next()
        self.wait()  # be at most one step ahead of the device, so that a signal is answered within a step
        self.learners = self.programs.step(*self.programs.frozen_weights, self.learners, stacked)
        for k in live:
            if (bookmark := self.bookmarks[k]) is not None:
                bookmark.position += 1
        return live

    def wait(self) -> None:
        """Wait until the last step is computed."""
        jax.block_until_ready(self.learners.step)

    def gradients(self, batches: int) -> Any:
        """The mean gradient of the first slot's adapter, as it is now, over the first batches of its epoch."""
        bookmark, _ = self.occupant(0)
        total, count = None, min(batches, len(self.plan(bookmark)))
        for bookmark.position in range(count):  # `_next` gives the batch at this position
            _, batch = self._next()
            _, found = self.programs.gradient(*self.programs.frozen_weights, self.learners, batch)
            mine = jax.tree.map(lambda leaf: np.asarray(leaf[0]), found)
            total = mine if total is None else jax.tree.map(np.add, total, mine)
        return jax.tree.map(lambda leaf: leaf / np.float32(count), total)

    def step_program(self) -> Any:
        """The gradient program of the next step, compiled, so that XLA can be asked about its memory and its operations."""
        _, batch = self._next()
        return self.programs.gradient.lower(*self.programs.frozen_weights, self.learners, batch).compile()

    def _next(self) -> tuple[list[int], Batch]:
        """The slots that take part in the next tick, and the batches of all slots, stacked.

        Those slots take part whose job has the shape that most jobs in slots have; of two shapes that are as frequent, the
        smaller.
        """
        shapes = [None if bookmark is None else self._shape(self.jobs[bookmark.job]) for bookmark in self.bookmarks]
        counts = Counter(shape for shape in shapes if shape is not None)
        shape = min(counts, key=lambda shape: (-counts[shape], shape))
        live = [k for k, own in enumerate(shapes) if own == shape]
        # what other processes have in their slots, nobody reads here
        mine = {k: self._due(self.bookmarks[k], shape) for k in live if k in self.spread.own}
        idle = self._due(None, shape) if len(mine) < len(self.bookmarks) else None
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(mine.get(k, idle) for k in range(len(self.bookmarks))))
        return live, stacked if self.spread.alone else self.spread.placed(stacked)

    def _due(self, bookmark: Bookmark | None, shape: Shape) -> Batch:
        """The next batch of the job at a bookmark; for None, a slot that waits, a batch without an item that is not live."""
        if bookmark is None:
            return self._drawn(self._batch(self.jobs[0].train, Planned((), ()), shape), (), 0)._replace(live=np.bool_(False))
        planned = self.plan(bookmark)[bookmark.position]
        return self._drawn(self._batch(self.jobs[bookmark.job].train, planned, shape), planned.items, bookmark.epoch)

    def _drawn(self, batch: Batch, items: Sequence[int], epoch: int) -> Batch:
        """A batch that is trained on, with what its augmentation is drawn from, where there is one."""
        if self.augment is None:
            return batch
        numbers = np.zeros(len(batch.weight), np.uint32)
        numbers[: len(items)] = items
        return batch._replace(draws=Draws(np.uint32(epoch), numbers))

    def _batch(self, prepared: Prepared, planned: Planned, shape: Shape) -> Batch:
        """The arrays of a planned batch."""
        labels = self.task.output.lay(prepared, planned, shape, self.room)
        weight = (np.arange(shape.items) < len(planned.items)).astype(np.float32)
        return Batch(self._inputs(prepared, planned, shape), labels, weight, np.bool_(True))

    def _shape(self, job: Job) -> Shape:
        """The shape of a job's batches, of features where these take the place of inputs."""
        return self.features.shape(job) if self.features else job.shape

    def _inputs(self, prepared: Prepared, planned: Planned, shape: Shape) -> Inputs:
        """The inputs of a planned batch, or the features that take their place."""
        if self.features:
            return self.features.inputs(prepared, planned, shape)
        return self.processor.lay([prepared.items[i] for i in planned.items], planned.places, shape)

    def epoch_done(self, slot: int) -> bool:
        """Whether the job in a slot has taken all steps of its epoch."""
        bookmark = self.bookmarks[slot]
        return bookmark is not None and bookmark.position == len(self.plan(bookmark))

    def take_loss(self, slot: int) -> tuple[float, bool]:
        """The mean loss of the epoch that has just ended, and whether the slot's learner failed. The sum starts anew."""
        bookmark, _ = self.occupant(slot)
        learners, at = self._brought(slot)
        total, failed = np.asarray(learners.loss)[at], np.asarray(learners.failed)[at]
        failed |= not all(np.isfinite(leaf[at]).all() for leaf in jax.tree.leaves(learners.trainable))
        loss = self.programs.put(self.learners.loss, np.int32(slot), np.float32(0))
        self.learners = self.learners._replace(loss=loss)
        return float(total) / bookmark.position, bool(failed)

    def _brought(self, slot: int) -> tuple[Learner, int]:
        """The learners without what their optimizer remembers, and where a slot's is among those that can be read here."""
        found: tuple[Learner, int] = self.spread.brought(self.learners._replace(moments=()), slot)
        return found

    # -- validation and results -----------------------------------------------------------------------------------------

    def evaluate(self, slot: int) -> dict[str, float] | None:
        """Loss and metrics of a slot's adapter on its validation examples; None where an output is not finite."""
        _, job = self.occupant(slot)
        assert job.val is not None
        if (found := self._answers(slot, job, job.val)) is None:
            return None
        answers, loss = found
        return {"loss": loss, **self.task.measure(job.val, answers, job.adapter.labels)}

    def _answers(self, slot: int, job: Job, prepared: Prepared) -> tuple[dict[int, Answer], float] | None:
        """What a slot's adapter answers to each item of some examples, and their mean loss; None where an output is not finite.

        The mean loss is that of the batches, in which each batch counts as often as it has items.
        """
        names, answers, losses = job.adapter.labels, dict[int, Answer](), 0.0
        learners, at = self._brought(slot)
        for planned in plan_all(prepared.lengths, job.shape):
            self.breathe()
            batch = self._batch(prepared, planned, self._shape(job))
            inputs, labels = batch.inputs, batch.labels
            outputs = self.programs.predict(*self.programs.asked(learners, np.int32(at), inputs, labels))
            outputs = outputs if self.spread.alone else outputs.addressable_data(0)
            loss = self.programs.measured(learners, np.int32(at), outputs, labels, batch.weight)
            losses += float(loss) * len(planned.items)
            own = self.task.output.own(np.asarray(outputs), len(names))
            for i, mine in self.task.output.each(own, prepared, planned):
                if not np.isfinite(mine).all():
                    return None
                answers[i] = self.task.answer(mine, names, prepared.items[i])
        return answers, losses / len(prepared.items)

    def _settled(self, slot: int) -> Any:
        """The leaves of a slot that answer now and would be saved now."""
        learners, at = self._brought(slot)
        return jax.tree.map(lambda leaf: leaf[at], settled(learners.trainable, learners.fixed))

    def keep_best(self, slot: int) -> None:
        """Keep a slot's leaves as those of its best epoch so far."""
        own = self._settled(slot)
        self.best = self.programs.put(self.best, np.int32(slot), own if self.spread.alone else jax.tree.map(np.asarray, own))

    def result(self, slot: int, metrics: dict[str, float]) -> Adapter:
        """The trained adapter at its true size: of its best epoch where there are validation examples, else of its last."""
        _, job = self.occupant(slot)
        if job.val is None:
            return self.now(slot, metrics)
        best, at = self.spread.brought(self.best, slot)
        return self._adapter(slot, jax.tree.map(lambda leaf: leaf[at], best), metrics)

    def now(self, slot: int, metrics: dict[str, float]) -> Adapter:
        """The adapter that a slot's job has become so far, at its true size."""
        return self._adapter(slot, self._settled(slot), metrics)

    def _adapter(self, slot: int, own: Any, metrics: dict[str, float]) -> Adapter:
        _, job = self.occupant(slot)
        own = jax.tree.map(np.asarray, own)
        states = self.layout.unstack(job.adapter, own, self.backbone.sites)
        return replace(job.adapter, states=states, metrics=metrics)

    # -- checkpoints ----------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, Any]:
        """What a checkpoint holds on the arrays' side; the names are those in its files."""
        return {"state": self.learners, "best": self.best}

    def facts(self) -> list[dict[str, Any] | None]:
        """What a checkpoint holds of the slots as JSON: the bookmark of each, None of a free one."""
        return [None if bookmark is None else asdict(bookmark) for bookmark in self.bookmarks]

    def of_slot(self, slot: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """What `arrays` and `facts` hold of one slot that has a job, which may go on from it in any slot of as large a pack."""
        bookmark, _ = self.occupant(slot)
        return jax.tree.map(lambda leaf: np.asarray(leaf[slot]), self.arrays()), asdict(bookmark)

    def readmit(self, slot: int, job: int, arrays: dict[str, Any], facts: dict[str, Any]) -> None:
        """Put a job in a free slot that goes on from what `of_slot` gave; `job` is its index here."""
        self.learners = self.programs.put(self.learners, np.int32(slot), arrays["state"])
        self.best = self.programs.put(self.best, np.int32(slot), arrays["best"])
        self.bookmarks[slot] = Bookmark(**{**facts, "job": job})
        if self.features:
            self.features.expect(self.jobs[job])

    def restore(self, arrays: dict[str, Any], facts: list[dict[str, Any] | None]) -> None:
        """Go on from the arrays and facts of a checkpoint."""
        arrays = self.spread.placed(arrays)
        self.learners, self.best = arrays["state"], arrays["best"]
        self.bookmarks = [None if bookmark is None else Bookmark(**bookmark) for bookmark in facts]
        for bookmark in self.bookmarks:
            if self.features and bookmark is not None:
                self.features.expect(self.jobs[bookmark.job])
