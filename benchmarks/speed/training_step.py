"""One LoRA training step (r 8 on query and value, no dropout), graftax against PEFT on torch.

python benchmarks/speed/training_step.py [minilm|base] [--rows N] [--dtype float32|bfloat16]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from harness import MINILM, Work, Worker, duel, report, row, torch_device, torch_ready

SHAPES = {"minilm": (32, 64, 6, 384, 12, 1536), "base": (8, 128, 12, 768, 12, 3072)}


def _config(shape: str) -> dict:
    _, _, layers, hidden, heads, wide = SHAPES[shape]
    return {
        "model_type": "bert",
        "vocab_size": 30522,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": wide,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    }


def ours(
    shape: str,
    tokens: bool,
    rows: int | None = None,
    dtype: str = "float32",
    method: str = "lora",
    settings: dict[str, Any] | None = None,
) -> Work:
    from graftax.heap import keep_heap

    keep_heap()
    import jax
    import numpy as np

    import graftax
    from graftax.adapters.adapter import Adapter, Layout
    from graftax.adapters.methods.method_registry import method_class
    from graftax.models.inputs import TextInputs
    from graftax.models.load import load_backbone
    from graftax.models.random import random_backbone
    from graftax.tasks.task_registry import task_named
    from graftax.train.optimizer import rates
    from graftax.train.step import Batch, Programs, hyper, start

    rows, length = rows or SHAPES[shape][0], SHAPES[shape][1]
    backbone = load_backbone(MINILM, dtype=dtype) if shape == "minilm" else random_backbone(_config(shape), dtype=dtype)
    task = task_named("tag" if tokens else "classify")
    body = method_class(method)(**settings or {})
    adapter = Adapter.create((body, backbone.head(8, tokens=tokens)), backbone.sites)
    layout = Layout.of([adapter], backbone.sites)
    rates_of = hyper(graftax.Recipe(lr=1e-3, warmup=0.1), total=100, classes=8)
    stacked = layout.stack(adapter, backbone.sites)
    learner = start(stacked, rates(graftax.Recipe(), stacked, backbone.sites, 1), rates_of, "adamw")
    random = np.random.default_rng(0)
    inputs = TextInputs(
        random.integers(5, 30000, (rows, length)).astype(np.int32),
        np.ones((rows, length), bool),
        np.zeros((rows, length), np.int32),
    )
    labels = random.integers(0, 8, (rows, length) if tokens else rows).astype(np.int32)
    pack, batch = jax.tree.map(
        lambda leaf: np.asarray(leaf)[None], (learner, Batch(inputs, labels, np.ones(rows, np.float32), np.bool_(True)))
    )
    step = Programs(backbone, task, 1, dropout=False).step
    pack = jax.tree.map(jax.numpy.asarray, pack)
    yield {}
    while True:
        began = time.perf_counter()
        pack = jax.block_until_ready(step(backbone.params, backbone.unrolled, pack, batch))
        yield {"seconds": time.perf_counter() - began}


def peft(
    shape: str,
    tokens: bool,
    rows: int | None = None,
    dtype: str = "float32",
    config: str = "LoraConfig",
    settings: dict[str, Any] | None = None,
) -> Work:
    from graftax.heap import keep_heap

    keep_heap()  # torch gains from it too: the same for both
    import peft
    import torch
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, BertConfig

    rows, length = rows or SHAPES[shape][0], SHAPES[shape][1]
    auto = AutoModelForTokenClassification if tokens else AutoModelForSequenceClassification
    off = {"num_labels": 8, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if shape == "minilm":
        model = auto.from_pretrained(MINILM, dtype=getattr(torch, dtype), **off)
    else:
        model = auto.from_config(BertConfig(**_config(shape), **off), dtype=getattr(torch, dtype))
    settings = settings or {"r": 8, "target_modules": ["query", "value"]}
    made = getattr(peft, config)(task_type="TOKEN_CLS" if tokens else "SEQ_CLS", **settings)
    model = peft.get_peft_model(model.to(torch_device()), made).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-3)
    ids = torch.randint(5, 30000, (rows, length))
    mask = torch.ones_like(ids)
    labels = torch.randint(0, 8, (rows, length) if tokens else (rows,))
    yield {}
    while True:
        began = time.perf_counter()
        optimizer.zero_grad()
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        torch_ready()
        yield {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    args = parser.parse_args()
    for shape in args.shapes:
        for tokens in (False, True):
            what = f"LoRA step, {shape} {args.rows or SHAPES[shape][0]} x {SHAPES[shape][1]}"
            what += f", {'every token read' if tokens else 'pooled position read'}"
            how = {"shape": shape, "tokens": tokens, "rows": args.rows, "dtype": args.dtype}
            report(
                row(what, duel(Worker(ours, **how), Worker(peft, **how), repeats=10), f"{args.dtype}; heap kept on both sides")
            )
