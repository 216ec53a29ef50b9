"""Which items are read in one call of a program, so that little of what is computed is padding.

A call of `rows` batch rows computes `rows x length` positions, `length` being that of its longest item, padded. 36 short items
and a long one would be a call of 64 rows of the long one's length, most of them empty:

    one call        64 x 48                                  3072 positions
    four calls      16 x 16 + 16 x 16 + 4 x 16 + 1 x 48       624 positions

A call takes time to begin, too, as much as some positions take. With items in the order of their lengths, calls are runs of
neighbours, and the cheapest way to read the first i of them is the cheapest way to read fewer, and one call for the rest:

    cost(i) = min over rows of  beginning + rows * length(i) + cost(i - min(rows, i))

Few sizes do as well as many then. These are compiled when a server starts (`warm_up.py`): each takes seconds, and megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax

from ..models.processor import Processor

_ROWS = (1, 4, 16, 64)
_MOST_POSITIONS = 4096  # of a call that reads more than one item: others wait until it is over
_OF_A_PICTURE = 197  # positions: what a ViT makes of 224 x 224 pixels


def positions_of(processor: Processor, length: int) -> int:
    """The positions of an item of a padded length; one that has no length, such as a picture, counts as many, too."""
    return length if processor.sequences else _OF_A_PICTURE


def rows_of_calls(length: int) -> list[int]:
    """The numbers of batch rows of calls that read items of so many positions."""
    return [rows for rows in _ROWS if rows == 1 or rows * length <= _MOST_POSITIONS]


def cut_into_calls(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """The calls that read items in the order of their lengths, the shortest first: for each the number of items, and of rows.

    `lengths`: positions of each item, padded as its program is.
    """
    beginning, costs, calls = _beginning(), [0], [(0, 0)]  # of the first i items: what reading costs, and its last call
    for count, length in enumerate(lengths, 1):
        ways = [(min(rows, count), rows) for rows in rows_of_calls(length)]
        cost, *call = min((beginning + rows * length + costs[count - items], items, rows) for items, rows in ways)
        costs.append(cost)
        calls.append((call[0], call[1]))
    found, left = list[tuple[int, int]](), len(lengths)
    while left:
        found.append(calls[left])
        left -= calls[left][0]
    return found[::-1]


def _beginning() -> int:
    """Positions that are computed while a call begins.

    On a CPU a call of MiniLM takes 2 to 3 ms, and 0.08 to 0.1 ms for each position. Other devices compute many at once, so
    there the fewest calls are the best.
    """
    return 32 if jax.default_backend() == "cpu" else _MOST_POSITIONS
