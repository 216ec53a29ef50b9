"""LayerNorm tuning: train the layer norms and nothing else (Zhao et al., 2024, arXiv:2312.11420).

    y = (scale + d_scale) * (x - mean) / sqrt(variance + eps) + bias + d_bias         d_scale, d_bias [d]

Both changes start at zero, so a fresh adapter changes nothing and an empty slot is zero. PEFT's file holds the whole new scale
and bias, the frozen ones included: writing adds those of the backbone, reading subtracts them (each rounds once).
Trainable parameters at a site: 2d, or d at an RMS norm, which has no bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..method import Leaves, Method, zeros
from ..sites import Site


@dataclass(frozen=True)
class LayerNormTuning(Method):
    """A trained change of every layer norm's scale and bias."""

    name: ClassVar[str] = "ln_tuning"
    summary: ClassVar[str] = "trains the layer norms alone"
    count: ClassVar[str] = "2d"
    acts_on: ClassVar[tuple[str, ...]] = ("norm",)
    through_weights: ClassVar[tuple[str, ...]] = ("norm",)  # the normalised input is not to be had from y where scale is 0
    mergeable: ClassVar[bool] = True

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {"scale": zeros(*site.shape)} | ({"bias": zeros(*site.shape)} if site.biased else {}), {}

    def merge(self, frozen: Any, state: Leaves) -> Any:
        return frozen._replace(**{name: getattr(frozen, name) + change for name, change in state.items()})
