"""VeRA: frozen random projections, shared by all sites, and two trained vectors (Kopiczko et al., 2024, arXiv:2310.11454).

    y = x W + b + ((x A^T) * d) B * l      A [r, in], B [r, out] drawn and frozen, d [r], l [out]

d starts at `d_initial`, l at zero, so a fresh adapter changes nothing. Trainable parameters at a site: r + out.

A file holds one A and one B, as wide as the widest site; a site uses as much of them as it is wide. PEFT's files bring their
own, drawn by torch, so they are read and kept; a file without them (`save_projection=false`) is refused, because torch's
generator cannot be reproduced. Drawn here, both are uniform up to sqrt(6 / n), as in PEFT: n = r for B, and for A, where PEFT
takes the widest input, which a site does not know, BERT's 768. In memory each site holds its part: r (in + out) numbers that
are not trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from ...typed import Rate, Seed, Size
from ..method import QUERY_VALUE, Leaves, Method, scalar, zeros
from ..products import narrowed, widened
from ..sites import LinearWeights, Site
from .dropout import dropout

_WIDTH = 768


@dataclass(frozen=True)
class VeRA(Method):
    """Random projections and trained vectors at `linear` sites; queries and values unless `targets` says otherwise."""

    name: ClassVar[str] = "vera"
    summary: ClassVar[str] = "shared random projections, of which two vectors a site are trained"
    count: ClassVar[str] = "r + out"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    roles: ClassVar[tuple[str, ...] | None] = QUERY_VALUE
    padded: ClassVar[dict[str, int]] = {"lambda_d": 0, "a": 0, "b": 0}
    mergeable: ClassVar[bool] = True

    r: Size = 256  # rank of the projections
    d_initial: float = 0.1  # where d starts
    dropout: Rate = 0.0  # of x, in training
    projection_prng_key: Seed = 0  # what A and B are drawn from

    def size(self, site: Site) -> int:
        return self.r

    def init(self, key: jax.Array, site: Site) -> Leaves:
        return self.blank(site) | {"lambda_d": np.full(self.r, self.d_initial, np.float32)}

    def fixed(self, site: Site) -> Leaves:
        (width, out), seed = site.shape, self.projection_prng_key
        drawn = {"a": _drawn((seed, 0), width, self.r, _WIDTH), "b": _drawn((seed, 1), out, self.r, self.r)}
        return drawn | {"dropout": scalar(self.dropout)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        width, out = site.shape
        fixed = {"a": zeros(size, width), "b": zeros(size, out), "dropout": scalar(0.0)}
        return {"lambda_b": zeros(out), "lambda_d": zeros(size)}, fixed

    def buffers(self, site: Site) -> tuple[str, ...]:
        return ("a", "b")

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        low = narrowed(dropout(x, state["dropout"], key), state["a"].T) * state["lambda_d"]
        return y + widened(low, state["b"]) * state["lambda_b"]

    def merge(self, frozen: LinearWeights, state: Leaves) -> LinearWeights:
        change = state["a"].T * state["lambda_d"] @ state["b"] * state["lambda_b"]
        return frozen._replace(kernel=frozen.kernel + change)


def _drawn(seed: tuple[int, int], width: int, r: int, fan_in: int) -> np.ndarray:
    """[r, width], drawn column by column: narrower ones are the beginning of wider ones."""
    bound = math.sqrt(6.0 / fan_in)
    return np.asarray((2.0 * np.random.default_rng(seed).random((width, r), np.float32).T - 1.0) * bound, np.float32)
