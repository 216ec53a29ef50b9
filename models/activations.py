"""The activations of feed-forward layers, by the names that Hugging Face's configs give them.

They are those of transformers' `ACT2FN` that are a function of one number. Left out are `prelu` and `xielu`, which have weights
of their own, and `sqrtsoftplus`, with which a router scores: its derivative is no number far below zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from .ops import gelu, gelu_tanh

_LAPLACE_MEAN, _LAPLACE_WIDTH = 0.707107, 0.282095  # of the distribution that comes near a squared ReLU (arXiv:2209.10655)


def _clipped_gelu(x: jax.Array) -> jax.Array:
    """GELU within what eight bits hold well (arXiv:2004.09602)."""
    return jnp.clip(gelu(x), -10.0, 10.0)


def _quick_gelu(x: jax.Array) -> jax.Array:
    """The approximation of GELU by a sigmoid."""
    return x * jax.nn.sigmoid(1.702 * x)


def _laplace(x: jax.Array) -> jax.Array:
    """The distribution function of a normal one."""
    return 0.5 * (1.0 + jax.lax.erf((x - _LAPLACE_MEAN) / (_LAPLACE_WIDTH * math.sqrt(2.0))))


def _squared_relu(x: jax.Array) -> jax.Array:
    return jnp.square(jax.nn.relu(x))


def _linear(x: jax.Array) -> jax.Array:
    return x


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_10": _clipped_gelu,
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate", "gelu_fast"), gelu_tanh),
    "quick_gelu": _quick_gelu,
    "relu": jax.nn.relu,
    "relu2": _squared_relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "hardswish": jax.nn.hard_swish,
    "mish": jax.nn.mish,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "laplace": _laplace,
    "linear": _linear,
}
