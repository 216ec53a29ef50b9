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
    together: int = 1  # texts of an example: one batch has all of them, behind one another
    target: int = 0  # tokens of a text's target; 0: there is none


class Planned(NamedTuple):
    """One batch: which texts, and the row and first token of each."""

    texts: tuple[int, ...]
    places: tuple[tuple[int, int], ...]


def number_of_batches(rows: int, batch_size: int) -> int:
    return -(-rows // batch_size)


def wholes(lengths: Sequence[int], together: int) -> list[int]:
    """Tokens of each example, from those of its texts."""
    return [sum(lengths[begin : begin + together]) for begin in range(0, len(lengths), together)]


def draw_epoch(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Every example once, in `number_of_batches` batches whose sizes differ by one at most."""
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
    whole = wholes(lengths, shape.together)
    drawn = draw_epoch(whole, shape.texts // shape.together, seed, epoch)
    if not shape.shared:
        return [_alone(batch, shape) for batch in drawn]
    return [_laid(batch, place([whole[i] for i in batch], shape.tokens), lengths, shape) for batch in drawn]


def plan_all(lengths: Sequence[int], shape: Shape) -> list[Planned]:
    """Every example once, the longest first, a new batch where one is full: for predicting."""
    whole, most = wholes(lengths, shape.together), shape.texts // shape.together
    order = _longest_first(whole)
    if not shape.shared:
        return [_alone(order[begin : begin + most], shape) for begin in range(0, len(order), most)]
    batches: list[dict[int, tuple[int, int]]] = []
    used: list[int] = []
    for i in order:
        row = _first_fit(used, whole[i], shape.tokens)
        if row == len(used) or len(batches[-1]) == most:
            batches.append({})
            used, row = [0] * shape.rows, 0
        batches[-1][i] = (row, used[row])
        used[row] += whole[i]
    return [_laid([*batch], [*batch.values()], lengths, shape) for batch in batches]


def _texts_of(examples: Sequence[int], together: int) -> list[int]:
    return [text for i in examples for text in range(i * together, (i + 1) * together)]


def _alone(examples: Sequence[int], shape: Shape) -> Planned:
    """A batch with a row for every text."""
    texts = _texts_of(examples, shape.together)
    return Planned(tuple(texts), tuple((row, 0) for row in range(len(texts))))


def _laid(examples: Sequence[int], places: Sequence[tuple[int, int]], lengths: Sequence[int], shape: Shape) -> Planned:
    """A batch of the texts of examples, each example beginning at its place."""
    found = []
    for i, (row, begin) in zip(examples, places, strict=True):
        for text in _texts_of([i], shape.together):
            found.append((row, begin))
            begin += lengths[text]
    return Planned(tuple(_texts_of(examples, shape.together)), tuple(found))


def shape_for(lengths: Sequence[int], longest: int, batch_size: int, seed: int, epochs: int, together: int = 1) -> Shape:
    """The cheapest shape that holds every batch of every epoch, and an example of `longest` tokens.

    `lengths` are of texts, of which each example has `together`; `batch_size` counts examples.
    """
    whole = wholes(lengths, together)
    drawn = [[[whole[i] for i in batch] for batch in draw_epoch(whole, batch_size, seed, e)] for e in range(epochs)]

    def rows(tokens: int) -> int:
        return _step_up(max(1 + max(row for row, _ in place(batch, tokens)) for epoch in drawn for batch in epoch))

    narrow = max(_NARROWEST, 1 << (longest - 1).bit_length())
    texts = batch_size * together
    shapes = [Shape(texts, rows(tokens), tokens, together=together) for tokens in (narrow, 2 * narrow)]
    return min(shapes, key=lambda shape: shape.rows * shape.tokens * (1 + shape.tokens / _ATTENTION))


def shape_alone(longest: int, batch_size: int, together: int = 1, target: int = 0) -> Shape:
    """A row for every text of at most `longest` tokens, for methods that put tokens in front of one, and for those with a
    target, of at most `target`."""
    texts, room = batch_size * together, target and rung(target, 2 * target)
    return Shape(texts, texts, rung(longest, 2 * longest), shared=False, together=together, target=room)


def _step_up(count: int) -> int:
    """Four sizes to a doubling, so that jobs of like rows share a program."""
    step = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step
