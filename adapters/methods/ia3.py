"""(IA)^3: learned vectors that rescale keys, values and the feed-forward (Liu et al., 2022, arXiv:2205.05638).

    keys, values:   y = l * (x W + b)        l [out]
    feed-forward:   y = (l * x) W + b        l [in], on the second matrix, so l scales the activations between the two

At convolutions likewise, by channel: l scales what enters the last one of a block, or what leaves one. Vectors start at one: a
fresh adapter changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..method import Leaves, Method, Targets
from ..patterns import matches
from ..sites import Site

_SECOND = ("ffn_out", "conv_out")  # roles of what reads the activations within a block


@dataclass(frozen=True)
class IA3(Method):
    """Rescaling of linear layers and convolutions.

    By default of keys, values, the feed-forward's second matrix, and what enters the last convolution of a block. Where a
    backbone has one projection for queries, keys and values, that whole one by default, as in PEFT.
    """

    name: ClassVar[str] = "ia3"
    summary: ClassVar[str] = "learned vectors rescale keys, values and activations within blocks"
    count: ClassVar[str] = "out; in at the feed-forward"
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "conv")
    roles: ClassVar[tuple[str, ...] | None] = ("key", "value", "qkv", *_SECOND)
    mergeable: ClassVar[bool] = True

    feedforward: Targets = None  # which of the targets scale their input; None: what leads out of a block

    def scales_input(self, site: Site) -> bool:
        if self.feedforward is None:
            return site.role in _SECOND
        return matches(self.feedforward, *site.paths)

    def trainable(self, site: Site) -> tuple[str, ...]:
        return ("l_in",) if self.scales_input(site) else ("l_out",)

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {"l_in": np.ones(site.inputs, np.float32), "l_out": np.ones(site.shape[-1], np.float32)}, {}

    def pre(self, state: Leaves, x: jax.Array) -> jax.Array:
        return x * state["l_in"] if "l_in" in state else x

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        return y * state["l_out"] if "l_out" in state else y

    def merge(self, frozen: Any, state: Leaves) -> Any:
        kernel, bias = frozen.kernel, frozen.bias
        if "l_in" in state:
            # [in, 1], and of a convolution in groups [in / groups, out]: an output reads the channels of its own group
            groups = len(state["l_in"]) // kernel.shape[-2]
            by_group = state["l_in"].reshape(groups, -1).T
            kernel = kernel * jnp.repeat(by_group, 1 if groups == 1 else kernel.shape[-1] // groups, axis=1)
        if "l_out" in state:
            kernel, bias = kernel * state["l_out"], bias * state["l_out"]
        return frozen._replace(kernel=kernel, bias=bias)
