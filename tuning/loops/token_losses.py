"""The losses of loops: each a sum over tokens of something that depends on how likely the token was, and its derivative.

With l = log p(target), as the loop's adapter says it; q, the log-likelihood under which the token was once drawn (`logprobs`);
A its advantage; w its weight; and the ratio of the two chances, rho = exp(l - q):

| loss | of a token | its derivative by l |
|---|---|---|
| `cross_entropy` | -w l | -w |
| `importance_sampling` | -rho A | -rho A |
| `ppo` | -min(rho A, clip(rho) A) | -rho A where the first is the lesser, else 0 |
| `cispo` | -c l A, c the value of clip(rho) | -c A |
| `dro` | -(l A - beta / 2 (l - q)^2) | -(A - beta (l - q)) |

`clip` is to between `clip_low_threshold` and `clip_high_threshold`, which bound rho itself. These are Tinker's definitions and
defaults (its documentation, "Loss Functions"; it gives none for beta, and 0.05 is what its example has). PPO is of Schulman et
al., 2017, arXiv:1707.06347; CISPO of MiniMax, 2025, arXiv:2506.13585; DRO of Richemond et al., 2024, arXiv:2405.19107.

A loss is a number in the data of a batch row, and all five are computed for each token: that costs nothing beside a forward
pass, and calls with different losses share a program. The derivatives are written by hand so that what a loss does not read
cannot reach it: by automatic differentiation an infinite rho that `cross_entropy` has no use for would make its gradient NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from ...shapes import AnyArray, Float, Int, shaped

CLIPS = ("clip_low_threshold", "clip_high_threshold")
_OF_DRAWN = ("logprobs", "advantages")  # what all losses read that are about tokens that were drawn


@dataclass(frozen=True)
class Loss:
    """What a loss reads, by the names that Tinker has for it."""

    needs: tuple[str, ...] = ()  # of each token, beside `target_tokens`
    may: tuple[str, ...] = ()  # likewise, where the call brings it
    settings: Mapping[str, float] = field(default_factory=dict)  # of the whole call, with what they are unless it says them


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(may=("weights",)),
    "importance_sampling": Loss(_OF_DRAWN),
    "ppo": Loss(_OF_DRAWN, CLIPS, dict(zip(CLIPS, (0.8, 1.2), strict=True))),
    "cispo": Loss(_OF_DRAWN, CLIPS, dict(zip(CLIPS, (0.0, 4.0), strict=True))),
    "dro": Loss(_OF_DRAWN, settings={"beta": 0.05}),
}


class LossInputs(NamedTuple):
    """What the losses read of a batch. What a loss does not read is 0 in its batch rows, and a weight that is not said 1."""

    loss: Int[AnyArray, " rows"]  # index in LOSSES
    weights: Float[AnyArray, "rows tokens"]
    logprobs: Float[AnyArray, "rows tokens"]
    advantages: Float[AnyArray, "rows tokens"]
    clip_low_threshold: Float[AnyArray, "rows tokens"]
    clip_high_threshold: Float[AnyArray, "rows tokens"]
    beta: Float[AnyArray, "rows tokens"]


@shaped
def loss_and_slope(
    found: Float[Array, "rows tokens"], inputs: LossInputs
) -> tuple[Float[Array, "rows tokens"], Float[Array, "rows tokens"]]:
    """The loss of each token whose log-likelihood was `found`, and its derivative by that."""
    apart = found - inputs.logprobs
    ratio = jnp.exp(apart)
    drawn = ratio * inputs.advantages
    clipped = jnp.clip(ratio, inputs.clip_low_threshold, inputs.clip_high_threshold)
    bounded = clipped * inputs.advantages
    by_loss = {
        "cross_entropy": (-inputs.weights * found, -inputs.weights),
        "importance_sampling": (-drawn, -drawn),
        "ppo": (-jnp.minimum(drawn, bounded), jnp.where(drawn <= bounded, -drawn, 0.0)),
        "cispo": (-bounded * found, -bounded),
        "dro": (0.5 * inputs.beta * apart**2 - inputs.advantages * found, inputs.beta * apart - inputs.advantages),
    }
    which = [inputs.loss[:, None] == index for index in range(len(LOSSES))]
    loss, slope = (jnp.select(which, [by_loss[name][part] for name in LOSSES]) for part in (0, 1))
    return loss, slope
