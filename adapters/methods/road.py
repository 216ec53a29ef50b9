"""RoAd: rotate and scale what leaves a layer, in pairs (Liao & Monz, 2024, arXiv:2409.00119).

    y = x W + b,  then for each pair (y_0, y_1):         y_0' = a_0 cos(t_0) y_0 - b_0 sin(s_0) y_1
                                                         y_1' = b_1 sin(s_1) y_0 + a_1 cos(t_1) y_1

`road_1` has one angle and one scale for a pair, t = s and a = b everywhere; `road_2` one of each for an output, t = s and
a = b; `road_4` two, one for each of the four entries. Angles start at zero and scales at one: a fresh adapter changes nothing.
A pair is an output and the one half a `group_size` behind it, as PEFT lays it out; that is a matter of order alone.
Trainable parameters at a site: out, 2 out or 4 out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Within
from ..method import QUERY_VALUE, Leaves, Method, zeros
from ..sites import LinearWeights, Site

_PER_OUTPUT = {"road_1": 0.5, "road_2": 1, "road_4": 2}  # angles, and as many scales


@dataclass(frozen=True)
class RoAd(Method):
    """Rotation of pairs of outputs of `linear` sites; query and value projections unless `targets` says otherwise."""

    name: ClassVar[str] = "road"
    summary: ClassVar[str] = "rotates and scales what leaves a layer, in pairs"
    count: ClassVar[str] = "out, 2 out or 4 out"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    roles: ClassVar[tuple[str, ...] | None] = QUERY_VALUE
    traced: ClassVar[tuple[str, ...]] = ("variant", "group_size")
    mergeable: ClassVar[bool] = True

    variant: str = "road_1"  # road_1, road_2 or road_4
    group_size: Annotated[int, Within(2, below=1 << 15)] = 64  # outputs that are paired among themselves

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in _PER_OUTPUT:
            raise GraftaxError(f"road: variant {self.variant!r} is none of {', '.join(_PER_OUTPUT)}.")
        if self.group_size % 2:
            raise GraftaxError(f"road: group_size must be even, got {self.group_size}.")

    def select(self, sites: Sequence[Site]) -> list[Site]:
        chosen = super().select(sites)
        for site in chosen:
            if site.shape[1] % self.group_size:
                raise GraftaxError(f"road: group_size {self.group_size} does not divide {site.path}'s {site.shape[1]} outputs.")
        return chosen

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        count = int(_PER_OUTPUT[self.variant] * site.shape[1])
        return {"theta": zeros(count), "alpha": np.ones(count, np.float32)}, {}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        return self._turn(state, y)

    def merge(self, frozen: LinearWeights, state: Leaves) -> LinearWeights:
        return LinearWeights(self._turn(state, frozen.kernel), self._turn(state, frozen.bias))

    def _turn(self, state: Leaves, y: jax.Array) -> jax.Array:
        """Every pair turned; halves of groups are the last axis but one."""
        (theta, phi), (alpha, beta) = self._entries(state["theta"]), self._entries(state["alpha"])
        pairs = y.reshape(*y.shape[:-1], -1, 2, self.group_size // 2)
        across = jnp.stack([-pairs[..., 1, :], pairs[..., 0, :]], axis=-2)
        return (alpha * jnp.cos(theta) * pairs + beta * jnp.sin(phi) * across).reshape(y.shape)

    def _entries(self, leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Angles, or scales, of an output in itself and of its partner in it, each [groups, 1 or 2, half]."""
        half = self.group_size // 2
        if self.variant == "road_4":
            both = leaf.reshape(-1, 2, 2, half)
            return both[:, 0], both[:, 1]
        one = leaf.reshape(-1, 1 if self.variant == "road_1" else 2, half)
        return one, one
