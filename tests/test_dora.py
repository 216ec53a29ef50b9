"""DoRA: the lengths of a weight's columns are the adapter's, and constants to the gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import random_adapter
from conftest import GetBackbone

from graftax import DoRA, merge
from graftax.adapters.sites import LinearWeights


def test_merged_columns_have_the_adapters_lengths(backbone_of: GetBackbone) -> None:
    """Invariant 26: at every site where it acts, and they are not the frozen weights'."""
    backbone = backbone_of("bert")
    adapter = random_adapter(backbone, "dora")
    (states,) = (at for key, at in adapter.states.items() if key.startswith("dora"))
    merged = {site.path: site for site in merge(backbone, adapter)[0].sites}
    for site, (leaves, _) in states.items():
        lengths = np.linalg.norm(merged[site.path].weights()[0], axis=0)
        np.testing.assert_allclose(lengths, np.abs(leaves["m"]), rtol=1e-5, atol=1e-6)
        assert np.abs(lengths - np.linalg.norm(site.weights()[0], axis=0)).max() > 1e-3


def test_the_gradient_takes_the_lengths_as_constants() -> None:
    """Invariant 26: it is that of m / c times the turned column, where c is the length as a number."""
    random = np.random.default_rng(3)
    weight, x = (jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in ((8, 6), (5, 8)))
    leaves: dict[str, Any] = {
        "a": jnp.asarray(random.standard_normal((2, 8)), jnp.float32),
        "b": jnp.asarray(random.standard_normal((2, 6)), jnp.float32),
        "m": jnp.asarray(random.uniform(1, 2, 6), jnp.float32),
    }
    fixed = {"scale": jnp.float32(3.5), "on": jnp.float32(1.0), "dropout": jnp.float32(0.0)}
    turned = weight + 3.5 * leaves["a"].T @ leaves["b"]
    lengths = jnp.linalg.norm(turned, axis=0)

    def by_method(leaves: dict[str, Any]) -> jax.Array:
        y = DoRA(r=2, alpha=7.0).apply({**leaves, **fixed}, x, x @ weight, LinearWeights(weight, jnp.zeros(6)), None)
        return jnp.sum(y**2)

    def by_hand(leaves: dict[str, Any]) -> jax.Array:
        return jnp.sum((x @ (weight + 3.5 * leaves["a"].T @ leaves["b"]) * leaves["m"] / lengths) ** 2)

    ours, theirs = (jax.grad(f)(leaves) for f in (by_method, by_hand))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), ours, theirs)
