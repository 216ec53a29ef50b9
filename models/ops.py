"""The three operations of an encoder that deserve care: attention, GELU, layer norm.

Plain mathematics with shapes stated; how fast each is, and against what, stands in `benchmarks/RESULTS.md`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x), exact (Hendrycks & Gimpel, arXiv:1606.08415)."""
    return x * 0.5 * (1.0 + jax.lax.erf(x * (1.0 / math.sqrt(2.0))))


def gelu_tanh(x: jax.Array) -> jax.Array:
    """The tanh approximation of GELU (`gelu_new` in Hugging Face configs)."""
    return jax.nn.gelu(x, approximate=True)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """scale (x - mean) / sqrt(variance + eps) + bias over the last axis, in float32 (Ba et al., arXiv:1607.06450)."""
    x32 = x.astype(jnp.float32)
    centred = x32 - x32.mean(-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    return (normed * scale.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)


def attention(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, heads: int) -> jax.Array:
    """softmax(q k^T / sqrt(head)) v over the keys that `mask` allows.

    `query [rows, q, hidden]`, `key` and `value` `[rows, k, hidden]`, `mask [rows, k]` (True: may be attended to);
    returns `[rows, q, hidden]`. The softmax is taken in float32.
    """

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)

    q, k, v = split(query), split(key), split(value)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32) * (1.0 / math.sqrt(q.shape[-1]))
    scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    return mixed.reshape(query.shape)
