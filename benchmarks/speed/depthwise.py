"""A MobileNetV2 reads pictures: depthwise convolutions taken apart, against XLA's own (both graftax).

    python benchmarks/speed/depthwise.py [--rows N] [--size N] [--repeats N]

Weights random in the published shape, float32. On a CPU a depthwise convolution is a sum of shifted products
(`adapters/geometry.py`); the other side has XLA's, by which it was computed before.
"""

from __future__ import annotations

import argparse
import time

from harness import Work, Worker, duel, report, row


def reading(rows: int, size: int, apart: bool) -> Work:
    """A unit of work is a batch of pictures, read to its features."""
    from graftax.heap import keep_heap

    keep_heap()
    import jax

    from graftax.adapters import geometry
    from graftax.models.random import random_backbone

    if not apart:
        geometry._is_depthwise = lambda kernel, geometry: False
    backbone = random_backbone({"model_type": "mobilenet_v2", "image_size": size})
    inputs = backbone.processor.random_inputs(rows)
    read = jax.jit(lambda params, inputs: backbone.encode(params, {}, inputs).pooled)
    jax.block_until_ready(read(backbone.params, inputs))
    yield {}
    while True:
        began = time.perf_counter()
        jax.block_until_ready(read(backbone.params, inputs))
        yield {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    workers = [Worker(reading, rows=args.rows, size=args.size, apart=apart) for apart in (True, False)]
    what = f"MobileNetV2 reads {args.rows} pictures of {args.size} x {args.size}, depthwise taken apart / XLA's own"
    report(row(what, duel(*workers, repeats=args.repeats), "float32; both graftax"))
