"""Shapes in annotations: held against every call in the tests, and nothing at all in use."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax import Array

from graftax.models.ops import attention, layer_norm
from graftax.shapes import CHECKED, Float, Int, shaped
from graftax.tasks.task_registry import task_named


@shaped
def chosen(logits: Float[Array, "rows vocabulary"], targets: Int[Array, " rows"]) -> Float[Array, " rows"]:
    return jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]


def test_shapes_are_checked_in_the_tests() -> None:
    assert CHECKED


def test_an_axis_has_one_size_in_a_call() -> None:
    logits, targets = jnp.ones((2, 5)), jnp.zeros(2, jnp.int32)
    assert chosen(logits, targets).shape == (2,)
    for wrong in (jnp.zeros(3, jnp.int32), jnp.zeros((2, 1), jnp.int32), jnp.zeros(2)):
        with pytest.raises(TypeError, match="chosen"):
            chosen(logits, wrong)


def test_results_are_checked() -> None:
    @shaped
    def first(x: Float[Array, "rows dim"]) -> Float[Array, " rows"]:
        return x[0]

    with pytest.raises(TypeError, match="return value"):
        first(jnp.ones((2, 5)))


def test_traced_arrays_are_checked_while_they_are_traced() -> None:
    logits, targets = jnp.ones((4, 2, 5)), jnp.zeros((4, 2), jnp.int32)
    assert jax.jit(jax.vmap(jax.grad(lambda x, y: chosen(x, y).sum())))(logits, targets).shape == logits.shape
    with pytest.raises(TypeError, match="chosen"):
        jax.jit(jax.vmap(chosen))(logits, jnp.zeros((4, 3), jnp.int32))


def heads(count: int, size: int) -> Array:
    return jnp.ones((2, count, 3, size))


def test_public_functions_refuse_other_shapes() -> None:
    """Each call would go through by broadcasting, or fail far within."""
    seen = jnp.ones((2, 1, 3), bool)
    settings = SimpleNamespace(classes=jnp.int32(4), beta=jnp.float32(0.1))
    assert attention(heads(4, 8), heads(2, 8), heads(2, 8), seen).shape == (2, 3, 32)
    with pytest.raises(TypeError, match="mask"):
        attention(heads(4, 8), heads(2, 8), heads(2, 8), seen[:1])
    with pytest.raises(TypeError, match="bias"):
        layer_norm(jnp.ones((2, 8)), jnp.ones(8), jnp.ones(1), 1e-6)
    with pytest.raises(TypeError, match="labels"):
        task_named("classify").loss(jnp.ones((2, 4)), jnp.zeros((2, 1), jnp.int32), settings, jnp.ones(2))


def test_in_use_the_decorator_is_nothing() -> None:
    """The function itself comes back, and neither library is imported."""
    program = (
        "import sys, graftax.models.ops as ops; from graftax.shapes import shaped; plain = lambda x: x; "
        "assert shaped(plain) is plain and not hasattr(ops.attention, '__wrapped__'); "
        "print(sorted({'jaxtyping', 'beartype'} & {*sys.modules}))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GRAFTAX_CHECK_SHAPES"}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
