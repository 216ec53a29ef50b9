"""Sixteen small tasks, from a cold process to sixteen saved LoRA adapters.

    python benchmarks/many.py [--tasks N] [--epochs N] [--grouped] [--sets]

The tasks are cut from CLINC150: nine intents each, 200 rows, five epochs; the test rows of its own intents measure each. With
`--sets` every second one is instead 200 rows of another data set (single texts, two to seven labels, from phrases to news): as
domains differ in what people write, so do the lengths of their texts. Same
recipe on both sides: LoRA r 8 on query and value, batch 32, AdamW 3e-3, linear schedule with 6% warm-up, clip 1, float32, no
dropout. graftax trains all in one call, once with an empty and once with a warm compilation cache; PEFT loads the model once
and trains one adapter after the other.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import tempfile
from pathlib import Path

from harness import DATA, MINILM, Work, Worker, clinc, report, row, summary

INTENTS, ROWS, LR = 9, 200, 3e-3
SETS = (
    "sst2",
    "sms_spam",
    "ag_news",
    "snips",
    "cola",
    "multi_domain_sentiment/movie_reviews",
    "multi_domain_sentiment/mpqa_opinion",
    "multi_domain_sentiment/subjectivity",
)


def tasks(split: str, count: int, sets: bool) -> dict[str, list[dict[str, str]]]:
    """Task -> rows."""
    cut = clinc_tasks(split, count)
    if sets:
        for name, other in zip(list(cut)[::2], SETS, strict=False):
            cut[name] = sample(other, split)
    return cut


def sample(name: str, split: str) -> list[dict[str, str]]:
    """As many random rows of a data set as the other tasks have."""
    file = DATA / name / f"{'dev' if (name, split) == ('cola', 'test') else split}.csv"
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [{"text": row["text"], "label": row["label"]} for row in csv.DictReader(lines)]
    return random.Random(0).sample(rows, ROWS if split == "train" else 30 * INTENTS)


def clinc_tasks(split: str, count: int) -> dict[str, list[dict[str, str]]]:
    """Tasks of CLINC150, the intents of a task in turn."""
    by_intent: dict[str, list[dict[str, str]]] = {}
    for one in clinc(split):
        by_intent.setdefault(one["label"], []).append(one)
    intents = sorted(by_intent.keys() - {"oos"})
    cut = {}
    for t in range(count):
        own = [by_intent[intent] for intent in intents[t * INTENTS : (t + 1) * INTENTS]]
        turns = [one for turn in zip(*own, strict=True) for one in turn]
        cut[f"task{t:02}"] = turns[:ROWS] if split == "train" else turns
    return cut


def ours(count: int, sets: bool, epochs: int, out: str, cache: str) -> Work:
    os.environ["GRAFTAX_CACHE"] = cache
    from graftax.cli import use_compilation_cache

    use_compilation_cache()
    import graftax

    backbone = graftax.load_backbone(MINILM)
    recipe = graftax.Recipe(epochs=epochs, lr=LR)
    results = graftax.train_many(backbone, tasks("train", count, sets), out, recipe=recipe, progress=False)
    yield {}

    predictor, scores = graftax.Predictor(backbone), []
    for name, test in tasks("test", count, sets).items():
        predictor.load(name, results[name].directory)
        said = predictor.predict([row["text"] for row in test], name)
        scores.append(sum(p.label == row["label"] for p, row in zip(said, test, strict=True)) / len(test))
    yield {"accuracy": sum(scores) / count}


def peft(count: int, sets: bool, epochs: int, out: str, grouped: bool) -> Work:
    from peft import PeftModel, get_peft_model
    from torch_loop import accuracy, base_model, fit, lora

    base, tokenizer = base_model(INTENTS)
    for name, rows in tasks("train", count, sets).items():
        names = sorted({row["label"] for row in rows})
        labels = [names.index(row["label"]) for row in rows]
        model = get_peft_model(base, lora())
        fit(model, tokenizer, [row["text"] for row in rows], labels, epochs=epochs, lr=LR, grouped=grouped)
        model.save_pretrained(str(Path(out) / name))
        base = model.unload()
    yield {}

    scores = []
    for name, rows in tasks("test", count, sets).items():
        names = sorted({row["label"] for row in rows})
        labels = [names.index(row["label"]) for row in rows]
        model = PeftModel.from_pretrained(base, str(Path(out) / name))
        scores.append(accuracy(model, tokenizer, [row["text"] for row in rows], labels))
        base = model.unload()
    yield {"accuracy": sum(scores) / count}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--grouped", action="store_true", help="PEFT's batches by length too")
    parser.add_argument("--sets", action="store_true", help="every second task from another data set than CLINC150")
    args = parser.parse_args()
    size = {"count": args.tasks, "epochs": args.epochs, "sets": args.sets}
    runs = []
    with tempfile.TemporaryDirectory() as out:
        for side, options in (
            (ours, {"out": f"{out}/empty", "cache": f"{out}/cache"}),
            (ours, {"out": f"{out}/warm", "cache": f"{out}/cache"}),
            (peft, {"out": f"{out}/peft", "grouped": args.grouped}),
        ):
            worker = Worker(side, **size, **options)
            runs.append({**worker.step(), **worker.ready})
            worker.close()
    for one, state in zip(runs, ("an empty", "a warm"), strict=False):
        size = f"{args.tasks} tasks of {ROWS} rows ({'nine data sets' if args.sets else 'CLINC150'}), {args.epochs} epochs"
        what = f"{size}, cold process to saved adapters, {state} compilation cache"
        note = f"mean accuracy {one['accuracy']:.1%} / {runs[2]['accuracy']:.1%}; one run"
        report(row(what, summary([(one, runs[2])]), note))
