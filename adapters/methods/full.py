"""Full fine-tuning, the yardstick: every weight of the backbone is trained, as a change added to the frozen one.

    W' = W + D

D starts at zero, so weight decay pulls towards the pretrained weights (L2-SP; Li et al., 2018, arXiv:1802.01483) and not
towards zero. With `last=k` only the k last layers are trained, and those below run once per text (`train/features.py`).
Where the words' table projects to the vocabulary too (tied weights: GPT-2, small Llamas), its change is to what is read, as in
PEFT's `modules_to_save`, and what is said goes by the frozen table; such an adapter cannot be merged.
The method acts through the weights: a site computes x (W + D) in one matrix product. Its files are as large as
the backbone; it is here to be compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...typed import Count
from ..method import Leaves, Method, zeros
from ..sites import Site
from ..structure import Structure


@dataclass(frozen=True)
class Full(Method):
    """A trained change of every weight: kernels, biases, norms and embeddings."""

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = "every weight is trained (of a tied table what is read, not what is said); the yardstick"
    count: ClassVar[str] = "all of it"
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "conv", "norm", "embedding")
    through_weights: ClassVar[tuple[str, ...]] = ("linear", "conv", "norm")
    mergeable: ClassVar[bool] = True

    last: Count = 0  # train this many of the last layers and what lies above them alone; 0: everything

    def select(self, sites: Sequence[Site]) -> list[Site]:
        chosen = super().select(sites)
        structure = Structure.of(sites)
        return [s for s in chosen if not self.last or structure.layers_over(s) < self.last]

    def rank(self, site: Site) -> int:
        return min(site.shape) if len(site.shape) > 1 else 0

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        if site.kind == "embedding":
            return {"table": zeros(*site.shape)}, {}
        weight = {"scale" if site.kind == "norm" else "kernel": zeros(*site.shape)}
        return weight | ({"bias": zeros(site.shape[-1])} if site.biased else {}), {}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        # Only embeddings come here: looking up the change is cheaper than adding it to the whole table.
        return y + jnp.take(state["table"], x, axis=0, mode="clip")

    def merge(self, frozen: Any, state: Leaves) -> Any:
        return frozen._replace(**{name: getattr(frozen, name) + change for name, change in state.items()})
