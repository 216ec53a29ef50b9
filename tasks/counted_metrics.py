"""Metrics of classifications for many draws of the rows at once, as intervals by resampling need them.

A draw is a weight for every row: how often it was drawn. Rows of one class that were answered by one are alike, and may be told
once, with the sum of their weights. Shapes: `gold` and `said` are class numbers `[n]`, weights `[b, n]`, values `[b]`.
"""

from __future__ import annotations

import numpy as np


def macro_f1(gold: np.ndarray, said: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that occur, as gold or as said."""
    right, wanted, given = _margins(gold, said, weights)
    f1 = 2 * right / np.where(wanted + given > 0, wanted + given, 1.0)
    return f1.sum(1) / np.maximum((wanted + given > 0).sum(1), 1)


def matthews(gold: np.ndarray, said: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """R_K of Gorodkin (2004), for two classes Matthews' phi; 0 where it is not defined."""
    right, wanted, given = _margins(gold, said, weights)
    total = weights.sum(1)
    above = right.sum(1) * total - (wanted * given).sum(1)
    below = np.sqrt((total**2 - (given**2).sum(1)) * (total**2 - (wanted**2).sum(1)))
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0)


def _margins(gold: np.ndarray, said: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`[b, classes]`: how many are of each class and said to be, how many are, how many are said to be."""
    from scipy.sparse import csr_array

    n, classes = len(gold), int(max(gold.max(), said.max())) + 1
    # sparse: a dense product would take as many times longer as there are classes
    each_gold, each_said = (csr_array((np.ones(n), one, np.arange(n + 1)), shape=(n, classes)) for one in (gold, said))
    return (weights * (gold == said)) @ each_gold, weights @ each_gold, weights @ each_said
