"""A sweep of 16 learning rates (LoRA on MiniLM, 64 rows of CLINC150's texts): in one pack against one by one.

    python benchmarks/speed/sweep.py [--rates 16] [--batch 8] [--packs 16 4 1]

Whole calls of `train_many`, in turns, each after a call that compiles its programs; both columns graftax.
"""

from __future__ import annotations

import argparse
import tempfile
import time

from harness import MINILM, Work, Worker, clinc, duel, report, row


def sweep(rates: int, batch: int, epochs: int, pack: int) -> Work:
    import graftax

    backbone = graftax.load_backbone(MINILM)
    rows = [one for one in clinc("train") if one["label"] in ("transfer", "flight_status", "weather", "translate")]
    rows = rows[:: max(1, len(rows) // 64)][:64]
    data = {f"rate{i}": rows for i in range(rates)}
    each = {name: {"lr": 1e-4 * 1.5**i} for i, name in enumerate(data)}
    recipe = graftax.Recipe(epochs=epochs, batch_size=batch)
    while True:
        with tempfile.TemporaryDirectory() as out:
            began = time.perf_counter()
            graftax.train_many(backbone, data, out, recipe=recipe, each=each, pack_size=pack, progress=False)
            yield {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rates", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--packs", type=int, nargs="+", default=[16, 4])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    size = {"rates": args.rates, "batch": args.batch, "epochs": args.epochs}
    for pack in args.packs:
        both = Worker(sweep, **size, pack=pack), Worker(sweep, **size, pack=1)
        what = f"{args.rates} rates of LoRA, 64 rows, batches of {args.batch}, {args.epochs} epochs"
        report(
            row(f"{what}: in packs of {pack} / one by one", duel(*both, repeats=args.repeats, warmup=1), "both columns graftax")
        )
