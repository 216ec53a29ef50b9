"""ReFT against plain NumPy."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import logits, random_adapter
from conftest import GetBackbone, some_inputs

from graftax import DiReFT, GraftaxError, LoReFT, PromptTuning
from graftax.adapters.methods.method_registry import method_of
from graftax.adapters.methods.reft import orthonormal
from graftax.adapters.sites import FAR
from graftax.models.inputs import text_positions


@pytest.mark.parametrize(
    ("method", "positions"),
    [
        (LoReFT(r=3), range(5)),
        (DiReFT(r=3), range(5)),
        (LoReFT(r=3, prefix_positions=1, suffix_positions=2), [0, 2, 3]),  # the fifth token is padding
        (DiReFT(r=3, prefix_positions=2), [0, 1]),
        (DiReFT(r=3, suffix_positions=9), [0, 1, 2, 3]),
    ],
    ids=str,
)
def test_reft_is_its_formula(method: Any, positions: Any, backbone_of: GetBackbone) -> None:
    random = np.random.default_rng(4)
    site = method.select(backbone_of("bert").sites)[-1]
    w = {k: random.standard_normal(v.shape).astype(np.float32) for k, v in method.blank(site).items()}
    h = random.standard_normal((2, 5, *site.shape)).astype(np.float32)
    text_position = text_positions(jnp.array([[1, 1, 1, 1, 0]] * 2))
    changed = method_of(method.key).apply({**w, **method.fixed(site), **text_position._asdict()}, None, h, None, None)
    r, subtracted = w["r"], 0.0
    if method.name == "loreft":
        q, upper = np.linalg.qr(w["r"].T)
        r = (q * np.sign(np.diag(upper))).T
        subtracted = h @ r.T
    expected = h.copy()
    expected[:, positions] += ((h @ w["w"].T + w["b"] - subtracted) @ r)[:, positions]
    np.testing.assert_allclose(changed, expected, rtol=1e-4, atol=1e-4)


def test_places() -> None:
    """Counted in each text; padding, and what lies in front of a text, is far from everything."""
    text_position = text_positions(jnp.array([[0, 0, 1, 1, 1, 2, 3, 3, 0], [1] * 9]))
    np.testing.assert_array_equal(text_position.before, [[FAR, FAR, 0, 1, 2, 0, 0, 1, FAR], range(9)])
    np.testing.assert_array_equal(text_position.behind, [[FAR, FAR, 2, 1, 0, 0, 1, 0, FAR], range(8, -1, -1)])


def test_a_prompt_is_no_part_of_the_text(backbone_of: GetBackbone) -> None:
    """The text's own first token is changed, and no other, whatever stands in front of it."""
    backbone = backbone_of("bert")
    prompt, reft = PromptTuning(tokens=2), LoReFT(r=3, prefix_positions=1, targets=r".*layer\.2")
    both = random_adapter(backbone, (prompt, reft), tokens=True)
    one = dataclasses.replace(both, methods=(prompt, *both.methods[2:]))
    changed = np.abs(logits(backbone, both, some_inputs(backbone)) - logits(backbone, one, some_inputs(backbone))).max((0, 2))
    assert changed[0] > 1e-3
    assert changed[1:].max() < 1e-5


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
    with pytest.raises(GraftaxError, match="loreft: r must be a whole number, at least 1"):
        LoReFT(r=0)
    with pytest.raises(GraftaxError, match="direft: suffix_positions must be a whole number, at least 0"):
        DiReFT(suffix_positions=-1)
