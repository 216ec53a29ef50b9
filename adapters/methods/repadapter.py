"""RepAdapter: a linear bottleneck in front of a layer, which becomes part of it (Luo et al., 2023, arXiv:2302.08106).

    y = f(x) W + b          f(x) = x + s ((x D + d) U + u)          D [in, m], U [m, in] in k groups

There is no activation, so f is a change of the weights behind it: W' = W + s D U W, b' = b + s (d U + u) W. U is in groups:
each k-th of the m channels makes a k-th of f's, which takes a k-th of the numbers.

The paper has f behind the norms, in front of the attention and of the feed-forward. Where query, key and value are one
projection (`qkv`) that is so here; where they are three, each has an f of its own. A layer without a bias has neither d nor u.

D starts uniform (Xavier), the rest at zero, so a fresh adapter changes nothing. Trainable parameters at a site:
in m + m in / k + m + in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from ...errors import GraftaxError
from ...typed import Size, Within
from ..method import Leaves, Method, scalar, zeros
from ..sites import LinearWeights, Site

_NETWORK = ("down", "up")


@dataclass(frozen=True)
class RepAdapter(Method):
    """A linear bottleneck in front of linear layers: queries, keys, values, and what leads into the feed-forward."""

    name: ClassVar[str] = "repadapter"
    summary: ClassVar[str] = "linear bottleneck in front of a linear layer, merged into it"
    count: ClassVar[str] = "in m + in m / k + m + in"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    roles: ClassVar[tuple[str, ...] | None] = ("query", "key", "value", "qkv", "ffn_in")
    padded: ClassVar[dict[str, int]] = {"down": 2, "down_bias": 1, "up": 1}
    traced: ClassVar[tuple[str, ...]] = ("groups",)
    mergeable: ClassVar[bool] = True

    width: Size = 8  # m
    groups: Annotated[int, Within(1, below=256)] = 2  # k
    scale: float = 1.0  # s

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.groups:
            raise GraftaxError(f"repadapter: width must be a multiple of groups = {self.groups}, got {self.width}.")

    def select(self, sites: Sequence[Site]) -> list[Site]:
        chosen = super().select(sites)
        for site in chosen:
            if site.shape[0] % self.groups:
                raise GraftaxError(
                    f"repadapter: {self.groups} groups do not divide the {site.shape[0]} channels of {site.path}."
                )
        return chosen

    def size(self, site: Site) -> int:
        return self.width // self.groups

    def init(self, key: jax.Array, site: Site) -> Leaves:
        blank = self.blank(site)
        bound = math.sqrt(6.0 / (site.shape[0] + self.width))
        return {**blank, "down": jax.random.uniform(key, blank["down"].shape, minval=-bound, maxval=bound)}

    def fixed(self, site: Site) -> Leaves:
        return {"scale": scalar(self.scale)}

    def trainable(self, site: Site) -> tuple[str, ...]:
        return (*_NETWORK, "down_bias", "up_bias") if site.biased else _NETWORK

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        inputs, k = site.shape[0], self.groups
        leaves = {"down": zeros(inputs, k, size), "down_bias": zeros(k, size)}
        leaves |= {"up": zeros(k, size, inputs // k), "up_bias": zeros(inputs)}
        return leaves, {"scale": scalar(0.0)}

    def pre(self, state: Leaves, x: jax.Array) -> jax.Array:
        narrow = jnp.einsum("...i,igm->...gm", x, state["down"]) + state.get("down_bias", 0.0)
        wide = jnp.einsum("...gm,gmo->...go", narrow, state["up"]).reshape(x.shape)
        return x + state["scale"] * (wide + state.get("up_bias", 0.0))

    def merge(self, frozen: Any, state: Leaves) -> LinearWeights:
        nothing = jnp.zeros_like(frozen.kernel[:, 0])
        before = self.pre(state, nothing)  # what f adds to every x
        turned = self.pre(state, jnp.eye(len(nothing), dtype=nothing.dtype)) - before
        return LinearWeights(turned @ frozen.kernel, frozen.bias + before @ frozen.kernel)
