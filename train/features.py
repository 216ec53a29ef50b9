"""What the frozen layers say of a job's texts, computed once and kept: a probe's second epoch costs next to nothing.

Where everything that is trained lies above some layers (a probe above all of them, the last k layers above the rest), those
layers say the same of a text in every epoch. Kept per text is what enters the first adapted layer, `[tokens, hidden]`, or with
no adapted layer and a pooled head the pooled position alone, `[1, hidden]`; in memory, and beyond `IN_MEMORY` bytes on disk.

Every text is computed in the batch that `plan_all` puts it in, which depends on the rows alone: an interrupted run computes
the same bits again.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..data.batches import Planned, Shape, plan_all
from ..data.rows import Rows
from ..models.backbone import Backbone
from ..models.inputs import TextInputs
from ..models.tokens import Tokenizer
from .job import Job

IN_MEMORY = 2 << 30


class Features:
    """An array `[length, hidden]` per text."""

    def __init__(self, lengths: Sequence[int], hidden: int, dtype: Any):
        self._ends = np.cumsum([0, *lengths])
        shape = (int(self._ends[-1]), hidden)
        if math.prod(shape) * np.dtype(dtype).itemsize <= IN_MEMORY:
            self._array = np.empty(shape, dtype)
        else:  # the file has no name, and its memory map outlives it: it is gone when this object is
            with tempfile.TemporaryFile() as file:
                self._array = np.memmap(file, dtype, "w+", shape=shape)

    def __getitem__(self, text: int) -> np.ndarray:
        return self._array[self._ends[text] : self._ends[text + 1]]

    def __setitem__(self, text: int, value: np.ndarray) -> None:
        self[text][...] = value


class FeatureStore:
    """The features of the jobs in a pack's slots, and the batches made of them instead of token ids."""

    def __init__(self, backbone: Backbone, tokenizer: Tokenizer, compute: Callable[[TextInputs], Any], per_token: bool):
        self.backbone, self.tokenizer, self.compute, self.per_token = backbone, tokenizer, compute, per_token
        self._kept: dict[Rows, Features] = {}
        self._unknown: list[tuple[Rows, Planned, Shape]] = []

    def expect(self, job: Job) -> None:
        """Make room for a job's features, and note the batches in which they are to be computed."""
        for rows in filter(None, (job.train, job.val)):
            lengths = rows.lengths if self.per_token else [1] * len(rows.tokens)
            self._kept[rows] = Features(lengths, self.backbone.config.hidden_size, self.backbone.dtype)
            self._unknown += [(rows, planned, job.shape) for planned in plan_all(rows.lengths, job.shape)]

    def forget(self, job: Job) -> None:
        for rows in filter(None, (job.train, job.val)):
            del self._kept[rows]

    def step(self) -> bool:
        """Compute one batch of features; False where all are known."""
        if not self._unknown:
            return False
        rows, planned, shape = self._unknown.pop(0)
        hidden = np.asarray(self.compute(self.tokenizer.lay([rows.tokens[i] for i in planned.texts], planned.places, shape)))
        for k, (i, (row, begin)) in enumerate(zip(*planned, strict=True)):
            self._kept[rows][i] = hidden[row, begin : begin + len(rows.tokens[i])] if self.per_token else hidden[k]
        return True

    def shape(self, job: Job) -> Shape:
        """Of the job's batches: without tokens only the number of texts is left, and jobs of all lengths share a program."""
        return job.shape if self.per_token else Shape(job.shape.texts, 0, 0)

    def inputs(self, rows: Rows, planned: Planned, shape: Shape) -> TextInputs:
        """A batch of features."""
        size = (shape.rows, shape.tokens) if self.per_token else (shape.texts, 1)
        hidden = np.zeros((*size, self.backbone.config.hidden_size), self.backbone.dtype)
        for k, (i, (row, begin)) in enumerate(zip(*planned, strict=True)):
            if self.per_token:
                hidden[row, begin : begin + len(rows.tokens[i])] = self._kept[rows][i]
            else:
                hidden[k] = self._kept[rows][i]
        if not self.per_token:
            return TextInputs(np.zeros(size, np.int32), np.ones(size, bool), None, hidden=hidden)  # rows of one token
        laid = self.tokenizer.lay([rows.tokens[i] for i in planned.texts], planned.places, shape)
        return laid._replace(types=None, hidden=hidden)
