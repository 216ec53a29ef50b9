"""A pack: slots through which a queue of jobs flows, in programs that are compiled once.

Each *tick* runs the compiled step at one padded length. Slots whose next batch has that length take a step; the others wait
and keep every bit. So what an adapter becomes depends on its own rows and seed, and not on its neighbours, its slot or its
place in the queue. A job that ends, or stops early, frees its slot for the next; nothing is compiled for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np

from ..adapters.adapter import Adapter, Layout
from ..models.backbone import Backbone
from ..models.encoder import Inputs
from ..models.tokens import Tokenizer, Tokens
from .batches import Planned, plan_epoch
from .job import Job, Rows
from .step import Batch, Programs, SlotState, start
from .tasks import Answer, Task

EVAL_ROWS = 64  # rows per call when predicting


@dataclass
class Place:
    """Where a slot is in its job; JSON in a checkpoint."""

    job: int
    epoch: int = 0
    position: int = 0  # batches of this epoch that are done
    best: float | None = None  # main metric of the best epoch so far
    best_epoch: int = 0
    waited: int = 0  # epochs since


class Pack:
    """The device state of a run and the compiled functions over it.

    `state` holds every slot's adapter and optimizer, `best` the trainable leaves of each slot's best epoch; memory is
    O(slots), however long the queue.
    """

    def __init__(self, backbone: Backbone, task: Task, jobs: Sequence[Job], slots: int, tokenizer: Tokenizer):
        self.backbone, self.task, self.jobs, self.tokenizer = backbone, task, jobs, tokenizer
        self.layout = Layout.of([job.adapter for job in jobs], backbone.sites, bucket=True)
        self.room = next(slot.size for slot in self.layout.slots if slot.key.startswith("head"))
        self.batch_size = max(job.recipe.batch_size for job in jobs)
        dropout = any(getattr(m, "dropout", 0.0) > 0 for job in jobs for m in job.adapter.methods)
        self.programs = Programs(backbone, task, slots, dropout)
        self._step, self._predict, self._put = self.programs.step(), self.programs.predict(), self.programs.put()
        idle = start(self.layout.stack(None, backbone.sites), jobs[0].hyper())
        self.state: SlotState = jax.tree.map(lambda leaf: jax.numpy.asarray(np.stack([leaf] * slots)), idle)
        self.best = jax.tree.map(lambda leaf: leaf.copy(), self.state.trainable)
        self.places: list[Place | None] = [None] * slots
        self._plans: dict[tuple[int, int], list[Planned]] = {}
        self.programs_run: set[tuple[str, int]] = set()  # (what, padded length): what had to be compiled

    # -- the queue ------------------------------------------------------------------------------------------------------

    def admit(self, slot: int, job: int) -> None:
        """Put a fresh job in a slot."""
        begun = start(self.layout.stack(self.jobs[job].adapter, self.backbone.sites), self.jobs[job].hyper())
        self.state = self._put(self.state, np.int32(slot), begun)
        self.places[slot] = Place(job)

    def release(self, slot: int) -> None:
        self.places[slot] = None

    @property
    def busy(self) -> bool:
        return any(place is not None for place in self.places)

    def plan(self, place: Place) -> list[Planned]:
        """The batches of a place's epoch, the same whenever it is asked."""
        key = (place.job, place.epoch)
        if key not in self._plans:
            job = self.jobs[place.job]
            self._plans = {k: v for k, v in self._plans.items() if k[0] != place.job}
            self._plans[key] = plan_epoch(job.train.lengths, job.recipe.batch_size, job.recipe.seed, place.epoch)
        return self._plans[key]

    # -- training -------------------------------------------------------------------------------------------------------

    def tick(self) -> list[int]:
        """One compiled step; returns the slots that took it."""
        length, live, stacked = self._next()
        jax.block_until_ready(self.state.step)  # at most one step ahead: a signal is answered within a step
        self.state = self._step(self.backbone.params, self.state, stacked)
        self.programs_run.add(("step", length))
        for k in live:
            if (place := self.places[k]) is not None:
                place.position += 1
        return live

    def step_memory(self) -> int:
        """Bytes that XLA wants for the next step's temporary buffers and outputs."""
        _, _, batch = self._next()
        memory = self._step.lower(self.backbone.params, self.state, batch).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes if memory else 0

    def _next(self) -> tuple[int, list[int], Batch]:
        """Length of the next tick (the one most slots wait for), the slots that take part, and their batches."""
        following = [None if p is None else self.plan(p)[p.position] for p in self.places]
        counts = Counter(planned.length for planned in following if planned)
        length = min(counts, key=lambda n: (-counts[n], n))
        live = [k for k, planned in enumerate(following) if planned and planned.length == length]
        batches = [self._batch(k, following[k] if k in live else None, length) for k in range(len(self.places))]
        return length, live, jax.tree.map(lambda *leaves: np.stack(leaves), *batches)

    def _batch(self, slot: int, planned: Planned | None, length: int) -> Batch:
        labels = self.task.blank(self.batch_size, length, self.room)
        weight = np.zeros(self.batch_size, np.float32)
        tokens: list[Tokens] = []
        place = self.places[slot]
        if planned is not None and place is not None:
            rows = self.jobs[place.job].train
            tokens = [rows.tokens[i] for i in planned.rows]
            for r, i in enumerate(planned.rows):
                own = rows.labels[i]
                labels[(r, slice(0, own.shape[0])) if own.ndim else r] = own
            weight[: len(tokens)] = 1.0
        return Batch(self.tokenizer.pad(tokens, self.batch_size, length), labels, weight, np.bool_(planned is not None))

    def epoch_done(self, slot: int) -> bool:
        place = self.places[slot]
        return place is not None and place.position == len(self.plan(place))

    def take_loss(self, slot: int) -> tuple[float, bool]:
        """Mean loss of the epoch that has just ended, and whether the slot failed; the sum starts anew."""
        place = self.places[slot]
        assert place is not None
        total, failed = np.asarray(self.state.loss)[slot], np.asarray(self.state.failed)[slot]
        failed |= not all(np.isfinite(leaf[slot]).all() for leaf in jax.tree.leaves(self.state.trainable))
        self.state = self.state._replace(loss=self.state.loss.at[slot].set(0.0))
        return float(total) / place.position, bool(failed)

    # -- validation and results -----------------------------------------------------------------------------------------

    def evaluate(self, slot: int, rows: Rows, names: Sequence[str]) -> dict[str, float] | None:
        """Metrics of a slot's adapter; None where it gives numbers that are not finite."""
        answers = self.answers(slot, rows, names)
        return None if answers is None else self.task.score(rows.examples, answers, names)

    def answers(self, slot: int, rows: Rows, names: Sequence[str]) -> list[Answer] | None:
        """Predictions of a slot's adapter for rows, in their order; None where a logit is not finite."""
        order = sorted(range(len(rows.tokens)), key=lambda i: rows.lengths[i])
        answers: dict[int, Answer] = {}
        for begin in range(0, len(order), EVAL_ROWS):
            chunk = order[begin : begin + EVAL_ROWS]
            length = max(rows.lengths[i] for i in chunk)
            inputs: Inputs = self.tokenizer.pad([rows.tokens[i] for i in chunk], EVAL_ROWS, length)
            logits = np.asarray(self._predict(self.backbone.params, self.state, np.int32(slot), inputs))
            self.programs_run.add(("predict", length))
            if not np.isfinite(logits[: len(chunk), ..., : len(names)]).all():
                return None
            for row, i in zip(logits, chunk, strict=False):
                answers[i] = self.task.answer(row[..., : len(names)], names, rows.tokens[i])
        return [answers[i] for i in range(len(order))]

    def keep_best(self, slot: int) -> None:
        own = jax.tree.map(lambda leaf: leaf[slot], self.state.trainable)
        self.best = self._put(self.best, np.int32(slot), own)

    def result(self, slot: int, metrics: dict[str, float]) -> Adapter:
        """The trained adapter at true size: its best epoch where there were validation rows, else its last."""
        place = self.places[slot]
        assert place is not None
        job = self.jobs[place.job]
        tree = self.best if job.val is not None else self.state.trainable
        own = jax.tree.map(lambda leaf: np.asarray(leaf[slot]), tree)
        states = self.layout.unstack(job.adapter, own, self.backbone.sites)
        return replace(job.adapter, states=states, metrics=metrics)

    # -- checkpoints ----------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, Any]:
        return {"state": self.state, "best": self.best}

    def facts(self) -> list[dict[str, Any] | None]:
        return [None if place is None else asdict(place) for place in self.places]

    def restore(self, arrays: dict[str, Any], facts: list[dict[str, Any] | None]) -> None:
        arrays = jax.tree.map(jax.numpy.asarray, arrays)
        self.state, self.best = arrays["state"], arrays["best"]
        self.places = [None if place is None else Place(**place) for place in facts]
