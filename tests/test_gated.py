"""UniPELT's gates: the formula in NumPy, and whose tokens the mean runs over."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import logits, mapped, random_adapter
from conftest import GetBackbone, some_inputs, some_texts
from test_decoders import SHAPES

from graftax import Adapter, Fuse, GatedBottleneck, GatedLoRA, GatedPrefix, GraftaxError, LoRA, Method, Prefix, merge, unipelt
from graftax.adapters.adapter import Layout
from graftax.adapters.graft import SiteCalls
from graftax.adapters.method import Leaves
from graftax.adapters.sites import FAR, KeyValue, LinearWeights, TextPosition, split_attention_heads
from graftax.models.backbone import Backbone
from graftax.models.inputs import TextInputs
from graftax.models.random import random_backbone

ROWS, TOKENS, D = 2, 6, 32
#: Which tokens are a text's own: behind two virtual ones, and before padding.
OWN = np.array([[False, False, True, True, True, True], [False, False, True, True, False, False]])
POSITION = TextPosition(*(jnp.where(jnp.asarray(OWN), 0, FAR).astype(jnp.int32) for _ in range(2)), called=jnp.zeros_like(OWN))


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A linear layer, as a backbone shows it."""

    held: LinearWeights

    def weights(self) -> LinearWeights:
        return self.held

    def compute(self, weights: LinearWeights, x: Any) -> Any:
        return x @ weights.kernel + weights.bias

    def __call__(self, x: Any) -> Any:
        return self.compute(self.held, x)


def at_site(backbone: Backbone, method: Method, name: str) -> tuple[Leaves, SiteCalls]:
    """A random adapter's leaves at one site, and the calls there."""
    adapter = random_adapter(backbone, (method,))
    own, fixed = next(leaves for site, leaves in adapter.states[method.key].items() if site.name == name)
    state = {leaf: jnp.asarray(array) for leaf, array in (own | fixed).items()}
    return own, SiteCalls({name: {method.key: state}}).over(POSITION)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def gate(own: Leaves, h: np.ndarray) -> np.ndarray:
    """The mean over each text's own tokens, one row at a time."""
    every = [1.0 / (1.0 + np.exp(-(row[mine] @ own["gate"] + own["gate_bias"]))) for row, mine in zip(h, OWN, strict=True)]
    return np.array([scores.mean() for scores in every])[:, None, None]


def test_gated_lora_is_the_formula(backbone_of: GetBackbone) -> None:
    own, calls = at_site(backbone_of("bert"), GatedLoRA(r=3, alpha=7.0), "layers.query")
    x, frozen = drawn(ROWS, TOKENS, D), LinearWeights(jnp.asarray(drawn(D, D, seed=1)), jnp.asarray(drawn(D, seed=2)))
    expected = x @ frozen.kernel + frozen.bias + gate(own, x) * 7.0 / 3.0 * (x @ own["a"].T @ own["b"])
    np.testing.assert_allclose(calls.linear("layers.query", jnp.asarray(x), Frozen(frozen)), expected, atol=1e-4)


@pytest.mark.parametrize("place", ["pfeiffer", "parallel"])
def test_gated_bottleneck_is_the_formula(place: str, backbone_of: GetBackbone) -> None:
    own, calls = at_site(backbone_of("bert"), GatedBottleneck(width=5, place=place, scaling=1.7), "layers.ffn_branch")
    x, y = drawn(ROWS, TOKENS, D), drawn(ROWS, TOKENS, D, seed=1)
    h = x if place == "parallel" else y
    change = np.maximum(h @ own["down"] + own["down_bias"], 0.0) @ own["up"] + own["up_bias"]
    found = calls.branch("layers.ffn_branch", jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(found, y + gate(own, h) * 1.7 * change, atol=1e-4)


def test_gated_prefix_is_the_formula(backbone_of: GetBackbone) -> None:
    own, calls = at_site(backbone_of("bert"), GatedPrefix(tokens=3), "layers.attention")
    x, real = drawn(ROWS, TOKENS, D), jnp.asarray(drawn(ROWS, 4, TOKENS, D // 4, seed=1))
    found = calls.attention("layers.attention", jnp.asarray(x), KeyValue(real, -real, jnp.asarray(OWN[:, None])))
    for name, pairs, behind in (("key", found.key, real), ("value", found.value, -real)):
        scaled = jnp.asarray(gate(own, x) * own[name], jnp.float32)
        np.testing.assert_allclose(pairs, jnp.concatenate([split_attention_heads(scaled, 4), behind], axis=2), atol=1e-5)
    assert found.mask[..., :3].all()


def test_padding_is_not_in_the_mean(backbone_of: GetBackbone) -> None:
    """A text's logits do not depend on how far it is padded."""
    backbone = backbone_of("bert")
    adapter, short = random_adapter(backbone, unipelt(tokens=3, width=4, r=2)), some_texts(backbone, rows=1, tokens=5)
    longer = TextInputs(*(np.pad(part, ((0, 0), (0, 4))) for part in short[:3]))
    np.testing.assert_allclose(logits(backbone, adapter, longer), logits(backbone, adapter, short), atol=1e-5)


@pytest.mark.slow
def test_padding_on_either_side_of_a_decoder() -> None:
    """The same where keys are narrower than the residual stream; and the gates are felt in what leaves the last layer."""
    backbone = random_backbone(SHAPES["llama"], seed=7)
    adapter, short = random_adapter(backbone, unipelt(tokens=3, width=4, r=2)), some_texts(backbone, rows=1, tokens=5)
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
    encode = jax.jit(lambda state, inputs: backbone.encode(backbone.params, state, inputs).first)
    alone = np.asarray(encode(state, short))
    for side in ((0, 4), (4, 0)):
        longer = TextInputs(*(np.pad(part, ((0, 0), side)) for part in short[:3]))
        np.testing.assert_allclose(encode(state, longer), alone, atol=1e-5)
    assert np.abs(np.asarray(encode({}, short)) - alone).max() > 1e-2


@pytest.mark.parametrize(
    "methods", [(GatedLoRA(r=3, alpha=7.0), LoRA(r=3, alpha=7.0)), (GatedPrefix(tokens=4), Prefix(tokens=4))]
)
def test_an_open_gate_is_no_gate(methods: tuple[Method, Method], backbone_of: GetBackbone) -> None:
    """At sigmoid(b) = 1 the plain method's leaves give what it gives."""
    backbone, (gated, plain) = backbone_of("bert"), methods
    adapter, inputs = random_adapter(backbone, (gated,)), some_inputs(backbone)

    def at(bias: float) -> Adapter:
        return mapped(adapter, lambda _, leaf, value: np.full_like(value, bias) if leaf == "gate_bias" else value)

    states = {
        plain.key: {
            site: ({leaf: array for leaf, array in own.items() if not leaf.startswith("gate")}, fixed)
            for site, (own, fixed) in adapter.states[gated.key].items()
        }
    }
    bare = dataclasses.replace(adapter, methods=(plain, *adapter.methods[1:]), states=adapter.states | states)
    expected = logits(backbone, bare, inputs)
    np.testing.assert_allclose(logits(backbone, at(100.0), inputs), expected, atol=1e-5)
    assert np.abs(logits(backbone, at(-3.0), inputs) - expected).max() > 1e-3


def test_what_gates_cannot(backbone_of: GetBackbone) -> None:
    backbone = backbone_of("bert")
    with pytest.raises(GraftaxError, match="gated_lora: start 'pissa' is none of default, gaussian, orthogonal, eva"):
        GatedLoRA(start="pissa")
    with pytest.raises(GraftaxError, match=r"pooler\.dense.*matches no site. Sites there are: attention\.self\.query"):
        GatedLoRA(targets=("pooler.dense",)).select(backbone.sites)
    with pytest.raises(GraftaxError, match="gated_lora cannot be merged"):
        merge(backbone, random_adapter(backbone, (GatedLoRA(r=3, alpha=7.0),)))
    two = tuple(random_adapter(backbone, (GatedBottleneck(width=3),), seed=seed) for seed in (1, 2))
    with pytest.raises(GraftaxError, match="gated_bottleneck must know where a token is"):
        Adapter.create((Fuse(trained=two),), backbone.sites)


def test_gates_do_not_generate() -> None:
    backbone = random_backbone(SHAPES["llama"], seed=7)
    adapter = random_adapter(backbone, (GatedLoRA(r=3, alpha=7.0),))
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
    with pytest.raises(GraftaxError, match="cannot be used while the text is made"):
        backbone.prefill(backbone.params, backbone.layers, state, some_inputs(backbone), columns=20)
