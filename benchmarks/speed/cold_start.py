"""The first answer of a fresh process: import, load MiniLM, load one LoRA adapter, predict one text.

    python benchmarks/speed/cold_start.py [--runs N]

graftax finds its programs in a warm compilation cache, as its command line keeps one; PEFT's model, tokenizer and adapter are
on the same disk. The two take turns, a new process each time; the time is from starting the process to the answer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

from adapters_on_disk import write
from harness import MINILM, Work, Worker, report, row, summary, torch_device

PARTS = ("imports", "backbone", "adapter", "predict")
TEXT = "how do i say hello in french"


def ours(folder: str) -> Work:
    times = [time.perf_counter()]
    os.environ["GRAFTAX_CACHE"] = f"{folder}/cache"
    from graftax.cache import use_compilation_cache

    use_compilation_cache()
    from graftax import Predictor, load_backbone

    times.append(time.perf_counter())
    backbone = load_backbone(MINILM)
    times.append(time.perf_counter())
    predictor = Predictor(backbone)
    predictor.load("0", f"{folder}/0")
    times.append(time.perf_counter())
    predictor.predict([TEXT], "0")
    times.append(time.perf_counter())
    yield {part: end - begin for part, begin, end in zip(PARTS, times, times[1:], strict=False)}


def peft(folder: str) -> Work:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(MINILM, num_labels=16, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    model = PeftModel.from_pretrained(model.to(torch_device()), f"{folder}/0").eval()
    with torch.no_grad():
        model(**tokenizer([TEXT], return_tensors="pt").to(model.device)).logits.softmax(-1).max(-1)[0].item()
    yield {}


def run(side: object, folder: str) -> dict[str, float]:
    worker = Worker(side, folder=folder)
    worker.close()
    return worker.ready


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Worker(write, out=folder, count=1).close()
        run(ours, folder), run(peft, folder)  # fills the compilation cache and the page cache
        pairs = [(run(ours, folder), run(peft, folder)) for _ in range(args.runs)]
    parts = ", ".join(f"{part} {statistics.median(a[part] for a, _ in pairs):.2f} s" for part in PARTS)
    report(row("cold process to a first answer, one adapter", summary(pairs), f"graftax: {parts}"))
