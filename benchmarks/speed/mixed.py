"""A batch of 32 rows under 32 different adapters (LoRA r 8 on query and value, a classifier of 16 each), MiniLM, float32.

    python benchmarks/speed/mixed.py [--resident N] [--repeats N]

The model call alone on tokenized arrays of 32 x 32, under 32 adapters, under one, and under none; then texts to labels
(32 test rows of CLINC150); then graftax with 1,000 adapters resident against graftax with one, with five methods in the rows
against LoRA alone, and with the average of four adapters in every row against one. graftax runs one compiled program for each;
PEFT takes `adapter_names=` for a mixture, `set_adapter` for one, `disable_adapter` for none.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from adapters_on_disk import adapter, write
from harness import MINILM, Work, Worker, clinc, duel, report, row

ROWS, LENGTH = 32, 32


FIVE = ("lora", "dora", "oft", "ia3", "bottleneck")


def ours(folder: str, adapters: int, resident: int, texts: bool, methods: int = 1, terms: int = 1) -> Work:
    import jax
    import numpy as np

    import graftax
    from graftax.adapters.graft import Mix
    from graftax.models.backbone import TOKENS
    from graftax.models.inputs import TextInputs

    backbone = graftax.load_backbone(MINILM)
    predictor = graftax.Predictor(backbone)
    for i in range(resident):
        on_disk = methods == 1 and i < ROWS
        predictor.load(str(i), Path(folder) / str(i) if on_disk else adapter(backbone, i, method=FIVE[i % methods]))
    names = [str(i * max(1, resident // ROWS) % adapters) if adapters else None for i in range(ROWS)]
    if texts:
        rows = [row["text"] for row in clinc("test")[::100][:ROWS]]
    else:
        ids = np.random.default_rng(0).integers(5, 30000, (ROWS, LENGTH)).astype(np.int32)
        inputs = TextInputs(ids, np.ones_like(ids, bool), np.zeros_like(ids))
        slots: Any = np.array([predictor.bank.slot(predictor.residents.resolve(name)) for name in names], np.int32)
        if terms > 1:
            several = np.stack([np.roll(slots, k) for k in range(terms)], axis=1)[:, None]
            slots = Mix(several, np.full(several.shape, 1.0 / terms, np.float32), slots)
        state = {name: tree for name, tree in predictor.bank.state.items() if name != TOKENS}
    yield {}
    while True:
        began = time.perf_counter()
        if texts:
            predictor.predict(rows, names)
        else:
            jax.device_get(predictor._forward(backbone.params, state, inputs, slots))
        yield {"seconds": time.perf_counter() - began}


def peft(folder: str, adapters: int, texts: bool) -> Work:
    import torch
    from peft import PeftModel
    from torch_loop import base_model

    model, tokenizer = base_model(16)
    model = PeftModel.from_pretrained(model, f"{folder}/0", adapter_name="0")
    for i in range(1, adapters):
        model.load_adapter(f"{folder}/{i}", adapter_name=str(i))
    model.eval()
    model.set_adapter("0")
    mixture = {"adapter_names": [str(i) for i in range(ROWS)]} if adapters > 1 else {}
    rows = [row["text"] for row in clinc("test")[::100][:ROWS]]
    ids = torch.randint(5, 30000, (ROWS, LENGTH))
    yield {}
    with torch.no_grad(), nullcontext() if adapters else model.disable_adapter():
        while True:
            began = time.perf_counter()
            if texts:
                batch = tokenizer(rows, padding=True, truncation=True, max_length=128, return_tensors="pt")
            else:
                batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            logits = model(**batch, **mixture).logits.cpu()
            if texts:
                scores, labels = torch.softmax(logits, -1).max(-1)
                list(zip(labels.tolist(), scores.tolist(), strict=True))
            yield {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--resident", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Worker(write, out=folder, count=ROWS).close()
        for adapters, texts in ((32, False), (1, False), (0, False), (32, True)):
            which = {32: "32 adapters", 1: "one adapter", 0: "no adapter"}[adapters]
            what = f"{'texts to labels' if texts else f'forward {ROWS} x {LENGTH}'}, {which} in {ROWS} rows"
            a = Worker(ours, folder=folder, adapters=adapters, resident=max(1, adapters), texts=texts)
            b = Worker(peft, folder=folder, adapters=adapters, texts=texts)
            report(row(what, duel(a, b, args.repeats)))
        one: dict[str, Any] = {"folder": folder, "adapters": ROWS, "resident": ROWS, "texts": False}
        for what, a, b in (
            (f"{args.resident} adapters resident, against one", {"adapters": args.resident, "resident": args.resident}, 1),
            ("five methods in 32 rows, against LoRA alone", {"methods": len(FIVE)}, ROWS),
            ("the average of four adapters in every row, against one adapter", {"terms": 4}, ROWS),
        ):
            left, right = Worker(ours, **{**one, **a}), Worker(ours, **{**one, "adapters": b, "resident": b})
            report(row(f"forward {ROWS} x {LENGTH}, {what}", duel(left, right, args.repeats), "both columns graftax"))
