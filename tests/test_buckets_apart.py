"""Banks whose buckets lie apart: a small rank does not pay for a large one, and every row is what it is alone."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from cases import compiled, logits, near, random_adapter, randomised
from conftest import GetBackbone, some_inputs

from graftax import (
    HRA,
    IA3,
    Adapter,
    Bottleneck,
    Compacter,
    DoRA,
    FourierFT,
    HiRA,
    LoHa,
    LoRA,
    LoReFT,
    Method,
    Prefix,
    TrainableTokens,
    VeRA,
)
from graftax.adapters.adapter import Layout
from graftax.adapters.methods.method_registry import method_of
from graftax.models.backbone import Backbone
from graftax.serve.bank import Bank

TABLE = ("word_embeddings", "query")
#: Of each method a small one and a large one, of different buckets.
PAIRS: dict[str, tuple[Method, Method]] = {
    "lora": (LoRA(r=3, alpha=7.0), LoRA(r=20, alpha=5.0)),
    "rank pattern": (LoRA(r=2, alpha=3.0, rank_pattern={r".*layer\.1\..*query": 12}), LoRA(r=9, alpha=2.0, targets=("value",))),
    "table": (LoRA(r=2, alpha=3.0, targets=TABLE), LoRA(r=12, alpha=5.0, targets=TABLE)),
    "dora": (DoRA(r=3, alpha=7.0), DoRA(r=12, alpha=5.0)),
    "bottleneck": (Bottleneck(width=5), Bottleneck(width=20)),
    "parallel": (Bottleneck(width=5, place="parallel"), Bottleneck(width=20, place="parallel")),
    "prefix": (Prefix(tokens=3), Prefix(tokens=10)),
    "hira": (HiRA(r=3), HiRA(r=12)),
    "loha": (LoHa(r=3, alpha=7.0), LoHa(r=10, alpha=5.0)),
    "hra": (HRA(r=4), HRA(r=12)),
    "loreft": (LoReFT(r=3), LoReFT(r=10)),
    "vera": (VeRA(r=5), VeRA(r=20)),
    "compacter": (Compacter(width=8, n=4), Compacter(width=16, n=4)),
    "fourierft": (FourierFT(n_frequency=7, scaling=20.0), FourierFT(n_frequency=40, scaling=20.0)),
    "trainable_tokens": (TrainableTokens(ids=(52, 90)), TrainableTokens(ids=tuple(range(40, 52)))),
}
FAST = ("lora", "rank pattern", "dora", "prefix")


def pairs() -> list[Any]:
    return [pytest.param(name, marks=() if name in FAST else pytest.mark.slow, id=name) for name in PAIRS]


@pytest.mark.parametrize("pair", pairs())
def test_each_row_is_what_it_is_alone(pair: str, backbone_of: GetBackbone) -> None:
    """Invariant 17, in a bank of several methods: whether the leaves of larger buckets are there or not."""
    backbone = backbone_of("bert")
    alone = {f"{i}": random_adapter(backbone, (method,), seed=i) for i, method in enumerate(PAIRS[pair])}
    alone |= {
        "ia3": random_adapter(backbone, (IA3(),), seed=5),
        "other": random_adapter(backbone, (LoRA(r=9, alpha=2.0),), seed=6),
    }
    bank = Bank(backbone, capacity=8, apart=True)
    for name, adapter in alone.items():
        bank.add(name, adapter)
    few = some_inputs(backbone)

    def asked(names: list[str | None], state: Any) -> list[np.ndarray]:
        inputs = jax.tree.map(lambda leaf: np.concatenate([leaf] * len(names)), few)
        slots = np.repeat([bank.slot(name) for name in names], len(few.ids)).astype(np.int32)
        return np.split(np.asarray(compiled(backbone)(backbone.params, state, inputs, slots).pooled), len(names))

    expected = {name: logits(backbone, adapter, few) for name, adapter in alone.items()}
    for names in ([None, *alone], ["0"], ["0", "ia3"], ["other", "0"]):
        for name, found in zip(names, asked(names, bank.state_for(name for name in names if name)), strict=True):
            if name is None:
                assert not found.any()
                continue
            mine = expected[name]
            np.testing.assert_allclose(found[:, : mine.shape[1]], mine, rtol=1e-5, atol=near(alone[name], backbone))


def of_rank(backbone: Backbone, rank: int) -> Adapter:
    method = LoRA(r=rank, alpha=5.0, targets=("query",))
    return randomised(Adapter.create((method,), backbone.sites), seed=rank)


def test_a_bucket_has_spaces_of_its_own(tiny: Backbone) -> None:
    """The example of adapters/adapter.py; what lies in another bucket changes nothing."""
    small, large = of_rank(tiny, 3), of_rank(tiny, 60)
    layout = Layout.of([small, large, of_rank(tiny, 7)], tiny.sites, grow=Layout(apart=True))
    assert [(space.name, space.tree_key, space.size) for space in layout.spaces] == [
        ("layers.query", "lora#8", 8),
        ("layers.query", "lora#64", 64),
    ]
    assert (layout.largest(small), layout.largest(large)) == (8, 64)
    assert method_of("lora#64") == method_of("lora")
    for adapter, own, other in ((small, "lora#8", "lora#64"), (large, "lora#64", "lora#8")):
        state = layout.stack(adapter, tiny.sites).state
        assert state["layers.query"][own]["b"].any()
        assert not state["layers.query"][other]["b"].any()
        assert {key: layout.within(state, most) for key, most in (("all", 64), ("small", 63), ("none", 7))} == {
            "all": state,
            "small": {"layers.query": {"lora#8": state["layers.query"]["lora#8"]}},
            "none": {},
        }
    assert Layout.of([small, large], tiny.sites, bucket=True).largest(large) == 0


def keys_for(bank: Bank, *names: str) -> set[str]:
    """What of a bank's leaves a batch takes that uses these adapters."""
    return {key for tree in bank.state_for(names).values() for key in tree}


def test_there_are_as_many_shapes_as_buckets(tiny: Backbone) -> None:
    """Whichever adapters a batch uses, and what is resident besides; heads and what no bucket is of are always there."""
    bank = Bank(tiny, capacity=8, apart=True)
    bank.add("a", random_adapter(tiny, (LoRA(r=2),)))
    grown = bank.growths
    bank.add("b", random_adapter(tiny, (LoRA(r=8),), seed=2))
    assert bank.growths == grown
    bank.add("large", random_adapter(tiny, (LoRA(r=33), IA3()), seed=3))
    always = {"head:none", "ia3"}
    assert keys_for(bank) == keys_for(bank, "a", "b") == always | {"lora#8"}
    assert keys_for(bank, "a", "large") == always | {"lora#8", "lora#64"}
    bank.put("c", random_adapter(tiny, (LoRA(r=4),), seed=4), instead_of="large")
    assert keys_for(bank, "c") == always | {"lora#8"}
    bank.remove("c")
    with pytest.raises(KeyError):
        bank.state_for(["c"])
