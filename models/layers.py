"""The modules backbones are built of: linear layers, norms, embeddings. Each knows its weights and what it computes with them.

A module's parameters may carry a leading layer axis; `run_layers` (`stack.py`) takes one layer's at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from ..adapters.sites import LinearWeights, NormWeights, TableWeights
from .ops import layer_norm, rms_norm
from .quantised import dense

Arrays = Mapping[str, jax.Array]


class Linear(nnx.Module):
    """`x @ kernel + bias`; kernel `[in, out]`, perhaps quantised (`quantised.py`).

    Rows and tokens are one axis in the product, for the reason `ops` gives. A layer without a bias shows methods one of zeros.
    """

    def __init__(self, arrays: Arrays, name: str):
        self.kernel = nnx.Param(arrays[f"{name}.kernel"])
        self.bias = nnx.Param(arrays[f"{name}.bias"]) if f"{name}.bias" in arrays else None

    def weights(self) -> LinearWeights:
        kernel = dense(self.kernel[...])
        if self.bias is None:
            return LinearWeights(kernel, jnp.zeros((*kernel.shape[:-2], kernel.shape[-1]), kernel.dtype))
        return LinearWeights(kernel, self.bias[...])

    def compute(self, weights: LinearWeights, x: jax.Array) -> jax.Array:
        flat = x.reshape(-1, x.shape[-1]) @ weights.kernel + weights.bias
        return flat.reshape(*x.shape[:-1], -1)


class Norm(nnx.Module):
    """Layer norm; scale and bias `[dim]`."""

    def __init__(self, arrays: Arrays, name: str, eps: float):
        self.scale = nnx.Param(arrays[f"{name}.scale"])
        self.bias = nnx.Param(arrays[f"{name}.bias"])
        self.eps = eps

    def weights(self) -> NormWeights:
        return NormWeights(self.scale[...], self.bias[...])

    def compute(self, weights: NormWeights, x: jax.Array) -> jax.Array:
        return layer_norm(x, weights.scale, weights.bias, self.eps)


class RMSNorm(nnx.Module):
    """RMS norm; scale `[dim]`, to which `offset` adds one (Gemma). It shows methods a bias of zeros."""

    def __init__(self, arrays: Arrays, name: str, eps: float, offset: bool = False):
        self.scale = nnx.Param(arrays[f"{name}.scale"])
        self.eps, self.offset = eps, offset

    def weights(self) -> NormWeights:
        scale = self.scale[...]
        return NormWeights(scale, jnp.zeros_like(scale))

    def compute(self, weights: NormWeights, x: jax.Array) -> jax.Array:
        return rms_norm(x, weights.scale + 1.0 if self.offset else weights.scale, self.eps) + weights.bias


class Embedding(nnx.Module):
    """Rows of `table [rows, dim]`; an index out of range reads the last row."""

    def __init__(self, arrays: Arrays, name: str):
        self.table = nnx.Param(arrays[f"{name}.table"])

    def weights(self) -> TableWeights:
        return TableWeights(self.table[...])

    def compute(self, weights: TableWeights, x: jax.Array) -> jax.Array:
        return jnp.take(weights.table, x, axis=0, mode="clip")


@dataclass(frozen=True)
class Transposed:
    """A table as the projection to the vocabulary: a linear layer without a bias whose columns are the table's rows."""

    embedding: Embedding

    def weights(self) -> LinearWeights:
        kernel = self.embedding.table[...].T
        return LinearWeights(kernel, jnp.zeros(kernel.shape[-1], kernel.dtype))

    def compute(self, weights: LinearWeights, x: jax.Array) -> jax.Array:
        return x @ weights.kernel + weights.bias


class Constant(nnx.Module):
    """Numbers at which no method acts."""

    def __init__(self, arrays: Arrays, name: str):
        self.value = nnx.Param(arrays[f"{name}.value"])

    def weights(self) -> Constant:
        return self
