"""What LoHa and LoKr share: both come from LyCORIS (Yeh et al., 2024, arXiv:2309.14859), and PEFT words their configs alike.

Not here: PEFT's rank_dropout and module_dropout, which act in training alone. A file that was trained with them is read, and
gives what it gives there; training on goes without.

At a convolution of more than one cell a factor B A may be made of a core instead, `use_effective_conv2d`: the channels have
factors of rank r, and the cells of the kernel a matrix between them each,

    D[o, i, h, w] = sum_pq A[p, o] T[p, q, h, w] B[q, i]          T [r, r, kh, kw], B [r, in] in place of [r, in kh kw]
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...typed import Size
from ..geometry import convolve
from ..method import CONVOLUTIONS, QUERY_VALUE, Leaves, Method, scalar
from ..patterns import pattern_value
from ..sites import ConvWeights, Site
from . import patches


@dataclass(frozen=True)
class Lycoris(Method):
    """A change of kernels, W + s D, by small factors of D: of queries, values and blocks' convolutions unless `targets` says
    otherwise."""

    acts_on: ClassVar[tuple[str, ...]] = ("linear", "conv")
    roles: ClassVar[tuple[str, ...] | None] = (*QUERY_VALUE, *CONVOLUTIONS)
    mergeable: ClassVar[bool] = True

    r: Size = 8  # rank
    alpha: float = 8.0  # the change is scaled by alpha / r
    rank_pattern: Mapping[str, Size] = field(default_factory=dict)  # regex of a module path's end -> its rank
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)  # likewise, its alpha
    use_effective_conv2d: bool = False  # a core for the cells of a convolution's kernel

    def rank(self, site: Site) -> int:
        return pattern_value(self.rank_pattern, self.r, *site.paths)

    def fixed(self, site: Site) -> Leaves:
        return {"scale": scalar(pattern_value(self.alpha_pattern, self.alpha, *site.paths) / self.rank(site))}

    def has_core(self, site: Site) -> bool:
        """Whether there may be one: at a convolution of more than one cell."""
        return self.use_effective_conv2d and many_cells(site)

    @abstractmethod
    def change(self, state: Leaves) -> jax.Array:
        """D, whole [in, out]; of a convolution as `patches.as_matrix` has it."""

    @abstractmethod
    def update(self, state: Leaves, x: jax.Array) -> jax.Array:
        """x D, at a linear layer."""

    def apply(self, state: Leaves, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        if isinstance(frozen, ConvWeights):
            change = patches.as_kernel(self.change(state), frozen.kernel.shape)
            return y + state["scale"] * convolve(x, change, frozen.geometry)
        return y + state["scale"] * self.update(state, x)

    def merge(self, frozen: Any, state: Leaves) -> Any:
        change = patches.as_kernel(self.change(state), frozen.kernel.shape)
        return frozen._replace(kernel=frozen.kernel + state["scale"] * change)


def many_cells(site: Site) -> bool:
    return site.kind == "conv" and site.shape[:2] != (1, 1)


def through_core(core: jax.Array, inputs: jax.Array, out: jax.Array) -> jax.Array:
    """T [r, r, kh, kw] between B [r, in] and A [r, out], as a matrix [in kh kw, out]."""
    return jnp.einsum("pqhw,qi,po->ihwo", core, inputs, out).reshape(-1, out.shape[1])


def uniform(key: jax.Array, *shape: int) -> jax.Array:
    """PEFT's and torch's usual start of a matrix [.., in]: uniform up to 1 / sqrt(in)."""
    bound = 1.0 / math.sqrt(shape[-1])
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
