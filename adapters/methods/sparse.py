"""Values at given places of an array of zeros, for methods that train a few entries of a large matrix."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


def places(flat: np.ndarray) -> np.ndarray:
    """A leaf of flat indices, counted from one: zero, with which leaves are padded, is no place."""
    return np.asarray(flat + 1, np.int32)


def spread(values: jax.Array, place: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The array that has `values` at the places; a value without a place is dropped, and has no gradient."""
    count = math.prod(shape)
    index = jnp.where(place == 0, count, place - 1)
    return jnp.zeros(count, values.dtype).at[index].add(values, mode="drop").reshape(shape)
