"""An epoch of a linear probe (head alone, MiniLM, CLINC150) from features that are kept, against one that computes them anew.

    python benchmarks/speed/probe.py [--rows N] [--repeats N]

Both sides are graftax: the left one runs the frozen layers once per text (`train/features.py`), before the first epoch that is
timed, the right one in every step. Batches of 32, AdamW.
"""

from __future__ import annotations

import argparse
import random
import time
from unittest import mock

from harness import MINILM, Work, Worker, clinc, duel, report, row


def epochs(count: int, kept: bool) -> Work:
    from graftax.heap import keep_heap

    keep_heap()
    import jax

    import graftax
    from graftax.data.columns import Columns
    from graftax.tasks.task_registry import task_named
    from graftax.train.intake import prepare
    from graftax.train.pack import Pack

    if not kept:
        mock.patch.object(graftax.Backbone, "has_frozen_layers", return_value=False).start()
    backbone, task = graftax.load_backbone(MINILM), task_named("classify")
    rows = random.Random(0).sample(clinc("train"), count)
    recipe = graftax.Recipe(epochs=1)
    job = prepare("probe", rows, None, backbone=backbone, task=task, method=None, recipe=recipe, columns=Columns())
    pack = Pack(backbone, task, [job], 1)
    pack.admit(0, 0)
    while not pack.tick():
        pass
    yield {}
    while True:
        (bookmark,) = pack.bookmarks
        assert bookmark is not None
        bookmark.position = 0
        began = time.perf_counter()
        while not pack.epoch_done(0):
            pack.tick()
        jax.block_until_ready(pack.learners.step)
        yield {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    sides = Worker(epochs, count=args.rows, kept=True), Worker(epochs, count=args.rows, kept=False)
    what = f"epoch of a probe, {args.rows} rows, features kept against computed anew"
    report(row(what, duel(*sides, repeats=args.repeats, warmup=1), "both columns graftax"))
