"""Where the data of calls lie in batches: pieces of work, each of one shape, whatever calls they come from.

The texts of one call may share a batch row, behind one another, as in training (`data/batches.py`); those of two calls never
do, for a batch row has one adapter. Calls whose longest texts are alike are laid together, in batch rows as long as the longest
of them needs, and the batch rows of all are cut into pieces of at most so many tokens. Whoever shares the device waits for one
piece at most. Lengths are those of `rung` and numbers of batch rows powers of two, so that few programs serve all.

For instance, three calls with texts of 20 and 30, of 50, and of 200 tokens: the third has a piece of one batch row of 256 for
itself, and the first two make one of two batch rows of 64 (where a piece may have so many tokens).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...data.batches import place, rung

_NARROWEST = 64  # tokens of a batch row that several texts share: so many short ones fill it well
_FILLED = 0.75  # a number of batch rows is rounded up where this share of them is filled, and else down


class Placed(NamedTuple):
    """A datum in a piece."""

    call: int  # the index of its call
    datum: int  # its index there
    batch_row: int
    begin: int  # its first position


class Piece(NamedTuple):
    """What one call of a compiled program computes."""

    rows: int
    length: int
    placed: tuple[Placed, ...]


def pieces(lengths: Sequence[Sequence[int]], *, limit: int, most_tokens: int, shared: bool) -> list[Piece]:
    """The data of calls in pieces. `lengths`: by call, of each datum how many tokens it has.

    Args:
        limit: tokens of a text at most, which its batch row has, too.
        most_tokens: of a piece; a single batch row may have more.
        shared: whether texts of a call may share batch rows.
    """
    found: list[Piece] = []
    for length, calls in _alike(lengths, limit, shared):
        rows = [row for call in calls for row in _batch_rows(call, lengths[call], length, shared)]
        most = 1 << (max(1, most_tokens // length).bit_length() - 1)
        begin = 0
        for room in _sizes(len(rows), most):
            own = rows[begin : begin + room]
            placed = (Placed(call, datum, k, first) for k, row in enumerate(own) for call, datum, first in row)
            found.append(Piece(room, length, tuple(placed)))
            begin += room
    return found


def _alike(lengths: Sequence[Sequence[int]], limit: int, shared: bool) -> Iterator[tuple[int, list[int]]]:
    """Calls that are laid together, with the length of their batch rows: none is twice as long as another would need."""
    waiting = sorted(range(len(lengths)), key=lambda call: -max(lengths[call]))
    while waiting:
        longest = max(lengths[waiting[0]])
        calls = [call for call in waiting if 2 * max(lengths[call]) > longest or longest <= _NARROWEST]
        waiting = waiting[len(calls) :]
        most = max(sum(lengths[call]) for call in calls)
        yield rung(max(longest, min(_NARROWEST, most)) if shared else longest, limit), sorted(calls)


def _batch_rows(call: int, lengths: Sequence[int], length: int, shared: bool) -> list[list[tuple[int, int, int]]]:
    """The batch rows of a call: in each the call, a datum and the position where it begins, of every datum that lies there."""
    places = place(lengths, length) if shared else [(row, 0) for row in range(len(lengths))]
    rows: list[list[tuple[int, int, int]]] = [[] for _ in range(1 + max(row for row, _ in places))]
    for datum, (row, begin) in enumerate(places):
        rows[row].append((call, datum, begin))
    return rows


def _sizes(count: int, most: int) -> Iterator[int]:
    """Powers of two, up to `most`, that together have room for so many batch rows, and little more."""
    while count > 0:
        above = 1 << (count - 1).bit_length()
        size = min(most, above if count >= _FILLED * above else above // 2)
        yield size
        count -= size
