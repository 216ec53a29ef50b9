"""GRPO's loss, of which the device is told the derivative alone.

Of one token, with l its log-likelihood now, q what that was when it was sampled, b what it is without the adapter, and A the
advantage of its completion (`advantages.py`):

    loss  = - min(rho A, clip(rho, 1 - epsilon, 1 + epsilon) A) + beta (exp(b - l) - (b - l) - 1),    rho = exp(l - q)

The first term is PPO's (Schulman et al., 2017, arXiv:1707.06347), the second an estimate of the divergence from the backbone
that is never negative (Schulman, 2020; in GRPO arXiv:2402.03300, eq. 4). A step's loss is the sum over the tokens, each times a
weight that makes it a mean:

| `loss_type` | weight of a token of completion i | |
|---|---|---|
| `dapo` | 1 / (tokens of the step) | arXiv:2503.14476 |
| `grpo` | 1 / (completions x tokens of completion i) | arXiv:2402.03300: short completions count more by the token |
| `dr_grpo` | 1 / (completions x `max_new_tokens`) | arXiv:2503.20783 |

Its derivative by l is a number s for each token, and a training loop's `cross_entropy` with weights -s has the gradient of the
loss, for that is the sum of s times the gradients of l. So all of this is NumPy, and no program is compiled for it.

l is what the model says by itself. Where completions are sampled at another temperature than 1, or from some tokens alone, TRL
divides the logits in l by the temperature; here, as in Tinker, l stays the model's own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .grpo_settings import GrpoSettings


class Told(NamedTuple):
    """What is known of the tokens of all completions of a step, behind one another: float64 `[tokens]`."""

    now: np.ndarray
    drawn: np.ndarray
    base: np.ndarray | None  # None where beta is 0
    advantages: np.ndarray
    weights: np.ndarray


class Lost(NamedTuple):
    """A step's loss, its derivative, and what people want to know of it."""

    loss: float
    slope: np.ndarray  # float64 [tokens], by the log-likelihood of each
    clipped: float  # the share of the tokens whose ratio was clipped, so that they have no slope but beta's
    divergence: float | None  # mean over the tokens; None where beta is 0


def weights_of(lengths: np.ndarray, settings: GrpoSettings) -> np.ndarray:
    """The weight of a token of each completion, float64 `[completions]`; `lengths`: how many tokens each has."""
    if settings.loss_type == "dapo":
        return np.full(len(lengths), 1.0 / lengths.sum())
    each = lengths if settings.loss_type == "grpo" else np.full(len(lengths), settings.max_new_tokens)
    return np.asarray(1.0 / (len(lengths) * each))


def lost(told: Told, settings: GrpoSettings) -> Lost:
    """The loss of a step's tokens."""
    ratio = np.exp(told.now - told.drawn)
    free = ratio * told.advantages
    bounded = np.clip(ratio, 1.0 - settings.epsilon, 1.0 + settings.epsilon) * told.advantages
    loss, slope = -np.minimum(free, bounded), np.where(free <= bounded, -free, 0.0)
    divergence = None
    if told.base is not None:
        apart = told.base - told.now
        costs = np.exp(apart) - apart - 1.0
        loss, slope = loss + settings.beta * costs, slope + settings.beta * (1.0 - np.exp(apart))
        divergence = float(costs.mean())
    total = float((told.weights * loss).sum())
    return Lost(total, told.weights * slope, float((free > bounded).mean()), divergence)
