"""Which token sees which: attention by hand, and what moves in a backbone of one layer when one token of it changes."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CONFIGS, TINY

from graftax.models.inputs import TextInputs, Texts
from graftax.models.ops import attention
from graftax.models.random import random_backbone

#: One layer each: what sees all of its text, what sees what lies before it, and of that the last two tokens and itself.
BACKBONES: dict[str, dict[str, Any]] = {
    "both ways": {"model_type": "bert", **TINY, "num_hidden_layers": 1},
    "causal": CONFIGS["llama"] | {"num_hidden_layers": 1},
    "window": CONFIGS["llama"] | {"model_type": "mistral", "num_hidden_layers": 1, "sliding_window": 3},
}


def moved(sees: str, mask: list[int], segments: list[int] | None = None) -> np.ndarray:
    """bool [tokens, tokens]: whether the last layer's output at the first changes with the id of the second.

    The batch has the text as it is in one batch row and, for every token, another one in which that token is another.
    """
    backbone, tokens = random_backbone(BACKBONES[sees], seed=7), len(mask)
    ids = np.tile(np.arange(10, 10 + tokens, dtype=np.int32), (tokens + 1, 1))
    ids[np.arange(tokens), np.arange(tokens)] = 70
    real, texts = np.tile(np.array(mask, bool), (tokens + 1, 1)), None
    if segments is not None:
        texts = Texts(np.tile(np.array(segments, np.int32), (tokens + 1, 1)), np.zeros(1, np.int32))
    inputs = TextInputs(ids, real, np.zeros_like(ids), texts)
    hidden = np.asarray(jax.jit(backbone.encode)(backbone.params, {}, inputs).hidden)
    return np.abs(hidden[:-1] - hidden[-1]).max(-1).T > 1e-5


def grid(text: str) -> np.ndarray:
    """A row of dots and crosses for every token: the crosses are what it sees."""
    return np.array([[mark == "x" for mark in line.split()] for line in text.strip().splitlines()])


#: By how a backbone attends: of a text of five tokens in a batch row of seven
PADDED = {
    "both ways": "x x x x x . .\n" * 5,
    "causal": "x . . . . . .\nx x . . . . .\nx x x . . . .\nx x x x . . .\nx x x x x . .\n",
    "window": "x . . . . . .\nx x . . . . .\nx x x . . . .\n. x x x . . .\n. . x x x . .\n",
}
#: of texts of two and four tokens in such a row
TWO = {
    "both ways": "x x . . . . .\n" * 2 + ". . x x x x .\n" * 4,
    "causal": "x . . . . . .\nx x . . . . .\n. . x . . . .\n. . x x . . .\n. . x x x . .\n. . x x x x .\n",
    "window": "x . . . . . .\nx x . . . . .\n. . x . . . .\n. . x x . . .\n. . x x x . .\n. . . x x x .\n",
}


@pytest.mark.parametrize("sees", BACKBONES)
def test_padding_is_not_seen(sees: str) -> None:
    np.testing.assert_array_equal(moved(sees, [1] * 5 + [0] * 2)[:5], grid(PADDED[sees]))


@pytest.mark.parametrize("sees", BACKBONES)
def test_a_text_sees_its_own_tokens(sees: str) -> None:
    np.testing.assert_array_equal(moved(sees, [1] * 6 + [0], [1, 1, 2, 2, 2, 2, 0])[:6], grid(TWO[sees]))


def by_hand(query: Any, key: Any, value: Any, mask: Any, scale: float, cap: float | None = None, added: Any = None) -> Any:
    """Attention as its formula has it, every query head with a key of its own."""
    share = query.shape[1] // key.shape[1]
    key, value = jnp.repeat(key, share, axis=1), jnp.repeat(value, share, axis=1)
    scores = scale * jnp.einsum("bhqd,bhkd->bhqk", query, key)
    if cap is not None:
        scores = cap * jnp.tanh(scores / cap)
    if added is not None:
        scores = scores + added
    weights = jnp.where(mask[:, None], jnp.exp(scores), 0.0)
    mixed = jnp.einsum("bhqk,bhkd->bqhd", weights / weights.sum(-1, keepdims=True), value)
    return mixed.reshape(*mixed.shape[:2], -1)


ATTENTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"groups": 2},
    "one mask for all queries": {"queries": 1},
    "grouped, one mask": {"groups": 2, "queries": 1},
    "scaled": {"scale": 0.7, "groups": 2},
    "capped": {"scale": 2.0, "cap": 0.5},
    "added": {"added": True},
}


@pytest.mark.parametrize("case", ATTENTIONS)
def test_attention_and_its_derivatives_are_the_formulas(case: str) -> None:
    groups, queries, scale, cap, added = (ATTENTIONS[case].get(n) for n in ("groups", "queries", "scale", "cap", "added"))
    random = np.random.default_rng(3)
    query, key, value = (
        jnp.asarray(random.normal(size=(2, heads, tokens, 4)), jnp.float32)
        for heads, tokens in ((4, 5), (groups or 4, 6), (groups or 4, 6))
    )
    mask = jnp.asarray(random.random((2, queries or 5, 6)) < 0.6).at[:, :, 2].set(True)
    bias = jnp.asarray(random.normal(size=(2, 4, 5, 6)), jnp.float32) if added else None
    weight = jnp.asarray(random.normal(size=(2, 5, 16)), jnp.float32)

    def ours(q: Any, k: Any, v: Any, b: Any) -> Any:
        return (weight * attention(q, k, v, mask, scale, cap, b)).sum()

    def wanted(q: Any, k: Any, v: Any, b: Any) -> Any:
        return (weight * by_hand(q, k, v, mask, 1.0 / math.sqrt(4) if scale is None else scale, cap, b)).sum()

    over = (0, 1, 2, 3) if added else (0, 1, 2)
    found, by_formula = (jax.jit(jax.value_and_grad(f, over))(query, key, value, bias) for f in (ours, wanted))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, by_formula)
