"""Arrays that are zero but for a few entries, for methods that train a few entries of a large matrix."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


def counted_from_one(indices: np.ndarray) -> np.ndarray:
    """A leaf of indices counted from one, so that zero, with which leaves are padded, is none."""
    return np.asarray(indices + 1, np.int32)


def spread(values: jax.Array, counted: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The array of that shape that has each of `values` where `counted` says, and zeros elsewhere.

    `counted` has the indices of entries of the array laid flat, counted from one. Where it is zero the value is dropped, and
    has no gradient.
    """
    count = math.prod(shape)
    index = jnp.where(counted == 0, count, counted - 1)
    return jnp.zeros(count, values.dtype).at[index].add(values, mode="drop").reshape(shape)
