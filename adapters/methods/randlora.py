"""RandLoRA: an update of full rank, a sum of random low-rank ones with trained weights (Albert et al., 2025, arXiv:2502.00987).

    y = x W + b + s x D         D = sum over n of  A^T L_n B_n, with A's columns scaled by g_n      s = alpha / r

A [r, small] and B_n [r, wide] are drawn and frozen, `small` and `wide` the lesser and the greater of in and out (D is turned
where in is the greater). There are n = small / r of the B_n, rounded up, and only one A: what tells its copies apart is what is
trained, a diagonal L_n [r] and a scaling g_n [small]. L starts at zero, so a fresh adapter changes nothing, g at 1 / small.
Trainable parameters at a site: n (r + small), so a *smaller* r trains more.

As in PEFT, whose numbers are followed, the scaled copies of A and the B_n are laid end to end in two orders, the copies of
one row beside each other there, the rows of one B_n here. So it is not quite the sum above: rows meet rows of other B_n. All of
them being random, it is a sum of the same kind.

There is one A and one B for all sites, as wide as the widest need, of which each site uses the beginning; what none uses is
written as zeros. A file holds them once for all and, as PEFT's do, once more for every site. PEFT's bring their own, which are
kept; one without them (`save_projection=false`) is refused, because torch's generator cannot be reproduced. Drawn here they
are, as PEFT's, uniform with variance 1 and rounded to bfloat16. In memory each site holds its part: about as many numbers as W
has, which are not trained. `r` is compiled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import ml_dtypes
import numpy as np

from ...typed import Rate, Seed, Size
from ..method import QUERY_VALUE, Leaves, Method, scalar, zeros
from ..sites import LinearWeights, Site
from .dropout import dropout


@dataclass(frozen=True)
class RandLoRA(Method):
    """Random bases with trained weights at `linear` sites; queries and values unless `targets` says otherwise."""

    name: ClassVar[str] = "randlora"
    summary: ClassVar[str] = "full-rank update: random low-rank ones, of which the weights are trained"
    count: ClassVar[str] = "d / r (r + d), d the lesser of in and out"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    roles: ClassVar[tuple[str, ...] | None] = QUERY_VALUE
    traced: ClassVar[tuple[str, ...]] = ("r",)  # another r is another number of bases: no padding makes one of the other
    mergeable: ClassVar[bool] = True

    r: Size = 32  # rank of each basis; fewer are trained with a greater one
    alpha: float = 640.0  # the update is scaled by alpha / r
    dropout: Rate = 0.0  # of x, in training
    projection_prng_key: Seed = 0  # what A and B are drawn from

    def bases(self, small: int) -> int:
        """How many random updates of rank r make one of full rank."""
        return -(-small // self.r)

    def rank(self, site: Site) -> int:
        return self.r * self.bases(min(site.shape))

    def init(self, key: jax.Array, site: Site) -> Leaves:
        blank = self.blank(site)
        return blank | {"gamma": np.full_like(blank["gamma"], 1.0 / min(site.shape))}

    def fixed(self, site: Site) -> Leaves:
        (small, wide), seed = sorted(site.shape), self.projection_prng_key
        a = _drawn((seed, 0), small, self.r).T
        # one stream for each basis, so that narrower and fewer ones are the beginning of wider and more
        b = np.stack([_drawn((seed, 1, n), wide, self.r) for n in range(self.bases(small))], axis=1)
        return {"a": a, "b": in_a_row(b), "scale": scalar(self.alpha / self.r), "dropout": scalar(self.dropout)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        small, wide = sorted(site.shape)
        n = self.bases(small)
        fixed = {"a": zeros(self.r, small), "b": zeros(n * self.r, wide), "scale": scalar(0.0), "dropout": scalar(0.0)}
        return {"lambda": zeros(self.r, n), "gamma": zeros(n, small)}, fixed

    def buffers(self, site: Site) -> tuple[str, ...]:
        return ("a", "b")

    def factors(self, state: Leaves, width: int) -> tuple[jax.Array, jax.Array]:
        """[n r, in] and [n r, out], the scaled copies of A and the bases: D is the one, transposed, times the other."""
        copies = state["lambda"][:, :, None] * state["a"][:, None] * state["gamma"]
        small = copies.reshape(-1, copies.shape[-1])
        return (small, state["b"]) if small.shape[-1] == width else (state["b"], small)

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        down, up = self.factors(state, x.shape[-1])
        return y + state["scale"] * (dropout(x, state["dropout"], key) @ down.T @ up)

    def merge(self, frozen: LinearWeights, state: Leaves) -> LinearWeights:
        down, up = self.factors(state, len(frozen.kernel))
        return frozen._replace(kernel=frozen.kernel + state["scale"] * (down.T @ up))


def _drawn(seed: tuple[int, ...], width: int, r: int) -> np.ndarray:
    """[width, r], uniform with variance 1, in numbers that PEFT, which holds them as bfloat16, can hold."""
    uniform = np.random.default_rng(seed).random((width, r), np.float32)
    return ((2.0 * uniform - 1.0) * np.sqrt(np.float32(3.0))).astype(ml_dtypes.bfloat16).astype(np.float32)


def in_a_row(b: np.ndarray) -> np.ndarray:
    """The rows [n r, wide] of all bases from PEFT's [wide, n, r]: those of one basis beside each other."""
    return np.asarray(b.reshape(len(b), -1).T, order="C")
