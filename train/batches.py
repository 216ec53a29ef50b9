"""Which rows are trained together, and where their tokens lie.

A batch is an array of one shape for the whole of a job, so a job needs one compiled program, and little of it is padding:
several texts lie in one row of the array, behind one another, and each attends to its own tokens only (`models.inputs.Texts`).
A batch's texts are drawn from all lengths: rows are sorted by length and cut into strata of as many rows as there are batches,
and every batch gets one row of each stratum at random. So all batches have nearly the same number of tokens, and the shape that
holds the largest is seldom much too large for the others.

The shape follows from the job's own rows, method, seed and batch size, and from nothing else in the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..models.tokens import rung

_NARROWEST = 64  # tokens of a row: so many short texts fill it well, and attention over them costs little
_ATTENTION = 512  # tokens of a row at which attention costs as much as all else (MiniLM: an eighth of a step at 64)


class Shape(NamedTuple):
    """Of a batch: `texts` at most, in an array of `[rows, tokens]`."""

    texts: int
    rows: int
    tokens: int
    shared: bool = True  # whether texts may share a row; else text i is row i
    target: int = 0  # tokens of a row's target; 0: there is none


class Planned(NamedTuple):
    """One batch: which examples, and the row and first token of each."""

    examples: tuple[int, ...]
    places: tuple[tuple[int, int], ...]


def number_of_batches(rows: int, batch_size: int) -> int:
    return -(-rows // batch_size)


def draw_epoch(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Every row once, in `number_of_batches` batches whose sizes differ by one at most."""
    random = np.random.default_rng([seed, epoch])
    count = number_of_batches(len(lengths), batch_size)
    order = np.lexsort((random.random(len(lengths)), -np.asarray(lengths)))  # the longest first, ties in random order
    batches: list[list[int]] = [[] for _ in range(count)]
    for begin in range(0, len(order), count):
        stratum = order[begin : begin + count]
        for batch, row in zip(random.permutation(count), stratum.tolist(), strict=False):
            batches[batch].append(row)
    return batches


def place(lengths: Sequence[int], tokens: int) -> list[tuple[int, int]]:
    """The row and first token of each text in rows of `tokens` tokens: first fit, the longest first."""
    used: list[int] = []
    places = [(0, 0)] * len(lengths)
    for i in _longest_first(lengths):
        row = _first_fit(used, lengths[i], tokens)
        if row == len(used):
            used.append(0)
        places[i] = (row, used[row])
        used[row] += lengths[i]
    return places


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda i: -lengths[i])


def _first_fit(used: Sequence[int], length: int, tokens: int) -> int:
    """The first row with room for a text; the number of rows where none has."""
    return next((row for row, taken in enumerate(used) if taken + length <= tokens), len(used))


def plan_epoch(lengths: Sequence[int], shape: Shape, seed: int, epoch: int) -> list[Planned]:
    """The batches of one epoch."""
    drawn = draw_epoch(lengths, shape.texts, seed, epoch)
    if not shape.shared:
        return [_alone(batch) for batch in drawn]
    return [Planned(tuple(batch), tuple(place([lengths[i] for i in batch], shape.tokens))) for batch in drawn]


def plan_all(lengths: Sequence[int], shape: Shape) -> list[Planned]:
    """Every row once, the longest first, a new batch where one is full: for predicting."""
    if not shape.shared:
        order = _longest_first(lengths)
        return [_alone(order[begin : begin + shape.texts]) for begin in range(0, len(order), shape.texts)]
    batches: list[dict[int, tuple[int, int]]] = []
    used: list[int] = []
    for i in _longest_first(lengths):
        row = _first_fit(used, lengths[i], shape.tokens)
        if row == len(used) or len(batches[-1]) == shape.texts:
            batches.append({})
            used, row = [0] * shape.rows, 0
        batches[-1][i] = (row, used[row])
        used[row] += lengths[i]
    return [Planned(tuple(batch), tuple(batch.values())) for batch in batches]


def _alone(batch: Sequence[int]) -> Planned:
    """A batch with a row for every text."""
    return Planned(tuple(batch), tuple((row, 0) for row in range(len(batch))))


def shape_for(lengths: Sequence[int], longest: int, batch_size: int, seed: int, epochs: int) -> Shape:
    """The cheapest shape that holds every batch of every epoch, and a text of `longest` tokens."""
    drawn = [[[lengths[i] for i in batch] for batch in draw_epoch(lengths, batch_size, seed, e)] for e in range(epochs)]

    def rows(tokens: int) -> int:
        return _step_up(max(1 + max(row for row, _ in place(batch, tokens)) for epoch in drawn for batch in epoch))

    narrow = max(_NARROWEST, 1 << (longest - 1).bit_length())
    shapes = [Shape(batch_size, rows(tokens), tokens) for tokens in (narrow, 2 * narrow)]
    return min(shapes, key=lambda shape: shape.rows * shape.tokens * (1 + shape.tokens / _ATTENTION))


def shape_alone(longest: int, batch_size: int, target: int = 0) -> Shape:
    """A row for every text, for methods that put tokens in front of one, and for texts with a target."""
    return Shape(batch_size, batch_size, rung(longest, 2 * longest), shared=False, target=target and rung(target, 2 * target))


def _step_up(count: int) -> int:
    """Four sizes to a doubling, so that jobs of like rows share a program."""
    step = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step
