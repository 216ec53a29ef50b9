"""Invertible adapters: a coupling network on the embeddings (MAD-X, Pfeiffer et al., 2020, arXiv:2005.00052).

    y1 = x1 + F(x2),  y2 = x2 + G(y1)        F(z) = act(z F_down + f) F_up + f',  G likewise

x1 and x2 are the halves of what leaves the embeddings' norm (of odd widths x2 is the longer), F and G bottleneck networks of
width m = half of d / reduction. Each half is changed by the other alone, so x can be had back from y, which MAD-X uses at the
output of a language model (NICE, Dinh et al., 2015, arXiv:1410.8516); with a classifier on top only this direction is run.
MAD-X puts bottlenecks in the layers besides: the union `mad_x`.

F_up and G_up start at zero, so a fresh adapter changes nothing; AdapterHub's start normal (0.02), which changes the output a
little. Trainable parameters, in all: 2dm + 2m + d for an even d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...errors import GraftaxError
from ...typed import Size
from ..method import Leaves, Method, zeros
from ..sites import Site
from .bottleneck import ACTIVATIONS


@dataclass(frozen=True)
class Invertible(Method):
    """An additive coupling network behind the embeddings' norm."""

    name: ClassVar[str] = "invertible"
    summary: ClassVar[str] = "invertible coupling network on the embeddings (MAD-X)"
    count: ClassVar[str] = "2dm + 2m + d, m = d / (2 reduction)"
    acts_on: ClassVar[tuple[str, ...]] = ("norm",)
    roles: ClassVar[tuple[str, ...] | None] = ("embedding_norm",)
    # act(0) = 0 for each activation, and the rows of F_up and G_up are zero in the pad
    padded: ClassVar[dict[str, int]] = {
        **{f"{half}_down": 1 for half in "fg"},
        **{f"{half}_down_bias": 0 for half in "fg"},
        **{f"{half}_up": 0 for half in "fg"},
    }
    traced: ClassVar[tuple[str, ...]] = ("activation",)

    reduction: Size = 2  # each half's width over that of its network
    activation: str = "relu"  # relu, gelu or silu

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ACTIVATIONS:
            raise GraftaxError(f"invertible: activation {self.activation!r} is none of {', '.join(ACTIVATIONS)}.")

    def size(self, site: Site) -> int:
        return max(1, site.shape[0] // 2 // self.reduction)

    def init(self, key: jax.Array, site: Site) -> Leaves:
        blank = self.blank(site)
        keys = zip(("f_down", "g_down"), jax.random.split(key), strict=True)
        return blank | {name: 0.02 * jax.random.normal(own, blank[name].shape) for name, own in keys}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        first, second = site.shape[0] // 2, (site.shape[0] + 1) // 2
        leaves: Leaves = {}
        for half, reads, writes in (("f", second, first), ("g", first, second)):
            leaves |= {f"{half}_down": zeros(reads, size), f"{half}_down_bias": zeros(size)}
            leaves |= {f"{half}_up": zeros(size, writes), f"{half}_up_bias": zeros(writes)}
        return leaves, {}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        def network(half: str, z: jax.Array) -> jax.Array:
            narrow = ACTIVATIONS[self.activation](z @ state[f"{half}_down"] + state[f"{half}_down_bias"])
            return narrow @ state[f"{half}_up"] + state[f"{half}_up_bias"]

        first, second = jnp.split(y, [y.shape[-1] // 2], axis=-1)
        first = first + network("f", second)
        return jnp.concatenate([first, second + network("g", first)], axis=-1)
