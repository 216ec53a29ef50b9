"""Products of what a backbone computes with what an adapter trains: `narrowed` to few channels, and `widened` again.

    h = x A        x [..., in],  A [in, r]         y = h B        h [..., r],  B [r, out]

LoRA's factors are such matrices, the ways down and up of a bottleneck, FacT's U and V.

*In which dtype.* An adapter is trained and held in float32, and methods compute in it (`_in_float32` in `graft.py`). Beside a
backbone of bfloat16 on an accelerator each of these products would be one of float32: half of the speed or less by data sheets,
and what enters it converted and written once more. There both factors are rounded to the backbone's dtype, as in its own
products, and summed in float32; the gradients of A and B come in float32. `in_dtype` says so for the block in which a method
is called. Elsewhere, and with `Backbone.adapter_dtype` "float32", the products are of float32.

*Whose derivative.* JAX derives dB of y = h B as (dy^T h)^T, which is the same number as h^T dy and another program: a product
on a CPU has the summed axis of its first factor last, so that the whole of dy is written once more, turned around. With h in
front it is the thin matrix that is turned. A training step of LoRA on the convolutions of a MobileNetV2 so takes four fifths of
the time (`benchmarks/RESULTS.md`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

_DTYPE: ContextVar[Any] = ContextVar("the dtype that both factors of a product are rounded to", default=None)


@contextmanager
def in_dtype(dtype: Any) -> Iterator[None]:
    """In the block products are of numbers of this dtype; None: of those that they are given."""
    token = _DTYPE.set(dtype)
    try:
        yield
    finally:
        _DTYPE.reset(token)


def narrowed(x: jax.Array, w: jax.Array) -> jax.Array:
    """`x [..., in]` by `w [in, r]`: `[..., r]`."""
    dtype = _DTYPE.get()
    return x @ w if dtype is None else _product(dtype, x, w)


def widened(h: jax.Array, b: jax.Array) -> jax.Array:
    """`h [..., r]` by `b [r, out]`: `[..., out]`; in a block of `in_dtype` the result is rounded to that dtype, too."""
    dtype = _DTYPE.get()
    return _rounded(dtype, _product(dtype, h, b)).astype(h.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(dtype: Any, x: jax.Array, w: jax.Array) -> jax.Array:
    """x w in float32, of factors that are rounded to `dtype`; so are those of its derivatives."""
    return _summed_in_float32(_rounded(dtype, x), _rounded(dtype, w))


def _kept(dtype: Any, x: jax.Array, w: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(dtype, x, w), (_rounded(dtype, x), w)


def _cotangents(dtype: Any, kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, w = kept
    pull = _rounded(dtype, dy)
    dw = _summed_in_float32(x.reshape(-1, x.shape[-1]).T, pull.reshape(-1, pull.shape[-1]))
    return (pull @ _rounded(dtype, w).T).astype(dy.dtype), dw


def _rounded(dtype: Any, array: jax.Array) -> jax.Array:
    return array if dtype is None else array.astype(dtype)


def _summed_in_float32(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.matmul(x, w, preferred_element_type=jnp.float32)


_product.defvjp(_kept, _cotangents)
