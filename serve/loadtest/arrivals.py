"""Requests drawn from a seed, as a workload (`workload.py`) says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .workload import Workload

_TOGETHER = 256  # requests that are drawn at a time
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Planned:
    """A request to come."""

    at: float  # seconds from the beginning
    model: str
    kind: str
    text: str
    tokens: int  # that may be written


def planned(workload: Workload, models: Sequence[str], kinds: Sequence[str], rate: float, seed: int) -> Iterator[Planned]:
    """Requests without end, `rate` in a second; the first of the models are asked most, kinds are drawn alike."""
    random = np.random.default_rng(seed)
    shares = np.arange(1, len(models) + 1) ** -workload.alpha
    shape, now = workload.cv**-2, 0.0
    while True:
        moments = now + np.cumsum(random.gamma(shape, 1 / (shape * rate), _TOGETHER))
        which = random.choice(len(models), _TOGETHER, p=shares / shares.sum())
        kind = random.integers(len(kinds), size=_TOGETHER)
        tokens = random.integers(workload.tokens[0], workload.tokens[1] + 1, _TOGETHER)
        for i in range(_TOGETHER):
            text = _text(random, int(random.integers(workload.words[0], workload.words[1] + 1)))
            yield Planned(float(moments[i]), models[which[i]], kinds[kind[i]], text, int(tokens[i]))
        now = moments[-1]


def until(requests: Iterator[Planned], seconds: float) -> list[Planned]:
    """Those of the first so many seconds."""
    return list(itertools.takewhile(lambda one: one.at < seconds, requests))


def _text(random: Any, words: int) -> str:
    """Made-up words: two texts hardly ever begin alike, so that what was read for one helps no other."""
    letters = random.integers(len(_LETTERS), size=(words, 3))
    return " ".join("".join(_LETTERS[letter] for letter in word) for word in letters)
