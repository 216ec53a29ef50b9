"""What the frozen layers make of a job's items, computed once and kept: a probe's second epoch costs next to nothing.

Where everything that is trained lies above some layers (a probe above all of them, the last k layers above the rest), those
layers say the same of an item in every epoch. Kept per item is what enters the first adapted layer: of a sequence `[length,
hidden]`, or with no adapted layer and a pooled head the pooled position alone, `[1, hidden]`; of an item without a length one
array of whatever shape. In memory, and where they are too large on disk (`graftax/large.py`).

Every item is computed in the batch that `plan_all` puts it in, which depends on the examples alone: an interrupted run computes
the same bits again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ..data.batches import Planned, Shape, plan_all
from ..data.prepared import Prepared
from ..large import large_array
from ..models.inputs import Inputs
from ..models.processor import Processor
from .job import Job


class Features:
    """For each item an array `[length, ...]`; all of them are parts of one large array."""

    def __init__(self, lengths: Sequence[int], rest: tuple[int, ...], dtype: Any):
        self._ends = np.cumsum([0, *lengths])
        self._array = large_array((int(self._ends[-1]), *rest), dtype)

    def __getitem__(self, item: int) -> np.ndarray:
        return self._array[self._ends[item] : self._ends[item + 1]]

    def __setitem__(self, item: int, value: np.ndarray) -> None:
        self[item][...] = value


class FeatureStore:
    """The features of the jobs in a pack's slots, and batches of these in place of batches of inputs.

    `compute` makes of inputs what enters the first adapted layer: `[rows, length, ...]` if `by_position`, else `[items, ...]`.
    `beside`: whether the layers above read something of a batch beside that (`Processor.lay_beside`).
    """

    def __init__(self, processor: Processor, compute: Callable[[Inputs], Any], *, by_position: bool, beside: bool):
        self.processor, self.compute, self.by_position, self.beside = processor, compute, by_position, beside
        self._kept: dict[Prepared, Features] = {}
        self._like: jax.ShapeDtypeStruct | None = None  # of one position, or one item; known when the first job is expected
        self._unknown: list[tuple[Prepared, Planned, Shape]] = []

    def expect(self, job: Job) -> None:
        """Make room for a job's features, and note the batches in which they are to be computed."""
        for prepared in filter(None, (job.train, job.val)):
            plan = plan_all(prepared.lengths, job.shape)
            if self._like is None:
                made = jax.eval_shape(self.compute, self._laid(prepared, plan[0], job.shape))
                self._like = jax.ShapeDtypeStruct(made.shape[2 if self.by_position else 1 :], made.dtype)
            lengths = prepared.lengths if self.by_position else [1] * len(prepared.items)
            self._kept[prepared] = Features(lengths, self._like.shape, self._like.dtype)
            self._unknown += [(prepared, planned, job.shape) for planned in plan]

    def forget(self, job: Job) -> None:
        """Drop the features of a job that has ended."""
        for prepared in filter(None, (job.train, job.val)):
            del self._kept[prepared]

    def step(self) -> bool:
        """Compute one batch of features, and say whether there was one to compute."""
        if not self._unknown:
            return False
        prepared, planned, shape = self._unknown.pop(0)
        made = np.asarray(self.compute(self._laid(prepared, planned, shape)))
        for k, (i, (batch_row, begin)) in enumerate(zip(*planned, strict=True)):
            self._kept[prepared][i] = made[batch_row, begin : begin + len(prepared.items[i])] if self.by_position else made[k]
        return True

    def shape(self, job: Job) -> Shape:
        """The shape of a job's batches of features. Of features alone it is the number of items, so jobs share programs."""
        return job.shape if self.beside else Shape(job.shape.items, 0, 0, aside=job.shape.aside)

    def inputs(self, prepared: Prepared, planned: Planned, shape: Shape) -> Inputs:
        """The inputs of a batch: features, and what else the layers above need."""
        assert self._like is not None
        size = (shape.rows, shape.length) if self.by_position else (shape.items,)
        hidden = np.zeros((*size, *self._like.shape), self._like.dtype)
        for k, (i, (batch_row, begin)) in enumerate(zip(*planned, strict=True)):
            if self.by_position:
                hidden[batch_row, begin : begin + len(prepared.items[i])] = self._kept[prepared][i]
            else:
                hidden[k] = self._kept[prepared][i][0]
        items = [prepared.items[i] for i in planned.items]
        return self.processor.with_hidden(
            hidden, self.processor.lay_beside(items, planned.places, shape) if self.beside else None
        )

    def _laid(self, prepared: Prepared, planned: Planned, shape: Shape) -> Inputs:
        """The inputs of a planned batch, of which features are made."""
        return self.processor.lay([prepared.items[i] for i in planned.items], planned.places, shape)
