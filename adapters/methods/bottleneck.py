"""Bottleneck adapters: a small two-layer network at residual branches (Houlsby et al., 2019, arXiv:1902.00751).

    y = y + s * (act(h W_down + b_down) W_up + b_up)         W_down [d, m], W_up [m, d]

y is the branch's output before it joins the residual stream and is normalised, h what the network reads, s its scale. Where:

| place    | after                           | h                  | s           | paper                                     |
|----------|---------------------------------|--------------------|-------------|-------------------------------------------|
| houlsby  | attention, and the feed-forward | y                  | 1           | the above                                 |
| pfeiffer | the feed-forward                | y                  | 1           | Pfeiffer et al., 2021, arXiv:2005.00247   |
| parallel | beside the feed-forward         | the branch's input | 4           | He et al., 2022, arXiv:2110.04366         |
| plus     | the feed-forward                | y                  | trained [d] | Steitz & Roth, 2024, arXiv:2406.06820     |
| post     | the feed-forward's norm         | y, behind the norm | trained [d] | the last, as the library `adapters` has it |

`scaling` sets s otherwise: a number, "learned" (one trained number) or "channel" (one for each of d channels), both starting at
one. The last is AdapterPlus; it has GELU as its activation, and it drops whole branches in training, which is left out here.
With `normed` h is instead LN(x + y), what y and the residual stream x become behind the norm that follows: so the network reads
in AdapterHub's seq_bn.

W_up starts at zero, so a fresh adapter changes nothing. Trainable parameters at a site: 2dm + m + d, and s where it is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Size
from ..method import Leaves, Method, scalar, zeros
from ..products import narrowed, widened
from ..sites import Site

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "silu": jax.nn.silu,
    "leaky_relu": jax.nn.leaky_relu,
    "tanh": jnp.tanh,
}
_PLACES: dict[str, tuple[tuple[str, ...], float | str]] = {  # roles of the sites, and the scaling unless the user says another
    "houlsby": (("attention_branch", "ffn_branch", "conv_branch"), 1.0),
    "pfeiffer": (("ffn_branch", "conv_branch"), 1.0),
    "parallel": (("ffn_branch", "conv_branch"), 4.0),
    "plus": (("ffn_branch", "conv_branch"), "channel"),
    "post": (("ffn_norm",), "channel"),
}


@dataclass(frozen=True)
class Bottleneck(Method):
    """A bottleneck network at residual branches: in one of five places, see the module's table."""

    name: ClassVar[str] = "bottleneck"
    summary: ClassVar[str] = "small two-layer network in each residual branch (Houlsby, Pfeiffer, parallel, AdapterPlus)"
    count: ClassVar[str] = "2dm + m + d"
    acts_on: ClassVar[tuple[str, ...]] = ("branch", "norm")
    # act(0) = 0 for each activation above, and W_up's rows are zero in the pad: a padded width changes nothing
    padded: ClassVar[dict[str, int]] = {"down": 1, "down_bias": 0, "up": 0}
    traced: ClassVar[tuple[str, ...]] = ("activation", "normed")

    width: Size = 48  # m
    activation: str = "relu"  # relu, gelu, gelu_new (its approximation by tanh), silu, leaky_relu or tanh
    place: str = "houlsby"  # houlsby, pfeiffer, parallel, plus or post
    scaling: float | str | None = None  # s: a number, "learned" or "channel"; None: as the place has it
    normed: bool = False  # the network reads LN(x + y)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ACTIVATIONS:
            raise GraftaxError(f"bottleneck: activation {self.activation!r} is none of {', '.join(ACTIVATIONS)}.")
        if self.place not in _PLACES:
            raise GraftaxError(f"bottleneck: place {self.place!r} is none of {', '.join(_PLACES)}.")
        if self.normed and self.place in ("parallel", "post"):
            raise GraftaxError(f"bottleneck: in place {self.place!r} it reads something else than the norm of the sum.")
        if isinstance(self.scale, str) and self.scale not in ("learned", "channel"):
            raise GraftaxError(f"bottleneck: scaling {self.scaling!r} is neither a number nor learned nor channel.")

    @property
    def scale(self) -> float | str:
        return _PLACES[self.place][1] if self.scaling is None else self.scaling

    def default_roles(self) -> tuple[str, ...]:
        return _PLACES[self.place][0]

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        kind = "norm" if self.place == "post" else "branch"
        return [site for site in sites if site.kind == kind]

    def size(self, site: Site) -> int:
        return self.width

    def trainable(self, site: Site) -> tuple[str, ...]:
        network = ("down", "down_bias", "up", "up_bias")
        return (*network, self.scale) if isinstance(self.scale, str) else network

    def init(self, key: jax.Array, site: Site) -> Leaves:
        blank = self.blank(site)
        return {**blank, "down": 0.02 * jax.random.normal(key, blank["down"].shape)}

    def fixed(self, site: Site) -> Leaves:
        # data, not a traced field: adapters of different places share a program
        scale = 1.0 if isinstance(self.scale, str) else self.scale
        return {"scale": scalar(scale), "parallel": np.asarray(self.place == "parallel")}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        (dim,) = site.shape
        network = {"down": zeros(dim, size), "down_bias": zeros(size), "up": zeros(size, dim), "up_bias": zeros(dim)}
        scales = {"learned": np.ones(1, np.float32), "channel": np.ones(dim, np.float32)}
        return network | scales, {"scale": scalar(1.0), "parallel": np.asarray(False)}

    def entering(self, state: Leaves, x: Any, y: jax.Array, frozen: Any) -> jax.Array:
        """What the network reads."""
        return frozen.behind(x + y) if self.normed else jnp.where(state["parallel"], x, y)

    def change(self, state: Leaves, h: jax.Array) -> jax.Array:
        narrow = ACTIVATIONS[self.activation](narrowed(h, state["down"]) + state["down_bias"])
        change = state["scale"] * (widened(narrow, state["up"]) + state["up_bias"])
        for scale in ("learned", "channel"):
            if scale in state:
                change = change * state[scale]
        return change

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        return y + self.change(state, self.entering(state, x, y, frozen))
