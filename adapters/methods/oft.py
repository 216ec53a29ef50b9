"""OFT: rotate what enters a layer, block by block (Qiu et al., 2023, arXiv:2306.07280).

    y = (x R) W + b         R = diag(R_1, ..., R_n), each R_i [b, b] a rotation, n = in / b

A rotation is made from a skew-symmetric Q, of which the b (b - 1) / 2 entries above the diagonal are trained, by Cayley's
transform R = (I - Q) (I + Q)^-1. By default, as in PEFT, by a few terms of a series instead, which is no exact rotation:
R = I + 2 Q + 2 Q^2 + 2 Q^3 + Q^4 (Qiu et al., 2025, arXiv:2506.19847; it is the transform of -Q).

Q starts at zero: a fresh adapter changes nothing. What is computed is x + x (R - I), so that this holds bitwise in any
precision of the products. Trainable parameters at a site: in (b - 1) / 2, with `block_share` b (b - 1) / 2.

What enters a convolution are patches of in kh kw numbers, which overlap: there the kernel is rotated in their place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import SizeOrZero, Within
from ..method import CONVOLUTIONS, QUERY_VALUE, Leaves, Method, zeros
from ..sites import Site
from . import patches


@dataclass(frozen=True)
class OFT(Method):
    """Rotation of what enters queries, values and blocks' convolutions unless `targets` says otherwise."""

    name: ClassVar[str] = "oft"
    summary: ClassVar[str] = "rotates what enters a layer, block by block"
    count: ClassVar[str] = "in (b - 1) / 2"
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "conv")
    roles: ClassVar[tuple[str, ...] | None] = (*QUERY_VALUE, *CONVOLUTIONS)
    through_weights: ClassVar[tuple[str, ...]] = ("conv",)
    traced: ClassVar[tuple[str, ...]] = (
        "r",
        "oft_block_size",
        "block_share",
        "use_cayley_neumann",
        "num_cayley_neumann_terms",
    )
    mergeable: ClassVar[bool] = True

    r: SizeOrZero = 0  # number of blocks; either this or the block size, the other 0
    oft_block_size: SizeOrZero = 32  # b
    block_share: bool = False  # one rotation for all blocks
    use_cayley_neumann: bool = True  # the series
    num_cayley_neumann_terms: Annotated[int, Within(2, below=128)] = 5  # of that series

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.r, self.oft_block_size) != 0 or max(self.r, self.oft_block_size) == 0:
            raise GraftaxError(f"oft: one of r and oft_block_size is 0, got {self.r} and {self.oft_block_size}.")

    def blocks(self, site: Site) -> tuple[int, int]:
        """Number of blocks and their size."""
        inputs, _ = patches.matrix_shape(site)
        if self.r:
            count = nearest_divisor(inputs, self.r)
            return count, inputs // count
        size = nearest_divisor(inputs, self.oft_block_size)
        return inputs // size, size

    def rank(self, site: Site) -> int:
        return self.blocks(site)[1]

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        count, width = self.blocks(site)
        return {"skew": zeros(1 if self.block_share else count, width * (width - 1) // 2)}, {}

    def pre(self, state: Leaves, x: jax.Array) -> jax.Array:
        turn = self._turn(state)
        x = x.reshape(*x.shape[:-1], -1, turn.shape[-1])
        turned = jnp.einsum("...k,kc->...c", x, turn[0]) if self.block_share else jnp.einsum("...nk,nkc->...nc", x, turn)
        return (x + turned).reshape(*x.shape[:-2], -1)

    def merge(self, frozen: Any, state: Leaves) -> Any:
        turn, shape = self._turn(state), frozen.kernel.shape
        matrix = patches.as_matrix(frozen.kernel)
        turned = jnp.matmul(turn, matrix.reshape(-1, turn.shape[-1], shape[-1]))  # [n or 1, b, b] [n, b, out]
        return frozen._replace(kernel=frozen.kernel + patches.as_kernel(turned.reshape(matrix.shape), shape))

    def prepare(self, state: Leaves, frozen: Any) -> Leaves:
        return {"turn": self._turn(state)}

    def _turn(self, state: Leaves) -> jax.Array:
        """R - I of every block, [n, b, b] from [n, b (b - 1) / 2]."""
        if "turn" in state:
            return state["turn"]
        q = skew(state["skew"])
        if not self.use_cayley_neumann:
            return -2.0 * jnp.linalg.solve(jnp.eye(q.shape[-1], dtype=q.dtype) + q, q)
        if self.num_cayley_neumann_terms == 2:
            return 2.0 * q
        total, power = 2.0 * q, q @ q
        total = total + 2.0 * power
        for _ in range(3, self.num_cayley_neumann_terms - 1):
            power = power @ q
            total = total + 2.0 * power
        return total + power @ q


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` nearest to the one wanted, the lower of two, as PEFT chooses it."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))


def skew(entries: jax.Array) -> jax.Array:
    """Skew-symmetric matrices [..., b, b] from the entries above their diagonals [..., b (b - 1) / 2], row by row."""
    width = (1 + round((1 + 8 * entries.shape[-1]) ** 0.5)) // 2
    index = np.zeros((width, width), np.int32)  # a gather, because XLA scatters one element after another on a CPU
    above = np.triu_indices(width, 1)
    index[above] = np.arange(len(above[0]))
    upper = jnp.where(np.triu(np.ones((width, width), bool), 1), entries[..., index], 0.0)
    return upper - upper.swapaxes(-1, -2)
