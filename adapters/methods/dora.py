"""DoRA: a low-rank update that turns a weight's columns, and a learned length for each (Liu et al., 2024, arXiv:2402.09353).

    y = x (V * m / |V|) + b      V = W + s A^T B, |V| [out] the lengths of its columns, m [out]

A, B and s are LoRA's. m starts at |W|, so a fresh adapter changes nothing but by rounding. Trainable parameters at a site:
r (in + out) + out. As in the paper and in PEFT, |V| is a constant to the gradient.

V is never built: a column's length follows from

    |W + s A^T B|^2 = |W|^2 + 2s <W, A^T B> + s^2 |A^T B|^2

where <W, A^T B> = sum_r (A W) * B costs as much as r more tokens, and |A^T B|^2 needs A A^T [r, r] alone. In a mixed batch that
is done once a batch row. An empty slot's `on` is zero: it need not know |W| to change nothing. At a convolution W, A and B are
the matrices over patches of `patches.py`; where it has groups, W is zero for the channels of other groups, and A^T B is not.

Files are PEFT's LoRA files with `use_dora` and `lora_magnitude_vector`. In training with dropout PEFT also drops what the
change of length multiplies; here dropout is LoRA's, on the way into A alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..method import Leaves, scalar, zeros
from ..sites import ConvWeights, Site, TableWeights
from . import patches
from .lora import LoRA
from .starts import DRAWN


@dataclass(frozen=True)
class DoRA(LoRA):
    """LoRA whose columns have lengths of their own; fields and default targets are LoRA's."""

    name: ClassVar[str] = "dora"
    summary: ClassVar[str] = "LoRA with a learned length for each column of the weights"
    count: ClassVar[str] = "r (in + out) + out"
    allowed: ClassVar[tuple[str, ...]] = DRAWN
    fresh_within: ClassVar[float | None] = 1e-5  # |W| is summed in one order at the start and in another in a step

    def init(self, key: jax.Array, site: Site) -> Leaves:
        return super().init(key, site) | {"m": np.linalg.norm(site.weights()[0].reshape(-1, site.shape[-1]), axis=0)}

    def fixed(self, site: Site) -> Leaves:
        return super().fixed(site) | {"on": scalar(1.0)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        trainable, fixed = super().identity(site, size)
        return trainable | {"m": zeros(site.shape[-1])}, fixed | {"on": scalar(0.0)}

    def excess(self, state: Leaves, frozen: Any) -> jax.Array:
        """m / |V| - 1 [out]: by how much each column is too short."""
        if "excess" in state:
            return state["excess"]
        weight, a, b, scale = frozen[0], state["a"], state["b"], state["scale"]
        if isinstance(frozen, ConvWeights):
            weight, b = patches.whole_kernel(frozen), patches.over_groups(b, frozen.geometry.groups)
        inner = jnp.sum((a @ weight) * b, axis=0)
        square = jnp.sum((a @ a.T @ b) * b, axis=0)
        length = jnp.sum(weight * weight, axis=0) + scale * (2.0 * inner + scale * square)
        length = jnp.sqrt(jnp.maximum(length, 1e-12))  # of a column of zeros
        return state["on"] * (state["m"] / jax.lax.stop_gradient(length) - 1.0)

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        turned = y + self.update(state, x, frozen, key)
        bias = 0.0 if isinstance(frozen, TableWeights) else frozen.bias
        return turned + self.excess(state, frozen) * (turned - bias)

    def prepare(self, state: Leaves, frozen: Any) -> Leaves:
        rest = {name: leaf for name, leaf in state.items() if name not in ("m", "on")}
        return rest | {"excess": self.excess(state, frozen)}

    def merge(self, frozen: Any, state: Leaves) -> Any:
        weight, *rest = super().merge(frozen, state)
        return type(frozen)(weight * (1.0 + self.excess(state, frozen)), *rest)
