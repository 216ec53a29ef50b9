"""One training step of several adapters on a ResNet-20: a pack whose slots take turns, one computed at once, one by one.

    python benchmarks/speed/convolution_packs.py [METHOD ...] [--adapters N] [--rows N] [--repeats N]

Pictures of 32 x 32 pixels, weights random in the published shape, float32; all sides are graftax. Slots take turns on a CPU
(`Programs.at_once`). At once, convolutions of the adapters' kernels, which differ, are one after the other
(`adapters/geometry.py`), and those of the frozen kernels are one for all adapters. The seconds are those of a step of all
adapters: one step of a pack, or one of each.
"""

from __future__ import annotations

import argparse
import time
from typing import Literal

from harness import Work, Worker, duel, report, row

METHODS = ("lora", "loha", "ia3", "bitfit", "bottleneck")


def steps(method: str, adapters: int, rows: int, how: Literal["in turn", "at once", "one by one"]) -> Work:
    """A unit of work is one step of all adapters: of a pack of so many slots, or of a pack of one, so often."""
    from graftax.heap import keep_heap

    keep_heap()
    import jax
    import numpy as np

    import graftax
    from graftax.adapters.adapter import Adapter, Layout
    from graftax.adapters.methods.method_registry import method_class
    from graftax.models.random import random_backbone
    from graftax.tasks.task_registry import task_named
    from graftax.train.optimizer import rates
    from graftax.train.step import Batch, Programs, hyper, start

    backbone = random_backbone({"model_type": "cifar_resnet", "image_size": 32})
    body = method_class(method)()
    adapter = Adapter.create((body, backbone.head(8)), backbone.sites)
    layout = Layout.of([adapter], backbone.sites)
    stacked = layout.stack(adapter, backbone.sites)
    settings = hyper(graftax.Recipe(lr=1e-3, warmup=0.1), total=100, classes=8)
    learner = start(stacked, rates(graftax.Recipe(), stacked, backbone.sites, 1), settings, "adamw")
    labels = np.random.default_rng(0).integers(0, 8, rows).astype(np.int32)
    batch = Batch(backbone.processor.random_inputs(rows), labels, np.ones(rows, np.float32), np.bool_(True))
    slots, calls = (1, adapters) if how == "one by one" else (adapters, 1)
    pack, batch = jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * slots), (learner, batch))
    programs = Programs(backbone, task_named("image-classify"), slots, dropout=False)
    gradient = jax.jit(programs.over_slots(programs.gradient_one, shared=2)) if how == "at once" else programs.gradient
    packs = [jax.tree.map(jax.numpy.asarray, pack) for _ in range(calls)]
    yield {}
    while True:
        began = time.perf_counter()
        found = [gradient(backbone.params, backbone.unrolled, pack, batch) for pack in packs]
        updated = [programs.update(pack, *own, batch.live) for pack, own in zip(packs, found, strict=True)]
        packs = [jax.block_until_ready(pack) for pack in updated]
        yield {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    for method in args.methods:
        size = {"method": method, "adapters": args.adapters, "rows": args.rows}
        what = f"step of {args.adapters} {method} adapters, ResNet-20, {args.rows} pictures each: slots in turn"
        for other in ("at once", "one by one"):
            workers = Worker(steps, **size, how="in turn"), Worker(steps, **size, how=other)
            report(row(f"{what} / {other}", duel(*workers, repeats=args.repeats), "float32; both graftax"))
