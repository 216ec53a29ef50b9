"""PEFT's options beside a LoRA, where a head of one or two layers is trained with it: PEFT's logits, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
from cases import logits
from peft_pairs import TASKS, Pairs, at_tokens, make, rows
from reference import torch_logits
from safetensors.numpy import load_file, save_file

from graftax import GraftaxError, load_adapter, save_adapter

#: Family, kind of head, options beside a LoRA, and the methods that they become.
CASES: dict[str, tuple[str, str, dict[str, Any], set[str]]] = {
    "roberta-all": ("roberta", "pooled", {"bias": "all"}, {"bitfit"}),
    "roberta-lora_only": ("roberta", "pooled", {"bias": "lora_only"}, {"bitfit"}),
    "roberta-all-tokens": ("roberta", "tokens", {"bias": "all"}, {"bitfit"}),
    "xlm-roberta-all": ("xlm-roberta", "pooled", {"bias": "all"}, {"bitfit"}),
    "distilbert-all": ("distilbert", "pooled", {"target_modules": ["q_lin"], "bias": "all"}, {"bitfit"}),
    "albert-all": ("albert", "pooled", {"target_modules": ["query"], "bias": "all"}, {"bitfit"}),
    "bert-all-and-pooler": ("bert", "pooled", {"bias": "all", "modules_to_save": ["pooler"]}, {"bitfit", "full"}),
    "roberta-all-and-norms": ("roberta", "pooled", {"bias": "all", "modules_to_save": ["LayerNorm"]}, {"bitfit", "full"}),
    "roberta-named-as-in-the-head": ("roberta", "pooled", {"target_modules": ["dense"]}, set()),
    "roberta-all-linear": ("roberta", "pooled", {"target_modules": "all-linear", "bias": "lora_only"}, {"bitfit"}),
    "bert-named-as-in-a-pooler-that-is-saved": (
        "bert",
        "pooled",
        {"target_modules": ["dense"], "modules_to_save": ["pooler"]},
        {"full"},
    ),
    "bert-layers-named-as-in-a-pooler": (
        "bert",
        "pooled",
        {"target_modules": ["dense"], "modules_to_save": ["attention.output"], "layers_to_transform": [0, 2]},
        {"full"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_peft_logits_and_back(case: str, pairs: Pairs, tmp_path: Path) -> None:
    shape, head, options, beside = CASES[case]
    pair = pairs(shape, head)
    config = peft.LoraConfig(task_type=TASKS[head][1], r=3, lora_alpha=7, **options)
    model, path = make(pair, tmp_path / "theirs", config)
    inputs = rows(pair.backbone)
    theirs = at_tokens(torch_logits(model, inputs), pair)
    adapter = load_adapter(path, pair.backbone)
    assert {method.name for method in adapter.methods} - {"lora", "head"} == beside
    np.testing.assert_allclose(at_tokens(logits(pair.backbone, adapter, inputs), pair), theirs, atol=1e-4, rtol=1e-4)
    back = save_adapter(adapter, tmp_path / "back", pair.backbone)
    again = load_adapter(back, pair.backbone)
    np.testing.assert_allclose(at_tokens(logits(pair.backbone, again, inputs), pair), theirs, atol=1e-4, rtol=1e-4)
    assert json.loads((back / "adapter_config.json").read_text())["peft_type"] == "LORA"
    loaded = peft.PeftModel.from_pretrained(pair.model(), back).eval()
    np.testing.assert_allclose(at_tokens(torch_logits(loaded, inputs), pair), theirs, atol=1e-4, rtol=1e-4)


def test_biases_that_a_file_repeats_say_nothing(pairs: Pairs, tmp_path: Path) -> None:
    """As PEFT reads it: what stands under the module's own name counts, whatever the adapter was called in training.

    But a trained copy that says something else is refused.
    """
    pair = pairs("roberta", "pooled")
    _, path = make(pair, tmp_path, peft.LoraConfig(task_type="SEQ_CLS", r=3, lora_alpha=7, bias="all"))
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    repeated = [key for key in tensors if ".modules_to_save." in key or ".original_module." in key]
    assert "base_model.model.classifier.modules_to_save.default.dense.bias" in repeated
    expected = logits(pair.backbone, load_adapter(path, pair.backbone), rows(pair.backbone))
    changed = {key.replace(".default.", ".mine."): t + (".original_module." in key) for key, t in tensors.items()}
    save_file(changed, file)
    theirs = torch_logits(peft.PeftModel.from_pretrained(pair.model(), path).eval(), rows(pair.backbone))
    np.testing.assert_allclose(theirs, expected, atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(logits(pair.backbone, load_adapter(path, pair.backbone), rows(pair.backbone)), expected)
    save_file({key: t + (key in repeated) for key, t in tensors.items()}, file)
    with pytest.raises(GraftaxError, match=r"classifier\.modules_to_save\.default\.dense\.bias"):
        load_adapter(path, pair.backbone)


def test_saved_modules_in_one_another_are_refused(pairs: Pairs, tmp_path: Path) -> None:
    """PEFT wraps what it has wrapped, answers with the copy in the copy, and cannot load what it has saved."""
    pair = pairs("bert", "pooled")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=3, lora_alpha=7, modules_to_save=["embeddings"])
    _, path = make(pair, tmp_path, config)
    with pytest.raises(KeyError):
        peft.PeftModel.from_pretrained(pair.model(), path)
    with pytest.raises(GraftaxError, match=r"modules_to_save='embeddings': .*embeddings\.modules_to_save\.default\."):
        load_adapter(path, pair.backbone)
