"""BitFit: train the biases and nothing else (Ben Zaken et al., 2021, arXiv:2106.10199).

    y = y + d            d [out], at every linear layer, convolution and norm that has a bias

d is the change of the bias, so it starts at zero and an empty slot is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from ...errors import GraftaxError
from ..method import Leaves, Method, zeros
from ..sites import Site


@dataclass(frozen=True)
class BitFit(Method):
    """A trained change of every bias."""

    name: ClassVar[str] = "bitfit"
    summary: ClassVar[str] = "trains the biases alone"
    count: ClassVar[str] = "out"
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "conv", "norm")
    mergeable: ClassVar[bool] = True

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        biased = [site for site in super().candidates(sites) if site.biased]
        if not biased:
            raise GraftaxError("bitfit trains biases, and this backbone has none.")
        return biased

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {"bias": zeros(site.shape[-1])}, {}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        return y + state["bias"]

    def merge(self, frozen: Any, state: Leaves) -> Any:
        return frozen._replace(bias=frozen.bias + state["bias"])
