"""Dropout whose rate is data, so that adapters with different rates train in one program (Srivastava et al., 2014)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: jax.Array, key: jax.Array | None) -> jax.Array:
    """Zero each element with probability `rate` (a float32 scalar) and scale the rest; x itself without a key."""
    if key is None:
        return x
    # 16 random bits an element instead of 32: on CPU the generator, not the arithmetic, is the cost.
    bits = jax.random.bits(key, x.shape, jnp.uint16)
    keep = bits >= (rate * 65536.0).astype(jnp.uint16)
    return jnp.where(keep, x / (1.0 - rate), 0.0)
