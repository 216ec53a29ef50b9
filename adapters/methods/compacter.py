"""Compacter: bottleneck adapters whose weights are sums of Kronecker products (Karimi Mahabadi et al., 2021, arXiv:2106.04647).

    y = y + act(y W_down + b_down) W_up + b_up
    W = sum_i A_i (x) u_i v_i^T          i = 1..n, A_i [n, n], for W_down u_i [d/n], v_i [m/n], for W_up u_i [m/n], v_i [d/n]

with (x) the Kronecker product, which is never built: with x as n pieces of d/n numbers, piece q of x W is
sum_i (sum_p A_i[p, q] x_p . u_i) v_i. y is the output of a residual branch. Places as in `bottleneck.py`: after attention and
the feed-forward (Compacter, "houlsby"), or the feed-forward alone (Compacter++, "pfeiffer"); `normed` as there.

Both weights at a site use the same A_i. The paper shares them over all layers as well; here every site has its own.
Their n^3 numbers are few.
W_up's v_i start at zero, so a fresh adapter changes nothing; the paper's code starts near there, with A_i of 1e-4.
Trainable parameters at a site: n^3 + 3d + 3m.
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
from ..method import Leaves, Method, zeros
from ..sites import Site
from .bottleneck import ACTIVATIONS

_PLACES = {"houlsby": ("attention_branch", "ffn_branch", "conv_branch"), "pfeiffer": ("ffn_branch", "conv_branch")}


@dataclass(frozen=True)
class Compacter(Method):
    """A bottleneck of Kronecker products in residual branches: two places per layer, or one (Compacter++)."""

    name: ClassVar[str] = "compacter"
    summary: ClassVar[str] = "bottleneck adapters made of Kronecker products, in each residual branch"
    count: ClassVar[str] = "n^3 + 3d + 3m"
    acts_on: ClassVar[tuple[str, ...]] = ("branch",)
    # the bottleneck is [n, m/n] and grows in its last axis; neutral for the reason `bottleneck.py` gives
    padded: ClassVar[dict[str, int]] = {"down_v": 1, "down_bias": 1, "up_u": 1}
    traced: ClassVar[tuple[str, ...]] = ("activation", "n", "normed")

    width: Size = 24  # m
    n: Annotated[int, Within(1, below=256)] = 4  # products in a sum, and the side of each A_i
    activation: str = "gelu"  # as in `bottleneck.py`
    place: str = "houlsby"  # houlsby or pfeiffer
    normed: bool = False  # the network reads LN(x + y)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.n:
            raise GraftaxError(f"compacter: width must be a multiple of n = {self.n}, got {self.width}.")
        if self.activation not in ACTIVATIONS:
            raise GraftaxError(f"compacter: activation {self.activation!r} is none of {', '.join(ACTIVATIONS)}.")
        if self.place not in _PLACES:
            raise GraftaxError(f"compacter: place {self.place!r} is none of {', '.join(_PLACES)}.")

    def default_roles(self) -> tuple[str, ...]:
        return _PLACES[self.place]

    def select(self, sites: Sequence[Site]) -> list[Site]:
        chosen = super().select(sites)
        for site in chosen:
            if site.shape[0] % self.n:
                raise GraftaxError(f"compacter: n = {self.n} does not divide the {site.shape[0]} channels of {site.path}.")
        return chosen

    def size(self, site: Site) -> int:
        return self.width // self.n

    def init(self, key: jax.Array, site: Site) -> Leaves:
        blank = self.blank(site)
        drawn = zip(("down_u", "down_v", "up_u", "rule"), jax.random.split(key, 4), strict=True)
        noise = {name: jax.random.normal(k, blank[name].shape) for name, k in drawn}
        glorot = {name: math.sqrt(2.0 / (1 + blank[name].shape[-1])) * leaf for name, leaf in noise.items()}
        return {**blank, **glorot, "rule": noise["rule"] / self.n}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        (dim,), n = site.shape, self.n
        down = {"down_u": zeros(n, dim // n), "down_v": zeros(n, size), "down_bias": zeros(n, size)}
        up = {"up_u": zeros(n, size), "up_v": zeros(n, dim // n), "up_bias": zeros(dim)}
        return {"rule": zeros(n, n, n)} | down | up, {}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        h = frozen.behind(x + y) if self.normed else y
        pieces = h.reshape(*y.shape[:-1], self.n, -1)
        narrow = product(pieces, state["rule"], state["down_u"], state["down_v"]) + state["down_bias"]
        wide = product(ACTIVATIONS[self.activation](narrow), state["rule"], state["up_u"], state["up_v"])
        return y + wide.reshape(y.shape) + state["up_bias"]


def product(x: jax.Array, rule: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """x (sum_i A_i (x) u_i v_i^T) for x as pieces, `[..., n, in / n]`, to `[..., n, out / n]`."""
    return jnp.einsum("...pi,ipq->...qi", x @ u.T, rule) @ v
