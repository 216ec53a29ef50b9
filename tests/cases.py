"""The adapters every test is run with: each method in its interesting configs, random, nowhere zero, and alpha never r."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from graftax import (
    BOFT,
    HRA,
    IA3,
    OFT,
    SSF,
    VPT,
    AdaBN,
    AdaLoRA,
    Adapter,
    AdaptFormer,
    ALoRA,
    BitFit,
    Bottleneck,
    Compacter,
    Convpass,
    DiReFT,
    DoRA,
    FacT,
    FourierFT,
    Full,
    GatedBottleneck,
    GatedLoRA,
    GatedPrefix,
    Head,
    HiRA,
    Invertible,
    LayerNormTuning,
    LoHa,
    LoKr,
    LoRA,
    LoRAFA,
    LoReFT,
    Method,
    MiSS,
    Prefix,
    PromptTuning,
    PTuning,
    RandLoRA,
    RepAdapter,
    RoAd,
    SHiRA,
    TrainableTokens,
    VeRA,
    mad_x,
    mam,
    unipelt,
)
from graftax.adapters.adapter import Layout
from graftax.models.backbone import Backbone, Logits
from graftax.models.inputs import Inputs

LABELS = ("bad", "fair", "good")
#: Convolutions by the names of the families that have any.
CONVOLUTIONS = ("conv2", "reduce_1x1.convolution")
#: Dense layers by every family's names for them; a name that a family does not have matches nothing.
DENSE = ("dense", "out_lin", "lin1", "lin2", "ffn", "ffn_output", "o_proj", "up_proj", "down_proj", "fc1", "fc2", *CONVOLUTIONS)
#: Some of them and the queries, without DistilBERT's "ffn", which is no layer: PEFT's LoRA passes over it, the others fail.
LINEAR = ("query", "q_lin", "q_proj", *(name for name in DENSE if name != "ffn"))
#: Likewise keys and values: of a classifier's last query none is behind the first token.
KEYS = ("key", "k_lin", "k_proj", "value", "v_lin", "v_proj")
#: Likewise, as regexes.
QUERY, VALUE = "query|q_(lin|proj)", "value|v_(lin|proj)"

METHODS: dict[str, tuple[Method, ...]] = {
    "lora": (LoRA(r=3, alpha=7.0),),
    "rslora": (
        LoRA(
            r=3,
            alpha=7.0,
            rslora=True,
            rank_pattern={QUERY: 5, r"layers?\.1\..*": 2},  # the first that matches wins: in this order, not sorted
            alpha_pattern={VALUE: 11.0},
        ),
    ),
    "lora-dense": (LoRA(r=2, alpha=5.0, targets=DENSE),),
    "lora-regex": (LoRA(r=2, alpha=3.0, targets=r".*(layers?\.[02]\.|albert_layers).*(value|v_(lin|proj))"),),
    "lora-embedding": (LoRA(r=4, alpha=6.0, targets=("word_embeddings", "embed_tokens", "key", "k_lin", "k_proj")),),
    "lora_fa": (LoRAFA(r=3, alpha=7.0, rank_pattern={QUERY: 5}),),
    "dora": (DoRA(r=3, alpha=7.0),),
    "dora-everywhere": (DoRA(r=2, alpha=5.0, targets=("word_embeddings", "embed_tokens", *DENSE)),),
    "loha": (LoHa(r=3, alpha=7.0, targets=("key", "k_lin", "k_proj", *DENSE)),),  # through r^2 ranks
    "loha-whole": (LoHa(r=6, alpha=4.0, rank_pattern={VALUE: 7}, alpha_pattern={VALUE: 9.0}),),  # through D
    "lokr": (LoKr(r=3, alpha=7.0, rank_pattern={VALUE: 5}),),  # C2 in two, and whole
    "lokr-both": (LoKr(r=2, alpha=5.0, decompose_both=True, decompose_factor=8, targets=DENSE),),
    "vera": (VeRA(r=5),),
    "vera-dense": (VeRA(r=6, projection_prng_key=3, targets=DENSE),),  # projections of two widths
    "randlora": (RandLoRA(r=5, alpha=0.5),),  # 5 does not divide 32: seven bases, the last not whole
    "randlora-dense": (RandLoRA(r=8, alpha=0.7, projection_prng_key=3, targets=DENSE),),  # wider in, wider out and neither
    "miss": (MiSS(r=6, targets=("query", "q_lin", "q_proj", *DENSE)),),  # 6 divides neither 32 nor 64
    "miss-mini": (MiSS(r=8, mini_r=4),),
    "hira": (HiRA(r=3),),
    "adalora": (AdaLoRA(init_r=3, target_r=2, alpha=7.0),),
    "alora": (ALoRA(r=3, alpha=7.0, invocation=(52, 29), targets=KEYS),),  # `some_inputs` has it amid its first row
    "ia3": (IA3(),),
    "ia3-targets": (IA3(targets=("query", "q_lin", "q_proj", *DENSE), feedforward=DENSE),),
    "houlsby": (Bottleneck(width=5),),
    "pfeiffer": (Bottleneck(width=6, activation="gelu", place="pfeiffer"),),
    "parallel": (Bottleneck(width=5, place="parallel"),),
    "parallel-learned": (Bottleneck(width=3, activation="gelu", place="parallel", scaling="learned"),),
    "adapterplus": (Bottleneck(width=6, activation="gelu", place="plus"),),
    "pfeiffer-normed": (Bottleneck(width=5, activation="tanh", place="pfeiffer", normed=True),),
    "post": (Bottleneck(width=6, activation="leaky_relu", place="post"),),
    "adaptformer": (AdaptFormer(width=5, activation="gelu"),),  # of its own, ReLU, all units of a site may be dead
    "repadapter": (RepAdapter(width=6, scale=0.7),),
    "repadapter-4": (RepAdapter(width=4, groups=4, targets=LINEAR),),
    "convpass": (Convpass(width=5, scale=0.7),),
    "ssf": (SSF(),),
    "adabn": (AdaBN(), LayerNormTuning()),
    "vpt": (VPT(tokens=4),),
    "vpt-shallow": (VPT(tokens=3, deep=False),),
    "fact": (FacT(r=3, scale=0.7),),
    "fact-tk": (FacT(r=4, form="tk", scale=1.3),),
    "compacter": (Compacter(width=8, n=4),),
    "compacter++": (Compacter(width=6, n=2, activation="relu", place="pfeiffer"),),
    "invertible": (Invertible(reduction=4, activation="gelu"),),
    "mad_x": mad_x(width=4, reduction=2),
    "compacter++-normed": (Compacter(width=4, n=4, activation="gelu_new", place="pfeiffer", normed=True),),
    "bitfit": (BitFit(),),
    "prefix": (Prefix(tokens=4),),
    "prefix-unshifted": (Prefix(tokens=3, shifted=False),),
    "prompt": (PromptTuning(tokens=4),),
    "p_tuning": (PTuning(tokens=4, encoder_hidden_size=6),),
    "prompt-post": (PromptTuning(tokens=3, post=True),),
    "loreft": (LoReFT(r=3),),
    "loreft-ends": (LoReFT(r=2, prefix_positions=2, suffix_positions=1),),
    "direft": (DiReFT(r=2),),
    "mam": mam(tokens=3, width=4),
    "ln_tuning": (LayerNormTuning(),),
    "oft": (OFT(oft_block_size=4),),
    "oft-cayley": (OFT(r=3, oft_block_size=0, block_share=True, use_cayley_neumann=False, targets=LINEAR),),
    "hra": (HRA(r=3),),
    "hra-gs": (HRA(r=4, apply_GS=True, targets=LINEAR),),
    "road": (RoAd(group_size=8),),
    "road_2": (RoAd(variant="road_2", group_size=16),),
    "road_4": (RoAd(variant="road_4", group_size=4, targets=LINEAR),),
    "fourierft": (FourierFT(n_frequency=40, scaling=20.0, random_loc_seed=5),),
    "shira": (SHiRA(r=3),),
    "trainable_tokens": (TrainableTokens(ids=(52, 90, 83, 64, 63, 56, 79)),),
    "boft": (BOFT(boft_n_butterfly_factor=3),),
    "boft-2": (BOFT(boft_block_size=2),),
    "boft-1": (BOFT(boft_block_size=0, boft_block_num=8, targets=LINEAR),),
    "gated_lora": (GatedLoRA(r=3, alpha=7.0, rslora=True, targets=("query", "q_lin", *DENSE)),),
    "gated_bottleneck": (GatedBottleneck(width=5, scaling="learned"),),
    "gated_bottleneck-parallel": (GatedBottleneck(width=4, activation="gelu", place="parallel"),),
    "gated_prefix": (GatedPrefix(tokens=4),),
    "unipelt": (*unipelt(tokens=3, width=4)[:2], GatedLoRA(r=2, alpha=5.0)),  # whose LoRA has alpha = r
    "full": (Full(),),
    "probe": (),
    "together": (LoRA(r=2, alpha=5.0), IA3(), Bottleneck(width=3, activation="silu"), BitFit(), Prefix(tokens=2)),
}
#: Files of these hold frozen weights with the change added, or what a network makes: what is read back is rounded, by less than
#: this.
ROUNDED = {"ln_tuning": 1e-6, "adabn": 1e-6, "p_tuning": 1e-6}
MERGEABLE = [name for name, methods in METHODS.items() if methods and all(m.mergeable for m in methods)]


D, W, V, N, T = 32, 64, 97, 48, 2  # hidden, intermediate, words, positions, types of CONFIGS["bert"]
HEAD = len(LABELS) * (D + 1)
NORMS, KERNELS = 2 * D, 4 * D * D + 2 * D * W
BIASES = 4 * D + W + D + 2 * D  # of a layer: attention, feed-forward, norms
#: Trainable parameters on CONFIGS["bert"] by the closed formula, without the head's.
COUNTS = {
    "lora": 3 * 2 * 3 * (D + D),
    "rslora": (3 * 5 + 2 * 3 + 2) * (D + D),
    "lora-dense": 3 * 2 * ((D + D) + 2 * (D + W)) + 2 * (D + D),
    "lora-regex": 2 * 2 * (D + D),
    "lora-embedding": 4 * (V + D) + 3 * 4 * (D + D),
    "lora_fa": 3 * (5 + 3) * D,
    "dora": 3 * 2 * (3 * (D + D) + D),
    "dora-everywhere": 3 * (2 * ((D + D) + 2 * (D + W)) + D + W + D) + 2 * (D + D) + D + 2 * (V + D) + D,
    "loha": 3 * 2 * 3 * (2 * (D + D) + 2 * (D + W)) + 2 * 3 * (D + D),
    "loha-whole": 3 * 2 * (6 + 7) * (D + D),
    "lokr": 3 * ((4 * 4 + 3 * (8 + 8)) + (4 * 4 + 8 * 8)),  # 32 is 4 times 8
    "lokr-both": 3 * (2 * 16 + 4 * 4 + 2 * (2 * 16 + 2 * (4 + 8))) + 2 * 16 + 4 * 4,  # 32 is 8 times 4, 64 is 8 times 8
    "vera": 3 * 2 * (D + 5),
    "vera-dense": 3 * ((D + 6) + (W + 6) + (D + 6)) + D + 6,
    "randlora": 3 * 2 * 7 * (5 + D),
    "randlora-dense": (3 * 3 + 1) * 4 * (8 + D),
    "miss": 3 * 6 * (D + D + W + D) + 6 * D,
    "miss-mini": 3 * 2 * 8 * 4,
    "hira": 3 * 2 * 3 * (D + D),
    "adalora": 3 * 2 * 3 * (D + 1 + D),
    "alora": 3 * 2 * 3 * (D + D),
    "ia3": 3 * (D + D + W),
    "ia3-targets": 3 * (D + D + D + W) + D,
    "houlsby": 2 * 3 * (2 * D * 5 + 5 + D),
    "pfeiffer": 3 * (2 * D * 6 + 6 + D),
    "parallel": 3 * (2 * D * 5 + 5 + D),
    "parallel-learned": 3 * (2 * D * 3 + 3 + D + 1),
    "adapterplus": 3 * (2 * D * 6 + 6 + D + D),
    "pfeiffer-normed": 3 * (2 * D * 5 + 5 + D),
    "post": 3 * (2 * D * 6 + 6 + D + D),
    "adaptformer": 3 * (2 * D * 5 + 5 + D),
    "repadapter": 3 * 4 * (D * 6 + D * 3 + 6 + D),
    "repadapter-4": 3 * (3 * (6 * D + 4) + 6 * W + 4) + 6 * D + 4,
    "ssf": 3 * 2 * (5 * D + W + 2 * D) + 2 * D + 2 * D,
    "fact": 3 * 8 * 3**2 + 2 * D * 3,
    "fact-tk": 3 * 8 * 4 + 4**3 + 2 * D * 4,
    "compacter": 2 * 3 * (4**3 + 3 * D + 3 * 8),
    "compacter++": 3 * (2**3 + 3 * D + 3 * 6),
    "invertible": 2 * (2 * 16 * 4 + 4 + 16),
    "mad_x": 2 * (2 * 16 * 8 + 8 + 16) + 3 * (2 * D * 4 + 4 + D),
    "compacter++-normed": 3 * (4**3 + 3 * D + 3 * 4),
    "bitfit": 3 * BIASES + D + D,
    "prefix": 3 * 2 * 4 * D,
    "prefix-unshifted": 3 * 2 * 3 * D,
    "prompt": 4 * D,
    "p_tuning": 4 * D + (D * 6 + 6) + (6 * 6 + 6) + (6 * D + D),
    "prompt-post": 3 * D,
    "loreft": 3 * (2 * 3 * D + 3),
    "loreft-ends": 3 * (2 * 2 * D + 2),
    "direft": 3 * (2 * 2 * D + 2),
    "mam": 3 * 2 * 3 * D + 3 * (2 * D * 4 + 4 + D),
    "ln_tuning": 3 * NORMS * 2 + 2 * D,
    "oft": 3 * 2 * D * 3 // 2,
    "oft-cayley": 3 * (3 * 16 * 15 // 2 + 32 * 31 // 2) + 16 * 15 // 2,  # three blocks become two, the nearest that divide
    "hra": 3 * 2 * 3 * D,
    "hra-gs": 4 * (3 * (3 * D + W) + D),
    "road": 3 * 2 * D,
    "road_2": 3 * 2 * 2 * D,
    "road_4": 4 * (3 * (3 * D + W) + D),
    "fourierft": 3 * 2 * 40,
    "shira": 3 * 2 * 3 * (D + D),
    "trainable_tokens": 7 * D,
    "boft": 3 * 2 * (3 * D * 4 + D),
    "boft-2": 3 * 2 * (D * 2 + D),
    "boft-1": 3 * (3 * D * D // 8 + W * W // 8 + 3 * D + W) + D * D // 8 + D,
    "gated_lora": 3 * (2 * (3 * (D + D) + D + 1) + (3 * (D + W) + D + 1) + (3 * (W + D) + W + 1)),
    "gated_bottleneck": 2 * 3 * (2 * D * 5 + 5 + D + 1 + D + 1),
    "gated_bottleneck-parallel": 3 * (2 * D * 4 + 4 + D + D + 1),
    "gated_prefix": 3 * (2 * 4 * D + D + 1),
    "unipelt": 3 * ((2 * 3 * D + D + 1) + (2 * D * 4 + 4 + D + D + 1) + 2 * (2 * (D + D) + D + 1)),
    "full": 3 * (KERNELS + BIASES + NORMS) + (V + N + T) * D + 2 * D + D * D + D,
    "probe": 0,
}


def randomised(adapter: Adapter, seed: int = 0, size: float = 0.3) -> Adapter:
    """The adapter with noise on every trainable leaf."""
    random = np.random.default_rng(seed)

    def noisy(leaf: np.ndarray) -> np.ndarray:
        return (leaf + size * random.standard_normal(leaf.shape)).astype(np.float32)

    shared: dict[Any, np.ndarray] = {}  # by the names of leaves that sites share

    def change(site: Any, name: str, leaf: np.ndarray) -> np.ndarray:
        return shared.setdefault((name, leaf.shape), noisy(leaf)) if name in names else noisy(leaf)

    names = {name for method in adapter.methods for name in method.shared}
    return mapped(adapter, change)


def mapped(adapter: Adapter, change: Callable[[Any, str, np.ndarray], np.ndarray]) -> Adapter:
    """The adapter with every trainable leaf of its methods and head replaced."""
    states = {
        key: {
            site: ({name: change(site, name, leaf) for name, leaf in trainable.items()}, fixed)
            for site, (trainable, fixed) in states.items()
        }
        for key, states in adapter.states.items()
    }
    return dataclasses.replace(adapter, states=states)


def fresh(backbone: Backbone, name: str | tuple[Method, ...], tokens: bool = False, seed: int = 1, **known: Any) -> Adapter:
    """An adapter as training starts it, with a random head; `name` of METHODS, or the methods themselves.

    Of an encoder-decoder it has no head.
    """
    methods = METHODS[name] if isinstance(name, str) else name
    if backbone.family.processor.kind == "pair":
        known = {"task": "contrastive", "fingerprint": backbone.fingerprint} | known
        return Adapter.create(methods, backbone.sites, seed=seed, **known)
    if backbone.family.encodes:
        known = {"task": "seq2seq", "fingerprint": backbone.fingerprint} | known
        return Adapter.create(methods, backbone.sites, seed=seed, **known)
    head = backbone.head(len(LABELS), tokens)
    known = {"task": "tag" if tokens else backbone.family.task, "labels": LABELS, "fingerprint": backbone.fingerprint} | known
    adapter = Adapter.create((*methods, head), backbone.sites_for(head), seed=seed, **known)
    heads = randomised(only_head(adapter), seed=99, size=0.5)
    return dataclasses.replace(adapter, states=adapter.states | heads.states)


def random_adapter(backbone: Backbone, name: str | tuple[Method, ...], tokens: bool = False, seed: int = 1) -> Adapter:
    """An adapter as training leaves it: nothing in it is zero."""
    adapter = fresh(backbone, name, tokens, seed)
    size = 0.1 if backbone.family.processor.kind == "image" else 0.3  # what fifty convolutions make of more has lost its digits
    states = randomised(adapter, seed, size).states
    if AdaBN.name in states:  # nothing of it is trained
        states[AdaBN.name] = {site: (own, _noise(fixed, seed)) for site, (own, fixed) in states[AdaBN.name].items()}
    return dataclasses.replace(adapter, states=states | only_head(adapter).states)


def _noise(fixed: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: 0.1 * random.standard_normal(leaf.shape).astype(np.float32) for name, leaf in fixed.items()}


def as_saved(adapter: Adapter) -> Adapter:
    """The adapter as its file has it: of P-tuning's network the prompt that it makes."""
    states = dict(adapter.states)
    for method in adapter.methods:
        if isinstance(method, PTuning):
            made = {s: {"prompt": np.asarray(method.vectors(leaves))} for s, (leaves, _) in states[method.key].items()}
            states[method.key] = {s: (made[s], fixed) for s, (_, fixed) in states[method.key].items()}
    return dataclasses.replace(adapter, states=states)


def only_head(adapter: Adapter) -> Adapter:
    """The adapter without its methods: the base model under the same head."""
    heads = tuple(m for m in adapter.methods if isinstance(m, Head))
    return dataclasses.replace(adapter, methods=heads, states={h.key: adapter.states[h.key] for h in heads})


#: How much more is rounded in backbones of many convolutions, whose kernels are of size one and not 0.02: by family.
ROUNDING = {"mobilenet_v2": 4.0}


def near(adapter: Adapter, backbone: Backbone) -> float:
    """How far two programs may lie apart in this adapter's results."""
    return max(method.tolerance for method in adapter.methods) * ROUNDING.get(backbone.family.model_types[0], 1.0)


@functools.cache
def compiled(backbone: Backbone) -> Any:
    """Logits of the heads, as of `Backbone.forward`; of an encoder-decoder at each token of the target those of the next."""

    def said(params: Any, state: Any, inputs: Inputs, slots: Any = None) -> Logits:
        hidden = backbone.encode(params, state, inputs, slots).hidden
        return Logits(None, backbone.next_token(params, state, hidden, slots))

    return jax.jit(said if backbone.family.encodes else backbone.forward)


def at_head(out: Logits, head: str) -> Any:
    """Logits of the adapter's own classes, "pooled" or at "tokens", of the vocabulary, "said", or vectors of "both" towers."""
    if head == "said":
        return out.tokens
    if head == "both":
        return out.pooled
    found = out.tokens if head == "tokens" else out.pooled
    return found[..., : len(LABELS)]


HEADS = {"tag": "tokens", "seq2seq": "said", "contrastive": "both"}  # by task; the others' is "pooled"


def logits(backbone: Backbone, adapter: Adapter, inputs: Inputs, layout: Layout | None = None) -> np.ndarray:
    """Logits at the adapter's own classes, in its own layout or another one's program."""
    layout = layout or Layout.of([adapter], backbone.sites)
    out = compiled(backbone)(backbone.params, layout.stack(adapter, backbone.sites).state, inputs)
    return np.asarray(at_head(out, HEADS.get(adapter.task, "pooled")))
