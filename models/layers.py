"""The modules backbones are built of: linear layers, convolutions, norms, embeddings.

Each knows its weights and what it computes with them.

A module's parameters may carry a leading layer axis; `run_layers` (`stack.py`) takes one layer's at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..adapters.geometry import Geometry
from ..adapters.sites import BatchNormWeights, ConvWeights, LinearWeights, NormWeights, TableWeights
from ..shapes import AnyArray, Float, Int, shaped
from .ops import layer_norm, rms_norm
from .quantised import dense, product

Arrays = Mapping[str, jax.Array]


class Linear(nnx.Module):
    """`x @ kernel + bias`; kernel `[in, out]`, perhaps quantised (`quantised.py`).

    Batch rows and tokens are one axis in the product, for the reason `ops` gives. A layer without a bias shows methods one of
    zeros.
    """

    def __init__(self, arrays: Arrays, name: str):
        self.kernel = nnx.Param(arrays[f"{name}.kernel"])
        self.bias = nnx.Param(arrays[f"{name}.bias"]) if f"{name}.bias" in arrays else None

    def weights(self) -> LinearWeights:
        kernel = dense(self.kernel[...])
        if self.bias is None:
            return LinearWeights(kernel, jnp.zeros((*kernel.shape[:-2], kernel.shape[-1]), kernel.dtype))
        return LinearWeights(kernel, self.bias[...])

    @shaped
    def compute(self, weights: LinearWeights, x: Float[AnyArray, "*lead inputs"]) -> Float[Array, "*lead outputs"]:
        return _linear(x, weights.kernel, weights.bias)

    @shaped
    def __call__(self, x: Float[AnyArray, "*lead inputs"]) -> Float[Array, "*lead outputs"]:
        return _linear(x, self.kernel[...], self.weights().bias)


def _linear(x: AnyArray, kernel: Any, bias: Array) -> Array:
    """The output of a linear layer whose kernel is of floats or quantised."""
    flat = product(jnp.reshape(x, (-1, x.shape[-1])), kernel) + bias
    return flat.reshape(*x.shape[:-1], -1)


class Conv(nnx.Module):
    """A convolution of feature maps `[..., height, width, in]`; kernel `[kh, kw, in / groups, out]`.

    One without a bias shows methods one of zeros.
    """

    def __init__(self, arrays: Arrays, name: str, geometry: Geometry):
        self.kernel = nnx.Param(arrays[f"{name}.kernel"])
        self.bias = nnx.Param(arrays[f"{name}.bias"]) if f"{name}.bias" in arrays else None
        self.geometry = geometry

    def weights(self) -> ConvWeights:
        kernel = self.kernel[...]
        if self.bias is None:
            return ConvWeights(kernel, jnp.zeros((*kernel.shape[:-4], kernel.shape[-1]), kernel.dtype), self.geometry)
        return ConvWeights(kernel, self.bias[...], self.geometry)

    @shaped
    def compute(
        self, weights: ConvWeights, x: Float[AnyArray, "*lead height width inputs"]
    ) -> Float[Array, "*lead high wide outputs"]:
        return weights.convolve(x)


class Norm(nnx.Module):
    """Layer norm; scale and bias `[dim]`."""

    def __init__(self, arrays: Arrays, name: str, eps: float):
        self.scale = nnx.Param(arrays[f"{name}.scale"])
        self.bias = nnx.Param(arrays[f"{name}.bias"])
        self.eps = eps

    def weights(self) -> NormWeights:
        return NormWeights(self.scale[...], self.bias[...])

    @shaped
    def compute(self, weights: NormWeights, x: Float[Array, "*lead dim"]) -> Float[Array, "*lead dim"]:
        return layer_norm(x, weights.scale, weights.bias, self.eps)


class RMSNorm(nnx.Module):
    """RMS norm; scale `[dim]`, to which `offset` adds one (Gemma). It shows methods a bias of zeros."""

    def __init__(self, arrays: Arrays, name: str, eps: float, offset: bool = False):
        self.scale = nnx.Param(arrays[f"{name}.scale"])
        self.eps, self.offset = eps, offset

    def weights(self) -> NormWeights:
        scale = self.scale[...]
        return NormWeights(scale, jnp.zeros_like(scale))

    @shaped
    def compute(self, weights: NormWeights, x: Float[Array, "*lead dim"]) -> Float[Array, "*lead dim"]:
        return rms_norm(x, weights.scale + 1.0 if self.offset else weights.scale, self.eps) + weights.bias


class BatchNorm(nnx.Module):
    """scale (x - mean) / sqrt(var + eps) + bias over channels, all `[dim]` (Ioffe & Szegedy, 2015, arXiv:1502.03167).

    Mean and variance are those that the checkpoint was trained with, unless a method has others (`adabn.py`). No batch changes
    them, so an item's answer does not depend on its neighbours.
    """

    def __init__(self, arrays: Arrays, name: str, eps: float):
        self.scale = nnx.Param(arrays[f"{name}.scale"])
        self.bias = nnx.Param(arrays[f"{name}.bias"])
        self.mean = nnx.Param(arrays[f"{name}.mean"])
        self.var = nnx.Param(arrays[f"{name}.var"])
        self.eps = eps

    def weights(self) -> BatchNormWeights:
        return BatchNormWeights(self.scale[...], self.bias[...], self.mean[...], self.var[...])

    @shaped
    def compute(self, weights: BatchNormWeights, x: Float[Array, "*lead dim"]) -> Float[Array, "*lead dim"]:
        scale, bias, mean, var = (array.astype(jnp.float32) for array in weights)
        normed = (x.astype(jnp.float32) - mean) * jax.lax.rsqrt(var + self.eps)
        return (normed * scale + bias).astype(x.dtype)


class Embedding(nnx.Module):
    """Rows of `table [rows, dim]`; an index out of range reads the last row."""

    def __init__(self, arrays: Arrays, name: str):
        self.table = nnx.Param(arrays[f"{name}.table"])

    def weights(self) -> TableWeights:
        return TableWeights(self.table[...])

    @shaped
    def compute(self, weights: TableWeights, x: Int[AnyArray, "*lead"]) -> Float[Array, "*lead dim"]:
        return jnp.take(weights.table, x, axis=0, mode="clip")


@dataclass(frozen=True)
class Transposed:
    """A table as the projection to the vocabulary: a linear layer without a bias whose columns are the table's rows."""

    embedding: Embedding

    def weights(self) -> LinearWeights:
        kernel = self.embedding.table[...].T
        return LinearWeights(kernel, jnp.zeros(kernel.shape[-1], kernel.dtype))

    @shaped
    def compute(self, weights: LinearWeights, x: Float[Array, "*lead inputs"]) -> Float[Array, "*lead outputs"]:
        return x @ weights.kernel + weights.bias

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.compute(self.weights(), x)


class LayerScale(nnx.Module):
    """A number for each channel, by which what a branch has made is multiplied (Touvron et al., 2021, arXiv:2103.17239)."""

    def __init__(self, arrays: Arrays, name: str):
        self.scale = nnx.Param(arrays[f"{name}.scale"])

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.scale[...]

    def weights(self) -> LayerScale:
        return self


class Constant(nnx.Module):
    """Numbers at which no method acts."""

    def __init__(self, arrays: Arrays, name: str):
        self.value = nnx.Param(arrays[f"{name}.value"])

    def weights(self) -> Constant:
        return self
