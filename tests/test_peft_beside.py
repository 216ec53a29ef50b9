"""What PEFT saves beside its method (weights, biases, rows of tokens), read with PEFT's logits and written as PEFT reads it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import test_decoders
import torch
import transformers
from cases import LABELS, logits, randomised
from reference import saved, torch_logits, torch_model
from safetensors.numpy import load_file, save_file
from test_peft import Pair, at_tokens, make, read_by_peft, rows
from test_peft_decoders import our_logits

from graftax import Adapter, BitFit, DoRA, Full, GraftaxError, LoRA, Method, TrainableTokens, load_adapter, load_backbone
from graftax import merge, save_adapter
from graftax.models.backbone import Backbone

Pairs = Callable[..., Pair]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """A pair by name: `bert` and `roberta` classify; the others are language models, `+N` with N more rows of words."""

    @functools.cache
    def directory(name: str) -> Path:
        shape, _, more = name.partition("+")
        model = torch_model(shape) if shape in ("bert", "roberta") else test_decoders.torch_model(shape)
        if more:
            model.resize_token_embeddings(97 + int(more))
        return saved(model, tmp_path_factory.mktemp(name))

    @functools.cache
    def backbone(name: str) -> Backbone:
        return load_backbone(directory(name))

    def get(name: str) -> Pair:
        if name in ("bert", "roberta"):
            auto, more = transformers.AutoModelForSequenceClassification, {"num_labels": len(LABELS)}
        else:
            auto, more = transformers.AutoModelForCausalLM, {}
        return Pair(backbone(name), lambda: auto.from_pretrained(directory(name), dtype=torch.float32, **more).eval())

    return get


def said(backbone: Backbone, adapter: Adapter) -> np.ndarray:
    return (our_logits if backbone.family.generates else logits)(backbone, adapter, rows(backbone))


def assert_same(pair: Pair, adapter: Adapter, theirs: np.ndarray) -> None:
    ours = at_tokens(said(pair.backbone, adapter), pair)
    np.testing.assert_allclose(ours, at_tokens(theirs, pair), atol=1e-4, rtol=1e-4)


LORA: dict[str, Any] = {"r": 3, "lora_alpha": 7}
WORDS = {"llama": "embed_tokens", "llama-biased": "embed_tokens", "gpt2": "wte"}
#: backbone, options beside a LoRA, the methods that they become, and whether PEFT reads what we write of them
CASES: dict[str, tuple[str, dict[str, Any], set[str], bool]] = {
    "bias-all": ("bert", {"bias": "all"}, {"bitfit"}, True),
    "bias-lora": ("bert", {"bias": "lora_only", "target_modules": ["query", "output.dense"]}, {"bitfit"}, True),
    "bias-all-decoder": ("gpt2", {"bias": "all", "target_modules": ["c_attn"]}, {"bitfit"}, True),
    "bias-of-none": ("llama", {"bias": "all"}, set(), True),
    "lora_bias": ("bert", {"lora_bias": True}, set(), True),
    "lora_bias-where-is-none": ("llama", {"lora_bias": True}, set(), True),
    "pooler": ("bert", {"modules_to_save": ["pooler"]}, {"full"}, True),
    "norms": ("roberta", {"modules_to_save": ["LayerNorm"]}, {"full"}, True),
    "norms-decoder": ("llama", {"modules_to_save": ["input_layernorm", "norm"]}, {"full"}, True),
    "embeddings": ("bert", {"modules_to_save": ["word_embeddings"]}, {"full"}, True),
    "both-tables": ("llama", {"modules_to_save": ["embed_tokens", "lm_head"]}, {"full"}, True),
    "a-conv1d": ("gpt2", {"modules_to_save": ["mlp.c_fc"], "target_modules": ["c_attn"]}, {"full"}, True),
    "tied-read": ("llama-biased", {"modules_to_save": ["embed_tokens"]}, {"full"}, True),
    "tied-said": ("gpt2", {"modules_to_save": ["lm_head"], "target_modules": ["c_attn"]}, {"full"}, True),
    "tokens": ("llama", {"trainable_token_indices": [12, 79]}, {"trainable_tokens"}, True),
    "tokens-tied": ("llama-biased", {"trainable_token_indices": {"embed_tokens": [12, 79]}}, {"trainable_tokens"}, True),
    "tokens-both": (
        "llama",
        {"trainable_token_indices": {"embed_tokens": [12], "lm_head": [12]}},
        {"trainable_tokens"},
        False,
    ),
    "lora-said-tied": ("llama-biased", {"target_modules": ["lm_head", "q_proj"]}, set(), True),
    "lora-tied-weights": ("llama-biased", {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, set(), True),
    "saved-tied-weights": (
        "llama-biased",
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        {"full"},
        True,
    ),
    "all-at-once": (
        "llama-biased",
        {"modules_to_save": ["norm"], "trainable_token_indices": [12], "bias": "lora_only"},
        {"full", "trainable_tokens", "bitfit"},
        True,
    ),
    "dora-and-norms": ("llama", {"use_dora": True, "modules_to_save": ["norm"]}, {"full"}, True),
}


@pytest.mark.parametrize("case", CASES)
def test_options_beside_a_lora(case: str, pairs: Pairs, tmp_path: Path) -> None:
    """11: PEFT's logits, the methods that the options are, and back."""
    name, options, beside, both_ways = CASES[case]
    pair = pairs(name)
    task = "CAUSAL_LM" if pair.backbone.family.generates else "SEQ_CLS"
    model, path = make(pair, tmp_path / "theirs", peft.LoraConfig(task_type=task, **LORA, **options))
    theirs = torch_logits(model, rows(pair.backbone))
    adapter = load_adapter(path, pair.backbone)
    assert {method.name for method in adapter.methods} - {"lora", "dora", "head"} == beside
    assert_same(pair, adapter, theirs)
    back = save_adapter(adapter, tmp_path / "back", pair.backbone)
    again = load_adapter(back, pair.backbone)
    assert again.methods == adapter.methods
    assert_same(pair, again, theirs)
    assert (json.loads((back / "adapter_config.json").read_text())["peft_type"] == "LORA") == both_ways
    if both_ways:
        loaded = peft.PeftModel.from_pretrained(pair.model(), back).eval()
        np.testing.assert_allclose(torch_logits(loaded, rows(pair.backbone)), theirs, atol=1e-4, rtol=1e-4)
