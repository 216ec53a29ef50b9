"""A round of sixteen loops (a call with its gradient, and a step of Adam): together, one by one, and in engines of their own.

    python benchmarks/speed/rounds_of_loops.py [--backbone DIR] [--texts N] [--tokens N] [--methods] [--repeats N]

Ranks of 2 to 32, half of the loops at queries and values and half at the feed-forward; with `--methods` LoRA, DoRA, IA3 and
bottlenecks. Tokens are random, texts of unlike lengths, float32; all sides are graftax. One by one, the loops lie in one engine
as they do together, at sizes that hold all of them; in engines of their own each is as small as it is alone. What is measured
is whole: what was handed in read and laid, and log-likelihoods and losses on the host.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Literal

from harness import ROOT, Work, Worker, duel, report, row

LOOPS = 16
STORIES = str(ROOT.parent / "shared/assets/backbones/stories260K")


def rounds(backbone: str, texts: int, tokens: int, methods: bool, how: Literal["together", "one by one", "apart"]) -> Work:
    """A unit of work is one round of all loops."""
    from graftax.heap import keep_heap

    keep_heap()
    import numpy as np

    import graftax
    from graftax.tuning.loops.calls import Call, Datum, Step
    from graftax.tuning.loops.loops import Loops

    base = graftax.load_backbone(backbone)
    narrow, wide = (("q_proj", "v_proj"), ("up_proj", "down_proj")) if base.family.model_types[0] == "llama" else (None, None)
    kinds = [graftax.LoRA, graftax.DoRA, graftax.IA3, graftax.Bottleneck] if methods else [graftax.LoRA]
    random = np.random.default_rng(0)
    names = [f"loop {k}" for k in range(LOOPS)]
    engines = [Loops(base) for _ in names] if how == "apart" else [Loops(base)] * LOOPS
    calls = []
    for k, (name, engine) in enumerate(zip(names, engines, strict=True)):
        kind = kinds[k % len(kinds)]
        settings = {"r": 2 << k % 5, "targets": (narrow, wide)[k % 2]} if issubclass(kind, graftax.LoRA) else {}
        engine.create(name, [kind(**settings)], seed=k)
        ids = [random.integers(0, base.config.vocab_size, length) for length in random.integers(tokens // 2, tokens, texts) + 1]
        calls.append(Call(name, [Datum(own[:-1], {"target_tokens": own[1:]}) for own in ids]))
    steps = [Step(name) for name in names]
    yield {}
    while True:
        began = time.perf_counter()
        if how == "together":
            outcomes = engines[0].forward_backward(calls)
            stepped = engines[0].optim_step(steps)
        else:
            outcomes, stepped = [], []
            for engine, call, step in zip(engines, calls, steps, strict=True):
                outcomes += engine.forward_backward([call])
                stepped += engine.optim_step([step])
        took = time.perf_counter() - began
        if errors := [outcome.error for outcome in (*outcomes, *stepped) if outcome.error]:
            raise RuntimeError(errors[0])
        yield {"seconds": took}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default=STORIES)
    parser.add_argument("--texts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--methods", action="store_true")
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    size = {"backbone": args.backbone, "texts": args.texts, "tokens": args.tokens, "methods": args.methods}
    kinds = "four methods" if args.methods else "LoRAs of five ranks"
    what = (
        f"round of {LOOPS} loops ({kinds}), {Path(args.backbone).name}, {args.texts} texts of up to {args.tokens} tokens each"
    )
    for other, words in (("one by one", "one by one"), ("apart", "each in an engine of its own")):
        workers = Worker(rounds, **size, how="together"), Worker(rounds, **size, how=other)
        report(row(f"{what}: together / {words}", duel(*workers, repeats=args.repeats), "float32; both graftax"))
