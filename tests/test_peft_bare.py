"""Adapters of PEFT's that name no task: of transformers' bare models, and of language models. What they are for, and whose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import peft
import pytest
import test_decoders
import test_encoder_decoders
import torch
import transformers
from conftest import some_inputs
from peft_pairs import Pair, make
from reference import SHAPES, saved, torch_inputs, torch_model

from graftax import Adapter, load_adapter, load_backbone, save_adapter
from graftax.adapters.adapter import Layout
from graftax.models.backbone import Backbone

LORA: dict[str, Any] = {"r": 3, "lora_alpha": 7}


def bare_pair(shape: str, directory: Path) -> Pair:
    path = saved(torch_model(shape) if shape in SHAPES else test_decoders.torch_model(shape), directory)
    return Pair(load_backbone(path), lambda: transformers.AutoModel.from_pretrained(path, dtype=torch.float32).eval())


def hidden(backbone: Backbone, adapter: Adapter) -> np.ndarray:
    """The last states of the real tokens."""
    inputs = some_inputs(backbone, seed=5)
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
    return np.asarray(jax.jit(backbone.encode)(backbone.params, state, inputs).hidden)[inputs.mask]


BARE: dict[str, tuple[str, dict[str, Any]]] = {
    "names": ("bert", {"target_modules": ["query", "output.dense"]}),
    "regex": ("bert", {"target_modules": r"encoder\.layer\.[01]\..*query|pooler\.dense", "bias": "lora_only"}),
    "patterns": (
        "bert",
        {
            "target_modules": ["query"],
            "rank_pattern": {r"^encoder\.layer\.1\.attention\.self\.query": 5},
            "alpha_pattern": {r"^encoder.layer.2.attention.self.query": 50},
        },
    ),
    "layers": ("bert", {"target_modules": ["query"], "layers_to_transform": [0, 2]}),
    "whole": ("roberta", {"target_modules": ["encoder.layer.1.attention.self.query"], "modules_to_save": ["word_embeddings"]}),
    "no-prefix-anywhere": ("distilbert", {"target_modules": ["q_lin"]}),
    "decoder": ("llama-biased", {"target_modules": r"layers\.[12]\.mlp\.down_proj|embed_tokens"}),
    "gpt2": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
}


@pytest.mark.parametrize(
    ("case", "task"),
    [("names", "FEATURE_EXTRACTION"), *((case, None) for case in BARE if case != "names")],
)
def test_adapters_of_the_bare_model(case: str, task: str | None, tmp_path: Path) -> None:
    """Invariant 11: the modules of `AutoModel` are those of the task model, and its states are PEFT's."""
    shape, options = BARE[case]
    pair = bare_pair(shape, tmp_path / "base")
    model, path = make(pair, tmp_path / "adapter", peft.LoraConfig(task_type=task, **LORA, **options))
    inputs = some_inputs(pair.backbone, seed=5)
    with torch.no_grad():
        theirs = model(**torch_inputs(inputs, model)).last_hidden_state.numpy()[inputs.mask]
    adapter = load_adapter(path, pair.backbone)
    np.testing.assert_allclose(hidden(pair.backbone, adapter), theirs, atol=1e-4, rtol=1e-4)
    back = save_adapter(adapter, tmp_path / "back", pair.backbone)
    np.testing.assert_allclose(hidden(pair.backbone, load_adapter(back, pair.backbone)), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("task", [None, "FEATURE_EXTRACTION", "CAUSAL_LM"])
def test_a_language_model_makes_language(task: str | None, tmp_path: Path) -> None:
    """What names no task is, on a language model, an adapter of one, and is saved as one."""
    path = saved(test_decoders.torch_model("llama"), tmp_path / "base")
    backbone = load_backbone(path)
    auto = transformers.AutoModelForCausalLM
    pair = Pair(backbone, lambda: auto.from_pretrained(path, dtype=torch.float32).eval())
    _, made = make(pair, tmp_path / "adapter", peft.LoraConfig(task_type=task, **LORA, target_modules=["q_proj"]))
    adapter = load_adapter(made, backbone)
    assert adapter.task == "lm"
    back = save_adapter(adapter, tmp_path / "back", backbone)
    assert json.loads((back / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"


@pytest.mark.parametrize("task", [None, "SEQ_2_SEQ_LM"])
def test_an_encoder_decoder_answers(task: str | None, tmp_path: Path) -> None:
    path = saved(test_encoder_decoders.torch_model("t5"), tmp_path / "base")
    backbone = load_backbone(path)
    auto = transformers.AutoModelForSeq2SeqLM
    pair = Pair(backbone, lambda: auto.from_pretrained(path, dtype=torch.float32).eval())
    _, made = make(pair, tmp_path / "adapter", peft.LoraConfig(task_type=task, **LORA, target_modules=["q", "lm_head"]))
    adapter = load_adapter(made, backbone)
    assert adapter.task == "seq2seq"
    back = save_adapter(adapter, tmp_path / "back", backbone)
    assert json.loads((back / "adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"


@pytest.mark.parametrize(("purpose", "task"), [("TokenClassification", "tag"), ("SequenceClassification", "classify")])
def test_the_class_of_the_model_says_what_its_head_is(purpose: str, task: str, tmp_path: Path) -> None:
    """BERT's classifiers of texts and of tokens have one name; without a task the model's class tells them apart."""
    path = saved(torch_model("bert"), tmp_path / "base")
    auto = getattr(transformers, f"AutoModelFor{purpose}")
    pair = Pair(load_backbone(path), lambda: auto.from_pretrained(path, num_labels=3, dtype=torch.float32).eval())
    config = peft.LoraConfig(**LORA, target_modules=["query"], modules_to_save=["classifier"])
    _, made = make(pair, tmp_path / "adapter", config)
    adapter = load_adapter(made, pair.backbone)
    assert adapter.task == task
    assert adapter.method("head") == pair.backbone.head(3, tokens=task == "tag")
