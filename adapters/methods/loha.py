"""LoHa: the elementwise product of two low-rank matrices (Hyeon-Woo et al., 2022, arXiv:2108.06098, "FedPara").

    y = x W + b + s x D      D = (B1 A1) * (B2 A2) elementwise, A [r, out], B [in, r], s = alpha / r

The rank of D is up to r^2 for twice the parameters of LoRA: 2r (in + out) at a site. B2 starts at zero and the others uniform,
as in PEFT, so a fresh adapter changes nothing.

D is itself a product of two factors of r^2 rows, every row of one matrix times every row of the other (Khatri and Rao, 1968):
D = sum_pq (B1_p * B2_q) (A1_p * A2_q). With few ranks that is the cheaper way, and D is never built; with many, building D is.
Which it is follows from the shapes. At a convolution D is that of its kernel as a matrix, and is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax

from ..method import Leaves, scalar, zeros
from ..sites import Site
from . import patches
from .lycoris import Lycoris, many_cells, through_core, uniform

_FACTORS = ("w1_a", "w1_b", "w2_a", "w2_b")
_AROUND_CORES = ("w1_a", "w1_in", "t1", "w2_a", "w2_in", "t2")


@dataclass(frozen=True)
class LoHa(Lycoris):
    """Hadamard product of two low-rank updates."""

    name: ClassVar[str] = "loha"
    summary: ClassVar[str] = "elementwise product of two low-rank updates, of rank up to r^2"
    count: ClassVar[str] = "2r (in + out)"
    # in every factor: the pad of one would be trained through what is not zero in the others
    padded: ClassVar[dict[str, int]] = dict.fromkeys((*_FACTORS, *_AROUND_CORES), 0)  # a core on both of its first axes

    def size(self, site: Site) -> int:
        return self.rank(site)

    def init(self, key: jax.Array, site: Site) -> Leaves:
        (width, out), r = patches.matrix_shape(site), self.rank(site)
        one, two, three = jax.random.split(key, 3)
        if self.has_core(site):
            blank, sides = self.blank(site), jax.random.split(key, 5)
            drawn = zip(("w1_a", "w1_in", "w2_a"), sides, strict=False)
            cores = ((name, cells, math.prod(site.shape[:2])) for name, cells in zip(("t1", "t2"), sides[3:], strict=True))
            return (
                blank
                | {name: uniform(side, *blank[name].shape) for name, side in drawn}
                | {name: uniform(cell, r, r * cells).reshape(r, r, *site.shape[:2]) for name, cell, cells in cores}
            )
        return {
            "w1_a": uniform(one, out, r).T,
            "w1_b": uniform(two, r, width),
            "w2_a": uniform(three, out, r).T,
            "w2_b": zeros(r, width),
        }

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        width, out = patches.matrix_shape(site)
        factors = {f"w{i}_{side}": zeros(size, n) for i in (1, 2) for side, n in (("a", out), ("b", width))}
        if many_cells(site):
            factors |= {f"w{i}_in": zeros(size, site.shape[2]) for i in (1, 2)}
            factors |= {f"t{i}": zeros(size, size, *site.shape[:2]) for i in (1, 2)}
        return factors, {"scale": scalar(0.0)}

    def trainable(self, site: Site) -> tuple[str, ...]:
        return _AROUND_CORES if self.has_core(site) else _FACTORS

    def update(self, state: Leaves, x: jax.Array) -> jax.Array:
        (r, out), width, tokens = state["w1_a"].shape, state["w1_b"].shape[1], math.prod(x.shape[:-1])
        if r * r * tokens * (width + out) <= width * out * (tokens + 2 * r):
            return x @ _products(state["w1_b"], state["w2_b"]).T @ _products(state["w1_a"], state["w2_a"])
        return x @ self.change(state)

    def change(self, state: Leaves) -> jax.Array:
        return _product(state, 1) * _product(state, 2)


def _product(state: Leaves, i: int) -> jax.Array:
    """B1 A1 or B2 A2 [in, out]; in a layout of adapters with cores and without, the sum, one of which is zero."""
    made = [state[f"w{i}_b"].T @ state[f"w{i}_a"]] if f"w{i}_b" in state else []
    if f"t{i}" in state:
        made.append(through_core(state[f"t{i}"], state[f"w{i}_in"], state[f"w{i}_a"]))
    return made[0] if len(made) == 1 else made[0] + made[1]


def _products(one: jax.Array, two: jax.Array) -> jax.Array:
    """Every row of one times every row of the other [r^2, n]."""
    return (one[:, None, :] * two[None, :, :]).reshape(-1, one.shape[1])
