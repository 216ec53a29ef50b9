"""Layouts by hand: what of a stacked adapter is its own, what fills it, and that it comes out again as it went in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import randomised
from contract import assert_same_states
from tiny import CONFIG, toy_rows

from graftax import Adapter, BitFit, LoRA, Recipe
from graftax.adapters.adapter import Layout
from graftax.data.columns import Columns
from graftax.models.backbone import Backbone
from graftax.tasks.task_registry import TASKS
from graftax.train.intake import prepare
from graftax.train.pack import Pack

WIDTH = CONFIG["hidden_size"]


def at_queries(backbone: Backbone, rank: int, layers: str) -> Adapter:
    """A LoRA at the queries of some of the two layers."""
    method = LoRA(r=rank, alpha=5.0, targets=rf".*layer\.[{layers}]\..*query")
    return randomised(Adapter.create((method,), backbone.sites), seed=rank)


@pytest.mark.parametrize(("bucket", "size"), [(False, 7), (True, 8)])
def test_two_ranks_in_other_layers(tiny: Backbone, bucket: bool, size: int) -> None:
    """The example of adapters/adapter.py: ranks 3 and 7, the second in the upper layer alone."""
    both, upper = at_queries(tiny, 3, "01"), at_queries(tiny, 7, "1")
    layout = Layout.of([both, upper], tiny.sites, bucket=bucket)
    assert [(space.name, space.size) for space in layout.spaces] == [("layers.query", size)]
    assert dict(layout.depths) == {"layers": 2}
    for adapter, rank, own in ((both, 3, [1.0, 1.0]), (upper, 7, [0.0, 1.0])):
        stacked = layout.stack(adapter, tiny.sites)
        a, b = (np.array(stacked.trainable["layers.query"]["lora"][leaf]) for leaf in "ab")
        assert (a.shape, b.shape) == ((2, size, WIDTH), (2, size, WIDTH))
        assert (
            a.any(axis=-1).tolist()
            == b.any(axis=-1).tolist()
            == [[i < rank and bool(layer) for i in range(size)] for layer in own]
        )
        mask = stacked.mask["layers.query"]["lora"]
        assert {leaf: part.ravel().tolist() for leaf, part in mask.items()} == {"a": own, "b": own}
        assert_same_states(replace(adapter, states=layout.unstack(adapter, stacked.state, tiny.sites)), adapter)


def test_a_layer_that_is_filled_is_not_trained(tiny: Backbone) -> None:
    """Nor is it where its gradient is not zero, as that of a bias is."""
    recipe = Recipe(epochs=1, batch_size=8, max_length=16)
    settings: dict[str, Any] = {"backbone": tiny, "task": TASKS["classify"], "columns": Columns(), "recipe": recipe}
    pack = Pack(
        tiny, TASKS["classify"], [prepare("a", toy_rows(), None, method=BitFit(targets=r".*layer\.0\..*query"), **settings)], 1
    )
    pack.admit(0, 0)
    for _ in range(2):
        pack.tick()
    (change,) = np.asarray(pack.learners.trainable["layers.query"]["bitfit"]["bias"])
    assert [bool(layer.any()) for layer in change] == [True, False]
