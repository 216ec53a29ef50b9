"""Which rows are trained together: batches of one padded length, in an order that depends on the task and epoch alone.

Rows are sorted into the ladder's lengths (`models/tokens.py`), shuffled within a length, and cut into batches; what is left
over in one length is padded up into the next, so only the very last batch of an epoch is not full. Lengths that hold few rows
are merged upwards once per task: each length is a program to compile.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..models.tokens import Tokens, rung


class Planned(NamedTuple):
    length: int  # padded tokens per row
    rows: tuple[int, ...]


def lengths_for(rows: Sequence[Tokens], batch_size: int, limit: int) -> list[int]:
    """The padded length of every row: a rung of the ladder that three batches and a tenth of the rows reach, or the top."""
    own = np.array([rung(len(row), limit) for row in rows])
    enough = max(3 * batch_size, len(rows) // 10)
    used = sorted(set(own.tolist()))
    for short, longer in itertools.pairwise(used):
        if np.sum(own == short) < enough:
            own[own == short] = longer
    return own.tolist()


def number_of_batches(rows: int, batch_size: int) -> int:
    return -(-rows // batch_size)


def plan_epoch(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[Planned]:
    """Batches of one epoch, shuffled."""
    random = np.random.default_rng([seed, epoch])
    own = np.asarray(lengths)
    batches, left = [], np.empty(0, np.int64)
    for length in sorted(set(own.tolist())):
        rows = np.concatenate([left, random.permutation(np.flatnonzero(own == length))])
        full = len(rows) // batch_size * batch_size
        # rows carried up from a shorter length come first, so they are not carried twice
        batches += [Planned(length, tuple(chunk)) for chunk in rows[:full].reshape(-1, batch_size).tolist()]
        left = rows[full:]
    if len(left):
        batches.append(Planned(int(own.max()), tuple(left.tolist())))
    return [batches[i] for i in random.permutation(len(batches))]
