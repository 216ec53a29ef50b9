"""AdaptFormer: a small network beside the feed-forward (Chen et al., 2022, arXiv:2205.13535).

    h = h + F(N(h)) + s relu(h W_down + b_down) W_up + s b_up          F the feed-forward; s = 0.1

It is the parallel bottleneck of `bottleneck.py`, of 64 channels and with a scale of a tenth, which reads the residual stream
as it is, not normed. W_down starts as torch's linear layers do (Kaiming, uniform), W_up at zero: a fresh adapter changes
nothing. Trainable parameters at a site: 2dm + m + d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax

from ...errors import GraftaxError
from ...typed import Size
from ..method import Leaves
from ..sites import Site
from .bottleneck import Bottleneck


@dataclass(frozen=True)
class AdaptFormer(Bottleneck):
    """A scaled bottleneck network beside the feed-forward."""

    name: ClassVar[str] = "adaptformer"
    summary: ClassVar[str] = "small two-layer network beside the feed-forward, scaled by a tenth"

    width: Size = 64  # m
    place: str = "parallel"  # no other
    scaling: float | str | None = 0.1  # s: a number, "learned" or "channel"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.place != "parallel":
            raise GraftaxError(f"adaptformer: stands beside the feed-forward, not in place {self.place!r}.")

    def init(self, key: jax.Array, site: Site) -> Leaves:
        blank = self.blank(site)
        bound = 1.0 / math.sqrt(site.shape[0])
        return {**blank, "down": jax.random.uniform(key, blank["down"].shape, minval=-bound, maxval=bound)}
