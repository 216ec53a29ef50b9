"""A narrow array widened by a matrix: the numbers of a plain product, and nothing wide turned around on the way back."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import random_adapter
from conftest import CONFIGS

from graftax import LoRA
from graftax.adapters.adapter import Layout
from graftax.adapters.products import in_dtype, narrowed, widened
from graftax.models.backbone import Backbone
from graftax.models.inputs import TextInputs
from graftax.models.random import random_backbone
from graftax.platforms import compiling_for

POSITIONS, RANK, OUT = 640, 8, 96


def arrays(*lead: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """h, B, and what the output is weighed by."""
    random = np.random.default_rng(0)
    shapes = (*lead, 4, POSITIONS // 4, RANK), (*lead, RANK, OUT), (*lead, 4, POSITIONS // 4, OUT)
    h, b, weighed = (jnp.asarray(random.standard_normal(shape, np.float32)) for shape in shapes)
    return h, b, weighed


def test_it_is_the_product_and_so_are_its_derivatives() -> None:
    h, b, weighed = arrays(3)
    np.testing.assert_allclose(widened(h[0], b[0]), h[0] @ b[0], rtol=1e-5, atol=1e-5)
    found = jax.vmap(jax.value_and_grad(lambda h, b, w: jnp.sum(jnp.tanh(widened(h, b)) * w), (0, 1)))(h, b, weighed)
    wanted = jax.vmap(jax.value_and_grad(lambda h, b, w: jnp.sum(jnp.tanh(h @ b) * w), (0, 1)))(h, b, weighed)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere products take either order")
def test_nothing_wide_is_turned_around() -> None:
    h, b, weighed = arrays()
    gradient = jax.jit(jax.grad(lambda b: jnp.sum(jnp.tanh(widened(h, b)) * weighed)))
    assert f"f32[{OUT},{POSITIONS}]" not in gradient.lower(b).compile().as_text()


@pytest.mark.parametrize("product", ["narrowed", "widened"])
def test_in_a_dtype_factors_are_rounded_and_sums_are_not(product: str) -> None:
    """Both ways; also of several adapters at once. The gradient of what is trained comes in float32, unrounded."""
    h, b, weighed = arrays(3)
    x, w = (weighed, b.swapaxes(1, 2)) if product == "narrowed" else (h, b)
    pull = jnp.asarray(np.random.default_rng(1).standard_normal((x @ w[:, None]).shape[1:], np.float32))

    def rounded(array: jax.Array) -> jax.Array:
        return array.astype(jnp.bfloat16).astype(jnp.float32)

    def ours(x: jax.Array, w: jax.Array) -> tuple[jax.Array, Any]:
        with in_dtype(jnp.bfloat16):
            y, back = jax.vjp(narrowed if product == "narrowed" else widened, x, w)
        return y, back(pull)

    found_y, (found_dx, found_dw) = jax.vmap(ours)(x, w)
    for slot in range(3):
        own_x, own_w = rounded(x[slot]), rounded(w[slot])
        y, dx = own_x @ own_w, rounded(rounded(pull) @ own_w.T)
        dw = own_x.reshape(-1, own_x.shape[-1]).T @ rounded(pull).reshape(-1, pull.shape[-1])
        np.testing.assert_allclose(found_y[slot], y if product == "narrowed" else rounded(y), rtol=5e-3, atol=1e-3)
        np.testing.assert_allclose(found_dx[slot], dx, rtol=1e-2, atol=1e-3)
        np.testing.assert_allclose(found_dw[slot], dw, rtol=1e-4, atol=1e-3)
        assert np.abs(found_dw[slot] - rounded(found_dw[slot])).max() > 0


def loss_and_gradient(backbone: Backbone, where: str) -> Any:
    """Of a LoRA on a backbone, as it would be computed there (attention apart)."""
    adapter = random_adapter(backbone, (LoRA(r=4, alpha=7.0, targets=("q_proj", "up_proj", "down_proj")),))
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
    random = np.random.default_rng(0)
    ids = random.integers(8, 97, (3, 12)).astype(np.int32)
    inputs = TextInputs(ids, np.ones_like(ids, bool), np.zeros_like(ids))
    pull, layers = jnp.asarray(random.standard_normal((3, 12, 32)), jnp.float32), backbone.layers

    def loss(state: Any) -> jax.Array:
        with compiling_for(where):
            hidden = backbone.encode(backbone.params, state, inputs, layers=layers).hidden
        return jnp.sum(hidden.astype(jnp.float32) * pull)

    return jax.jit(jax.value_and_grad(loss))(state)


def apart(gradient: Any, wanted: Any) -> float:
    """How far a gradient lies from the wanted one, by the length of that."""
    squares = [(np.sum((a - b) ** 2), np.sum(b**2)) for a, b in zip(*map(jax.tree.leaves, (gradient, wanted)), strict=True)]
    return float(np.sqrt(sum(a for a, _ in squares) / sum(b for _, b in squares)))


def test_beside_bfloat16_on_an_accelerator_adapters_compute_as_the_backbone_does() -> None:
    """Gradients lie about as far from those of an all-float32 backbone as with float32 products, which an option keeps."""
    backbone = random_backbone(CONFIGS["llama"], dtype="bfloat16")
    in_float32 = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), backbone.params)
    _, wanted = loss_and_gradient(dataclasses.replace(backbone, params=in_float32), "cpu")
    on_cpu, elsewhere = (loss_and_gradient(backbone, where) for where in ("cpu", "rocm"))
    exact = loss_and_gradient(dataclasses.replace(backbone, adapter_dtype="float32"), "rocm")
    jax.tree.map(np.testing.assert_array_equal, exact, on_cpu)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(elsewhere))
    assert apart(elsewhere[1], on_cpu[1]) > 0
    assert apart(elsewhere[1], wanted) < 2 * apart(on_cpu[1], wanted) < 0.1
