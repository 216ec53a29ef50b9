"""Whether answers are right as often as they say that they are likely.

What is claimed with a probability (`Task.claims`) is put into 15 bins of equal width by that. In each the mean probability is
compared with how often it was so: the expected calibration error is their distance, weighted by how much lies in a bin (Guo et
al. 2017, eq. 3). Of a classifier the answer alone is a claim; where there may be several labels each is one, given or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BINS = 15


@dataclass(frozen=True)
class Bin:
    """Claims whose probabilities are in a range."""

    low: float
    high: float
    claims: int
    said: float  # their mean probability
    was_so: float  # the share that was so


@dataclass(frozen=True)
class Reliability:
    """Claims compared with what was so."""

    error: float  # the expected calibration error
    brier: float  # the mean square of probability minus truth
    claims: int
    said: float  # the mean probability of all
    was_so: float  # the share that was so
    bins: tuple[Bin, ...]  # those in which something lies


def reliability_of(probabilities: Sequence[float] | np.ndarray, is_so: Sequence[bool] | np.ndarray) -> Reliability:
    """Of at least one claim; both `[claims]`."""
    said, so = np.asarray(probabilities, np.float64), np.asarray(is_so, np.float64)
    which = np.minimum((said * _BINS).astype(int), _BINS - 1)
    bins = tuple(
        Bin(b / _BINS, (b + 1) / _BINS, int((which == b).sum()), float(said[which == b].mean()), float(so[which == b].mean()))
        for b in np.unique(which).tolist()
    )
    error = sum(one.claims * abs(one.was_so - one.said) for one in bins) / len(said)
    return Reliability(error, float(((said - so) ** 2).mean()), len(said), float(said.mean()), float(so.mean()), bins)
