"""What must hold for every method on every backbone: the invariants, each with its number in the docstring."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    COUNTS,
    HEAD,
    LABELS,
    MERGEABLE,
    METHODS,
    ROUNDED,
    D,
    W,
    as_saved,
    at_head,
    compiled,
    fresh,
    logits,
    mapped,
    near,
    only_head,
    random_adapter,
)
from conftest import CONFIGS, ENCODER_DECODERS, some_inputs
from make_golden import GOLDEN, golden_backbone
from safetensors.numpy import load_file, save_file

from graftax import (
    BOFT,
    HRA,
    IA3,
    OFT,
    AdaLoRA,
    Adapter,
    ALoRA,
    BitFit,
    Bottleneck,
    Compacter,
    DiReFT,
    DoRA,
    FourierFT,
    Full,
    GatedBottleneck,
    GatedLoRA,
    GatedPrefix,
    GraftaxError,
    Head,
    HiRA,
    Invertible,
    LayerNormTuning,
    LoHa,
    LoKr,
    LoRA,
    LoRAFA,
    LoReFT,
    MiSS,
    Prefix,
    PromptTuning,
    PTuning,
    RandLoRA,
    Recipe,
    RoAd,
    SHiRA,
    TrainableTokens,
    VeRA,
    load_adapter,
    merge,
    save_adapter,
)
from graftax.adapters.adapter import Layout
from graftax.adapters.registry import METHODS as ALL_METHODS
from graftax.adapters.table import markdown
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone
from graftax.models.tokens import Tokenizer, Tokens
from graftax.serve.bank import Bank
from graftax.train.batches import Shape, place
from graftax.train.optimizer import rates
from graftax.train.step import Batch, Programs, SlotState, hyper, start
from graftax.train.tasks import task_named

GetBackbone = Callable[[str], Backbone]
FAMILIES = (*CONFIGS, *ENCODER_DECODERS)
#: What a family has no sites for, and what an adapter of that kind is told.
LACKS = {
    ("llama", "bitfit"): "this backbone has none",
    ("llama", "together"): "bitfit trains biases, and this backbone has none",
    ("llama", "invertible"): "target .*embedding_norm.* matches no site",
    ("llama", "mad_x"): "target .*embedding_norm.* matches no site",
    ("llama", "prompt-post"): "this backbone has none there",
    ("bart", "alora"): "this one reads two",
}

#: What runs every time: one config of each method on BERT, and some pairs; the rest of the cross product is marked slow.
MAIN = list({tuple(type(m) for m in methods): name for name, methods in reversed(METHODS.items())}.values())  # one per method
MAIN = [name for name in MAIN if not name.startswith("gated_")]  # "unipelt" is all of them
FAST = {("bert", name, "pooled") for name in MAIN}
FAST |= {("roberta", name, "pooled") for name in ("rslora", "lora-embedding", "prefix", "full")}
FAST |= {("distilbert", name, "pooled") for name in ("lora-dense", "ia3-targets", "houlsby")}
FAST |= {("albert", name, "pooled") for name in ("rslora", "ia3", "together")}
FAST |= {("bert", "together", "tokens"), ("albert", "lora-dense", "tokens"), ("distilbert", "prefix", "tokens")}
FAST |= {("bert", "probe", "tokens"), ("roberta", "bitfit", "tokens")}
FAST |= {("roberta", "vera", "pooled"), ("distilbert", "oft", "tokens"), ("albert", "dora", "pooled")}
FAST |= {("albert", "prompt", "tokens"), ("albert", "p_tuning", "pooled")}
FAST |= {("llama", name, "pooled") for name in ("dora", "prefix", "prompt", "loreft")}
FAST |= {("llama", "lora-dense", "tokens"), ("llama", "alora", "tokens")}
FAST |= {("bart", name, "said") for name in ("lora-dense", "houlsby", "prefix")}
#: Of those, the ones whose training step is compiled every time.
FAST_STEPS = {("bert", name, "pooled") for name in MAIN}
FAST_STEPS |= {("llama", "lora-dense", "tokens"), ("bart", "lora-dense", "said")}
#: And the ones whose texts share a row every time: one method at each kind of site.
FAST_SHARED = {("bert", name, "pooled") for name in ("lora", "compacter", "loreft", "oft", "full")}
FAST_SHARED |= {("albert", "together", "tokens"), ("llama", "lora-dense", "tokens"), ("llama", "alora", "tokens")}
#: The ones that neither put tokens in front of a text nor read it as a whole, for which it needs a row of its own.
SHARING = tuple(name for name, methods in METHODS.items() if not any(m.adds_tokens or m.whole_text for m in methods))
#: Banks to mix rows from: "lora" and "ia3" in each, for the rows that are poisoned. First those of one config per method.
OTHERS = [*(name for name in MAIN if name not in ("lora", "ia3")), *(name for name in METHODS if name not in MAIN)]
MIXTURES = [("lora", "ia3", *OTHERS[i : i + 8]) for i in range(0, len(OTHERS), 8)]
FAST_MIXTURES = [("bert", mixture) for mixture in MIXTURES[:2]]
FAST_MIXTURES.append(("llama", ("lora", "ia3", "dora", "prefix", "prompt", "houlsby", "loreft")))
FAST_MIXTURES.append(("bart", ("lora", "ia3", "prefix")))


def cross(
    fast: set[tuple[str, str, str]], methods: tuple[str, ...] = tuple(METHODS), families: tuple[str, ...] = FAMILIES
) -> pytest.MarkDecorator:
    """Every method on every backbone under both kinds of head, on encoder-decoders without any."""
    heads = {family: ("said",) if family in ENCODER_DECODERS else ("pooled", "tokens") for family in families}
    every = [(f, m, h) for f in families for m in methods for h in heads[f] if (f, m) not in LACKS]
    every = [(f, m, h) for f, m, h in every if METHODS[m] or h != "said"]  # a probe is a head alone
    params = [pytest.param(*c, id="-".join(c), marks=() if c in fast else pytest.mark.slow) for c in every]
    return pytest.mark.parametrize(("family", "name", "head"), params)


def digest(backbone: Backbone) -> str:
    """Of the bytes of every parameter."""
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(backbone.params))).hexdigest()


def assert_same_states(one: Adapter, other: Adapter, within: float = 0.0) -> None:
    """Every site and leaf, to the bit unless told otherwise."""
    assert one.states.keys() == other.states.keys()
    for key, at in one.states.items():
        assert at.keys() == other.states[key].keys()
        for site, leaves in at.items():
            same = functools.partial(np.testing.assert_allclose, rtol=0.0, atol=within)
            jax.tree.map(same, leaves, other.states[key][site])


# -- predictions ---------------------------------------------------------------------------------------------------------


@cross(FAST)
def test_fresh_is_nothing_and_random_is_something(family: str, name: str, head: str, backbone_of: GetBackbone) -> None:
    """1, 2, 3, 4: within one program a fresh adapter, or none, is the base bitwise; a random one is not."""
    backbone, tokens = backbone_of(family), head == "tokens"
    inputs, before = some_inputs(backbone), digest(backbone)
    new, grown = fresh(backbone, name, tokens), random_adapter(backbone, name, tokens)
    layout = Layout.of([grown], backbone.sites)
    base = logits(backbone, only_head(new), inputs, layout)
    without = logits(backbone, only_head(new), inputs)  # a program without the method
    np.testing.assert_allclose(base, without, atol=1e-5, err_msg="`identity` changes something")
    within = [m.fresh_within for m in new.methods]
    if METHODS[name] and None not in within:
        np.testing.assert_allclose(logits(backbone, new, inputs, layout), base, atol=max(within), rtol=0.0)
    if METHODS[name]:
        assert np.abs(logits(backbone, grown, inputs, layout) - base).max() > 5e-4
    np.testing.assert_array_equal(logits(backbone, only_head(new), inputs, layout), base)
    assert digest(backbone) == before


def test_reflections_start_in_pairs(backbone_of: GetBackbone) -> None:
    """1: HRA of an even rank starts by undoing what it does."""
    backbone = backbone_of("bert")
    adapter, inputs = fresh(backbone, (HRA(r=6),)), some_inputs(backbone)
    layout = Layout.of([adapter], backbone.sites)
    mine, base = (logits(backbone, a, inputs, layout) for a in (adapter, only_head(adapter)))
    np.testing.assert_allclose(mine, base, atol=1e-6)


@cross(FAST_SHARED, SHARING, tuple(CONFIGS))
def test_texts_may_share_a_row(family: str, name: str, head: str, backbone_of: GetBackbone) -> None:
    """17: texts laid behind one another, as training batches are, get the logits that each gets in a row of its own."""
    backbone, tokens = backbone_of(family), head == "tokens"
    adapter, inputs = random_adapter(backbone, name, tokens), some_inputs(backbone, rows=5)
    texts = [Tokens(ids[own], types[own], None) for ids, own, types in zip(*inputs[:3], strict=True)]
    places = place([len(text) for text in texts], 20)
    shape = Shape(6, 1 + max(row for row, _ in places), 20)
    assert shape.rows < len(texts)
    packed = logits(backbone, adapter, Tokenizer.of(backbone).lay(texts, places, shape))
    alone = logits(backbone, adapter, inputs)
    for i, (text, (row, begin)) in enumerate(zip(texts, places, strict=True)):
        mine = packed[row, begin : begin + len(text)] if tokens else packed[i]
        np.testing.assert_allclose(mine, alone[i, : len(text)] if tokens else alone[i], rtol=1e-5, atol=near(adapter))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "together"])
def test_trainable_count_is_the_formula(name: str, backbone_of: GetBackbone) -> None:
    """6."""
    assert fresh(backbone_of("bert"), name).parameters == COUNTS[name] + HEAD


def test_shared_layers_count_once(backbone_of: GetBackbone) -> None:
    """6: ALBERT's one layer is adapted once, however often it is applied."""
    assert fresh(backbone_of("albert"), "lora").parameters == 2 * 3 * (D + D) + HEAD
    assert fresh(backbone_of("albert"), "houlsby").parameters == 2 * (2 * D * 5 + 5 + D) + HEAD


def test_the_table_of_methods() -> None:
    """docs/methods.md is what the methods say of themselves, and every method is in the cases of this suite."""
    written = Path(__file__).parent.with_name("docs").joinpath("methods.md").read_text("utf-8")
    assert written == markdown(), "graftax methods --markdown > docs/methods.md"
    assert {m.name for methods in METHODS.values() for m in methods} | {"head"} == set(ALL_METHODS)


# -- training ------------------------------------------------------------------------------------------------------------


def a_slot(backbone: Backbone, adapter: Adapter, layout: Layout) -> tuple[SlotState, Batch]:
    """An adapter in training and a batch for it."""
    inputs = some_inputs(backbone)
    rows, length = inputs.ids.shape
    settings = hyper(Recipe(lr=1e-2, warmup=0.0, schedule="constant"), 10, len(LABELS))
    stacked = layout.stack(adapter, backbone.sites)
    slot = start(stacked, rates(Recipe(), stacked, layout, backbone.sites, 1), settings, "adamw")
    labels = np.arange(rows, dtype=np.int32) % len(LABELS)
    if adapter.task == "tag":
        labels = np.broadcast_to(labels[:, None], (rows, length))
    if inputs.target is not None:
        labels = np.roll(inputs.target.ids, -1, axis=1)
    return slot, Batch(inputs, labels, np.ones(rows, np.float32), np.bool_(True))


def products(program: Any, shape: tuple[int, ...]) -> int:
    """How many matrix products of a compiled program have a result of a shape, in either orientation."""
    shapes = "|".join(",".join(map(str, s)) for s in (shape, shape[::-1]))
    return len(re.findall(rf"= f32\[(?:1,)?(?:{shapes})\]\S* (?:dot|custom-call)\(", program.as_text()))


@cross(FAST_STEPS)
def test_a_step_moves_the_adapter_alone(family: str, name: str, head: str, backbone_of: GetBackbone) -> None:
    """4, 5: all that is trainable moves, padding and the base do not, and no gradient of a frozen kernel is computed."""
    backbone, before = backbone_of(family), digest(backbone_of(family))
    seed = 2 if head == "said" else 1  # under seed 1 all of the five ReLUs at one of BART's sites are shut
    adapter = random_adapter(backbone, name, head == "tokens", seed)
    layout = Layout.of([adapter], backbone.sites, bucket=True)
    pack, batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], a_slot(backbone, adapter, layout))
    programs = Programs(backbone, task_named(adapter.task), slots=1, dropout=False)
    gradient = programs.gradient.lower(backbone.params, backbone.layers, pack, batch).compile()
    old = jax.device_get(pack)
    for _ in range(3):
        pack = programs.step(backbone.params, backbone.layers, pack, batch)
    new = jax.device_get(pack)
    assert not new.failed.any()
    assert jax.tree.structure(new.trainable) == jax.tree.structure(old.trainable)
    jax.tree.map(np.testing.assert_array_equal, new.fixed, old.fixed)
    moved = layout.unstack(adapter, jax.tree.map(lambda leaf: leaf[0], new.trainable), backbone.sites)
    for key, at in adapter.states.items():
        for site, (leaves, _) in at.items():
            for leaf, value in leaves.items():
                assert (moved[key][site][0][leaf] != value).any(), f"{key} {site.path} {leaf} did not move"
    again = layout.stack(dataclasses.replace(adapter, states=moved), backbone.sites).trainable
    for (where, leaf), own in zip(jax.tree_util.tree_leaves_with_path(new.trainable), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(leaf[0], own, err_msg=f"the filling of {jax.tree_util.keystr(where)} moved")
    assert digest(backbone) == before
    own = any(isinstance(m, LoHa) for m in adapter.methods)  # its factors have r^2 = W rows here, or its D is built
    assert own or bool(products(gradient, (D, W))) == any(isinstance(m, Full) for m in adapter.methods)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_gradient_is_the_same_uncompiled_and_in_a_loop(name: str, backbone_of: GetBackbone) -> None:
    """21: with or without jit, with layers unrolled (as in training) or scanned, to 1e-5."""
    backbone, adapter = backbone_of("bert"), random_adapter(backbone_of("bert"), name)
    slot, batch = jax.tree.map(jnp.asarray, a_slot(backbone, adapter, Layout.of([adapter], backbone.sites)))
    gradient = Programs(backbone, task_named("classify"), 1, False).gradient_one
    compiled = jax.jit(gradient)(backbone.params, backbone.layers, slot, batch)
    scanned = jax.jit(gradient)(backbone.params, None, slot, batch)
    with jax.disable_jit():
        plain = gradient(backbone.params, backbone.layers, slot, batch)
    for other in (scanned, plain):
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), compiled, other)


# -- merging -------------------------------------------------------------------------------------------------------------


#: Merging these is undone by no adapter of their kind: it depends on W, 1 / (1 + A^T B) is not of low rank, the rotation is not
#: exact or is none, the factors would have to stand in another order, what was there is gone.
ONE_WAY = {"dora", "dora-everywhere", "hira", "oft", "road_2", "road_4", "boft", "trainable_tokens"}


def inverse(adapter: Adapter) -> Adapter:
    """The adapter that undoes it: factors inverted, reflections in the other order, one factor of a product negated."""

    def undo(site: Any, leaf: str, value: np.ndarray) -> np.ndarray:
        if leaf.startswith("l_") or leaf in ("alpha", "s"):
            return np.asarray(1.0 / value, np.float32)
        if leaf == "u":
            return value[:, ::-1]
        if leaf == "q" and value.ndim > 2:  # BOFT's blocks, and not AdaLoRA's factor
            return -value
        return value if leaf in ("a", "w1_b", "w2", "w2_a", "w2_b", "lambda_d", "gamma", "p", "q") else -value

    return mapped(adapter, undo)


@cross({case for case in FAST if case[1] in MERGEABLE}, tuple(MERGEABLE))
def test_merged_equals_unmerged(family: str, name: str, head: str, backbone_of: GetBackbone) -> None:
    """4, 7, 8: merging is functional, gives the same logits, and merging the inverse gives the base back."""
    backbone = backbone_of(family)
    adapter, inputs, before = random_adapter(backbone, name, head == "tokens"), some_inputs(backbone), digest(backbone)
    whole, rest = merge(backbone, adapter)
    assert [type(m) for m in rest.methods] == ([] if head == "said" else [Head])
    merged = compiled(whole if whole.graphdef != backbone.graphdef else backbone)
    state = Layout.of([rest], backbone.sites).stack(rest, backbone.sites).state
    found = at_head(merged(whole.params, state, inputs), head)
    np.testing.assert_allclose(found, logits(backbone, adapter, inputs), rtol=1e-5, atol=near(adapter))
    if name not in ONE_WAY:
        back = merge(whole, inverse(adapter), any_backbone=True)[0].arrays()  # the merged one is another backbone
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), back, backbone.arrays())
    assert digest(backbone) == before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("others", [("lora", "lora-dense"), ("rslora", "ln_tuning"), ("lora-embedding", "full")])
def test_merge_order_does_not_matter(family: str, others: tuple[str, str], backbone_of: GetBackbone) -> None:
    """9: merging two adapters is merging them in the other order."""
    backbone = backbone_of(family)
    one, two = (random_adapter(backbone, name, seed=seed) for seed, name in enumerate(others, 1))
    there, back = (merge(merge(backbone, a)[0], b, any_backbone=True)[0].arrays() for a, b in ((one, two), (two, one)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), there, back)
    alone = merge(backbone, one)[0].arrays()
    assert any(np.abs(there[name] - alone[name]).max() > 1e-3 for name in there)


@pytest.mark.parametrize(("family", "name"), LACKS)
def test_a_method_without_a_site_is_refused(family: str, name: str, backbone_of: GetBackbone) -> None:
    with pytest.raises(GraftaxError, match=LACKS[family, name]):
        fresh(backbone_of(family), name)


@pytest.mark.parametrize("name", ["houlsby", "prefix", "alora", "together"])
def test_what_is_no_change_of_weights_is_not_merged(name: str, backbone_of: GetBackbone) -> None:
    with pytest.raises(GraftaxError, match="cannot be merged"):
        merge(backbone_of("bert"), random_adapter(backbone_of("bert"), name))


# -- files ---------------------------------------------------------------------------------------------------------------


@cross(FAST)
def test_round_trip(family: str, name: str, head: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """4, 10: every tensor bitwise, the config as a typed object, and what is known about the adapter."""
    backbone = backbone_of(family)
    before = digest(backbone)
    adapter = dataclasses.replace(random_adapter(backbone, name, head == "tokens"), metrics={"f1": 0.5}, recipe={"lr": 1e-3})
    loaded = load_adapter(save_adapter(adapter, tmp_path / "a", backbone), backbone)
    within = ROUNDED.get(name, 0.0)
    assert_same_states(loaded, as_saved(adapter), within)
    for field in dataclasses.fields(Adapter):
        if field.name != "states":
            assert getattr(loaded, field.name) == getattr(adapter, field.name)
    assert digest(backbone) == before
    if (family, name, head) in FAST:
        inputs = some_inputs(backbone)
        ours, theirs = logits(backbone, loaded, inputs), logits(backbone, adapter, inputs)
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=10 * within)


@pytest.mark.parametrize(
    "method",
    [
        LoRA(r=3, alpha=7.5, dropout=0.1, targets=("query",), rank_pattern={"query": 2}, alpha_pattern={"query": 5.0}),
        LoRA(r=3, alpha=7.0, targets=("query", "value")),
        LoRA(r=3, alpha=7.0, targets=r".*layer\.2\..*dense"),
        LoRAFA(r=3, alpha=7.0, dropout=0.1, targets=("query", "dense")),
        DoRA(r=3, alpha=7.0, rslora=True, targets=("query", "word_embeddings"), rank_pattern={"query": 2}),
        LoHa(r=3, alpha=7.5, targets=("query",), rank_pattern={"query": 2}, alpha_pattern={"query": 5.0}),
        LoKr(r=3, alpha=7.5, targets=("query", "dense"), rank_pattern={"query": 9}, decompose_both=True, decompose_factor=4),
        VeRA(r=7, d_initial=0.2, dropout=0.1, projection_prng_key=5, targets=("query", "dense")),
        RandLoRA(r=6, alpha=9.0, dropout=0.1, projection_prng_key=5, targets=("query", "intermediate.dense")),
        MiSS(r=5, dropout=0.1, targets=("query",)),
        MiSS(r=8, mini_r=16, targets=r".*key"),
        HiRA(r=3, targets=("query",)),
        AdaLoRA(
            init_r=3,
            target_r=1,
            alpha=7.5,
            dropout=0.1,
            tinit=2,
            tfinal=3,
            deltaT=4,
            beta1=0.8,
            beta2=0.9,
            orth_reg_weight=0.1,
            total_step=20,
            targets=("query",),
            rank_pattern={f"bert.encoder.layer.{i}.attention.self.query.lora_E": [i > 0, False, i == 2] for i in range(3)},
        ),
        ALoRA(r=3, alpha=7.5, targets=("query",), rank_pattern={"query": 2}, invocation=(5, 6)),
        IA3(targets=("key", "output.dense"), feedforward=("output.dense",)),
        IA3(targets=r".*key"),
        Bottleneck(width=3, activation="silu", place="pfeiffer"),
        Bottleneck(width=3, place="parallel", scaling="channel"),
        Bottleneck(width=3, place="plus", scaling=2.5),
        Bottleneck(width=3, place="post", activation="tanh"),
        Bottleneck(width=3, place="pfeiffer", normed=True),
        Compacter(width=8, normed=True),
        Compacter(width=8, n=2, activation="relu", place="pfeiffer"),
        Invertible(reduction=4, activation="silu"),
        BitFit(targets=("LayerNorm",)),
        Full(targets=("word_embeddings", "query")),
        Prefix(tokens=3),
        Prefix(tokens=3, shifted=False),
        PromptTuning(tokens=3),
        PTuning(tokens=3),
        PTuning(tokens=3, encoder_hidden_size=5),
        PromptTuning(tokens=3, post=True),
        LoReFT(r=3, targets=("layer.2",)),
        DiReFT(r=3, prefix_positions=4, suffix_positions=2),
        LayerNormTuning(targets=("output.LayerNorm",)),
        OFT(r=4, oft_block_size=0, targets=("query",), block_share=True, num_cayley_neumann_terms=6),
        HRA(r=3, apply_GS=True, targets=("query",)),
        RoAd(variant="road_4", group_size=8, targets=("query",)),
        FourierFT(n_frequency=7, scaling=3.0, random_loc_seed=1, init_weights=True, targets=("query",)),
        SHiRA(r=2, random_seed=4, targets=("query",)),
        TrainableTokens(ids=(7, 5)),
        BOFT(boft_block_size=0, boft_block_num=4, boft_n_butterfly_factor=2, targets=("query",)),
    ],
    ids=lambda method: method.name,
)
def test_typed_config_survives(method: Any, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """10: every field, the head's too."""
    backbone = backbone_of("bert")
    head = backbone.head(3, dropout=0.25)
    adapter = Adapter.create((method, head), backbone.sites_for(head), labels=LABELS)
    loaded = load_adapter(save_adapter(adapter, tmp_path / "a", backbone), backbone)
    assert loaded.methods == adapter.methods
    assert_same_states(loaded, as_saved(adapter))


def test_two_methods_never_share_a_key(backbone_of: GetBackbone, tmp_path: Path) -> None:
    """10: two methods of one adapter that hold a leaf of one name at one site keep both."""
    backbone = backbone_of("bert")
    adapter = random_adapter(backbone, (Full(), BitFit()))
    assert_same_states(load_adapter(save_adapter(adapter, tmp_path / "a", backbone), backbone), adapter)


def spoilt(directory: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """An adapter directory with its tensors changed and its checksum put right."""
    file = directory / "adapter_model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    facts = json.loads((directory / "graftax.json").read_text())
    facts["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (directory / "graftax.json").write_text(json.dumps(facts))
    return directory


def edited(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


TENSOR_FAULTS: dict[str, tuple[Callable[[dict[str, Any], str], dict[str, Any]], str]] = {
    "missing": (lambda tensors, key: {k: t for k, t in tensors.items() if k != key}, "missing KEY"),
    "extra": (lambda tensors, key: tensors | {f"{key}.more": tensors[key]}, "unexpected KEY.more"),
    "misshapen": (lambda tensors, key: tensors | {key: np.concatenate([tensors[key]] * 2)}, "KEY has shape"),
    "flat": (lambda tensors, key: tensors | {key: tensors[key].ravel()[:1]}, "KEY has shape"),
    "dtype": (lambda tensors, key: tensors | {key: tensors[key].astype(np.int32)}, "KEY \\(I32\\)"),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("name", ["rslora", "lora-embedding", "ia3", "houlsby", "bitfit", "shira", "full", "prefix", "probe"])
def test_wrong_tensor_is_named(name: str, which: int, fault: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """13: one missing, extra, misshapen or wrong-dtype tensor."""
    change, message = TENSOR_FAULTS[fault]
    backbone = backbone_of("roberta")
    path = save_adapter(random_adapter(backbone, name), tmp_path / "a", backbone)
    tensors = load_file(path / "adapter_model.safetensors")
    key = [k for k in sorted(tensors) if tensors[k].size > 1][which]
    if fault in ("misshapen", "flat") and key.endswith("classifier.out_proj.weight"):
        message = "classifier.out_proj"  # the classifier's own rows say how many labels there are
    short = re.escape(key.replace("base_model.model.", "").replace("base_model.", ""))
    with pytest.raises(GraftaxError, match=message.replace("KEY", rf"\S*{short}")):
        load_adapter(spoilt(path, lambda tensors: change(tensors, key)), backbone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda indices: indices.astype(np.float32), r"shira_indices \(F32\), expected I32"),
        (lambda indices: indices + 32, "point outside"),
        (lambda indices: -indices, "point outside"),
        (lambda indices: indices.astype(bool), r"shira_indices \(BOOL\)"),
    ],
    ids=["float", "high", "negative", "bool"],
)
def test_wrong_indices_are_refused(change: Any, message: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """13: integers are read where a method has them, and checked."""
    backbone = backbone_of("bert")
    path = save_adapter(random_adapter(backbone, "shira"), tmp_path / "a", backbone)
    changed = spoilt(path, lambda tensors: {k: change(t) if k.endswith("indices") else t for k, t in tensors.items()})
    with pytest.raises(GraftaxError, match=message):
        load_adapter(changed, backbone)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("lora", {"use_dora": True}, "missing .*lora_magnitude_vector"),
        ("lora", {"brand_new_switch": 3}, "brand_new_switch=3"),
        ("lora", {"peft_type": "POLY"}, "'POLY' is not supported; supported are LORA, .*IA3, .*PREFIX_TUNING"),
        ("lora", {"peft_type": None}, "None is not supported"),
        ("lora", {"target_modules": ["no_such"]}, "matches no site. Sites there are: .*attention.self.query"),
        ("lora", {"target_modules": None}, "target_modules"),
        ("lora", {"r": 0}, "r must be a whole number, at least 1"),
        ("lora", {"r": "eight"}, "r"),
        ("lora", {"target_modules": "("}, "target_modules|regex|regular expression"),
        ("lora", {"target_modules": 3}, "target_modules"),
        ("prefix", {"num_virtual_tokens": 0}, "at least 1"),
        ("prefix", {"num_virtual_tokens": 9}, "shape"),
        ("houlsby", {"methods": [{"method": "bottleneck", "depth": 2}]}, "no such key: depth; there are .*width"),
        ("houlsby", {"methods": [{"method": "magic"}]}, "unknown method 'magic'"),
        ("houlsby", {"methods": [{"method": "bottleneck", "width": 0}]}, "width must be a whole number, at least 1"),
        ("houlsby", {"methods": "bottleneck"}, "methods"),
        ("houlsby", {"methods": []}, "an adapter has methods"),
    ],
)
def test_wrong_config_is_named(
    name: str, changes: dict[str, Any], message: str, backbone_of: GetBackbone, tmp_path: Path
) -> None:
    """13."""
    backbone = backbone_of("bert")
    path = save_adapter(random_adapter(backbone, name), tmp_path / "a", backbone)
    edited(path / "adapter_config.json", **changes)
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, backbone)


def test_an_edited_peft_config_counts(backbone_of: GetBackbone, tmp_path: Path) -> None:
    """PEFT's config is what PEFT reads, so it is what we read, whatever graftax.json remembers."""
    backbone = backbone_of("bert")
    path = save_adapter(random_adapter(backbone, "lora"), tmp_path / "a", backbone)
    edited(path / "adapter_config.json", lora_alpha=9.0)
    method = load_adapter(path, backbone).method("lora")
    assert isinstance(method, LoRA)
    assert method.alpha == 9.0


@pytest.mark.parametrize("name", ["lora", "houlsby"])
def test_other_backbone_is_refused(name: str, tmp_path: Path, backbone_of: GetBackbone) -> None:
    """14: by fingerprint, unless told otherwise."""
    backbone, other = backbone_of("bert"), random_backbone(CONFIGS["bert"], seed=8)
    path = save_adapter(random_adapter(backbone, name), tmp_path / "a", backbone)
    with pytest.raises(GraftaxError, match=f"another backbone.*{backbone.fingerprint[:12]}.*{other.fingerprint[:12]}"):
        load_adapter(path, other)
    assert_same_states(load_adapter(path, other, any_backbone=True), load_adapter(path, backbone))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_weights_are_refused(damage: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """13: a checksum, and without graftax.json the format itself."""
    backbone = backbone_of("bert")
    path = save_adapter(random_adapter(backbone, "lora"), tmp_path / "a", backbone)
    file = path / "adapter_model.safetensors"
    data = file.read_bytes()
    file.write_bytes({"flip": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-9], "empty": b""}[damage])
    with pytest.raises(GraftaxError, match="checksum"):
        load_adapter(path, backbone)
    (path / "graftax.json").unlink()
    if damage != "flip":
        with pytest.raises(GraftaxError, match="corrupt or truncated"):
            load_adapter(path, backbone)


@pytest.mark.parametrize("name", sorted(p.name for p in GOLDEN.glob("*/*") if p.is_dir()))
def test_golden(name: str) -> None:
    """12: adapters stored by every release so far load and give the logits stored beside them."""
    (path,) = GOLDEN.glob(f"*/{name}")
    backbone = golden_backbone()
    adapter = load_adapter(path, backbone)
    stored = np.array(json.loads((path / "logits.json").read_text()), np.float32)
    np.testing.assert_allclose(logits(backbone, adapter, some_inputs(backbone)), stored, atol=1e-5)


# -- sharing a program ---------------------------------------------------------------------------------------------------


#: Three sizes, and alphas, of every method that has one.
SIZES: list[tuple[Any, ...]] = [
    (LoRA(r=3, alpha=7.0), LoRA(r=8, alpha=2.0, rslora=True), LoRA(r=1, alpha=9.0)),
    (LoRAFA(r=3, alpha=7.0), LoRAFA(r=8, alpha=2.0), LoRAFA(r=1, alpha=9.0)),
    (LoHa(r=3, alpha=7.0), LoHa(r=5, alpha=2.0), LoHa(r=1, alpha=9.0)),
    (LoKr(r=3, alpha=7.0), LoKr(r=5, alpha=2.0), LoKr(r=1, alpha=9.0, decompose_both=True)),
    (VeRA(r=3), VeRA(r=5, projection_prng_key=1), VeRA(r=1)),
    (DoRA(r=3, alpha=7.0), DoRA(r=5, alpha=2.0), DoRA(r=1, alpha=9.0)),
    (HiRA(r=3), HiRA(r=5), HiRA(r=1)),
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
]


def test_every_size_is_tried() -> None:
    assert {methods[0].name for methods in SIZES} | {"head"} == {name for name, cls in ALL_METHODS.items() if cls.padded}


@pytest.mark.parametrize("family", ["bert", pytest.param("albert", marks=pytest.mark.slow)])
@pytest.mark.parametrize("methods", SIZES, ids=lambda methods: methods[0].name)
def test_sizes_share_a_program(family: str, methods: tuple[Any, ...], backbone_of: GetBackbone) -> None:
    """16: another rank, width, number of virtual tokens or alpha in one layout retraces nothing and changes nothing."""
    backbone = backbone_of(family)
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
        (f, tuple(n for n in m if (f, n) not in LACKS and (METHODS[n] or f in CONFIGS))) for f in FAMILIES for m in MIXTURES
    ]
    slow = [case for case in every if case not in FAST_MIXTURES]
    marked = [(case, ()) for case in FAST_MIXTURES] + [(case, pytest.mark.slow) for case in slow]
    return [pytest.param(f, m, id="-".join((f, *m)), marks=marks) for (f, m), marks in marked]


@pytest.mark.parametrize(("family", "mixture"), every_mixture())
def test_mixed_rows(family: str, mixture: tuple[str, ...], backbone_of: GetBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """17: a row of a mixed batch is that row alone, base rows included, in any order; a NaN stays in its own rows.

    To 1e-5 of a logit besides the method's tolerance, as where it is merged: a random `full` makes logits of 10.
    """
    backbone = backbone_of(family)
    alone = {name: random_adapter(backbone, name, seed=i) for i, name in enumerate(mixture)}
    bank, head = Bank(backbone, capacity=len(mixture) + 2), "said" if family in ENCODER_DECODERS else "pooled"
    for name, adapter in alone.items():
        bank.add(name, adapter)
    few = some_inputs(backbone)
    rows = len(few.ids)
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
    else:
        assert not mixed[:rows].any()  # no adapter, no head; "probe" is the base under a head
    for name, own in zip(alone, np.split(mixed, len(names))[1:], strict=True):
        mine = logits(backbone, alone[name], few)
        np.testing.assert_allclose(own, mine, rtol=1e-5, atol=near(alone[name]), err_msg=name)

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
    """17."""
    bank = Bank(backbone_of("bert"))
    bank.add("one", random_adapter(backbone_of("bert"), "lora"))
    with pytest.raises(GraftaxError, match="'two' is loaded; loaded are one"):
        bank.slot("two")


@pytest.mark.parametrize("name", METHODS)
def test_a_program_follows_from_the_key(name: str, backbone_of: GetBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """16: what runs reads no field that is not `traced`: it would find the default there, whatever the adapter says."""
    backbone, adapter = backbone_of("bert"), random_adapter(backbone_of("bert"), name)
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state

    def program() -> str:
        trace = jax.make_jaxpr(lambda params, state, inputs: backbone.forward(params, state, inputs))
        return re.sub(r" at 0x\w+", "", str(trace(backbone.params, state, some_inputs(backbone))))

    of_key = program()
    monkeypatch.setattr("graftax.adapters.graft.method_of", {m.key: m for m in adapter.methods}.__getitem__)
    same = program() == of_key
    assert same, "a field that is not traced is read"


def test_alpha_is_never_the_rank(backbone_of: GetBackbone) -> None:
    """A scale of one in this suite's cases would hide one that is forgotten."""
    for name, methods in METHODS.items():
        for method in (m for m in methods if hasattr(m, "alpha")):
            fixed = [method.fixed(site) for site in method.select(backbone_of("bert").sites)]
            scales = [leaves["scale"] for leaves in fixed if "scale" in leaves]
            assert scales, name
            assert not np.isclose(scales, 1.0, atol=1e-2).any(), name


# -- dtypes --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rough() -> Backbone:
    """The tiny BERT with bfloat16 parameters."""
    return random_backbone(CONFIGS["bert"], seed=7, dtype="bfloat16")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "lora" else pytest.mark.slow) for n in METHODS])
def test_bfloat16_backbone_keeps_adapters_float32(name: str, rough: Backbone, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """28: after load, save and three steps; and the logits are the float32 ones, roughly."""
    exact = backbone_of("bert")
    assert rough.fingerprint == exact.fingerprint
    adapter = random_adapter(exact, name)
    loaded = load_adapter(save_adapter(adapter, tmp_path / "a", rough), rough)
    whole = any(isinstance(m, LayerNormTuning) for m in adapter.methods)  # whole weights, less the frozen ones in bfloat16
    assert_same_states(loaded, as_saved(adapter), 1e-2 if whole else 0.0)
    layout = Layout.of([loaded], rough.sites)
    near = logits(rough, loaded, some_inputs(rough), layout)
    assert near.dtype == np.float32
    np.testing.assert_allclose(near, logits(exact, adapter, some_inputs(exact)), atol=0.1)
    pack, batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], a_slot(rough, loaded, layout))
    programs = Programs(rough, task_named(loaded.task), slots=1, dropout=False)
    for _ in range(3):
        pack = programs.step(rough.params, rough.layers, pack, batch)
    assert not np.asarray(pack.failed).any()
    assert {leaf.dtype for leaf in jax.tree.leaves((pack.trainable, pack.moments[0].mu))} == {np.dtype(np.float32)}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files_load_as_float32(dtype: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """28."""
    backbone = backbone_of("bert")
    path = save_adapter(random_adapter(backbone, "lora"), tmp_path / "a", backbone)
    loaded = load_adapter(spoilt(path, lambda tensors: {k: t.astype(np.dtype(dtype)) for k, t in tensors.items()}), backbone)
    leaves = jax.tree.leaves([at for at in loaded.states.values() for at in at.values()])
    assert {np.asarray(leaf).dtype for leaf in leaves} == {np.dtype(np.float32)}
