"""HiRA: a low-rank matrix that multiplies the weights elementwise (Huang et al., ICLR 2025).

    y = x (W * (1 + A^T B)) + b          A [r, in], B [r, out], * elementwise, no scale

The change W * (A^T B) is of high rank though its parameters are LoRA's: r (in + out) at a site. A starts uniform, B at zero, as
in PEFT, so a fresh adapter changes nothing. At a convolution W is its kernel as a matrix [in kh kw, out].

Nothing low-rank is left to compute with: the method acts through the weights, a site multiplies by the changed ones. In
training that costs a product of the size of W, forwards and backwards, besides the site's own. In a mixed batch **every batch
row** makes its own [in, out], those that use another adapter too, for they share the program: for many adapters in one batch,
LoRA is the better choice. PEFT's hira_dropout, of what enters the change alone, is not built; it acts in training only. Its
rank_pattern is refused: PEFT 0.21 writes it and does not follow it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from ...typed import Size
from ..method import CONVOLUTIONS, QUERY_VALUE, Leaves, Method, zeros
from ..sites import Site
from . import patches


@dataclass(frozen=True)
class HiRA(Method):
    """Elementwise low-rank rescaling of kernels: queries, values and blocks' convolutions unless `targets` says otherwise."""

    name: ClassVar[str] = "hira"
    summary: ClassVar[str] = "low-rank rescaling of every single weight, W * (1 + A^T B)"
    count: ClassVar[str] = "r (in + out)"
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "conv")
    roles: ClassVar[tuple[str, ...] | None] = (*QUERY_VALUE, *CONVOLUTIONS)
    through_weights: ClassVar[tuple[str, ...]] = ("linear", "conv")
    padded: ClassVar[dict[str, int]] = {"a": 0, "b": 0}
    mergeable: ClassVar[bool] = True

    r: Size = 32  # rank of what multiplies the weights

    def size(self, site: Site) -> int:
        return self.r

    def init(self, key: jax.Array, site: Site) -> Leaves:
        blank, bound = self.blank(site), 1.0 / math.sqrt(patches.matrix_shape(site)[0])
        return blank | {"a": jax.random.uniform(key, blank["a"].shape, minval=-bound, maxval=bound)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        width, out = patches.matrix_shape(site)
        return {"a": zeros(size, width), "b": zeros(size, out)}, {}

    def merge(self, frozen: Any, state: Leaves) -> Any:
        factor = patches.as_kernel(1.0 + state["a"].T @ state["b"], frozen.kernel.shape)
        return frozen._replace(kernel=frozen.kernel * factor)
