"""One epoch of CLINC150 (15,100 rows at their own lengths, 151 labels), from a cold process to a saved LoRA adapter.

    python benchmarks/speed/epoch.py [--rows N] [--grouped] [--seed N]

LoRA r 8 on query and value, batch 32, AdamW 1e-3, linear schedule with 6% warm-up, clip 1, float32, no dropout. Everything is
in the time: imports, loading, tokenizing and compiling (there is no compilation cache). Accuracy, measured afterwards, is of
the 4,500 test rows with an intent (with `--rows N`, of N of them). PEFT's batches are random, padded to their longest row;
with `--grouped` they hold rows of like length (transformers' LengthGroupedSampler). One run per side, one after the other.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from harness import MINILM, Work, Worker, clinc, report, row, summary

LR = 1e-3


def rows(count: int | None) -> list[dict[str, str]]:
    found = clinc("train")
    return found if count is None else random.Random(0).sample(found, count)


def test_rows(count: int | None) -> list[dict[str, str]]:
    found = [row for row in clinc("test") if row["label"] != "oos"]
    return found if count is None else random.Random(0).sample(found, min(count, len(found)))


def ours(count: int | None, out: str, seed: int) -> Work:
    import graftax

    backbone = graftax.load_backbone(MINILM)
    recipe = graftax.Recipe(epochs=1, lr=LR, seed=seed)
    graftax.train_many(backbone, {"clinc": rows(count)}, out, recipe=recipe, progress=False)
    yield {}

    predictor = graftax.Predictor(backbone)
    predictor.load("clinc", Path(out) / "clinc")
    test = test_rows(count)
    said = predictor.predict([row["text"] for row in test], "clinc")
    yield {"accuracy": sum(p.label == row["label"] for p, row in zip(said, test, strict=True)) / len(test)}


def peft(count: int | None, out: str, grouped: bool, seed: int) -> Work:
    from peft import get_peft_model
    from torch_loop import accuracy, base_model, fit, lora

    train = rows(count)
    names = sorted({row["label"] for row in train})
    model, tokenizer = base_model(len(names), seed)
    model = get_peft_model(model, lora())
    labels = [names.index(row["label"]) for row in train]
    fit(model, tokenizer, [row["text"] for row in train], labels, epochs=1, lr=LR, grouped=grouped)
    model.save_pretrained(out)
    yield {}

    test = test_rows(count)
    right = [names.index(row["label"]) if row["label"] in names else -1 for row in test]
    yield {"accuracy": accuracy(model, tokenizer, [row["text"] for row in test], right)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int)
    parser.add_argument("--grouped", action="store_true", help="PEFT's batches by length too")
    parser.add_argument("--seed", type=int, default=0, help="of the start and the order of the rows, on both sides")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        a = Worker(ours, count=args.rows, out=f"{out}/graftax", seed=args.seed)
        right_a = a.step()["accuracy"]
        a.close()
        b = Worker(peft, count=args.rows, out=f"{out}/peft", grouped=args.grouped, seed=args.seed)
        right_b = b.step()["accuracy"]
        b.close()
    what = f"one epoch of CLINC150, {args.rows or 15100} rows, cold process to saved adapter"
    order = "by length" if args.grouped else "random"
    note = f"accuracy {right_a:.1%} / {right_b:.1%}; PEFT's batches {order}; seed {args.seed}; one run"
    report(row(what, summary([(a.ready, b.ready)]), note))
