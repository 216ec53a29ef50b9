"""PEFT's files on language models, both ways: same modules, same logits (invariants 11 and 24)."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import peft
import pytest
import test_decoders
import torch
import transformers
from cases import LABELS, ROUNDED, logits, only_head, randomised
from peft_pairs import Pair, at_tokens, make, read_by_peft, rows
from reference import saved, torch_logits
from safetensors.numpy import load_file, save_file

from graftax import (
    BOFT,
    HRA,
    IA3,
    OFT,
    AdaLoRA,
    Adapter,
    ALoRA,
    DoRA,
    FourierFT,
    GraftaxError,
    HiRA,
    LayerNormTuning,
    LoHa,
    LoKr,
    LoRA,
    Method,
    MiSS,
    Prefix,
    PromptTuning,
    PTuning,
    RandLoRA,
    RoAd,
    SHiRA,
    TrainableTokens,
    VeRA,
    load_adapter,
    load_backbone,
    merge,
    save_adapter,
)
from graftax.adapters.adapter import Layout
from graftax.models.backbone import Backbone
from graftax.models.inputs import Inputs

Pairs = Callable[[str, str], Pair]
AUTO = {"CAUSAL_LM": "CausalLM", "SEQ_CLS": "SequenceClassification"}


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """A pair by shape and PEFT's name of the task."""

    @functools.cache
    def decoder(shape: str) -> tuple[Path, Backbone]:
        path = saved(test_decoders.torch_model(shape), tmp_path_factory.mktemp(shape))
        return path, load_backbone(path)

    def get(shape: str, task: str) -> Pair:
        path, backbone = decoder(shape)
        auto = getattr(transformers, f"AutoModelFor{AUTO[task]}")
        more = {"num_labels": len(LABELS)} if task == "SEQ_CLS" else {}
        return Pair(backbone, lambda: auto.from_pretrained(path, dtype=torch.float32, **more).eval())

    return get


def random_adapter(backbone: Backbone, method: Method, task: str) -> Adapter:
    """As training leaves it; of a language model without a head."""
    if task == "CAUSAL_LM":
        return randomised(Adapter.create((method,), backbone.sites, task="lm", fingerprint=backbone.fingerprint))
    head = backbone.head(len(LABELS))
    return randomised(Adapter.create((method, head), backbone.sites_for(head), labels=LABELS))


def our_logits(backbone: Backbone, adapter: Adapter, inputs: Inputs) -> np.ndarray:
    """Of the classes, or without a head of the next token at every token."""
    if only_head(adapter).methods:
        return logits(backbone, adapter, inputs)
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state

    @jax.jit
    def run(params: Any, state: Any, inputs: Inputs) -> jax.Array:
        return backbone.next_token(params, state, backbone.encode(params, state, inputs).hidden)

    return np.asarray(run(backbone.params, state, inputs))


def assert_same_logits(pair: Pair, ours: np.ndarray, theirs: np.ndarray, whole: bool = False) -> None:
    """At the real tokens. `whole`: of the first row alone, which has no padding."""
    ours, theirs = at_tokens(ours, pair), at_tokens(theirs, pair)
    if whole:
        ours, theirs = ours[:1], theirs[:1]
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    assert np.abs(theirs).max() > 0.3


#: By the names of Llama, GPT-2 and GPT-NeoX.
PLACES = ["q_proj", "v_proj", "down_proj", "c_attn", "mlp.c_proj", "query_key_value", "dense_4h_to_h"]
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "c_attn", "c_proj", "c_fc")
ALL += ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
TABLE = ("embed_tokens", "wte", "embed_in")
SMALL: dict[str, Any] = {"r": 3, "alpha": 7.0}
#: By name: a method here, and a config of PEFT's and its settings beside the task.
VARIANTS: dict[str, tuple[Method, Any, dict[str, Any]]] = {
    "lora": (LoRA(**SMALL), peft.LoraConfig, {"r": 3, "lora_alpha": 7}),
    "lora-all": (LoRA(**SMALL, targets=ALL), peft.LoraConfig, {"r": 3, "lora_alpha": 7, "target_modules": "all-linear"}),
    "lora-embedding": (
        LoRA(**SMALL, targets=(*TABLE, "v_proj", "c_attn")),
        peft.LoraConfig,
        {"r": 3, "lora_alpha": 7, "target_modules": [*TABLE, "k_proj"]},
    ),
    "lora-lm_head": (
        LoRA(**SMALL, targets=("lm_head", "q_proj")),
        peft.LoraConfig,
        {"r": 3, "lora_alpha": 7, "target_modules": ["lm_head", "o_proj"]},
    ),
    "rslora": (
        LoRA(**SMALL, rslora=True, rank_pattern={"v_proj": 5}),
        peft.LoraConfig,
        {"r": 3, "lora_alpha": 7, "use_rslora": True, "alpha_pattern": {"q_proj": 4}},
    ),
    "dora": (
        DoRA(**SMALL),
        peft.LoraConfig,
        {"r": 3, "lora_alpha": 7, "use_dora": True, "target_modules": PLACES},
    ),
    "alora": (  # its one token is in the first row twice
        ALoRA(**SMALL, targets=ALL, invocation=(79,)),
        peft.LoraConfig,
        {"r": 3, "lora_alpha": 7, "alora_invocation_tokens": [79], "target_modules": PLACES},
    ),
    "ia3": (IA3(), peft.IA3Config, {}),
    "vera": (VeRA(r=5), peft.VeraConfig, {"r": 5, "target_modules": PLACES}),
    "oft": (OFT(oft_block_size=4), peft.OFTConfig, {"oft_block_size": 8, "target_modules": PLACES}),
    "loha": (LoHa(**SMALL), peft.LoHaConfig, {"r": 3, "alpha": 7, "target_modules": PLACES}),
    "lokr": (LoKr(**SMALL, targets=ALL), peft.LoKrConfig, {"r": 3, "alpha": 7, "target_modules": PLACES}),
    "randlora": (  # at places that use all of the random bases: what none uses is written as zeros
        RandLoRA(r=5, alpha=2.0),
        peft.RandLoraConfig,
        {"r": 5, "randlora_alpha": 2, "target_modules": ["q_proj", "v_proj", "down_proj", "c_attn", "query_key_value"]},
    ),
    "miss": (MiSS(r=6, targets=ALL), peft.MissConfig, {"r": 6, "target_modules": PLACES}),
    "boft": (BOFT(), peft.BOFTConfig, {"boft_block_size": 8, "target_modules": PLACES}),
    "hra": (HRA(r=3), peft.HRAConfig, {"r": 4, "target_modules": PLACES}),
    "road": (RoAd(variant="road_2", group_size=8), peft.RoadConfig, {"group_size": 16, "target_modules": PLACES}),
    "shira": (SHiRA(r=3), peft.ShiraConfig, {"r": 4, "target_modules": PLACES}),
    "adalora": (AdaLoRA(init_r=3, target_r=3, alpha=7.0), peft.AdaLoraConfig, {"init_r": 5, "lora_alpha": 7, "total_step": 9}),
    "hira": (HiRA(r=3), peft.HiraConfig, {"r": 3, "target_modules": PLACES}),
    "fourierft": (FourierFT(n_frequency=40, scaling=20.0), peft.FourierFTConfig, {"n_frequency": 50, "scaling": 30.0}),
    "ln_tuning": (LayerNormTuning(), peft.LNTuningConfig, {}),
    "trainable_tokens": (TrainableTokens(ids=(79, 9)), peft.TrainableTokensConfig, {"token_indices": [12, 79]}),
    "trainable_tokens-said": (
        TrainableTokens(ids=(79, 9), targets=(*TABLE, "lm_head", "embed_out")),
        peft.TrainableTokensConfig,
        {"token_indices": [12, 79], "target_modules": [*TABLE, "lm_head", "embed_out"]},
    ),
    "prefix": (Prefix(tokens=4), peft.PrefixTuningConfig, {"num_virtual_tokens": 4}),
    "prompt": (PromptTuning(tokens=4), peft.PromptTuningConfig, {"num_virtual_tokens": 4}),
    "p_tuning": (
        PTuning(tokens=4, encoder_hidden_size=6),
        peft.PromptEncoderConfig,
        {"num_virtual_tokens": 4, "encoder_hidden_size": 6},
    ),
}
UNLIKE_LINEAR = (peft.LNTuningConfig, peft.PrefixTuningConfig, peft.PromptTuningConfig, peft.PromptEncoderConfig)
UNLIKE_LINEAR += (peft.TrainableTokensConfig,)
AGAIN = "base_model.model.lm_head.trainable_tokens_delta"  # of a tied table PEFT has the rows twice
#: Those whose default sites are PEFT's.
DEFAULTS = ("lora", "ia3", "ln_tuning", "trainable_tokens")
CASES = [(shape, variant, task) for shape in ("llama", "gpt2", "neox") for variant in VARIANTS for task in AUTO]
#: The model has no lm_head of its own, PEFT's method acts on no Conv1D or has no default for the family.
WITHOUT = {("gpt2", variant) for variant in ("lora-lm_head", "oft", "loha", "trainable_tokens-said")} | {("neox", "ln_tuning")}
WITHOUT |= {("gpt2", variant) for variant in ("lokr", "miss", "boft", "hra", "road", "shira")}
#: The task has no lm_head, or PEFT has the method for language models alone.
WITHOUT_HEAD = ("lora-lm_head", "alora", "trainable_tokens", "trainable_tokens-said")
CASES = [(s, k, t) for s, k, t in CASES if (s, k) not in WITHOUT and (k not in WITHOUT_HEAD or t == "CAUSAL_LM")]
EVERY_TIME = [("llama", variant, "CAUSAL_LM") for variant in ("lora-embedding", "alora", "prefix")]
EVERY_TIME += [("llama", "lora-all", "SEQ_CLS")]
EVERY_TIME += [("gpt2", "trainable_tokens", "CAUSAL_LM"), ("llama", "trainable_tokens-said", "CAUSAL_LM")]
EVERY_TIME += [("gpt2", "lora", "CAUSAL_LM"), ("neox", "ia3", "CAUSAL_LM")]
MARKED = [pytest.param(*c, id="-".join(c), marks=() if c in EVERY_TIME else pytest.mark.slow) for c in CASES]


def pools_padding(variant: str, task: str) -> bool:
    """Under a prompt transformers finds no padding, and pools the last position whatever is there."""
    return variant in ("prompt", "p_tuning") and task == "SEQ_CLS"


@pytest.mark.parametrize(("shape", "variant", "task"), MARKED)
def test_peft_reads_our_files(shape: str, variant: str, task: str, pairs: Pairs, tmp_path: Path) -> None:
    """Invariant 11: every tensor of the file finds its place, and the logits are the same."""
    pair = pairs(shape, task)
    adapter = random_adapter(pair.backbone, VARIANTS[variant][0], task)
    path = save_adapter(adapter, tmp_path / "a", pair.backbone)
    config = json.loads((path / "adapter_config.json").read_text())
    assert (config["task_type"], config.get("modules_to_save")) == (task, ["score"] if task == "SEQ_CLS" else None)
    ours = our_logits(pair.backbone, adapter, rows(pair.backbone))
    model = peft.PeftModel.from_pretrained(pair.model(), path).eval()
    linear = VARIANTS[variant][1] not in UNLIKE_LINEAR
    assert bool(config.get("fan_in_fan_out")) == (shape == "gpt2" and linear)
    mine = set(load_file(path / "adapter_model.safetensors"))
    twice = {AGAIN} if shape == "gpt2" else set()
    assert mine == set(peft.get_peft_model_state_dict(model, save_embedding_layers=False)) - twice
    assert_same_logits(pair, ours, torch_logits(model, rows(pair.backbone)), pools_padding(variant, task))
    again = load_adapter(path, pair.backbone)
    assert (again.task, again.methods) == (adapter.task, adapter.methods)


@pytest.mark.parametrize(("shape", "variant", "task"), MARKED)
def test_we_read_pefts_files(shape: str, variant: str, task: str, pairs: Pairs, tmp_path: Path) -> None:
    """Invariant 11: adapters made and saved by PEFT give PEFT's logits, and go back as they came."""
    method, config, settings = VARIANTS[variant]
    pair = pairs(shape, task)
    model, path = make(pair, tmp_path, config(task_type=task, **settings))
    adapter = load_adapter(path, pair.backbone)
    assert adapter.task == ("lm" if task == "CAUSAL_LM" else "classify")
    if variant in DEFAULTS:
        assert set(adapter.states[method.key]) == set(method.select(pair.backbone.sites))
    ours = our_logits(pair.backbone, adapter, rows(pair.backbone))
    assert_same_logits(pair, ours, torch_logits(model, rows(pair.backbone)), pools_padding(variant, task))
    back = load_file(save_adapter(adapter, tmp_path / "back", pair.backbone) / "adapter_model.safetensors")
    for key, tensor in load_file(path / "adapter_model.safetensors").items():
        if not key.endswith("base_layer.weight") and (shape, key) != ("gpt2", AGAIN):
            np.testing.assert_allclose(back[key], tensor, rtol=0.0, atol=ROUNDED.get(variant, 0.0), err_msg=key)


#: One adapter on each family: targets, and those of PEFT's own default where it has one for the family.
FAMILIES: dict[str, tuple[str, ...] | None] = {
    "llama-biased": None,
    "mistral": None,
    "qwen2": None,
    "qwen3": None,
    "gemma": None,
    "gemma2": ("q_proj", "o_proj", "down_proj"),
    "gemma3": ("q_proj", "o_proj", "down_proj"),
    "phi3": ("qkv_proj", "gate_up_proj"),
    "gpt2-untied": None,
    "neox-behind": None,
}


@pytest.mark.parametrize("shape", [pytest.param(s, marks=() if s == "phi3" else pytest.mark.slow) for s in FAMILIES])
def test_every_family(shape: str, pairs: Pairs, tmp_path: Path) -> None:
    """Invariant 11: a LoRA of PEFT's is read, and written as PEFT reads it."""
    pair, targets = pairs(shape, "CAUSAL_LM"), FAMILIES[shape]
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=7, target_modules=list(targets) if targets else None)
    model, path = make(pair, tmp_path, config)
    adapter = load_adapter(path, pair.backbone)
    ours = our_logits(pair.backbone, adapter, rows(pair.backbone))
    assert_same_logits(pair, ours, torch_logits(model, rows(pair.backbone)))
    if targets is None:
        assert set(adapter.states["lora"]) == set(LoRA().select(pair.backbone.sites))
    theirs = read_by_peft(pair, save_adapter(adapter, tmp_path / "back", pair.backbone))
    np.testing.assert_allclose(theirs, at_tokens(ours, pair), atol=1e-4, rtol=1e-4)


def test_what_peft_does_not_do_to_a_conv1d(pairs: Pairs, tmp_path: Path) -> None:
    backbone = pairs("gpt2", "CAUSAL_LM").backbone
    adapter = random_adapter(backbone, VARIANTS["loha"][0], "CAUSAL_LM")
    path = save_adapter(adapter, tmp_path / "a", backbone)
    config = json.loads((path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["task_type"]) == ("GRAFTAX", "CAUSAL_LM")
    assert load_adapter(path, backbone).methods == adapter.methods


def test_a_tied_table_is_not_merged(pairs: Pairs) -> None:
    """An adapter of the words changes what is looked up, and not the projection to the vocabulary; a head knows none."""
    backbone = pairs("gpt2", "CAUSAL_LM").backbone
    with pytest.raises(GraftaxError, match=r"transformer\.wte cannot be merged"):
        merge(backbone, random_adapter(backbone, VARIANTS["lora-embedding"][0], "CAUSAL_LM"))
    merge(backbone, random_adapter(backbone, VARIANTS["lora-embedding"][0], "SEQ_CLS"))
    merge(backbone, random_adapter(backbone, VARIANTS["lora"][0], "CAUSAL_LM"))


def test_an_embedding_need_not_be_saved(pairs: Pairs, tmp_path: Path) -> None:
    """PEFT saves the base's table beside an adapter of it, unless told not to."""
    pair = pairs("llama", "CAUSAL_LM")
    _, path = make(pair, tmp_path, VARIANTS["lora-embedding"][1](task_type="CAUSAL_LM", **VARIANTS["lora-embedding"][2]))
    adapter, file = load_adapter(path, pair.backbone), path / "adapter_model.safetensors"
    tensors = load_file(file)
    kept = {key: tensor for key, tensor in tensors.items() if not key.endswith("base_layer.weight")}
    assert len(kept) == len(tensors) - 1
    save_file(kept, file)
    assert load_adapter(path, pair.backbone).methods == adapter.methods
