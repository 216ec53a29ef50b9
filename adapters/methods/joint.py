"""The space in which a picture and a text are compared: a projection of each tower, and how a product becomes a logit.

    u = V x      w = T y                               V [size, features of the pictures' tower], T likewise of the texts'
    logit = scale * (u . w) / (|u| |w|) + bias         scale = e^s0 e^s, bias = b0 + b

Towers that were not trained together say vectors of unlike sizes, so both are projected, as in LiT (Zhai et al., 2022,
arXiv:2111.07991). Towers of one checkpoint, CLIP's say, have their projections, and here s and b alone are trained. s0 and b0
are that checkpoint's; where there is none they are as CLIP begins, e^s0 = 1 / 0.07 and b0 = 0.

Projections start at random, with a deviation of 1 / sqrt(features), which keeps a vector about as long as it is. Trainable
parameters: size (features of both towers) + 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...typed import Positive, Within
from ..method import Leaves, Method, zeros
from ..sites import Site

JOINT, COMPARISON = "joint", "comparison"  # roles of its sites: above each tower, and above both


@dataclass(frozen=True)
class Joint(Method):
    """Projections of two towers into one space, and the scale and bias of what is compared there."""

    name: ClassVar[str] = "joint"
    summary: ClassVar[str] = "projections of a pair of towers into one space, and the temperature there"
    count: ClassVar[str] = "size d"
    acts_on: ClassVar[tuple[str, ...]] = ("head",)
    roles: ClassVar[tuple[str, ...] | None] = (JOINT, COMPARISON)
    padded: ClassVar[dict[str, int]] = {"kernel": 0}
    fresh_within: ClassVar[float | None] = None

    dim: Annotated[int, Within(1, below=1 << 16)] = 256  # numbers in a vector
    scale: Positive = 1.0  # e^s at the start
    bias: float = 0.0  # b at the start

    def size(self, site: Site) -> int:
        return self.dim if site.role == JOINT else 0

    def rank(self, site: Site) -> int:
        return 0

    @property
    def vector_size(self) -> int:
        return self.dim

    def init(self, key: jax.Array, site: Site) -> Leaves:
        if site.role == COMPARISON:
            return {"log_scale": np.array([math.log(self.scale)], np.float32), "bias": np.array([self.bias], np.float32)}
        (features,) = site.shape
        return {"kernel": jax.random.normal(key, (self.dim, features)) / np.float32(math.sqrt(features))}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        if site.role == COMPARISON:
            return {"log_scale": zeros(1), "bias": zeros(1)}, {}
        return {"kernel": zeros(size, *site.shape)}, {}

    def apply(self, state: Leaves, x: jax.Array, y: Any, frozen: None, key: jax.Array | None) -> jax.Array:
        """Above a tower `x [..., features]` to `[..., size]`; above both the frozen `[..., 2]`, s0 and b0, to the sums."""
        if "kernel" in state:
            return x.astype(jnp.float32) @ state["kernel"].T
        return x + jnp.concatenate([state["log_scale"], state["bias"]])


def unit(x: jax.Array) -> jax.Array:
    """Vectors `[..., size]` at length 1, float32; one of zeros stays, and has a derivative of zeros."""
    x = x.astype(jnp.float32)
    return x / jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))
