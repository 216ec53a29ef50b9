"""The operations of a Transformer that deserve care, with hand-written derivatives: attention, GELU, layer norm, RMS norm.

Autodiff of these keeps many intermediate arrays between the forward and the backward pass, and on a CPU the memory
traffic, not the arithmetic, is the cost. Each derivative here keeps what it needs and no more:

    gelu         its input                         attention    q, k, v by attention heads, and the weights: on a CPU
    norms        the normalised input, 1 / sigma

XLA on CPU fuses element-wise work into all its readers, again and again, and a matrix product alone stops it, if no reshape
stands between: with `[rows, tokens, hidden]` between the layers, the backward pass of unrolled layers computes the gradient of
the residual stream anew in each layer, from the top. Layer norm and the linear layers therefore work on `[rows * tokens,
hidden]`, where the reshapes cancel, and the gradient is computed once.

Every argument gets a true cotangent (a custom derivative that returns none for frozen weights would make full fine-tuning and
BitFit train nothing, silently); XLA drops those nobody uses. What each is worth stands in `benchmarks/RESULTS.md`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ..shapes import AnyArray, Bool, Float, shaped
from .fused_attention import SameText, fused_attention

_SQRT_HALF = math.sqrt(0.5)
_INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)


@jax.custom_vjp
@shaped
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x Phi(x), exact (Hendrycks & Gimpel, arXiv:1606.08415)."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * _SQRT_HALF))


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gelu(x), x


def _gelu_backward(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    # d/dx x Phi(x) = Phi(x) + x phi(x). erf of -x: of x, XLA would keep the forward pass's in memory, as large as x itself.
    return (dy * (0.5 * (1.0 - jax.lax.erf(x * -_SQRT_HALF)) + x * _INV_SQRT_2PI * jnp.exp(-0.5 * x * x)),)


gelu.defvjp(_gelu_forward, _gelu_backward)


@shaped
def gelu_tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The tanh approximation of GELU (`gelu_new` in Hugging Face configs)."""
    return jax.nn.gelu(x, approximate=True)


def _normalise(x: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    x32 = x.astype(jnp.float32)
    centred = x32 - x32.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    return centred * inverse, inverse


@partial(jax.custom_vjp, nondiff_argnums=(3,))
@shaped
def layer_norm(
    x: Float[Array, "*lead dim"], scale: Float[Array, " dim"], bias: Float[Array, " dim"], eps: float
) -> Float[Array, "*lead dim"]:
    """scale (x - mean) / sqrt(variance + eps) + bias over the last axis, in float32 (Ba et al., arXiv:1607.06450)."""
    return _layer_norm_forward(x, scale, bias, eps)[0]


def _layer_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> tuple[jax.Array, Any]:
    normed, inverse = _normalise(x.reshape(-1, x.shape[-1]), eps)
    y = (normed * scale.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)
    return y.reshape(x.shape), (normed, inverse, scale)


def _layer_norm_backward(eps: float, kept: Any, dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    normed, inverse, scale = kept
    dy32 = dy.reshape(normed.shape).astype(jnp.float32)
    g = dy32 * scale.astype(jnp.float32)
    # A difference of two full arrays, and not one times a number for each token, which XLA would compute once per reader.
    dx = (g - g.mean(-1, keepdims=True)) * inverse - normed * ((g * normed).mean(-1, keepdims=True) * inverse)
    return dx.astype(dy.dtype).reshape(dy.shape), (dy32 * normed).sum(0).astype(scale.dtype), dy32.sum(0).astype(scale.dtype)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
@shaped
def rms_norm(x: Float[Array, "*lead dim"], scale: Float[Array, " dim"], eps: float) -> Float[Array, "*lead dim"]:
    """scale x / sqrt(mean(x^2) + eps) over the last axis, in float32 (Zhang & Sennrich, arXiv:1910.07467)."""
    return _rms_norm_forward(x, scale, eps)[0]


def _rms_norm_forward(x: jax.Array, scale: jax.Array, eps: float) -> tuple[jax.Array, Any]:
    x32 = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + eps)
    normed = x32 * inverse
    return (normed * scale.astype(jnp.float32)).astype(x.dtype).reshape(x.shape), (normed, inverse, scale)


def _rms_norm_backward(eps: float, kept: Any, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    normed, inverse, scale = kept
    dy32 = dy.reshape(normed.shape).astype(jnp.float32)
    g = dy32 * scale.astype(jnp.float32)
    dx = g * inverse - normed * ((g * normed).mean(-1, keepdims=True) * inverse)
    return dx.astype(dy.dtype).reshape(dy.shape), (dy32 * normed).sum(0).astype(scale.dtype)


rms_norm.defvjp(_rms_norm_forward, _rms_norm_backward)


@shaped
def attention(
    query: Float[Array, "rows heads queries size"],
    key: Float[Array, "rows groups keys size"],
    value: Float[Array, "rows groups keys size"],
    mask: Bool[AnyArray, " rows #queries keys"],
    scale: float | None = None,
    cap: float | None = None,
    added: Float[Array, "#rows heads queries keys"] | None = None,
    same_text: SameText | None = None,
) -> Float[Array, "rows queries width"]:
    """softmax(scale q k^T) v over the keys that `mask` allows; `scale` is 1 / sqrt(size) unless given.

    The number of groups divides that of attention heads: each group of them shares a key (grouped-query attention, Ainslie et
    al., arXiv:2305.13245). `mask` is True where a query may attend. What comes out has the heads side by side, `width` is heads
    * size. The softmax is taken in float32. With `cap` c the scores are c tanh(score / c) (Gemma 2). `added` is added to the
    scores, where there are as many heads as groups (T5). `same_text` says what the mask says to kernels that hold none, of
    accelerators (`fused_attention.py`).
    """
    rows, heads, tokens, size = query.shape
    by_kernel = fused_attention(
        query, key, value, mask, 1.0 / math.sqrt(size) if scale is None else scale, cap, same_text, added is not None
    )
    if by_kernel is not None:
        return by_kernel.swapaxes(1, 2).reshape(rows, tokens, heads * size)
    groups = key.shape[1]
    bias = jnp.where(mask, 0.0, -1e30)[:, None]
    if added is not None:
        bias = bias + added.astype(bias.dtype)
    if scale is not None:
        query = query * (scale * math.sqrt(size))
    if groups < heads:  # the queries of a group as further queries of its key
        query = query.reshape(rows, groups, heads // groups * tokens, size)
        bias = bias if bias.shape[2] == 1 else jnp.tile(bias, (1, 1, heads // groups, 1))
    mixed = _attend(query, key, value, bias) if cap is None else _attend_capped(query, key, value, bias, cap)
    mixed = mixed.reshape(rows, heads, tokens, size)
    return mixed.swapaxes(1, 2).reshape(rows, tokens, heads * size)


@jax.custom_vjp
def _attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
    return _attend_forward(q, k, v, bias)[0]


def _attend_forward(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> tuple[jax.Array, Any]:
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k).astype(jnp.float32) * (1.0 / math.sqrt(q.shape[-1])) + bias
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("bhqk,bhkd->bhqd", weights.astype(v.dtype), v), (q, k, v, weights, bias)


def _attend_backward(kept: Any, dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    q, k, v, weights, bias = kept
    dv = jnp.einsum("bhqk,bhqd->bhkd", weights.astype(dy.dtype), dy)
    dw = jnp.einsum("bhqd,bhkd->bhqk", dy, v).astype(jnp.float32)
    ds = weights * (dw - (dw * weights).sum(-1, keepdims=True))
    scaled = (ds * (1.0 / math.sqrt(q.shape[-1]))).astype(q.dtype)
    dq = jnp.einsum("bhqk,bhkd->bhqd", scaled, k)
    dk = jnp.einsum("bhqk,bhqd->bhkd", scaled, q)
    shared = tuple(axis for axis in (1, 2) if bias.shape[axis] == 1)
    return dq, dk, dv, ds.sum(shared, keepdims=True).astype(bias.dtype)


_attend.defvjp(_attend_forward, _attend_backward)


def _attend_capped(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, cap: float) -> jax.Array:
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k).astype(jnp.float32) * (1.0 / math.sqrt(q.shape[-1]))
    weights = jax.nn.softmax(cap * jnp.tanh(scores / cap) + bias, axis=-1)
    return jnp.einsum("bhqk,bhkd->bhqd", weights.astype(v.dtype), v)
