"""A narrow array widened by a matrix: the numbers of a plain product, and nothing wide turned around on the way back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graftax.adapters.methods.widening import widened

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
