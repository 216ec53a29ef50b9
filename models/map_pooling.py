"""The largest, or the mean, of windows of a feature map `[..., height, width, channels]`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def largest(h: jax.Array, size: int, stride: int, padding: int = 0, *, ceil: bool = False) -> jax.Array:
    """The largest of every window; windows reach over the map's edge by `padding`, and to cover its end with `ceil`."""
    window = (*(1,) * (h.ndim - 3), size, size, 1)
    strides = (*(1,) * (h.ndim - 3), stride, stride, 1)
    more = [-(side + 2 * padding - size) % stride if ceil else 0 for side in h.shape[-3:-1]]
    sides = [(0, 0)] * (h.ndim - 3) + [(padding, padding + over) for over in more] + [(0, 0)]
    lowest = jnp.array(-jnp.inf, h.dtype)
    found: jax.Array = jax.lax.reduce_window(h, lowest, jax.lax.max, window, strides, sides)
    return found


def mean_around(h: jax.Array) -> jax.Array:
    """The mean of the 3 x 3 positions around each; beyond the edge lie zeros, which count."""
    padded = jnp.pad(h, [(0, 0)] * (h.ndim - 3) + [(1, 1), (1, 1), (0, 0)])
    height, width = h.shape[-3:-1]
    moved = [padded[..., i : i + height, j : j + width, :] for i in range(3) for j in range(3)]
    return sum(moved[1:], moved[0]) / 9.0


def mean_in_bins(h: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The map cut into so many bins in height and width, which overlap where its sides are no multiples; the mean of each.

    As torch's adaptive pooling has it: bin i of n begins at floor(i side / n) and ends before ceil((i + 1) side / n).
    """
    rows, columns = (_bins(side, count) for side, count in zip(h.shape[-3:-1], size, strict=True))
    return jnp.einsum("rh,...hwc,qw->...rqc", rows.astype(h.dtype), h, columns.astype(h.dtype))


def _bins(side: int, count: int) -> jax.Array:
    """Each bin's share of each position, `[count, side]`."""
    shares = np.zeros((count, side), np.float32)
    for bin_ in range(count):
        begin, end = bin_ * side // count, -(-(bin_ + 1) * side // count)
        shares[bin_, begin:end] = 1.0 / (end - begin)
    return jnp.asarray(shares)
