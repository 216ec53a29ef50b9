"""SHiRA: train a few entries of the weight itself, at random places (Bhardwaj et al., 2024, arXiv:2406.13175).

    y = x (W + D) + b         D [in, out] zero but for r (in + out) trained entries, as many as a LoRA of rank r has

The places are drawn once and stay; files hold them as row and column of torch's weight, which is [out, in]. The entries start
at zero, so a fresh adapter changes nothing. D is built and the site computes one product with W + D: picking and adding up
single columns of x costs more as soon as r is above one or two, and so does the gradient, which is read out of that of the
whole kernel. Trainable parameters at a site: r (in + out).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Seed, Size
from ..method import QUERY_VALUE, Leaves, Method, zeros
from ..sites import LinearWeights, Site
from .sparse import counted_from_one, spread


@dataclass(frozen=True)
class SHiRA(Method):
    """Trained entries of the weights of `linear` sites; query and value projections unless `targets` says otherwise."""

    name: ClassVar[str] = "shira"
    summary: ClassVar[str] = "trains a few entries of the weights, at random places"
    count: ClassVar[str] = "r (in + out)"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    roles: ClassVar[tuple[str, ...] | None] = QUERY_VALUE
    through_weights: ClassVar[tuple[str, ...]] = ("linear",)
    padded: ClassVar[dict[str, int]] = {"entries": 0, "place": 0}
    mergeable: ClassVar[bool] = True

    r: Size = 32  # r (in + out) entries
    random_seed: Seed = 0  # of the places, which differ from site to site

    def select(self, sites: Sequence[Site]) -> list[Site]:
        chosen = super().select(sites)
        for site in chosen:
            if self.size(site) > site.shape[0] * site.shape[1]:
                raise GraftaxError(f"shira: r {self.r} makes {self.size(site)} entries, more than {site.path} has weights.")
        return chosen

    def size(self, site: Site) -> int:
        return self.r * sum(site.shape)

    def rank(self, site: Site) -> int:
        return self.r

    def fixed(self, site: Site) -> Leaves:
        random = np.random.default_rng([self.random_seed, zlib.crc32(site.path.encode())])
        drawn = random.choice(site.shape[0] * site.shape[1], self.size(site), replace=False, shuffle=False)
        return {"place": counted_from_one(np.sort(drawn))}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {"entries": zeros(size)}, {"place": np.zeros(size, np.int32)}

    def buffers(self, site: Site) -> tuple[str, ...]:
        return ("place",)

    def merge(self, frozen: LinearWeights, state: Leaves) -> LinearWeights:
        inputs, out = frozen.kernel.shape
        change = spread(jnp.asarray(state["entries"]), state["place"], (out, inputs))
        return frozen._replace(kernel=frozen.kernel + change.T)
