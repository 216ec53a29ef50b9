"""Bottleneck adapters: a small two-layer network inside each residual branch (Houlsby et al., 2019, arXiv:1902.00751).

    y = y + act(y W_down + b_down) W_up + b_up         W_down [d, m], W_up [m, d]

y is the branch's output before it joins the residual stream and is normalised. Houlsby et al. place one after attention and
one after the feed-forward, Pfeiffer et al. (2021, arXiv:2005.00247) one after the feed-forward alone. W_up starts at zero,
so a fresh adapter changes nothing. Trainable parameters at a site: 2dm + m + d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from ..errors import GraftaxError
from .method import Leaves, Method, zeros
from .sites import Site

_ACTIVATIONS = {"relu": jax.nn.relu, "gelu": lambda x: jax.nn.gelu(x, approximate=False), "silu": jax.nn.silu}
_PLACES = {"houlsby": ("attention_branch", "ffn_branch"), "pfeiffer": ("ffn_branch",)}


@dataclass(frozen=True)
class Bottleneck(Method):
    """A bottleneck network in residual branches: Houlsby's two places per layer or Pfeiffer's one."""

    name: ClassVar[str] = "bottleneck"
    summary: ClassVar[str] = "small two-layer network in each residual branch (Houlsby, Pfeiffer)"
    acts_on: ClassVar[tuple[str, ...]] = ("branch",)
    # act(0) = 0 for each activation above, and W_up's rows are zero in the pad: a padded width changes nothing
    padded: ClassVar[dict[str, int]] = {"down": 1, "down_bias": 0, "up": 0}
    traced: ClassVar[tuple[str, ...]] = ("activation",)

    width: int = 48  # m
    activation: str = "relu"  # relu, gelu or silu
    place: str = "houlsby"  # houlsby or pfeiffer

    def __post_init__(self) -> None:
        if self.width < 1:
            raise GraftaxError(f"bottleneck: width must be at least 1, got {self.width}.")
        if self.activation not in _ACTIVATIONS:
            raise GraftaxError(f"bottleneck: activation {self.activation!r} is none of {', '.join(_ACTIVATIONS)}.")
        if self.place not in _PLACES:
            raise GraftaxError(f"bottleneck: place {self.place!r} is none of {', '.join(_PLACES)}.")

    def default_roles(self) -> tuple[str, ...]:
        return _PLACES[self.place]

    def size(self, site: Site) -> int:
        return self.width

    def init(self, key: jax.Array, site: Site) -> Leaves:
        blank = self.blank(site)
        return {**blank, "down": 0.02 * jax.random.normal(key, blank["down"].shape)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        (dim,) = site.shape
        return {"down": zeros(dim, size), "down_bias": zeros(size), "up": zeros(size, dim), "up_bias": zeros(dim)}, {}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        narrow = _ACTIVATIONS[self.activation](y @ state["down"] + state["down_bias"])
        return y + narrow @ state["up"] + state["up_bias"]
