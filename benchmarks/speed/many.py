"""Sixteen small tasks, from a cold process to sixteen saved LoRA adapters.

    python benchmarks/speed/many.py [--tasks N] [--epochs N] [--seeds N] [--grouped] [--sets]

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
import statistics
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


def repeated(split: str, count: int, sets: bool, seeds: int) -> dict[tuple[str, int], list[dict[str, str]]]:
    """Task and seed -> rows."""
    return {(name, seed): rows for name, rows in tasks(split, count, sets).items() for seed in range(seeds)}


def accuracies(right: dict[tuple[str, int], float], seeds: int) -> dict[str, float]:
    """Mean over the tasks, by seed."""
    return {f"seed {s}": statistics.mean(value for (_, seed), value in right.items() if seed == s) for s in range(seeds)}


def ours(count: int, sets: bool, epochs: int, seeds: int, out: str, cache: str) -> Work:
    os.environ["GRAFTAX_CACHE"] = cache
    from graftax.cache import use_compilation_cache

    use_compilation_cache()
    import graftax

    backbone = graftax.load_backbone(MINILM)
    recipe = graftax.Recipe(epochs=epochs, lr=LR)
    data = {f"{name}-{seed}": rows for (name, seed), rows in repeated("train", count, sets, seeds).items()}
    each = {name: {"seed": int(name.rpartition("-")[2])} for name in data}
    results = graftax.train_many(backbone, data, out, recipe=recipe, each=each, progress=False)
    yield {}

    predictor, right = graftax.Predictor(backbone), {}
    for name, result in results.items():
        predictor.load(name, result.directory)
    for (name, seed), test in repeated("test", count, sets, seeds).items():
        said = predictor.predict([row["text"] for row in test], f"{name}-{seed}")
        right[name, seed] = sum(p.label == row["label"] for p, row in zip(said, test, strict=True)) / len(test)
    yield accuracies(right, seeds)


def peft(count: int, sets: bool, epochs: int, seeds: int, out: str, grouped: bool) -> Work:
    import torch
    from peft import PeftModel, get_peft_model
    from torch_loop import accuracy, base_model, fit, lora

    base, tokenizer = base_model(INTENTS)
    for (name, seed), rows in repeated("train", count, sets, seeds).items():
        names = sorted({row["label"] for row in rows})
        labels = [names.index(row["label"]) for row in rows]
        torch.manual_seed(seed)
        base.classifier.weight.data.normal_(0.0, base.config.initializer_range)  # unload() leaves the last task's there
        base.classifier.bias.data.zero_()
        model = get_peft_model(base, lora())
        fit(model, tokenizer, [row["text"] for row in rows], labels, epochs=epochs, lr=LR, grouped=grouped)
        model.save_pretrained(str(Path(out) / f"{name}-{seed}"))
        base = model.unload()
    yield {}

    right = {}
    for (name, seed), rows in repeated("test", count, sets, seeds).items():
        names = sorted({row["label"] for row in rows})
        labels = [names.index(row["label"]) for row in rows]
        model = PeftModel.from_pretrained(base, str(Path(out) / f"{name}-{seed}"))
        right[name, seed] = accuracy(model, tokenizer, [row["text"] for row in rows], labels)
        base = model.unload()
    yield accuracies(right, seeds)


def spread(values: list[float]) -> str:
    """Mean, and the standard deviation where there are several."""
    return f"{statistics.mean(values):.1%}" + (f" (sd {statistics.stdev(values):.1%})" if len(values) > 1 else "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1, help="train every task so often, each time with another seed")
    parser.add_argument("--grouped", action="store_true", help="PEFT's batches by length too")
    parser.add_argument("--sets", action="store_true", help="every second task from another data set than CLINC150")
    args = parser.parse_args()
    size = {"count": args.tasks, "epochs": args.epochs, "sets": args.sets, "seeds": args.seeds}
    what = f"{args.tasks} tasks of {ROWS} rows ({'nine data sets' if args.sets else 'CLINC150'}), {args.epochs} epochs"
    what += f", {args.seeds} seeds" if args.seeds > 1 else ""
    runs: dict[str, tuple[dict[str, float], list[float]]] = {}
    with tempfile.TemporaryDirectory() as out:
        for name, side, options in (
            ("PEFT", peft, {"out": f"{out}/peft", "grouped": args.grouped}),
            ("an empty", ours, {"out": f"{out}/empty", "cache": f"{out}/cache"}),
            ("a warm", ours, {"out": f"{out}/warm", "cache": f"{out}/cache"}),
        ):
            worker = Worker(side, **size, **options)
            by_seed = worker.step()
            worker.close()
            runs[name] = worker.ready, [value for key, value in by_seed.items() if key.startswith("seed")]
            if name != "PEFT":
                note = f"mean accuracy {spread(runs[name][1])} / {spread(runs['PEFT'][1])}; one run"
                result = summary([(runs[name][0], runs["PEFT"][0])])
                report(row(f"{what}, cold process to saved adapters, {name} compilation cache", result, note))
