"""Convolutions and batch norms: that they compute what torch's do, with any leading axes, and TensorFlow's padding."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from feature_maps import CASES, from_torch, picture, to_torch, torch_layer, weights_of

from graftax.adapters.geometry import Geometry, convolve
from graftax.adapters.graft import Grafts
from graftax.adapters.sites import ConvWeights
from graftax.models.layers import BatchNorm, Conv


@pytest.mark.parametrize("case", CASES)
def test_a_convolution_is_torchs(case: str) -> None:
    weights, x = weights_of(case), picture(case, 2)
    module = Conv({"c.kernel": weights.kernel, "c.bias": weights.bias}, "c", weights.geometry)
    found = Grafts.bare().conv("c", x, module)
    np.testing.assert_allclose(found, from_torch(torch_layer(weights)(to_torch(x))), atol=1e-5)


@pytest.mark.parametrize("case", ["plain", "depthwise"])
def test_leading_axes_may_be_any(case: str) -> None:
    weights, x = weights_of(case), picture(case, 2, 3)
    rows = weights.convolve(x.reshape(6, *x.shape[2:]))
    assert weights.convolve(x).shape == (2, 3, *rows.shape[1:])
    np.testing.assert_array_equal(weights.convolve(x).reshape(rows.shape), rows)
    np.testing.assert_allclose(weights.convolve(x[1, 2]), rows[5], atol=1e-5)
    np.testing.assert_allclose(jax.vmap(jax.vmap(weights.convolve))(x).reshape(rows.shape), rows, atol=1e-5)


@pytest.mark.parametrize(("case", "over"), [*((case, "both") for case in CASES), ("strided", "x"), ("strided", "kernel")])
def test_kernels_that_differ_are_the_same_convolutions(case: str, over: str) -> None:
    """Outputs and both gradients, one by one and under `vmap`, which is another program."""
    one = weights_of(case)
    kernels = jnp.stack([one.kernel, weights_of(case, seed=2).kernel]) if over != "x" else one.kernel
    x = picture(case, 2, 3) if over != "kernel" else picture(case, 3)
    weighed = np.random.default_rng(3).standard_normal(one.convolve(picture(case)).shape, np.float32)

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(convolve(x, kernel, one.geometry) * weighed)

    axes = (None if over == "kernel" else 0, None if over == "x" else 0)
    each = jax.jit(jax.value_and_grad(loss, (0, 1)))
    together = jax.jit(jax.vmap(each, axes))(x, kernels)
    for index in range(2):
        alone = x[index] if axes[0] == 0 else x, kernels[index] if axes[1] == 0 else kernels
        expected, gradients = each(*alone)
        np.testing.assert_allclose(together[0][index], expected, rtol=1e-5, atol=1e-4)
        for found, gradient in zip(together[1], gradients, strict=True):
            np.testing.assert_allclose(found[index], gradient, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere XLA's own are fast")
def test_depthwise_convolutions_are_taken_apart() -> None:
    """XLA's own are slower by an order of magnitude and more, forward and backward: none may come back into a program."""

    def loss(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
        return jnp.sum(jnp.square(convolve(x, kernel, geometry)))

    def convolutions(case: str) -> int:
        weights = weights_of(case)
        gradient = jax.jit(jax.grad(loss, (0, 1)))
        return gradient.lower(picture(case, 2), weights.kernel, weights.geometry).as_text().count("stablehlo.convolution")

    assert convolutions("strided") > 0
    assert convolutions("depthwise") == 0


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere any order is fast")
@pytest.mark.parametrize("differ", [False, True])
def test_axes_are_in_the_order_that_is_fast(differ: bool) -> None:
    """XLA turns those that are in another, but not within a loop, where such a convolution takes ten to forty times as long."""
    weights, x = weights_of("strided"), picture("strided", 2, 4)

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(convolve(x, kernel, weights.geometry)))

    gradient, kernel = jax.grad(loss, (0, 1)), weights.kernel
    if differ:
        gradient, kernel = jax.vmap(gradient), jnp.stack([kernel] * 2)
    compiled = jax.jit(gradient).lower(x, kernel).as_text()
    orders = re.findall(r"dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", compiled)
    assert len(orders) == 3  # the output, and both cotangents
    assert set(orders) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


@pytest.mark.parametrize(
    ("case", "geometry"),
    [
        ("strided", {}),
        ("depthwise", {}),
        ("depthwise", {"stride": (1, 1)}),
        ("depthwise", {"stride": (3, 1), "padding": ((3, 3), (0, 0)), "dilation": (2, 2)}),  # the last rows are read by no cell
        ("strided", {"stride": (3, 1), "padding": ((3, 3), (0, 0)), "dilation": (2, 2)}),
        ("grouped", {"stride": (1, 2), "dilation": (2, 1)}),
        ("depthwise", {"stride": (1, 2), "padding": ((3, 3), (1, 1))}),  # further out than the kernel reaches
        ("pointwise", {}),
        ("pointwise", {"stride": (2, 3)}),
        ("pointwise", {"padding": ((1, 1), (0, 0))}),
    ],
)
def test_outputs_and_gradients_are_torchs(case: str, geometry: dict[str, Any]) -> None:
    weights = weights_of(case)
    weights, x = weights._replace(geometry=replace(weights.geometry, **geometry)), picture(case, 2)
    layer, there = torch_layer(weights), to_torch(x).requires_grad_()
    wanted = layer(there)
    wanted.square().sum().backward()
    found = jax.value_and_grad(lambda x, kernel: jnp.sum(jnp.square(weights._replace(kernel=kernel).convolve(x))), (0, 1))
    total, (dx, dkernel) = found(x, weights.kernel)
    assert there.grad is not None
    assert layer.weight.grad is not None
    np.testing.assert_allclose(weights.convolve(x), from_torch(wanted), atol=1e-5)
    np.testing.assert_allclose(total, wanted.square().sum().item(), rtol=1e-5)
    np.testing.assert_allclose(dx, from_torch(there.grad), atol=1e-3)
    np.testing.assert_allclose(dkernel, layer.weight.grad.numpy().transpose(2, 3, 1, 0), atol=1e-3)


def test_without_a_bias_methods_are_shown_zeros() -> None:
    weights = weights_of("plain")
    layers = Conv({"layers.c.kernel": jnp.stack([weights.kernel] * 3)}, "layers.c", weights.geometry)
    np.testing.assert_array_equal(layers.weights().bias, np.zeros((3, 6)))


def test_the_geometry_is_compiled_in() -> None:
    weights = weights_of("strided")
    assert len(jax.tree.leaves(weights)) == 2
    doubled = jax.jit(lambda w: jax.tree.map(lambda leaf: 2.0 * leaf, w))(weights)
    assert isinstance(doubled, ConvWeights)
    assert doubled.geometry == weights.geometry


@pytest.mark.parametrize(("size", "stride", "dilation"), [(8, 2, 1), (9, 2, 1), (7, 1, 1), (9, 1, 2)])
def test_padding_as_tensorflow_has_it(size: int, stride: int, dilation: int) -> None:
    """As transformers pads for it, by the input's size."""
    from transformers.models.mobilenet_v2.modeling_mobilenet_v2 import apply_tf_padding

    x = np.random.default_rng(0).standard_normal((2, size, size + 1, 3), np.float32)
    layer = torch.nn.Conv2d(3, 5, 3, stride, dilation=dilation, bias=False)
    kernel = jnp.asarray(layer.weight.detach().numpy().transpose(2, 3, 1, 0))
    geometry = Geometry((stride, stride), None, (dilation, dilation))
    expected = layer(apply_tf_padding(to_torch(x), layer))
    np.testing.assert_allclose(convolve(jnp.asarray(x), kernel, geometry), from_torch(expected), atol=1e-5)


def test_a_batch_norm_is_torchs_in_evaluation() -> None:
    norm = torch.nn.BatchNorm2d(6, eps=1e-3)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 2.0)
    named = {"scale": norm.weight, "bias": norm.bias, "mean": norm.running_mean, "var": norm.running_var}
    module = BatchNorm({f"n.{name}": jnp.asarray(tensor.detach().numpy()) for name, tensor in named.items()}, "n", 1e-3)
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 6), np.float32)
    found = Grafts.bare().norm("n", jnp.asarray(x), module)
    np.testing.assert_allclose(found, from_torch(norm.eval()(to_torch(x))), atol=1e-5)
