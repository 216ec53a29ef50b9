"""The PEFT side's training loop and accuracy, as plain torch as possible; used by epoch.py and many.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WARMUP, CLIP, BATCH = 0.06, 1.0, 32


def base_model(labels: int, seed: int = 0) -> tuple[Any, Any]:
    """MiniLM with a fresh classifier and no dropout in the backbone, and its tokenizer."""
    import torch
    from harness import MINILM, torch_device
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = AutoModelForSequenceClassification.from_pretrained(MINILM, num_labels=labels, dtype=torch.float32, **off)
    model = model.to(torch_device())
    return model, AutoTokenizer.from_pretrained(MINILM)


def lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], task_type="SEQ_CLS")


def fit(
    model: Any, tokenizer: Any, texts: Sequence[str], labels: Sequence[int], *, epochs: int, lr: float, grouped: bool
) -> None:
    """AdamW, linear schedule with warm-up, clipped; batches padded to their longest row, of like length if `grouped`."""
    import torch
    from transformers import get_linear_schedule_with_warmup
    from transformers.trainer_pt_utils import LengthGroupedSampler

    rows = tokenizer(list(texts), truncation=True, max_length=128)["input_ids"]
    if grouped:
        sampler: Any = LengthGroupedSampler(BATCH, lengths=[len(row) for row in rows])
    else:
        sampler = torch.utils.data.RandomSampler(rows)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr, weight_decay=0.0)
    steps = epochs * -(-len(rows) // BATCH)
    schedule = get_linear_schedule_with_warmup(optimizer, round(WARMUP * steps), steps)
    model.train()
    for _ in range(epochs):
        order = list(sampler)
        for begin in range(0, len(order), BATCH):
            chunk = order[begin : begin + BATCH]
            batch = tokenizer.pad({"input_ids": [rows[i] for i in chunk]}, return_tensors="pt")
            batch["labels"] = torch.tensor([labels[i] for i in chunk])
            optimizer.zero_grad()
            model(**batch.to(model.device)).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, CLIP)
            optimizer.step()
            schedule.step()


def accuracy(model: Any, tokenizer: Any, texts: Sequence[str], labels: Sequence[int]) -> float:
    import torch

    model.eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    right = 0
    with torch.no_grad():
        for begin in range(0, len(order), 64):
            chunk = order[begin : begin + 64]
            batch = tokenizer([texts[i] for i in chunk], padding=True, truncation=True, max_length=128, return_tensors="pt")
            said = model(**batch.to(model.device)).logits.argmax(-1)
            right += sum(int(said[k]) == labels[i] for k, i in enumerate(chunk))
    return right / len(texts)
