"""ReFT against plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from graftax import DiReFT, GraftaxError, LoReFT
from graftax.adapters.reft import orthonormal
from graftax.adapters.registry import method_of
from graftax.models.backbone import Backbone

GetBackbone = Callable[[str], Backbone]


@pytest.mark.parametrize("method", [LoReFT(r=3), DiReFT(r=3)], ids=lambda method: method.name)
def test_reft_is_its_formula(method: Any, backbone_of: GetBackbone) -> None:
    random = np.random.default_rng(4)
    site = method.select(backbone_of("bert").sites)[-1]
    w = {k: random.standard_normal(v.shape).astype(np.float32) for k, v in method.blank(site).items()}
    h = random.standard_normal((2, 5, *site.shape)).astype(np.float32)
    changed = method_of(method.key).apply({**w, **method.fixed(site)}, None, h, None, None)
    r, subtracted = w["r"], 0.0
    if method.name == "loreft":
        q, upper = np.linalg.qr(w["r"].T)
        r = (q * np.sign(np.diag(upper))).T
        subtracted = h @ r.T
    np.testing.assert_allclose(changed, h + (h @ w["w"].T + w["b"] - subtracted) @ r, rtol=1e-4, atol=1e-4)


def test_rows_are_orthonormal_and_filling_is_zero() -> None:
    """Whatever was trained: so training cannot leave the constraint."""
    m = np.random.default_rng(0).standard_normal((4, 12)).astype(np.float32) * 3.0
    m[3] = 0.0
    own = np.array([1, 1, 1, 0], np.float32)
    r = np.asarray(orthonormal(m, own))
    np.testing.assert_allclose(r @ r.T, np.diag(own), atol=1e-6)
    pull = jax.grad(lambda m: (orthonormal(m, own)[:3] ** 3).sum())(m)
    assert np.abs(pull[:3]).max() > 1e-3
    np.testing.assert_array_equal(pull[3], np.zeros(12))


def test_loreft_starts_at_the_base(backbone_of: GetBackbone) -> None:
    """W is R, and R is what it is made orthonormal to."""
    (site, *_) = LoReFT(r=5).select(backbone_of("bert").sites)
    leaves = LoReFT(r=5).init(jax.random.key(0), site)
    np.testing.assert_allclose(orthonormal(leaves["r"], np.ones(5, np.float32)), leaves["w"], atol=1e-6)


def test_a_subspace_must_fit(backbone_of: GetBackbone) -> None:
    (site, *_) = LoReFT(r=33).select(backbone_of("bert").sites)
    with pytest.raises(GraftaxError, match="33 dimensions does not fit the 32 channels"):
        LoReFT(r=33).init(jax.random.key(0), site)
    with pytest.raises(GraftaxError, match="loreft: rank must be at least 1"):
        LoReFT(r=0)
