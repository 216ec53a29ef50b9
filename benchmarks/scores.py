"""The metrics a benchmark compares methods by, computed for many resamples of the examples at once.

A resample is a weight for every example: how often it was drawn. Ratio metrics are weighted sums divided; those of the classes
are computed of weighted counts. Shapes: weights `[b, n]`, values `[b]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ..errors import GraftaxError
from .results import Predictions


@dataclass(frozen=True)
class Metric:
    """`of` takes predictions and weights; `better` is +1 where more is better, -1 where less is."""

    name: str
    of: Callable[[Predictions, np.ndarray], np.ndarray]
    better: int = 1

    def __call__(self, predictions: Predictions, weights: np.ndarray | None = None) -> np.ndarray:
        return self.of(predictions, np.ones((1, len(predictions.top))) if weights is None else weights)


def _ratio(p: Predictions, weights: np.ndarray) -> np.ndarray:
    return (weights @ p.top) / np.maximum(weights @ p.bottom, 1e-12)


def _perplexity(p: Predictions, weights: np.ndarray) -> np.ndarray:
    return np.exp(_ratio(p, weights))


def _margins(p: Predictions, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`[b, classes]`: how many are of each class and said to be, how many are, how many are said to be."""
    assert p.gold is not None
    assert p.said is not None
    n, classes = len(p.gold), int(max(p.gold.max(), p.said.max())) + 1
    # sparse: a dense product would take as many times longer as there are classes
    gold, said = (csr_array((np.ones(n), c, np.arange(n + 1)), shape=(n, classes)) for c in (p.gold, p.said))
    return (weights * (p.gold == p.said)) @ gold, weights @ gold, weights @ said


def _matthews(p: Predictions, weights: np.ndarray) -> np.ndarray:
    """R_K of Gorodkin (2004), for two classes Matthews' phi; 0 where it is not defined."""
    right, gold, said = _margins(p, weights)
    total = weights.sum(1)
    above = right.sum(1) * total - (gold * said).sum(1)
    below = np.sqrt((total**2 - (said**2).sum(1)) * (total**2 - (gold**2).sum(1)))
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0)


def _macro_f1(p: Predictions, weights: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that occur, as gold or as said."""
    right, gold, said = _margins(p, weights)
    f1 = 2 * right / np.where(gold + said > 0, gold + said, 1.0)
    return f1.sum(1) / np.maximum((gold + said > 0).sum(1), 1)


def _bleu(p: Predictions, weights: np.ndarray) -> np.ndarray:
    """BLEU of the corpus as a share, by sacreBLEU (Post, arXiv:1804.08771): clipped matches of 1 to 4 words, and lengths."""
    from sacrebleu import BLEU  # takes a while, and few suites have it

    top, bottom = ((weights @ sums).astype(int).tolist() for sums in (p.top, p.bottom))
    return np.array(
        [
            BLEU.compute_bleu(matched, there, said, wanted, smooth_method="exp").score / 100
            for (*matched, said), (*there, wanted) in zip(top, bottom, strict=True)
        ]
    )


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", _ratio),
        Metric("matthews", _matthews),
        Metric("macro_f1", _macro_f1),
        Metric("perplexity", _perplexity, better=-1),
        Metric("exact_match", _ratio),
        Metric("cer", _ratio, better=-1),
        Metric("final_number", _ratio),
        Metric("bleu", _bleu),
    )
}


def metric_named(name: str) -> Metric:
    if name not in METRICS:
        raise GraftaxError(f"unknown metric {name!r}; there are {', '.join(METRICS)}.")
    return METRICS[name]
