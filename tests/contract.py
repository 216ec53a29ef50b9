"""What the contract suite runs on, and the checks of it that other files use.

The suite is tests/test_contract_*.py: what must hold for every method on every backbone, each test with the number of its
invariant (`docs/invariants.md`). A method joins it by its line in cases.py, a family by its line in conftest.py.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    LABELS,
    METHODS,
    D,
    W,
    logits,
    near,
)
from conftest import CONFIGS, CONVOLUTIONAL, ENCODER_DECODERS, PAIRS, PATCHES, PICTURES, some_inputs

from graftax import BOFT, HRA, Adapter, Full, HiRA, LoHa, LoKr, Method, Recipe, RepAdapter
from graftax.adapters.adapter import Layout
from graftax.data.batches import Shape, place
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokenizer, Tokens
from graftax.tasks.task_registry import task_named
from graftax.train.optimizer import rates
from graftax.train.step import Batch, Learner, Programs, hyper, start

FAMILIES = (*CONFIGS, *ENCODER_DECODERS, *PICTURES, *PAIRS)
#: What a family has no sites for, and what an adapter of that kind is told.
LACKS = {
    ("llama", "bitfit"): "this backbone has none",
    ("llama", "together"): "bitfit trains biases, and this backbone has none",
    ("llama", "invertible"): "target .*embedding_norm.* matches no site",
    ("llama", "mad_x"): "target .*embedding_norm.* matches no site",
    ("llama", "prompt-post"): "this backbone has none there",
    ("bart", "alora"): "this one reads two",
}
#: And what none of texts has.
NO_BATCH_NORMS = {"adabn": "adabn renews the statistics of batch norms, and this backbone has none"}
_BESIDE = "vpt puts vectors beside a picture's patches, and this backbone"
_NO_PATCHES = {"convpass": "convpass convolves over the patches of a Transformer of pictures, and this backbone is none"}
NOT_ON_TEXTS = {**NO_BATCH_NORMS, **_NO_PATCHES, **dict.fromkeys(("vpt", "vpt-shallow"), f"{_BESIDE} reads texts")}
ON_TEXTS = [name for name in METHODS if name not in NOT_ON_TEXTS]
#: And what no backbone of convolutions has: linear layers, tokens, embeddings; or not with these targets and sizes.
NOT_ON_CONVOLUTIONS = {
    **_NO_PATCHES,
    **dict.fromkeys(("vpt", "vpt-shallow"), f"{_BESIDE}, of convolutions, has none"),
    **dict.fromkeys(
        (
            *("vera", "vera-dense", "randlora", "randlora-dense", "miss", "miss-mini"),
            *("road", "road_2", "road_4", "fourierft", "shira", "repadapter", "repadapter-4", "fact", "fact-tk"),
        ),
        "acts on sites of kind linear; this backbone has branch, conv, ",
    ),
    **dict.fromkeys(("prefix", "prefix-unshifted", "mam", "together"), "prefix acts on sites of kind attention or input; this"),
    **dict.fromkeys(("prompt", "prompt-post", "p_tuning"), "puts tokens in front of a text, and this backbone reads none"),
    **dict.fromkeys(
        ("gated_lora", "gated_bottleneck", "gated_bottleneck-parallel", "gated_prefix", "unipelt"),
        "a gate is opened by a text or a picture's patches, and this backbone has none",
    ),
    "alora": "alora acts on sites of kind linear or text; this backbone has branch, conv, ",
    "trainable_tokens": "acts on sites of kind embedding or linear; this backbone has branch, conv, ",
    "loreft-ends": "prefix_positions and suffix_positions count the tokens of a text, and this backbone reads none",
    **dict.fromkeys(("lora-regex", "lora-embedding", "invertible", "mad_x", "post"), "matches no site. Sites there are: "),
    **dict.fromkeys(("compacter", "compacter++-normed"), "n = 4 does not divide the 6 channels of "),
    "boft": "inputs cannot be cut into blocks of 4, of an even size, in groups of 4",
    "boft-1": "inputs cannot be cut into 8 blocks",
}
#: And what none of patches has.
NOT_ON_PATCHES = {
    **NO_BATCH_NORMS,
    "alora": "this one reads none",
    "trainable_tokens": "acts on sites of kind embedding or linear; this backbone has attention, ",
    "loreft-ends": "prefix_positions and suffix_positions count the tokens of a text, and this backbone reads none",
    "prompt-post": "post puts rows behind the embeddings' norm, and this backbone has none there",
    **dict.fromkeys(("invertible", "mad_x"), "target .*embedding_norm.* matches no site"),
}
#: And what none of two towers has, each of which would need its own.
_VIRTUAL = ("prefix", "prefix-unshifted", "mam", "together", "prompt", "prompt-post", "p_tuning")
NOT_ON_PAIRS = {**NOT_ON_TEXTS, **dict.fromkeys(_VIRTUAL, "the two towers of a pair would need virtual tokens each")}
NOT_ON_PAIRS |= dict.fromkeys(("vpt", "vpt-shallow"), "a pair has texts, too: train its tower of pictures by itself")
LACKS |= {(family, name): said for family in (*CONFIGS, *ENCODER_DECODERS) for name, said in NOT_ON_TEXTS.items()}
LACKS |= {(family, name): said for family in PATCHES for name, said in NOT_ON_PATCHES.items()}
LACKS |= {(family, name): said for family in PAIRS for name, said in NOT_ON_PAIRS.items()}
LACKS |= {(family, name): said for family in CONVOLUTIONAL for name, said in NOT_ON_CONVOLUTIONS.items()}

#: What runs every time: one config of each method on BERT, and some pairs; the rest of the cross product is marked slow.
MAIN = list({tuple(type(m) for m in methods): name for name, methods in reversed(METHODS.items())}.values())  # one per method
MAIN = [name for name in MAIN if not name.startswith("gated_")]  # "unipelt" is all of them
FAST = {("bert", name, "pooled") for name in MAIN if name not in NOT_ON_TEXTS}
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
FAST |= {("cifar_resnet", name, "pooled") for name in (*MAIN, "boft-2", "compacter++") if name not in NOT_ON_CONVOLUTIONS}
FAST |= {("clip_pair", name, "both") for name in ("lora", "houlsby", "bitfit")}
FAST |= {("vit", name, "pooled") for name in ("prefix", "unipelt", "vpt", "convpass")}


def cross(
    fast: set[tuple[str, str, str]], methods: tuple[str, ...] = tuple(METHODS), families: tuple[str, ...] = FAMILIES
) -> pytest.MarkDecorator:
    """Every method on every backbone under both kinds of head, on encoder-decoders without any, of pictures under one."""
    kinds = {"said": ENCODER_DECODERS, "both": PAIRS, "pooled": CONFIGS | PICTURES, "tokens": CONFIGS}
    heads = {family: [head for head, having in kinds.items() if family in having] for family in families}
    every = [(f, m, h) for f in families for m in methods for h in heads[f] if (f, m) not in LACKS]
    every = [(f, m, h) for f, m, h in every if METHODS[m] or h not in ("said", "both")]  # a probe is a head alone
    params = [pytest.param(*c, id="-".join(c), marks=() if c in fast else pytest.mark.slow) for c in every]
    return pytest.mark.parametrize(("family", "name", "head"), params)


def digest(backbone: Backbone) -> str:
    """Of the bytes of every parameter."""
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(backbone.params))).hexdigest()


def assert_same_states(one: Adapter, other: Adapter, within: float = 0.0) -> None:
    """Every site and leaf, to the bit unless told otherwise."""
    assert one.states.keys() == other.states.keys()
    for key, states in one.states.items():
        assert states.keys() == other.states[key].keys()
        for site, leaves in states.items():
            same = functools.partial(np.testing.assert_allclose, rtol=0.0, atol=within)
            jax.tree.map(same, leaves, other.states[key][site])


def a_learner(backbone: Backbone, adapter: Adapter, layout: Layout) -> tuple[Learner, Batch]:
    """An adapter in training and a batch for it."""
    inputs = some_inputs(backbone)
    rows = len(jax.tree.leaves(inputs)[0])
    settings = hyper(Recipe(lr=1e-2, warmup=0.0, schedule="constant"), 10, len(LABELS))
    stacked = layout.stack(adapter, backbone.sites)
    learner = start(stacked, rates(Recipe(), stacked, backbone.sites, 1), settings, "adamw")
    labels = np.arange(rows, dtype=np.int32) % len(LABELS)
    if adapter.task == "tag":
        labels = np.broadcast_to(labels[:, None], inputs.ids.shape)
    if adapter.task == "contrastive":
        labels = np.stack([np.arange(rows, dtype=np.int32), labels, labels], axis=1)
    if backbone.family.encodes:
        labels = np.roll(inputs.target.ids, -1, axis=1)
    return learner, Batch(inputs, labels, np.ones(rows, np.float32), np.bool_(True))


def products(program: Any, shape: tuple[int, ...]) -> int:
    """How many matrix products and convolutions of a compiled program have a result of a shape, with its axes in any order."""
    shapes = "|".join(",".join(map(str, axes)) for axes in {*itertools.permutations(shape)})
    return len(re.findall(rf"= f32\[(?:1,)?(?:{shapes})\]\S* (?:dot|convolution|custom-call)\(", program.as_text()))


#: The frozen kernel whose gradient is looked for, by kind of layers: the feed-forward's first, and one of the last stage.
KERNEL = {"attention": (D, W), "conv": (3, 3, 10, 10)}


#: Methods that make products of that shape of their own: of factors of r^2 = W rows, of four groups of eight, which are D
#: columns of W rows, or where they change the kernel whole.
OWN_PRODUCTS: dict[str, tuple[type[Method], ...]] = {"attention": (LoHa, RepAdapter), "conv": (LoHa, LoKr, HiRA, HRA, BOFT)}


def assert_step_moves_adapter_alone(backbone: Backbone, adapter: Adapter) -> None:
    """All that is trainable moves, padding and the base do not, and no gradient of a frozen kernel is computed."""
    before = digest(backbone)
    layout = Layout.of([adapter], backbone.sites, bucket=True)
    pack, batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], a_learner(backbone, adapter, layout))
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
    for key, states in adapter.states.items():
        for site, (leaves, _) in states.items():
            for leaf, value in leaves.items():
                if site.role == "key" and leaf in ("down_bias", "up_bias"):
                    continue  # what all keys have in common changes no attention
                assert (moved[key][site][0][leaf] != value).any(), f"{key} {site.path} {leaf} did not move"
    again = layout.stack(dataclasses.replace(adapter, states=moved), backbone.sites).trainable
    for (where, leaf), own in zip(jax.tree_util.tree_leaves_with_path(new.trainable), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(leaf[0], own, err_msg=f"the filling of {jax.tree_util.keystr(where)} moved")
    assert digest(backbone) == before
    kind = "attention" if any(site.kind == "attention" for site in backbone.sites) else "conv"
    if any(isinstance(m, OWN_PRODUCTS[kind]) for m in adapter.methods):
        return
    kernel = KERNEL[kind]
    assert bool(products(gradient, kernel)) == any(isinstance(m, Full) for m in adapter.methods)


def assert_texts_may_share_a_row(backbone: Backbone, adapter: Adapter) -> None:
    """Texts laid behind one another, as training batches are, get the logits that each gets in a batch row of its own."""
    inputs, tokens = some_inputs(backbone, rows=5), adapter.task == "tag"
    texts = [Tokens(ids[own], types[own], None) for ids, own, types in zip(*inputs[:3], strict=True)]
    places = place([len(text) for text in texts], 20)
    shape = Shape(6, 1 + max(row for row, _ in places), 20)
    assert shape.rows < len(texts)
    packed = logits(backbone, adapter, Tokenizer.of(backbone).lay(texts, places, shape))
    alone = logits(backbone, adapter, inputs)
    for i, (text, (batch_row, begin)) in enumerate(zip(texts, places, strict=True)):
        mine = packed[batch_row, begin : begin + len(text)] if tokens else packed[i]
        np.testing.assert_allclose(mine, alone[i, : len(text)] if tokens else alone[i], rtol=1e-5, atol=near(adapter, backbone))
