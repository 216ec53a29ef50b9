"""LoKr: a change of the weights that is a Kronecker product (LyCORIS, Yeh et al., 2024, arXiv:2309.14859).

    y = x W + b + s x D      D^T = C1 (x) C2, C1 [l, m], C2 [k, n], l k = out, m n = in, s = alpha / r

How out and in are cut in two is PEFT's rule: by `decompose_factor` where it divides, near the square root by default. C2 is
itself a product C2a C2b of rank r unless r is half its size or more; C1 is one with `decompose_both`, unless r is that large.
C1 (or C1a) starts at zero, the others uniform, as in PEFT, so a fresh adapter changes nothing. Trainable parameters at a site:
l m + r (k + n), or for a factor that is whole, or cut, its own numbers.

D is not built at a linear layer: with x laid out as [m, n], x D is C1 x C2^T laid out as [l, k], the trick that makes Kronecker
products cheap. Where C2 is a product, its factors are applied one after the other. At a convolution it is the channels that are
cut in two, and C2 [k, n kh kw] has all cells of the kernel for its n.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from ...errors import GraftaxError
from ...typed import Within
from ..method import Leaves, scalar, zeros
from ..sites import Site
from .lycoris import Lycoris, many_cells, through_core, uniform


@dataclass(frozen=True)
class LoKr(Lycoris):
    """Kronecker product of two small matrices, each whole or of low rank."""

    name: ClassVar[str] = "lokr"
    summary: ClassVar[str] = "Kronecker product of two small matrices"
    count: ClassVar[str] = "l m + r (k + n), with l k = out, m n = in"
    padded: ClassVar[dict[str, int]] = {"w1_a": 1, "w1_b": 0, "w2_a": 1, "w2_b": 0, "w2_in": 0, "t2": 0}
    traced: ClassVar[tuple[str, ...]] = ("decompose_factor",)  # shapes follow from it

    decompose_both: bool = False  # C1 may be of low rank too
    #: the smaller half of in and out, where it divides them; -1: near the square root
    decompose_factor: Annotated[int, Within(-1, below=1 << 15)] = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decompose_factor == 0:
            raise GraftaxError(f"lokr: decompose_factor must be -1 or at least 1, got {self.decompose_factor}.")

    def shapes(self, site: Site) -> tuple[tuple[int, int], tuple[int, int]]:
        """Of C1 and of C2."""
        (m, n), (left, k) = (factorization(channels, self.decompose_factor) for channels in site.shape[-2:])
        return (left, m), (k, n * math.prod(site.shape[:-2]))

    def trainable(self, site: Site) -> tuple[str, ...]:
        (one, two), r = self.shapes(site), self.rank(site)
        first = ("w1_a", "w1_b") if self.decompose_both and r < max(one) / 2 else ("w1",)
        cut = ("w2_a", "w2_in", "t2") if self.has_core(site) else ("w2_a", "w2_b")
        second = cut if r < max(two[0], two[1] // math.prod(site.shape[:-2])) / 2 else ("w2",)
        return (*first, *second)

    def size(self, site: Site) -> int:
        return 0 if self.trainable(site) == ("w1", "w2") else self.rank(site)

    def init(self, key: jax.Array, site: Site) -> Leaves:
        blank = self.blank(site)
        keys = jax.random.split(key, len(blank))
        starts = {name: uniform(k, *leaf.shape) for k, (name, leaf) in zip(keys, blank.items(), strict=True)}
        if "t2" in blank:
            (r, _, height, width), (into, out) = blank["t2"].shape, jax.random.split(key)
            starts["t2"] = uniform(into, r, r * height * width).reshape(r, r, height, width)
            starts["w2_a"] = uniform(out, r, len(blank["w2_a"])).T
        first = "w1" if "w1" in blank else "w1_a"
        return starts | {first: blank[first]}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        leaves: Leaves = {}
        for name, (rows, columns) in zip(("w1", "w2"), self.shapes(site), strict=True):
            leaves |= {name: zeros(rows, columns), f"{name}_a": zeros(rows, size), f"{name}_b": zeros(size, columns)}
        if many_cells(site):
            columns //= math.prod(site.shape[:2])
            leaves |= {"w2_in": zeros(size, columns), "t2": zeros(size, size, *site.shape[:2])}
        return leaves, {"scale": scalar(0.0)}

    # Adapters with a whole factor and with one in parts share a layout: then all its leaves are there, and their sum counts.

    def update(self, state: Leaves, x: jax.Array) -> jax.Array:
        one = _whole(state, "w1")
        grid = x.reshape(*x.shape[:-1], one.shape[1], -1)
        half = grid @ state["w2"].T if "w2" in state else 0.0
        if "w2_a" in state:
            half = half + grid @ state["w2_b"].T @ state["w2_a"].T
        return jnp.einsum("lm,...mk->...lk", one, half).reshape(*x.shape[:-1], -1)

    def change(self, state: Leaves) -> jax.Array:
        return jnp.kron(_whole(state, "w1"), _whole(state, "w2")).T


def factorization(length: int, factor: int) -> tuple[int, int]:
    """Two numbers whose product is `length`: `factor` and the rest, or the divisor nearest the root and not above `factor`."""
    if length % factor == 0 and factor > 0:
        return factor, length // factor
    limit = math.isqrt(length) if factor == -1 else min(factor, math.isqrt(length))
    small = next(n for n in range(limit, 0, -1) if length % n == 0)
    return small, length // small


def _whole(state: Leaves, name: str) -> Any:
    """C1 or C2: the leaf that is whole, the product of two that are not, of a core between two, or their sum."""
    made = [state[name]] if name in state else []
    if f"{name}_b" in state:
        made.append(state[f"{name}_a"] @ state[f"{name}_b"])
    if name == "w2" and "t2" in state:
        made.append(through_core(state["t2"], state["w2_in"], state["w2_a"].T).T)
    return functools.reduce(jnp.add, made)
