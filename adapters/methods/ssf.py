"""SSF: what every layer makes is scaled and shifted, channel by channel (Lian et al., 2022, arXiv:2210.08823).

    y = (1 + g) * y + b          g, b [out], behind linear layers, convolutions and norms

Both are changes of the module's own weights, so they can be merged: the kernel's columns and the bias by 1 + g, b added to the
bias. A module without a bias has g alone. Both start at zero, so that a fresh adapter changes nothing (the paper draws them
around that, with a deviation of 0.02). Trainable parameters at a site: 2 out, or out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from ..method import Leaves, Method, zeros
from ..sites import LM_HEAD, BatchNormWeights, NormWeights, Site


@dataclass(frozen=True)
class SSF(Method):
    """Scaling and shifting of all that the backbone computes, but the projection to the vocabulary."""

    name: ClassVar[str] = "ssf"
    summary: ClassVar[str] = "scales and shifts what every linear layer, convolution and norm makes, by channel"
    count: ClassVar[str] = "2 out"
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "conv", "norm")
    mergeable: ClassVar[bool] = True

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        return [site for site in super().candidates(sites) if site.name != LM_HEAD or self.targets is not None]

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        out = site.shape[-1]
        return {"scale": zeros(out)} | ({"shift": zeros(out)} if site.biased else {}), {}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        scaled = (1.0 + state["scale"]) * y
        return scaled + state["shift"] if "shift" in state else scaled

    def merge(self, frozen: Any, state: Leaves) -> Any:
        scale = 1.0 + state["scale"]
        changed = {"bias": frozen.bias * scale + state.get("shift", 0.0)}
        if isinstance(frozen, NormWeights | BatchNormWeights):
            return frozen._replace(scale=frozen.scale * scale, **changed)
        return frozen._replace(kernel=frozen.kernel * scale, **changed)
