"""LoRA whose second factor has a bias: beside plain LoRAs, merged, trained, and where there can be none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import LABELS, logits, randomised
from conftest import some_inputs

from graftax import Adapter, DoRA, GraftaxError, LoRA, Recipe, combine, load_adapter, merge, train_many
from graftax.adapters.adapter import Layout
from graftax.models.backbone import Backbone


def adapter_of(backbone: Backbone, method: LoRA, seed: int) -> Adapter:
    head = backbone.head(len(LABELS))
    made = Adapter.create((method, head), backbone.sites_for(head), labels=LABELS, fingerprint=backbone.fingerprint)
    return randomised(made, seed=seed)


def test_beside_a_plain_lora(tiny: Backbone) -> None:
    """Both run in one program, and neither hears of the other's bias."""
    plain, biased = adapter_of(tiny, LoRA(r=2, alpha=3.0), 1), adapter_of(tiny, LoRA(r=2, alpha=3.0, bias=True), 2)
    inputs, layout = some_inputs(tiny), Layout.of([plain, biased], tiny.sites)
    for adapter in (plain, biased):
        np.testing.assert_allclose(logits(tiny, adapter, inputs, layout), logits(tiny, adapter, inputs), atol=1e-6)
    bare = {site: ({**own, "bias": 0.0 * own["bias"]}, fixed) for site, (own, fixed) in biased.states["lora"].items()}
    without = Adapter(biased.methods, {**biased.states, "lora": bare}, labels=LABELS)
    assert np.abs(logits(tiny, without, inputs) - logits(tiny, biased, inputs)).max() > 1e-2
    whole, head = merge(tiny, biased)
    np.testing.assert_allclose(logits(whole, head, inputs), logits(tiny, biased, inputs), atol=1e-5)


def test_it_is_trained_and_kept(tiny: Backbone, tmp_path: Path) -> None:
    rows = [{"text": f"word {i}", "label": "ab"[i % 2]} for i in range(8)]
    recipe = Recipe(epochs=1, lr=1e-2, max_length=16)
    result = train_many(tiny, {"a": rows}, tmp_path / "out", method=LoRA(r=2, bias=True), recipe=recipe)["a"]
    states = load_adapter(result.directory, tiny).states["lora"]
    assert all(np.abs(own["bias"]).max() > 1e-4 for own, _ in states.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DoRA(bias=True), "dora: a bias is for plain LoRA"),
        (lambda: LoRA(bias=True, start="pissa"), "a bias is for plain LoRA, whose factors start beside the weights"),
    ],
)
def test_not_everywhere(make: Any, message: str) -> None:
    with pytest.raises(GraftaxError, match=message):
        make()


def test_where_there_can_be_none(tiny: Backbone) -> None:
    with pytest.raises(GraftaxError, match=r"an embedding has no bias; leave bert\.embeddings\.word_embeddings out"):
        LoRA(bias=True, targets=("word_embeddings", "query")).select(tiny.sites)
    with pytest.raises(GraftaxError, match="changes biases, which no LoRA can express"):
        combine([adapter_of(tiny, LoRA(r=2, bias=True), 1)], [1.0])
