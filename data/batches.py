"""Which items are trained together, and where they lie in a batch.

An item is what a processor (`models/processor.py`) makes of an example: a text of so many tokens, a picture. A batch is an
array of one shape for the whole of a job, so a job needs one compiled program. Where items have lengths, and their processor
allows it, little of the array is padding: several items lie in one batch row, behind one another, and each attends to its own
positions only (`models.inputs.Texts`). A batch's items are drawn from all lengths: examples are sorted by length and cut into
strata of as many examples as there are batches, and every batch gets one example of each stratum at random. So all batches have
nearly the same number of positions, and the shape that holds the largest is seldom much too large for the others. Items without
a length, such as pictures, have length 1, and a batch row each.

The shape follows from the job's own examples, method, seed and batch size, and from nothing else in the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_NARROWEST = 64  # positions of a batch row: so many short items fill it well, and attention over them costs little
_ATTENTION = 512  # positions at which attention costs as much as all else (MiniLM: an eighth of a step at 64)


class Shape(NamedTuple):
    """The shape of a batch: at most `items` items, in an array `[rows, length]`."""

    items: int
    rows: int  # batch rows
    length: int = 1  # positions of a batch row; of items without a length 1
    shared: bool = True  # whether items may share a batch row; else item i is batch row i
    together: int = 1  # items of an example: one batch has all of them, behind one another
    target: int = 0  # positions of an item's target; 0: there is none
    aside: tuple[int, int] = (0, 0)  # rows, and positions of each, of what every batch has beside its items


class Planned(NamedTuple):
    """One batch: which items, and the batch row and first position of each."""

    items: tuple[int, ...]
    places: tuple[tuple[int, int], ...]


def rung(length: int, limit: int) -> int:
    """The shortest padded length that holds `length` positions, at most `limit`.

    A program is compiled per length, so items are padded to 8, 12, 16, 24, 32, 48, ...: at most 1.5 times their own from 8 on.
    """
    double = max(8, 1 << (length - 1).bit_length())
    between = double * 3 // 4
    return min(between if length <= between and between > 8 else double, limit)


def number_of_batches(examples: int, batch_size: int) -> int:
    """How many batches hold so many examples."""
    return -(-examples // batch_size)


def wholes(lengths: Sequence[int], together: int) -> list[int]:
    """The length of each example, which is the sum of those of its items."""
    return [sum(lengths[begin : begin + together]) for begin in range(0, len(lengths), together)]


def draw_epoch(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Every example once, in `number_of_batches` batches whose sizes differ by one at most."""
    random = np.random.default_rng([seed, epoch])
    count = number_of_batches(len(lengths), batch_size)
    order = np.lexsort((random.random(len(lengths)), -np.asarray(lengths)))  # the longest first, ties in random order
    batches: list[list[int]] = [[] for _ in range(count)]
    for begin in range(0, len(order), count):
        stratum = order[begin : begin + count]
        for batch, example in zip(random.permutation(count), stratum.tolist(), strict=False):
            batches[batch].append(example)
    return batches


def place(lengths: Sequence[int], width: int) -> list[tuple[int, int]]:
    """The place of each item in batch rows of `width` positions: the first with room for it, beginning with the longest item.

    For instance, lengths 3, 6 and 7 in batch rows of 10 positions get the places (0, 7), (1, 0) and (0, 0).
    """
    used: list[int] = []
    places = [(0, 0)] * len(lengths)
    for i in _longest_first(lengths):
        batch_row = _first_fit(used, lengths[i], width)
        if batch_row == len(used):
            used.append(0)
        places[i] = (batch_row, used[batch_row])
        used[batch_row] += lengths[i]
    return places


def _longest_first(lengths: Sequence[int]) -> list[int]:
    """Indices, that of the longest first; of equal lengths in their order."""
    return sorted(range(len(lengths)), key=lambda i: -lengths[i])


def _first_fit(used: Sequence[int], length: int, width: int) -> int:
    """The first batch row with room for an item; the number of batch rows where none has."""
    return next((batch_row for batch_row, taken in enumerate(used) if taken + length <= width), len(used))


def plan_epoch(lengths: Sequence[int], shape: Shape, seed: int, epoch: int) -> list[Planned]:
    """The batches of one epoch."""
    whole = wholes(lengths, shape.together)
    drawn = draw_epoch(whole, shape.items // shape.together, seed, epoch)
    if not shape.shared:
        return [_alone(batch, shape) for batch in drawn]
    return [_laid(batch, place([whole[i] for i in batch], shape.length), lengths, shape) for batch in drawn]


def plan_all(lengths: Sequence[int], shape: Shape) -> list[Planned]:
    """Batches for predicting: every example once, the longest first, and a new batch where one is full."""
    whole, most = wholes(lengths, shape.together), shape.items // shape.together
    order = _longest_first(whole)
    if not shape.shared:
        return [_alone(order[begin : begin + most], shape) for begin in range(0, len(order), most)]
    batches: list[dict[int, tuple[int, int]]] = []
    used: list[int] = []
    for i in order:
        batch_row = _first_fit(used, whole[i], shape.length)
        if batch_row == len(used) or len(batches[-1]) == most:
            batches.append({})
            used, batch_row = [0] * shape.rows, 0
        batches[-1][i] = (batch_row, used[batch_row])
        used[batch_row] += whole[i]
    return [_laid([*batch], [*batch.values()], lengths, shape) for batch in batches]


def _items_of(examples: Sequence[int], together: int) -> list[int]:
    """The items of some examples, each of which has `together`."""
    return [item for i in examples for item in range(i * together, (i + 1) * together)]


def _alone(examples: Sequence[int], shape: Shape) -> Planned:
    """A batch of some examples, with a batch row for every item."""
    items = _items_of(examples, shape.together)
    return Planned(tuple(items), tuple((batch_row, 0) for batch_row in range(len(items))))


def _laid(examples: Sequence[int], places: Sequence[tuple[int, int]], lengths: Sequence[int], shape: Shape) -> Planned:
    """A batch of some examples, each of which begins at its place; its items lie there behind one another."""
    found = []
    for i, (batch_row, begin) in zip(examples, places, strict=True):
        for item in _items_of([i], shape.together):
            found.append((batch_row, begin))
            begin += lengths[item]
    return Planned(tuple(_items_of(examples, shape.together)), tuple(found))


def shape_for(lengths: Sequence[int], longest: int, batch_size: int, seed: int, epochs: int, together: int = 1) -> Shape:
    """The cheapest shape that holds every batch of every epoch, and an example of length `longest`.

    `lengths` are of items, of which each example has `together`; `batch_size` counts examples.
    """
    whole = wholes(lengths, together)
    drawn = [[[whole[i] for i in batch] for batch in draw_epoch(whole, batch_size, seed, e)] for e in range(epochs)]

    def batch_rows(width: int) -> int:
        return _step_up(max(1 + max(used for used, _ in place(batch, width)) for epoch in drawn for batch in epoch))

    narrow = max(_NARROWEST, 1 << (longest - 1).bit_length())
    items = batch_size * together
    shapes = [Shape(items, batch_rows(width), width, together=together) for width in (narrow, 2 * narrow)]
    return min(shapes, key=lambda shape: shape.rows * shape.length * (1 + shape.length / _ATTENTION))


def shape_alone(longest: int, batch_size: int, together: int = 1, target: int = 0) -> Shape:
    """A batch row for every item of at most `longest` positions, for methods that put positions in front of one, and for items
    with a target, of at most `target`."""
    items, room = batch_size * together, target and rung(target, 2 * target)
    return Shape(items, items, rung(longest, 2 * longest), shared=False, together=together, target=room)


def _step_up(count: int) -> int:
    """Four sizes to a doubling, so that jobs of like examples share a program."""
    step = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step
