"""LoRA trained on real weights and rows, here and by PEFT, gives the same logits in both (invariant 11)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from cases import logits
from conftest import MINILM, SHARED, needs_assets
from reference import torch_logits
from safetensors.numpy import load_file

from graftax import LoRA, Recipe, load_adapter, load_backbone
from graftax.models.tokens import Tokenizer
from graftax.train import train


def intents(split: str, rows: int) -> list[dict[str, str]]:
    """Rows of three intents of CLINC150."""
    chosen = ("balance", "translate", "weather")
    with (SHARED / "data" / "clinc150" / f"{split}.csv").open(newline="", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["label"] in chosen]
    return found[:: len(found) // rows]


def trained_by_peft(path: Path) -> None:
    """A LoRA adapter with its classifier, a few steps of AdamW on MiniLM, saved by PEFT."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=["query", "value"], task_type="SEQ_CLS")
    model = peft.get_peft_model(minilm(), config).train()
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 5e-3)
    rows = intents("train", 48)
    names = sorted({row["label"] for row in rows})
    for begin in range(0, len(rows), 16):
        chunk = rows[begin : begin + 16]
        batch = tokenizer([row["text"] for row in chunk], padding=True, return_tensors="pt")
        model(**batch, labels=torch.tensor([names.index(row["label"]) for row in chunk])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(path)


def minilm() -> Any:
    auto = transformers.AutoModelForSequenceClassification
    return auto.from_pretrained(MINILM, num_labels=3, dtype=torch.float32)


@needs_assets
@pytest.mark.parametrize("maker", ["graftax", "peft"])
def test_trained_on_clinc150(maker: str, tmp_path: Path) -> None:
    """Invariant 11: a LoRA trained here and one by PEFT, on real weights and rows, give the same logits in both [1e-4]."""
    backbone, path = load_backbone(MINILM), tmp_path / "trained"
    if maker == "peft":
        trained_by_peft(path)
    else:
        recipe = Recipe(epochs=1, lr=5e-3, batch_size=16)
        train(backbone, intents("train", 48), path, method=LoRA(r=4, alpha=12.0), recipe=recipe, progress=False)
    assert all(np.abs(tensor).max() > 1e-3 for tensor in load_file(path / "adapter_model.safetensors").values())
    tokens = Tokenizer.of(backbone)([row["text"] for row in intents("test", 24)])
    inputs = Tokenizer.of(backbone).pad(tokens, len(tokens), 32)
    theirs = torch_logits(peft.PeftModel.from_pretrained(minilm(), path).eval(), inputs)
    np.testing.assert_allclose(logits(backbone, load_adapter(path, backbone), inputs), theirs, atol=1e-4)
