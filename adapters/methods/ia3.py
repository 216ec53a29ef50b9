"""(IA)^3: learned vectors that rescale keys, values and the feed-forward (Liu et al., 2022, arXiv:2205.05638).

    keys, values:   y = l * (x W + b)        l [out]
    feed-forward:   y = (l * x) W + b        l [in], on the second matrix, so l scales the activations between the two

Vectors start at one: a fresh adapter changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from ..method import Leaves, Method, Targets
from ..patterns import matches
from ..sites import LinearWeights, Site


@dataclass(frozen=True)
class IA3(Method):
    """Rescaling of `linear` sites: keys, values and the feed-forward's second matrix unless `targets` says otherwise.

    Where a backbone has one projection for queries, keys and values, that whole one by default, as in PEFT.
    """

    name: ClassVar[str] = "ia3"
    summary: ClassVar[str] = "learned vectors rescale keys, values and feed-forward activations"
    count: ClassVar[str] = "out; in at the feed-forward"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    roles: ClassVar[tuple[str, ...] | None] = ("key", "value", "qkv", "ffn_out")
    mergeable: ClassVar[bool] = True

    feedforward: Targets = None  # which of the targets scale their input; None: the feed-forward's second matrix

    def scales_input(self, site: Site) -> bool:
        if self.feedforward is None:
            return site.role == "ffn_out"
        return matches(self.feedforward, site.path)

    def trainable(self, site: Site) -> tuple[str, ...]:
        return ("l_in",) if self.scales_input(site) else ("l_out",)

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {"l_in": np.ones(site.shape[0], np.float32), "l_out": np.ones(site.shape[1], np.float32)}, {}

    def pre(self, state: Leaves, x: jax.Array) -> jax.Array:
        return x * state["l_in"] if "l_in" in state else x

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        return y * state["l_out"] if "l_out" in state else y

    def merge(self, frozen: LinearWeights, state: Leaves) -> LinearWeights:
        kernel, bias = frozen
        if "l_in" in state:
            kernel = kernel * state["l_in"][:, None]
        if "l_out" in state:
            kernel, bias = kernel * state["l_out"], bias * state["l_out"]
        return LinearWeights(kernel, bias)
