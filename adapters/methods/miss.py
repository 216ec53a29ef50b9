"""MiSS: shards of a weight's rows that share one trained block (Kang & Yin, 2024, arXiv:2409.15371).

    y = x W + b + fold(x) M      M [r, out], fold(x) [r] the sum of x's pieces of length r

The rows of W are cut into pieces of r, and every piece changes by the same M; the last may be shorter. With `mini_r` the
columns share too: M [r, mini_r] is repeated along them. M starts at zero, so a fresh adapter changes nothing. Trainable
parameters at a site: r out, or r mini_r.

Here r says how x is folded, so another r is another program: MiSS has no padding. PEFT's third kind, `init_weights="bat"`, is
not built and is refused: its change of a block is that block's own product with M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...errors import GraftaxError
from ...typed import Rate, Size, SizeOrZero
from ..method import QUERY_VALUE, Leaves, Method, scalar, zeros
from ..sites import LinearWeights, Site
from .dropout import dropout


@dataclass(frozen=True)
class MiSS(Method):
    """One block for all shards of a `linear` site; queries and values unless `targets` says otherwise."""

    name: ClassVar[str] = "miss"
    summary: ClassVar[str] = "shards of the weights share one trained block"
    count: ClassVar[str] = "r out"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    roles: ClassVar[tuple[str, ...] | None] = QUERY_VALUE
    traced: ClassVar[tuple[str, ...]] = ("r", "mini_r")
    mergeable: ClassVar[bool] = True

    r: Size = 64  # rows of a shard
    mini_r: SizeOrZero = 0  # columns of a shard, which must divide the outputs; 0: all of them
    dropout: Rate = 0.0  # of x, in training

    def select(self, sites: Sequence[Site]) -> list[Site]:
        chosen = super().select(sites)
        for site in chosen:
            width, out = site.shape
            if self.r > width or (self.mini_r and out % self.mini_r):
                raise GraftaxError(f"miss: r={self.r}, mini_r={self.mini_r} do not fit {site.path}, {width} to {out}.")
        return chosen

    def rank(self, site: Site) -> int:
        return self.r

    def fixed(self, site: Site) -> Leaves:
        return {"dropout": scalar(self.dropout)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {"block": zeros(self.r, self.mini_r or site.shape[1])}, {"dropout": scalar(0.0)}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        r, columns = state["block"].shape
        x = dropout(x, state["dropout"], key)
        whole = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % r)])
        folded = whole.reshape(*x.shape[:-1], -1, r).sum(-2)
        return y + jnp.tile(folded @ state["block"], y.shape[-1] // columns)

    def merge(self, frozen: LinearWeights, state: Leaves) -> LinearWeights:
        (r, columns), (width, out) = state["block"].shape, frozen.kernel.shape
        change = jnp.tile(state["block"], (-(-width // r), out // columns))[:width]
        return frozen._replace(kernel=frozen.kernel + change)
