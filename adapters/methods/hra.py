"""HRA: Householder reflections of what enters a layer (Yuan et al., 2024, arXiv:2405.17484).

    y = (x H_r ... H_1) W + b         H_i = I - 2 u_i u_i^T, the u_i trained [in, r] and taken at length one

No matrix [in, in] is built. The whole chain is I - 2 U T U^T with T [r, r] the inverse of a triangular matrix of the products
u_i u_j (the UT transform; Joffrain et al., 2006, doi:10.1145/1141885.1141886), so it costs what a LoRA of that rank does. With
`apply_GS` the vectors are made orthogonal first (Gram-Schmidt); then T is the inverse of U^T U, the product of a projection.

With an even r the vectors start in equal pairs, which undo each other: a fresh adapter changes the rounding alone. With an odd
r or `apply_GS`, where PEFT's equal pairs would divide by zero, it starts at random reflections and does change the result.
Trainable parameters at a site: r in.

What enters a convolution are patches of in kh kw numbers, which overlap: there the kernel is reflected in their place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...typed import Size
from ..method import CONVOLUTIONS, QUERY_VALUE, Leaves, Method, zeros
from ..sites import Site
from . import patches


@dataclass(frozen=True)
class HRA(Method):
    """Householder reflections of what enters queries, values and blocks' convolutions unless `targets` says otherwise."""

    name: ClassVar[str] = "hra"
    summary: ClassVar[str] = "reflects what enters a layer, r times"
    count: ClassVar[str] = "r in"
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "conv")
    roles: ClassVar[tuple[str, ...] | None] = (*QUERY_VALUE, *CONVOLUTIONS)
    through_weights: ClassVar[tuple[str, ...]] = ("conv",)
    padded: ClassVar[dict[str, int]] = {"u": 1}  # a vector of zeros reflects nothing and has no gradient
    traced: ClassVar[tuple[str, ...]] = ("apply_GS",)
    mergeable: ClassVar[bool] = True
    fresh_within: ClassVar[float | None] = None  # see above; for an even r it is rounding

    r: Size = 8  # number of reflections, even for a start that changes nothing
    apply_GS: bool = False  # make the vectors orthogonal first

    def size(self, site: Site) -> int:
        return self.r

    def init(self, key: jax.Array, site: Site) -> Leaves:
        pairs = not (self.apply_GS or self.r % 2)
        count = self.r // 2 if pairs else self.r
        bound = 1.0 / math.sqrt(count)  # PEFT's start; the length means nothing, but for the size of a step
        u = jax.random.uniform(key, (patches.matrix_shape(site)[0], count), minval=-bound, maxval=bound)
        return {"u": jnp.repeat(u, 2, axis=1) if pairs else u}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {"u": zeros(patches.matrix_shape(site)[0], size)}, {}

    def pre(self, state: Leaves, x: jax.Array) -> jax.Array:
        u, t = self._reflections(state)
        return x - 2.0 * ((x @ u) @ t)

    def merge(self, frozen: Any, state: Leaves) -> Any:
        u, t = self._reflections(state)
        change = patches.as_kernel(-2.0 * (u @ (t @ patches.as_matrix(frozen.kernel))), frozen.kernel.shape)
        return frozen._replace(kernel=frozen.kernel + change)

    def prepare(self, state: Leaves, frozen: Any) -> Leaves:
        u, t = self._reflections(state)
        return {"u": u, "t": t}

    def _reflections(self, state: Leaves) -> tuple[jax.Array, jax.Array]:
        """U [in, r] and T U^T [r, in], with which all reflections together are I - 2 U T U^T."""
        u = state["u"]
        if "t" in state:
            return u, state["t"]
        square = jnp.square(u).sum(-2, keepdims=True)
        u = u * jax.lax.rsqrt(jnp.where(square > 0.0, square, 1.0))
        below = jnp.tril(u.T @ u, -1)
        one = jnp.eye(u.shape[-1], dtype=u.dtype)
        if self.apply_GS:
            return u, jnp.linalg.inv(one + below + below.T) @ u.T
        return u, jax.scipy.linalg.solve_triangular(one + 2.0 * below, one, lower=True, unit_diagonal=True) @ u.T
