"""Bottleneck adapters, Compacter and invertible ones among them, against plain NumPy."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from conftest import GetBackbone

from graftax import Bottleneck, Compacter, GraftaxError, Invertible
from graftax.adapters.methods.method_registry import method_of
from graftax.adapters.sites import Branch, NormBeside, Site
from graftax.models.backbone import Backbone


def at_a_branch(backbone: Backbone, method: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """A method's leaves at its last site, nowhere zero; the branch's input and output; and what the method makes of them.

    What stands for the norm behind the branch halves.
    """
    random = np.random.default_rng(3)
    site = method.select(backbone.sites)[-1]
    trained = {k: (v + random.standard_normal(v.shape)).astype(np.float32) for k, v in method.blank(site).items()}
    x, y = random.standard_normal((2, 2, 5, *site.shape)).astype(np.float32)
    halved, read = NormBeside(None, lambda _, total: total / 2), NormBeside(None, lambda _, entering: entering)
    with jax.default_matmul_precision("highest"):
        changed = method_of(method.key).apply({**trained, **method.fixed(site)}, x, y, Branch(halved, read), None)
    return trained, x, y, np.asarray(changed)


@pytest.mark.parametrize(
    ("settings", "reads", "scale"),
    [
        ({"place": "pfeiffer"}, "y", 1.0),
        ({"place": "pfeiffer", "normed": True}, "the norm of their sum", 1.0),
        ({"place": "parallel"}, "x", 4.0),
        ({"place": "parallel", "scaling": 0.5}, "x", 0.5),
        ({"place": "parallel", "scaling": "learned"}, "x", "learned"),
        ({"place": "plus"}, "y", "channel"),
        ({"place": "post"}, "y", "channel"),
    ],
    ids=str,
)
def test_bottleneck_is_its_formula(settings: Any, reads: str, scale: Any, backbone_of: GetBackbone) -> None:
    w, x, y, changed = at_a_branch(backbone_of("bert"), Bottleneck(width=3, **settings))
    h = {"x": x, "y": y}.get(reads, (x + y) / 2)
    network = np.maximum(h @ w["down"] + w["down_bias"], 0.0) @ w["up"] + w["up_bias"]
    np.testing.assert_allclose(changed, y + (w[scale] if isinstance(scale, str) else scale) * network, rtol=1e-4, atol=1e-4)
    assert {"learned", "channel"} & w.keys() == ({scale} if isinstance(scale, str) else set())


@pytest.mark.parametrize("scaling", ["learnt", True])
def test_an_unknown_scaling_is_refused(scaling: Any) -> None:
    with pytest.raises(GraftaxError, match=r"neither a number nor learned|must be a number or a text or null, got True"):
        Bottleneck(scaling=scaling)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_compacter_is_its_formula(n: int, backbone_of: GetBackbone) -> None:
    """The Kronecker products built, as the method never does."""
    w, _, y, changed = at_a_branch(backbone_of("bert"), Compacter(width=8, n=n, activation="relu"))
    down, up = (
        sum(np.kron(w["rule"][i], np.outer(w[f"{side}_u"][i], w[f"{side}_v"][i])) for i in range(n)) for side in ("down", "up")
    )
    expected = y + np.maximum(y @ down + w["down_bias"].ravel(), 0.0) @ up + w["up_bias"]
    assert np.abs(expected - y).max() > 1.0
    np.testing.assert_allclose(changed, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"n": 0}, "at least 1"), ({"width": 6}, "multiple of n = 4"), ({"activation": "x"}, "none of relu")],
)
def test_compacter_refuses(settings: Any, message: str) -> None:
    with pytest.raises(GraftaxError, match=message):
        Compacter(**settings)


def test_compacter_must_divide_the_channels(backbone_of: GetBackbone) -> None:
    with pytest.raises(GraftaxError, match="n = 5 does not divide the 32 channels"):
        Compacter(width=10, n=5).select(backbone_of("bert").sites)


def test_invertible_is_its_formula_and_can_be_inverted(backbone_of: GetBackbone) -> None:
    w, _, y, changed = at_a_branch(backbone_of("bert"), Invertible(reduction=4))

    def network(half: str, z: np.ndarray) -> np.ndarray:
        return np.maximum(z @ w[f"{half}_down"] + w[f"{half}_down_bias"], 0.0) @ w[f"{half}_up"] + w[f"{half}_up_bias"]

    assert w["f_down"].shape == (16, 4)
    first = y[..., :16] + network("f", y[..., 16:])
    second = y[..., 16:] + network("g", first)
    np.testing.assert_allclose(changed, np.concatenate([first, second], -1), rtol=1e-4, atol=1e-4)
    back = changed[..., 16:] - network("g", changed[..., :16])
    np.testing.assert_allclose(back, y[..., 16:], atol=1e-4)
    np.testing.assert_allclose(changed[..., :16] - network("f", back), y[..., :16], atol=1e-3)


def test_invertible_of_an_odd_width() -> None:
    """The second half is the longer one."""
    blank = Invertible(reduction=2).blank(Site("embedding_norm", "norm", "embeddings.LayerNorm", (7,)))
    assert {name: leaf.shape for name, leaf in blank.items() if leaf.ndim == 2} == {
        "f_down": (4, 1),
        "f_up": (1, 3),
        "g_down": (3, 1),
        "g_up": (1, 4),
    }


@pytest.mark.parametrize(("settings", "message"), [({"reduction": 0}, "at least 1"), ({"activation": "x"}, "none of relu")])
def test_wrong_invertible_settings_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(GraftaxError, match=message):
        Invertible(**settings)
