"""Frozen kernels held in 8 or 4 bits, by qwix, under adapters in float32: QLoRA (Dettmers et al., 2023, arXiv:2305.14314).

    int8    W[i, o] ~ q[i, o] s[o]                  q of 8 bits, a scale for each output channel
    nf4     W[i, o] ~ t[q[i, o]] s[i // 64, o]      q of 4 bits, t the 16 quantiles of a normal distribution

Held so are the kernels of the linear layers in the stack; embeddings, norms, biases and the projection to the vocabulary stay
as they are. A layer's kernels are made float where they are used and not kept: in training the layer is computed anew for its
gradient (`Stack.remat`), which would otherwise hold them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
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
    with jax.numpy_dtype_promotion("standard"):
        found: jax.Array = _qwix().dequantize(kernel)
    return found


def _qwix() -> Any:
    try:
        import qwix
    except ImportError as error:
        raise GraftaxError("quantised backbones need qwix: pip install 'graftax[quantize]'.") from error
    return qwix
