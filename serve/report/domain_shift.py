"""How the rows here differ from others, such as those that an adapter was trained on, and what that costs.

The cost is the change of the task's main metric. Its interval is put together of those of both sides, as of two independent
values: d - sqrt((a - low a)^2 + (high b - b)^2) and likewise upwards (Zou and Donner 2008).

How far apart the rows lie is seen in the features that a classifier would read: the distance between the two means, as a
multiple of how far a single row is from the mean of its own side (the root of the mean square). Two samples of the same rows
are not at distance zero, so it is told beside what chance makes of it: rows dealt to the two sides anew, 199 times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...data.labels import each_name
from ...store.events import Measure
from ...store.manifest import DataFacts
from ..evaluation import Answered

_DEALT = 199
_SEED = 20080301


@dataclass(frozen=True)
class Distance:
    """Between the mean features of two sets of rows."""

    features: str  # which they are
    value: float
    chance: float  # what 95% of the sets stay below that are dealt by chance
    p: float  # how often chance makes as much of it


@dataclass(frozen=True)
class Shift:
    """Rows here against rows there."""

    there: DataFacts
    trained_on: bool | None  # whether the adapter was trained on the rows there; None: that is not known
    metrics: Mapping[str, Measure]  # there
    change: Measure  # of the main metric: here minus there
    labels: float | None  # half the sum of the differences between the labels' shares: from 0, alike, to 1
    distances: tuple[Distance, ...]


def change_of(here: Measure, there: Measure) -> Measure:
    """Of a metric, with its interval where both sides have one."""
    change = here.value - there.value
    if here.low is None or here.high is None or there.low is None or there.high is None:
        return Measure(change)
    below = math.hypot(here.value - here.low, there.high - there.value)
    above = math.hypot(here.high - here.value, there.value - there.low)
    return Measure(change, change - below, change + above)


def labels_apart(here: Answered, there: Answered) -> float | None:
    """The distance between the shares of the labels; None where there are none."""
    each = [list(each_name(side.examples.labels)) for side in (here, there)]
    if not all(each):
        return None
    names = sorted({*each[0], *each[1]})
    shares = [np.array([side.count(name) for name in names]) / len(side) for side in each]
    return float(abs(shares[0] - shares[1]).sum() / 2)


def distance(features: str, here: np.ndarray, there: np.ndarray) -> Distance:
    """Of features `[rows, width]` of both sides."""
    rows, count = np.concatenate([here, there]).astype(np.float64), len(here)
    rows -= rows.mean(0)
    value = _distance(rows, np.arange(len(rows)) < count)
    random = np.random.default_rng(_SEED)
    dealt = np.array([_distance(rows, random.permutation(len(rows)) < count) for _ in range(_DEALT)])
    return Distance(features, value, float(np.percentile(dealt, 95)), float((1 + (dealt >= value).sum()) / (1 + _DEALT)))


def _distance(rows: np.ndarray, first: np.ndarray) -> float:
    """Between some of the rows and the others, all together with mean zero; what is within the sides is all but that."""
    count, others = first.sum(), (~first).sum()
    apart = float(np.linalg.norm(first @ rows / count)) * len(rows) / others
    within = float((rows**2).sum()) / len(rows) - count * others / len(rows) ** 2 * apart**2
    return apart / math.sqrt(within) if within > 0 else 0.0 if apart == 0 else math.inf
