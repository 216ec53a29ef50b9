"""FourierFT: the change of a weight by a few entries of its Fourier transform (Gao et al., 2024, arXiv:2405.03003).

    y = x (W + D) + b         D^T = s Re(ifft2(C)) [out, in], C zero but for n trained coefficients at random places

The places follow from the seed and the layer's shape, and no file holds them. PEFT draws them with torch's `randperm`, a
Fisher-Yates shuffle by a Mersenne Twister, which is done here over again (`shuffled`), so that files mean the same in both.

D is built, by a fast Fourier transform, and the site computes one product with W + D: as a sum of 2 n products of vectors,
cos and sin of the rows by those of the columns, x D would cost more unless 2 n < in out / (in + out), 192 for a layer of
384 by 384, where n is 1000 by default. The coefficients start normal, as in PEFT, so a fresh adapter changes the result unless
`init_weights` sets them to zero. Trainable parameters at a site: n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Within
from ..method import QUERY_VALUE, Leaves, Method, scalar, zeros
from ..sites import LinearWeights, Site
from .sparse import counted_from_one, spread


@dataclass(frozen=True)
class FourierFT(Method):
    """Trained Fourier coefficients of `linear` sites; query and value projections unless `targets` says otherwise."""

    name: ClassVar[str] = "fourierft"
    summary: ClassVar[str] = "trains a few Fourier coefficients of the weights' change"
    count: ClassVar[str] = "n"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    roles: ClassVar[tuple[str, ...] | None] = QUERY_VALUE
    through_weights: ClassVar[tuple[str, ...]] = ("linear",)
    padded: ClassVar[dict[str, int]] = {"spectrum": 0, "place": 0}
    mergeable: ClassVar[bool] = True
    fresh_within: ClassVar[float | None] = None

    n_frequency: Annotated[int, Within(1, below=1 << 31)] = 1000  # n
    scaling: float = 150.0  # s
    random_loc_seed: Annotated[int, Within(0, below=1 << 32)] = 777  # of the places
    init_weights: bool = False  # start at zero

    def select(self, sites: Sequence[Site]) -> list[Site]:
        chosen = super().select(sites)
        for site in chosen:
            if self.n_frequency > site.shape[0] * site.shape[1]:
                raise GraftaxError(f"fourierft: n_frequency {self.n_frequency} is more than {site.path} has weights.")
        return chosen

    def size(self, site: Site) -> int:
        return self.n_frequency

    def rank(self, site: Site) -> int:
        return self.n_frequency // sum(site.shape)

    def init(self, key: jax.Array, site: Site) -> Leaves:
        return self.blank(site) if self.init_weights else {"spectrum": jax.random.normal(key, (self.n_frequency,))}

    def fixed(self, site: Site) -> Leaves:
        drawn = shuffled(site.shape[0] * site.shape[1], self.n_frequency, self.random_loc_seed)
        return {"place": counted_from_one(drawn), "scale": scalar(self.scaling)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {"spectrum": zeros(size)}, {"place": np.zeros(size, np.int32), "scale": scalar(0.0)}

    def merge(self, frozen: LinearWeights, state: Leaves) -> LinearWeights:
        inputs, out = frozen.kernel.shape
        spectrum = spread(jnp.asarray(state["spectrum"]), state["place"], (out, inputs))
        return frozen._replace(kernel=frozen.kernel + state["scale"] * jnp.fft.ifft2(spectrum).real.T)


def shuffled(count: int, first: int, seed: int) -> np.ndarray:
    """The first entries of `torch.randperm(count)` with a generator of this seed (for a count below 2^32 / 20)."""
    twister = np.random.RandomState(seed)  # seeded as torch's mt19937 is
    raw = twister.randint(0, 2**32, min(first, count - 1), np.uint32)
    moved: dict[int, int] = {}  # of the array 0, 1, 2, ..., what the swaps so far have changed
    drawn = []
    for i in range(first):
        other = i + int(raw[i]) % (count - i) if i < count - 1 else i
        drawn.append(moved.get(other, other))
        moved[other] = moved.get(i, i)
    return np.array(drawn, np.int64)
