"""AdapterFusion: attention over frozen adapters, trained, saved and served as any other method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from cases import logits, random_adapter
from conftest import GetBackbone, some_inputs
from contract import assert_step_moves_adapter_alone, assert_texts_may_share_a_row
from tiny import toy_rows

from graftax import Adapter, Bottleneck, Compacter, Fuse, GraftaxError, LoRA, Predictor, Recipe, load_adapter, save_adapter
from graftax.adapters.methods.fusion import Fusion
from graftax.models.backbone import Backbone
from graftax.train import train_many

WIDE, NARROW = Bottleneck(width=6, place="pfeiffer", scaling=0.7), Bottleneck(width=3, place="pfeiffer", scaling="learned")


def members(backbone: Backbone) -> tuple[Adapter, ...]:
    """Three of other widths and scales, one of them in the last layer alone, another beside the branch."""
    last = Bottleneck(
        width=4, place="parallel", targets=f"(.*layer.*|.*layer_groups.*){backbone.structure.stacks['layers'] - 1}.*"
    )
    if any(site.shared for site in backbone.sites):
        last = dataclasses.replace(last, targets=None)
    return tuple(random_adapter(backbone, (method,), seed=seed) for seed, method in enumerate((WIDE, NARROW, last), 3))


def fused(backbone: Backbone, seed: int = 1) -> Adapter:
    """A fusion as training leaves it."""
    return random_adapter(backbone, (Fuse(trained=members(backbone)),), seed=seed)


def compacters(backbone: Backbone) -> tuple[Adapter, ...]:
    """Another method at residual branches: any can be fused."""
    return tuple(random_adapter(backbone, (Compacter(width=width, n=2),), seed=width) for width in (4, 8))


@pytest.mark.parametrize(("made", "size", "member"), [(members, 6, "bottleneck/"), (compacters, 4, "compacter/")])
def test_what_it_computes(
    made: Callable[[Backbone], tuple[Adapter, ...]], size: int, member: str, backbone_of: GetBackbone
) -> None:
    """The formula in NumPy, at a site of the last layer; the adapters' leaves are theirs."""
    backbone = backbone_of("bert")
    parts = made(backbone)
    adapter = random_adapter(backbone, (Fuse(trained=parts),))
    method = adapter.methods[0]
    assert isinstance(method, Fusion)
    assert (method.adapters, method.width) == (len(parts), size)
    assert method.key.startswith(f"fusion:{member}")
    site = max(adapter.states[method.key], key=lambda site: site.path)
    own, fixed = adapter.states[method.key][site]
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((2, 5, *site.shape)).astype(np.float32) for _ in "xy")
    z = []
    for part in parts:
        body = part.methods[0]
        trainable, rest = part.states[body.key][site]
        z.append(np.asarray(body.apply({**trainable, **rest}, x, y, None, None)) - y)
    scores = np.stack([((y @ own["query"] + own["query_bias"]) * (one @ own["key"] + own["key_bias"])).sum(-1) for one in z])
    shares = np.exp(scores - scores.max(0)) / np.exp(scores - scores.max(0)).sum(0)
    expected = y + sum(share[..., None] * one for share, one in zip(shares, z, strict=True)) @ own["value"]
    np.testing.assert_allclose(method.apply({**own, **fixed}, x, y, None, None), expected, atol=1e-4)
    d = site.shape[0]
    assert sum(leaf.size for leaf in own.values()) == 3 * d * d + 2 * d


@pytest.mark.parametrize("family", ["bert", pytest.param("albert", marks=pytest.mark.slow)])
def test_the_contract(family: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """Invariants 1, 4, 5, 10: it trains alone, texts share rows, its file holds the adapters it needs."""
    backbone = backbone_of(family)
    adapter, inputs = fused(backbone), some_inputs(backbone)
    assert_step_moves_adapter_alone(backbone, adapter)
    assert_texts_may_share_a_row(backbone, adapter)
    loaded = load_adapter(save_adapter(adapter, tmp_path / "a", backbone), backbone)
    np.testing.assert_array_equal(logits(backbone, loaded, inputs), logits(backbone, adapter, inputs))


@pytest.mark.slow
def test_in_a_mixed_batch(tiny: Backbone) -> None:
    """Invariant 17: beside its own members and a LoRA, each row as with its own alone."""
    adapters = {"fused": fused(tiny), "lora": random_adapter(tiny, (LoRA(r=3, alpha=7.0),)), "wide": members(tiny)[0]}
    together, rows = Predictor(tiny), ["apple and zinc", "iron"]
    for name, adapter in adapters.items():
        together.load(name, adapter)
    for name, adapter in adapters.items():
        alone = Predictor(tiny)
        alone.load(name, adapter)
        expected = [p.score for p in alone.predict(rows, name)]
        found = together.predict([*rows, *rows], [name, name, *(n for n in adapters if n != name)])[:2]
        np.testing.assert_allclose([p.score for p in found], expected, atol=1e-5)


def test_trained_on_frozen_adapters(tiny: Backbone, tmp_path: Path) -> None:
    """The members stay what they were, in a pack of two; a run with other members is another run."""
    fusion = Fuse(trained=members(tiny))
    recipe, data = Recipe(epochs=4, lr=5e-3, batch_size=8, max_length=16), {n: toy_rows(seed=s) for s, n in enumerate("ab")}
    results = train_many(tiny, data, tmp_path, method=fusion, recipe=recipe, pack_size=2, progress=False)
    for name in data:
        loaded = load_adapter(tmp_path / name, tiny)
        (key,) = (m.key for m in loaded.methods if isinstance(m, Fusion))
        _, states = fusion.begin(tiny.sites, lambda site: jax.random.key(0))
        for site, (_, fixed) in loaded.states[key].items():
            for leaf, array in fixed.items():
                np.testing.assert_array_equal(array, states[site][1][leaf])
        losses = [line["loss"] for line in results[name].history]
        assert losses[-1] < losses[0]


def test_what_cannot_be_fused(tiny: Backbone) -> None:
    """One line that says what it takes."""
    wide, narrow, _ = members(tiny)
    lora, gelu = random_adapter(tiny, (LoRA(r=3, alpha=7.0),)), random_adapter(tiny, (Bottleneck(width=3, activation="gelu"),))
    for trained, words in (
        ((), "two or more adapters of one method, got none"),
        ((wide,), "two or more adapters"),
        ((wide, gelu), "one method, got bottleneck:gelu:False and bottleneck:relu:False"),
        ((lora, lora), "lora does not act on residual branches"),
    ):
        with pytest.raises(GraftaxError, match=words):
            Adapter.create((Fuse(trained=trained),), tiny.sites)
    with pytest.raises(GraftaxError, match="is made of trained adapters"):
        Adapter.create((Fusion(),), tiny.sites)
    assert narrow.methods[0] == NARROW
