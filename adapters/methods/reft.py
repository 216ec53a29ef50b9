"""ReFT: changing what a layer says within a small subspace (Wu et al., 2024, arXiv:2404.03592).

    LoReFT    h = h + R^T (W h + b - R h)       R [r, d] with orthonormal rows, W [r, d], b [r]
    DiReFT    h = h + R^T (W h + b)             R and W free

h is a layer's output. Of h's part in the subspace that R spans LoReFT makes W h + b; DiReFT adds.
Rows stay orthonormal because what is trained is a free matrix M, with R = L^-1 M where M M^T = L L^T (Cholesky): the rows of M
made orthonormal from the first to the last, at the cost of an [r, r] matrix. In a rank's pad M is zero and M M^T is given ones
on its diagonal, so R is zero there.

W starts at R and b at zero in LoReFT, R at zero in DiReFT: a fresh adapter changes nothing. (The authors' code starts with a
random W, which changes the output.) Every token is changed, or as in the paper the first few and the last few of each text
(f7+l7 there is `prefix_positions=7, suffix_positions=7`), by the same R, W and b. Trainable parameters at a site: 2rd + r.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Count, Size
from ..method import Leaves, Method, zeros
from ..products import narrowed, widened
from ..sites import FAR, Site, of_texts


@dataclass(frozen=True)
class DiReFT(Method):
    """A low-rank change of every layer's output, without LoReFT's constraints."""

    name: ClassVar[str] = "direft"
    summary: ClassVar[str] = "low-rank change of each layer's output"
    count: ClassVar[str] = "2rd + r"
    acts_on: ClassVar[tuple[str, ...]] = ("stream",)
    padded: ClassVar[dict[str, int]] = {"r": 0, "w": 0, "b": 0}
    reads_positions: ClassVar[bool] = True

    r: Size = 8  # rank
    prefix_positions: Count = 0  # how many of a text's first tokens are changed, and
    suffix_positions: Count = 0  # of its last; both 0: every token

    def size(self, site: Site) -> int:
        return self.r

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        if (self.prefix_positions or self.suffix_positions) and not of_texts(sites):
            raise GraftaxError(
                f"{self.name}: prefix_positions and suffix_positions count the tokens of a text, and this backbone reads none."
            )
        return super().candidates(sites)

    def init(self, key: jax.Array, site: Site) -> Leaves:
        (dim,) = site.shape
        return {**self.blank(site), "w": jax.random.normal(key, (self.r, dim)) / math.sqrt(dim)}

    def fixed(self, site: Site) -> Leaves:
        prefix, suffix = (min(n, FAR) for n in (self.prefix_positions, self.suffix_positions))
        if not prefix and not suffix:
            prefix = FAR + 1  # virtual tokens too
        return {"prefix": np.asarray(prefix, np.int32), "suffix": np.asarray(suffix, np.int32)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        (dim,) = site.shape
        nowhere = {"prefix": np.asarray(0, np.int32), "suffix": np.asarray(0, np.int32)}
        return {"r": zeros(size, dim), "w": zeros(size, dim), "b": zeros(size)}, nowhere

    def change(self, state: Leaves, y: jax.Array) -> jax.Array:
        return widened(narrowed(y, state["w"].T) + state["b"], state["r"])

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        if "before" not in state:  # of a feature map, where no position is the first
            return y + self.change(state, y)
        here = (state["before"] < state["prefix"]) | (state["behind"] < state["suffix"])
        return y + jnp.where(here[..., None], self.change(state, y), 0.0)


@dataclass(frozen=True)
class LoReFT(DiReFT):
    """Every layer's output rewritten within a subspace of r dimensions."""

    name: ClassVar[str] = "loreft"
    summary: ClassVar[str] = "each layer's output rewritten within a small subspace"
    count: ClassVar[str] = "2rd + r"
    padded: ClassVar[dict[str, int]] = {"r": 0, "w": 0, "b": 0, "own": 0}
    fresh_within: ClassVar[float | None] = 1e-5  # W h - R h is zero to rounding

    def init(self, key: jax.Array, site: Site) -> Leaves:
        (dim,) = site.shape
        if self.r > dim:
            raise GraftaxError(f"loreft: a subspace of {self.r} dimensions does not fit the {dim} channels of {site.path}.")
        rows = jnp.linalg.qr(jax.random.normal(key, (dim, self.r)))[0].T
        return {**self.blank(site), "r": rows, "w": rows}

    def fixed(self, site: Site) -> Leaves:
        return super().fixed(site) | {"own": np.ones(self.r, np.float32)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        trainable, nowhere = super().identity(site, size)
        return trainable, {**nowhere, "own": zeros(size)}

    def prepare(self, state: Leaves, frozen: Any) -> Leaves:
        if "own" not in state:
            return state
        r = orthonormal(state["r"], state["own"])
        rest = {name: leaf for name, leaf in state.items() if name != "own"}
        return rest | {"r": r, "w": state["w"] - r}

    def change(self, state: Leaves, y: jax.Array) -> jax.Array:
        return super().change(self.prepare(state, None), y)


def orthonormal(m: jax.Array, own: jax.Array) -> jax.Array:
    """The rows of `m` made orthonormal; those where `own` is 0 are filling, and zero."""
    gram = m @ m.T + jnp.diag(1.0 - own)
    return jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(gram), m, lower=True)
