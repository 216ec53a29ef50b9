"""The metrics a benchmark compares methods by, computed for many resamples of the examples at once.

A resample is a weight for every example: how often it was drawn. Ratio metrics are weighted sums divided; those of the classes
are computed of weighted counts. Shapes: weights `[b, n]`, values `[b]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import GraftaxError
from ..tasks.counted_metrics import macro_f1, matthews
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


def _classes(p: Predictions) -> tuple[np.ndarray, np.ndarray]:
    assert p.gold is not None
    assert p.said is not None
    return p.gold, p.said


def _matthews(p: Predictions, weights: np.ndarray) -> np.ndarray:
    return matthews(*_classes(p), weights)


def _macro_f1(p: Predictions, weights: np.ndarray) -> np.ndarray:
    return macro_f1(*_classes(p), weights)


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
