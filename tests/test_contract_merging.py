"""The contract of methods: merging into the weights gives the same logits, and no backbone is changed by it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest
from cases import (
    MERGEABLE,
    ROUNDING,
    at_head,
    compiled,
    logits,
    mapped,
    near,
    random_adapter,
)
from conftest import GetBackbone, some_inputs
from contract import (
    FAMILIES,
    FAST,
    LACKS,
    cross,
    digest,
)

from graftax import Adapter, GraftaxError, Head, merge
from graftax.adapters.adapter import Layout

#: Merging these is undone by no adapter of their kind: it depends on W, 1 / (1 + A^T B) is not of low rank, the rotation is not
#: exact or is none, the factors would have to stand in another order, what was there is gone, or nothing of it is trained.
ONE_WAY = {"dora", "dora-everywhere", "hira", "oft", "road_2", "road_4", "boft", "trainable_tokens"}
ONE_WAY |= {"ssf", "repadapter", "repadapter-4", "adabn"}


def inverse(adapter: Adapter) -> Adapter:
    """The adapter that undoes it: factors inverted, reflections in the other order, one factor of a product negated."""

    def undo(site: Any, leaf: str, value: np.ndarray) -> np.ndarray:
        if leaf.startswith("l_") or leaf in ("alpha", "s"):
            return np.asarray(1.0 / value, np.float32)
        if leaf == "u":
            return value[:, ::-1]
        if leaf == "q" and value.ndim > 2:  # BOFT's blocks, and not AdaLoRA's factor
            return -value
        return value if leaf in ("a", "w1_b", "w2", "w2_a", "w2_b", "lambda_d", "gamma", "p", "q", "mix") else -value

    return mapped(adapter, undo)


@cross({case for case in FAST if case[1] in MERGEABLE}, tuple(MERGEABLE))
def test_merged_equals_unmerged(family: str, name: str, head: str, backbone_of: GetBackbone) -> None:
    """Invariants 4, 7, 8: merging is functional, gives the same logits, and merging the inverse gives the base back."""
    backbone = backbone_of(family)
    adapter, inputs, before = random_adapter(backbone, name, head == "tokens"), some_inputs(backbone), digest(backbone)
    whole, rest = merge(backbone, adapter)
    assert [type(m) for m in rest.methods] == ([] if head in ("said", "both") else [Head])
    merged = compiled(whole if whole.graphdef != backbone.graphdef else backbone)
    state = Layout.of([rest], backbone.sites).stack(rest, backbone.sites).state
    found = at_head(merged(whole.params, state, inputs), head)
    np.testing.assert_allclose(found, logits(backbone, adapter, inputs), rtol=1e-5, atol=near(adapter, backbone))
    if name not in ONE_WAY:
        back = merge(whole, inverse(adapter), any_backbone=True)[0].arrays()  # the merged one is another backbone
        within = 1e-6 * ROUNDING.get(family, 1.0)
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=within), back, backbone.arrays())
    assert digest(backbone) == before


@pytest.mark.parametrize(
    ("family", "others"),
    [
        (family, others)
        for family in FAMILIES
        for others in (("lora", "lora-dense"), ("rslora", "ln_tuning"), ("lora-embedding", "full"))
        if not any((family, name) in LACKS for name in others)
    ],
)
def test_merge_order_does_not_matter(family: str, others: tuple[str, str], backbone_of: GetBackbone) -> None:
    """Invariant 9: merging two adapters is merging them in the other order."""
    backbone = backbone_of(family)
    one, two = (random_adapter(backbone, name, seed=seed) for seed, name in enumerate(others, 1))
    there, back = (merge(merge(backbone, a)[0], b, any_backbone=True)[0].arrays() for a, b in ((one, two), (two, one)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), there, back)
    alone = merge(backbone, one)[0].arrays()
    assert any(np.abs(there[name] - alone[name]).max() > 1e-3 for name in there)


@pytest.mark.parametrize("name", ["houlsby", "prefix", "alora", "together"])
def test_what_is_no_change_of_weights_is_not_merged(name: str, backbone_of: GetBackbone) -> None:
    with pytest.raises(GraftaxError, match="cannot be merged"):
        merge(backbone_of("bert"), random_adapter(backbone_of("bert"), name))
