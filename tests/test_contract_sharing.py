"""The contract of methods: adapters share programs, and rows with different adapters share a batch."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import numpy as np
import pytest
from cases import (
    METHODS,
    at_head,
    compiled,
    logits,
    mapped,
    near,
    random_adapter,
)
from conftest import ENCODER_DECODERS, PAIRS, GetBackbone, some_inputs
from contract import (
    FAMILIES,
    LACKS,
    MAIN,
    assert_same_states,
)

from graftax import (
    HRA,
    VPT,
    AdaLoRA,
    AdaptFormer,
    ALoRA,
    Bottleneck,
    Compacter,
    Convpass,
    DiReFT,
    DoRA,
    FacT,
    FourierFT,
    GatedBottleneck,
    GatedLoRA,
    GatedPrefix,
    GraftaxError,
    HiRA,
    Invertible,
    LoHa,
    LoKr,
    LoRA,
    LoRAFA,
    LoReFT,
    Prefix,
    PromptTuning,
    PTuning,
    RepAdapter,
    SHiRA,
    TrainableTokens,
    VeRA,
)
from graftax.adapters.adapter import Layout
from graftax.adapters.methods.method_registry import METHODS as ALL_METHODS
from graftax.serve.bank import Bank

#: Banks to mix rows from: "lora" and "ia3" in each, for the rows that are poisoned. First those of one config per method.
OTHERS = [*(name for name in MAIN if name not in ("lora", "ia3")), *(name for name in METHODS if name not in MAIN)]
MIXTURES = [("lora", "ia3", *OTHERS[i : i + 8]) for i in range(0, len(OTHERS), 8)]
FAST_MIXTURES = [("bert", mixture) for mixture in MIXTURES[:2]]
FAST_MIXTURES.append(("llama", ("lora", "ia3", "dora", "prefix", "prompt", "houlsby", "loreft")))
FAST_MIXTURES.append(("bart", ("lora", "ia3", "prefix")))
FAST_MIXTURES.append(("vit", ("lora", "ia3", "vpt", "vpt-shallow", "prompt", "ssf", "adaptformer", "repadapter", "convpass")))
FAST_MIXTURES.append(("clip_pair", ("lora", "ia3", "houlsby")))
FAST_MIXTURES.append(("cifar_resnet", ("lora", "ia3", "lokr", "hra", "houlsby", "adabn")))


#: Three sizes, and alphas, of every method that has one.
SIZES: list[tuple[Any, ...]] = [
    (LoRA(r=3, alpha=7.0), LoRA(r=8, alpha=2.0, rslora=True), LoRA(r=1, alpha=9.0)),
    (LoRAFA(r=3, alpha=7.0), LoRAFA(r=8, alpha=2.0), LoRAFA(r=1, alpha=9.0)),
    (LoHa(r=3, alpha=7.0), LoHa(r=5, alpha=2.0), LoHa(r=1, alpha=9.0)),
    (LoKr(r=3, alpha=7.0), LoKr(r=5, alpha=2.0), LoKr(r=1, alpha=9.0, decompose_both=True)),
    (VeRA(r=3), VeRA(r=5, projection_prng_key=1), VeRA(r=1)),
    (DoRA(r=3, alpha=7.0), DoRA(r=5, alpha=2.0), DoRA(r=1, alpha=9.0)),
    (HiRA(r=3), HiRA(r=5), HiRA(r=1)),
    (FacT(r=3, scale=2.0), FacT(r=5), FacT(r=4, form="tk", scale=2.0)),
    (
        AdaLoRA(init_r=3, target_r=2, alpha=7.0),
        AdaLoRA(init_r=5, target_r=1, alpha=2.0),
        AdaLoRA(init_r=1, target_r=1, alpha=9.0),
    ),
    (
        ALoRA(r=3, alpha=7.0, invocation=(52, 29)),
        ALoRA(r=5, alpha=2.0, invocation=(52,)),
        ALoRA(r=1, alpha=9.0, invocation=(63, 52, 29, 33)),
    ),
    (Bottleneck(width=3), Bottleneck(width=7), Bottleneck(width=1)),
    (Compacter(width=4), Compacter(width=20), Compacter(width=8)),
    (Invertible(reduction=2), Invertible(reduction=4), Invertible(reduction=16)),
    (Prefix(tokens=2), Prefix(tokens=6), Prefix(tokens=1)),
    (PromptTuning(tokens=2), PromptTuning(tokens=6), PromptTuning(tokens=1)),
    (PTuning(tokens=2), PTuning(tokens=6), PTuning(tokens=1)),
    (LoReFT(r=2), LoReFT(r=6, prefix_positions=2), LoReFT(r=1, suffix_positions=3)),
    (DiReFT(r=2), DiReFT(r=6), DiReFT(r=1)),
    (HRA(r=2), HRA(r=6), HRA(r=1)),
    (FourierFT(n_frequency=9), FourierFT(n_frequency=30, scaling=50.0), FourierFT(n_frequency=1)),
    (SHiRA(r=2), SHiRA(r=5), SHiRA(r=1, random_seed=1)),
    (TrainableTokens(ids=(52, 29)), TrainableTokens(ids=(29, 7, 52)), TrainableTokens(ids=(63,))),
    (GatedLoRA(r=3, alpha=7.0), GatedLoRA(r=5, alpha=2.0), GatedLoRA(r=1, alpha=9.0)),
    (GatedBottleneck(width=3), GatedBottleneck(width=7), GatedBottleneck(width=1)),
    (GatedPrefix(tokens=2), GatedPrefix(tokens=6), GatedPrefix(tokens=1)),
    (HRA(r=2, apply_GS=True), HRA(r=6, apply_GS=True), HRA(r=1, apply_GS=True)),
    (Convpass(width=3), Convpass(width=7, scale=2.0), Convpass(width=1)),
    (AdaptFormer(width=3), AdaptFormer(width=7), AdaptFormer(width=1)),
    (RepAdapter(width=2), RepAdapter(width=6), RepAdapter(width=4)),
    (VPT(tokens=2), VPT(tokens=5), VPT(tokens=3, deep=False)),
]


def test_every_size_is_tried() -> None:
    assert {methods[0].name for methods in SIZES} | {"head", "joint", "maple"} == {
        name for name, cls in ALL_METHODS.items() if cls.padded
    }


@pytest.mark.parametrize("family", ["bert", pytest.param("albert", marks=pytest.mark.slow)])
@pytest.mark.parametrize("methods", SIZES, ids=lambda methods: methods[0].name)
def test_sizes_share_a_program(family: str, methods: tuple[Any, ...], backbone_of: GetBackbone) -> None:
    """Invariant 16: another rank, width, number of virtual tokens or alpha in a layout retraces and changes nothing."""
    backbone = backbone_of("vit" if isinstance(methods[0], VPT | Convpass) else family)
    inputs = some_inputs(backbone)
    adapters = [random_adapter(backbone, (method,), seed=i) for i, method in enumerate(methods)]
    layout = Layout.of(adapters, backbone.sites)
    traces = []

    @jax.jit
    def run(params: Any, state: Any) -> jax.Array:
        traces.append(1)
        return backbone.forward(params, state, inputs).pooled

    shared = [np.asarray(run(backbone.params, layout.stack(a, backbone.sites).state)) for a in (*adapters, adapters[0])]
    assert len(traces) == 1
    np.testing.assert_array_equal(shared[0], shared[-1])
    assert np.abs(shared[0] - shared[1]).max() > 1e-3
    np.testing.assert_allclose(shared[0], logits(backbone, adapters[0], inputs), atol=1e-6)
    restored = layout.unstack(adapters[0], layout.stack(adapters[0], backbone.sites).trainable, backbone.sites)
    assert_same_states(dataclasses.replace(adapters[0], states=restored), adapters[0])


def every_mixture() -> list[Any]:
    """Of the methods that a family has sites for."""
    every = [
        (f, tuple(n for n in m if (f, n) not in LACKS and (METHODS[n] or f not in (*ENCODER_DECODERS, *PAIRS))))
        for f in FAMILIES
        for m in MIXTURES
    ]
    slow = [case for case in every if case not in FAST_MIXTURES]
    marked = [(case, ()) for case in FAST_MIXTURES] + [(case, pytest.mark.slow) for case in slow]
    return [pytest.param(f, m, id="-".join((f, *m)), marks=marks) for (f, m), marks in marked]


@pytest.mark.parametrize(("family", "mixture"), every_mixture())
def test_mixed_rows(family: str, mixture: tuple[str, ...], backbone_of: GetBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 17: a row of a mixed batch is that row alone, base rows included, in any order; a NaN stays in its own rows.

    To 1e-5 of a logit besides the method's tolerance, as where it is merged: a random `full` makes logits of 10.
    """
    backbone = backbone_of(family)
    alone = {name: random_adapter(backbone, name, seed=i) for i, name in enumerate(mixture)}
    bank, head = (
        Bank(backbone, capacity=len(mixture) + 2),
        "said" if family in ENCODER_DECODERS else "both" if family in PAIRS else "pooled",
    )
    for name, adapter in alone.items():
        bank.add(name, adapter)
    few = some_inputs(backbone)
    rows = len(jax.tree.leaves(few)[0])
    names = [None, *alone]
    inputs = jax.tree.map(lambda leaf: np.concatenate([leaf] * len(names)), few)
    slots = np.repeat([bank.slot(name) for name in names], rows).astype(np.int32)
    traces = []

    @jax.jit
    def run(params: Any, state: Any, inputs: Any, slots: jax.Array) -> jax.Array:
        traces.append(1)
        return at_head(compiled(backbone)(params, state, inputs, slots), head)

    mixed = np.asarray(run(backbone.params, bank.state, inputs, slots))
    if head == "said":
        np.testing.assert_allclose(mixed[:rows], compiled(backbone)(backbone.params, {}, few).tokens, atol=1e-5)
    elif head == "both":
        np.testing.assert_allclose(mixed[:rows], compiled(backbone)(backbone.params, {}, few).pooled, atol=1e-5)
    else:
        assert not mixed[:rows].any()  # no adapter, no head; "probe" is the base under a head
    for name, own in zip(alone, np.split(mixed, len(names))[1:], strict=True):
        mine = logits(backbone, alone[name], few)
        np.testing.assert_allclose(own, mine, rtol=1e-5, atol=near(alone[name], backbone), err_msg=name)

    order = np.random.default_rng(0).permutation(len(slots))
    again = run(backbone.params, bank.state, jax.tree.map(lambda leaf: leaf[order], inputs), slots[order])
    np.testing.assert_allclose(np.asarray(again), mixed[order], atol=1e-6)

    # no adapter with NaN gets into a bank (tests/test_bank.py), and if one did its neighbours would not feel it
    monkeypatch.setattr("graftax.serve.bank.refuse_unfit", lambda *_, **__: None)
    bank.add("bad", mapped(alone["lora"], lambda site, leaf, value: np.full_like(value, np.nan)))
    np.testing.assert_array_equal(run(backbone.params, bank.state, inputs, slots), mixed)
    spoilt_slots = np.where(slots == bank.slot("ia3"), bank.slot("bad"), slots)
    poisoned = np.asarray(run(backbone.params, bank.state, inputs, spoilt_slots))
    assert np.isnan(poisoned[slots == bank.slot("ia3")]).any()
    np.testing.assert_array_equal(poisoned[slots != bank.slot("ia3")], mixed[slots != bank.slot("ia3")])
    assert len(traces) == 1


def test_unknown_name_is_an_error(backbone_of: GetBackbone) -> None:
    """Invariant 17."""
    bank = Bank(backbone_of("bert"))
    bank.add("one", random_adapter(backbone_of("bert"), "lora"))
    with pytest.raises(GraftaxError, match="'two' is loaded; loaded are one"):
        bank.slot("two")


@pytest.mark.parametrize("name", METHODS)
def test_a_program_follows_from_the_key(name: str, backbone_of: GetBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 16: what runs reads no field that is not `traced`: it would find the default, whatever the adapter says."""
    backbone = backbone_of(next(family for family in ("bert", "vit", "cifar_resnet") if (family, name) not in LACKS))
    adapter = random_adapter(backbone, name)
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state

    def program() -> str:
        trace = jax.make_jaxpr(lambda params, state, inputs: backbone.forward(params, state, inputs))
        return re.sub(r" at 0x\w+", "", str(trace(backbone.params, state, some_inputs(backbone))))

    of_key = program()
    monkeypatch.setattr("graftax.adapters.graft.method_of", {m.key: m for m in adapter.methods}.__getitem__)
    same = program() == of_key
    assert same, "a field that is not traced is read"
