"""BOFT: rotate what enters a layer by a product of butterfly factors (Liu et al., 2024, arXiv:2311.06243).

    y = ((x B_m ... B_1) W) * s + b         B_i = P_i diag(R_1, ..., R_n) P_i^T, each R [c, c] a rotation, n = in / c

A factor rotates blocks of c inputs, as OFT does. The first one takes neighbours together; the i-th takes half a block from
each half of a group of 2^(i-1) blocks (the permutation P_i), so a few factors of small blocks reach from every input to every
other. A rotation is Cayley's transform of the skew part S = (Q - Q^T) / 2 of a trained Q, R = (I - S) (I + S)^-1; files hold
the whole Q. s [out] scales the outputs. Q starts at zero and s at one: a fresh adapter changes nothing.
Trainable parameters at a site: m in c + out.

What enters a convolution are patches of in kh kw numbers, which overlap: there the kernel is rotated in their place.

PEFT without its CUDA extension takes one factor, whatever the config says: its files then have one, and are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import SizeOrZero, Within
from ..method import CONVOLUTIONS, QUERY_VALUE, Leaves, Method, zeros
from ..sites import LinearWeights, Site
from . import patches


@dataclass(frozen=True)
class BOFT(Method):
    """Butterfly rotation of what enters queries, values and blocks' convolutions unless `targets` says otherwise."""

    name: ClassVar[str] = "boft"
    summary: ClassVar[str] = "rotates what enters a layer by butterfly factors, and scales what leaves it"
    count: ClassVar[str] = "m in c + out"
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "conv")
    roles: ClassVar[tuple[str, ...] | None] = (*QUERY_VALUE, *CONVOLUTIONS)
    through_weights: ClassVar[tuple[str, ...]] = ("conv",)
    traced: ClassVar[tuple[str, ...]] = ("boft_block_size", "boft_block_num", "boft_n_butterfly_factor")
    mergeable: ClassVar[bool] = True

    boft_block_size: SizeOrZero = 4  # c
    boft_block_num: SizeOrZero = 0  # n; either this or the block size, the other 0
    boft_n_butterfly_factor: Annotated[int, Within(1, below=32)] = 1  # m

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = self.boft_block_size, self.boft_block_num
        if min(sizes) != 0 or max(sizes) == 0:
            raise GraftaxError(f"boft: one of boft_block_size and boft_block_num is 0, got {sizes[0]} and {sizes[1]}.")

    def select(self, sites: Sequence[Site]) -> list[Site]:
        chosen = super().select(sites)
        for site in chosen:
            inputs, (count, width) = patches.matrix_shape(site)[0], self.blocks(site)
            reach = 2 ** (self.boft_n_butterfly_factor - 1)
            if count * width != inputs or count % reach or (reach > 1 and width % 2):
                blocks = f"{count} blocks" if self.boft_block_num else f"blocks of {width}"
                groups = f", of an even size, in groups of {reach}" if reach > 1 else ""
                raise GraftaxError(f"boft: {site.path}'s {inputs} inputs cannot be cut into {blocks}{groups}.")
        return chosen

    def blocks(self, site: Site) -> tuple[int, int]:
        """Number of blocks and their size."""
        inputs, _ = patches.matrix_shape(site)
        if self.boft_block_num:
            return self.boft_block_num, inputs // self.boft_block_num
        return inputs // self.boft_block_size, self.boft_block_size

    def rank(self, site: Site) -> int:
        return self.boft_n_butterfly_factor * self.blocks(site)[1]

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        count, width = self.blocks(site)
        q = zeros(self.boft_n_butterfly_factor, count, width, width)
        return {"q": q, "s": np.ones(site.shape[-1], np.float32)}, {}

    def pre(self, state: Leaves, x: jax.Array) -> jax.Array:
        turn = self._turn(state)
        for factor in reversed(range(turn.shape[0])):
            blocks = _together(x, factor, turn.shape[-1])
            turned = jnp.einsum("...nk,nkc->...nc", blocks, turn[factor])
            x = x + _apart(turned, factor)
        return x

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: LinearWeights, key: jax.Array | None) -> jax.Array:
        return y + (state["s"] - 1.0) * (y - frozen.bias)

    def merge(self, frozen: Any, state: Leaves) -> Any:
        # x B W = x (B W): the columns of W are turned by the transposed factors, in the other order
        turn, rows = self._turn(state), patches.as_matrix(frozen.kernel).T
        for factor in range(turn.shape[0]):
            turned = jnp.einsum("...nc,nkc->...nk", _together(rows, factor, turn.shape[-1]), turn[factor])
            rows = rows + _apart(turned, factor)
        return frozen._replace(kernel=patches.as_kernel(rows.T * state["s"], frozen.kernel.shape))

    def prepare(self, state: Leaves, frozen: Any) -> Leaves:
        return {"turn": self._turn(state), "s": state["s"]}

    def _turn(self, state: Leaves) -> jax.Array:
        """R - I of every block [m, n, b, b], so that no rotation is no change bitwise."""
        if "turn" in state:
            return state["turn"]
        q = state["q"]
        skew = 0.5 * (q - q.swapaxes(-1, -2))
        return -2.0 * jnp.linalg.solve(jnp.eye(q.shape[-1], dtype=q.dtype) + skew, skew)


def _together(x: jax.Array, factor: int, width: int) -> jax.Array:
    """What a factor rotates, side by side: [..., blocks, width]; of each group the halves alternate by half blocks."""
    if factor == 0:
        return x.reshape(*x.shape[:-1], -1, width)
    halves = x.reshape(*x.shape[:-1], -1, 2, 2**factor, width // 2)
    return halves.swapaxes(-2, -3).reshape(*x.shape[:-1], -1, width)


def _apart(blocks: jax.Array, factor: int) -> jax.Array:
    """Inverse of `_together`."""
    *lead, count, width = blocks.shape
    if factor:
        blocks = blocks.reshape(*lead, -1, 2**factor, 2, width // 2).swapaxes(-2, -3)
    return blocks.reshape(*lead, count * width)
