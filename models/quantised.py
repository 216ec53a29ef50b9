"""Frozen kernels held in 8 or 4 bits, by qwix, under adapters in float32: QLoRA (Dettmers et al., 2023, arXiv:2305.14314).

    int8    W[i, o] ~ q[i, o] s[o]                  q of 8 bits, a scale for each output channel
    nf4     W[i, o] ~ t[q[i, o]] s[i // 64, o]      q of 4 bits, t the 16 quantiles of a normal distribution

Held so are the kernels of the linear layers in the stack; embeddings, norms, biases and the projection to the vocabulary stay
as they are. A layer's kernels are made float where they are used and not kept: in training the layer is computed anew for its
gradient (`Stack.remat`), which would otherwise hold them all.

Where nothing but their product is asked for (`product`), a compiler for accelerators makes no float kernel in memory either.
For 8 bits the scales of output channels stand behind the product, x W = (x q) s, so that a kernel is converted as it is read.
For 4 bits the sixteen numbers of the table are chosen from by the bits of q, which TPUs do within the product, where a lookup
would be a program of its own. (On NVIDIA's GPUs a 4-bit kernel is still made float, one at a time: XLA's products there do no
such thing.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import GraftaxError

QTYPES = ("int8", "nf4")
_TILE = 64  # inputs that share a scale in nf4


@cache
def quantiser(qtype: str, dtype: Any) -> Callable[[np.ndarray], Any]:
    """What makes a `qwix.QArray` of a kernel `[in, out]`, with scales in `dtype`."""
    qwix = _qwix()

    @jax.jit
    def quantised(kernel: jax.Array) -> Any:
        tiles = {0: math.gcd(_TILE, len(kernel))} if qtype == "nf4" else {}
        with jax.numpy_dtype_promotion("standard"):  # qwix counts on it, whatever the caller has set
            return qwix.quantize(kernel, qtype, channelwise_axes=(1,), tiled_axes=tiles, scale_dtype=dtype)

    return quantised


def dense(kernel: Any) -> jax.Array:
    """A kernel as floats, whatever it is held as."""
    if isinstance(kernel, jax.Array):
        return kernel
    if kernel.qtype == "nf4":
        *lead, inputs, outputs = kernel.qvalue.shape
        tiles = kernel.scale.shape[-2]
        chosen = _chosen(kernel.qvalue, kernel.scale.dtype).reshape(*lead, tiles, inputs // tiles, outputs)
        return (chosen * kernel.scale[..., None, :]).reshape(*lead, inputs, outputs)
    with jax.numpy_dtype_promotion("standard"):
        found: jax.Array = _qwix().dequantize(kernel)
    return found


def product(x: jax.Array, kernel: Any) -> jax.Array:
    """`x [n, in]` by a kernel `[in, out]`, whatever it is held as: `[n, out]`."""
    if isinstance(kernel, jax.Array) or kernel.qtype != "int8":
        return x @ dense(kernel)
    # in float16 a sum of products with whole numbers up to 127 would soon be infinite
    summed = jnp.float32 if x.dtype == jnp.float16 else None
    unscaled = jnp.matmul(x, kernel.qvalue.astype(x.dtype), preferred_element_type=summed)
    return (unscaled * kernel.scale.astype(unscaled.dtype)).astype(x.dtype)


def _chosen(codes: jax.Array, dtype: Any) -> jax.Array:
    """What nf4's codes of four bits stand for: each bit leaves one half of the table, and the fourth a number."""
    bits = codes.astype(jnp.uint8)
    left = [jnp.asarray(level, dtype) for level in _levels()]
    for place in range(4):
        is_set = (bits >> np.uint8(place)) & np.uint8(1) == 1
        left = [jnp.where(is_set, high, low) for low, high in zip(left[::2], left[1::2], strict=True)]
    return left[0]


@cache
def _levels() -> tuple[float, ...]:
    """nf4's table, as qwix has it."""
    qwix = _qwix()
    with jax.ensure_compile_time_eval(), jax.numpy_dtype_promotion("standard"):
        codes = jnp.arange(16, dtype=jnp.uint4)[:, None]
        held = qwix.QArray(codes, jnp.ones((1, 1), jnp.float32), None, "nf4")
        return tuple(np.asarray(qwix.dequantize(held))[:, 0].tolist())


def _qwix() -> Any:
    try:
        import qwix
    except ImportError as error:
        raise GraftaxError("quantised backbones need qwix: pip install 'graftax[quantize]'.") from error
    return qwix
