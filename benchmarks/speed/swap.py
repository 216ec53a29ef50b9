"""Swapping an adapter in from disk, until the next forward could use it (LoRA r 8 on query and value, classifier, MiniLM).

    python benchmarks/speed/swap.py [--repeats N] [--swaps N]

Both sides read the same directories. graftax replaces a resident adapter (`Predictor.load`), checksum verified; PEFT loads
under a new name (`load_adapter`, the one before deleted outside the time), or replaces in place (`hotswap_adapter`, which
fails on an adapter with a classifier: there both sides read adapters without one). What graftax compiles is counted over
`--swaps` swaps with a forward after every tenth.
"""

from __future__ import annotations

import argparse
import tempfile
import time

from adapters_on_disk import write
from harness import MINILM, Work, Worker, duel, report, row, torch_device, torch_ready

ADAPTERS = 8
TEXT = ["how do i say hello in french"]


def ours(folder: str, swaps: int) -> Work:
    import jax

    import graftax

    compiled = []
    predictor = graftax.Predictor(graftax.load_backbone(MINILM))
    for swap in range(2):
        predictor.load("swapped", f"{folder}/{swap}")
        predictor.predict(TEXT, "swapped")
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    traced = predictor.compilations
    for swap in range(swaps):
        predictor.load("swapped", f"{folder}/{swap % ADAPTERS}")
        if swap % 10 == 9:
            predictor.predict(TEXT, "swapped")
    yield {"traced": predictor.compilations - traced, "compiled": len(compiled)}
    swap = 0
    while True:
        swap += 1
        began = time.perf_counter()
        predictor.load("swapped", f"{folder}/{swap % ADAPTERS}")
        jax.block_until_ready(predictor.bank.state)
        yield {"seconds": time.perf_counter() - began}


def peft(folder: str, hot: bool) -> Work:
    from peft import PeftModel
    from peft.utils.hotswap import hotswap_adapter
    from torch_loop import base_model

    model, _ = base_model(16)
    model = PeftModel.from_pretrained(model, f"{folder}/0", adapter_name="0").eval()
    yield {}
    swap = 0
    while True:
        swap += 1
        began = time.perf_counter()
        if hot:
            hotswap_adapter(model, f"{folder}/{swap % ADAPTERS}", adapter_name="0", torch_device=torch_device())
        else:
            model.load_adapter(f"{folder}/{swap % ADAPTERS}", adapter_name=str(swap))
        torch_ready()
        numbers = {"seconds": time.perf_counter() - began}
        if not hot:
            model.delete_adapter(str(swap - 1))
        yield numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--swaps", type=int, default=1000)
    args = parser.parse_args()
    for hot in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            Worker(write, out=folder, count=ADAPTERS, head=not hot).close()
            a, b = Worker(ours, folder=folder, swaps=args.swaps), Worker(peft, folder=folder, hot=hot)
            what = f"swap from disk, against {'hotswap_adapter, without classifier' if hot else 'load_adapter'}"
            note = f"{args.swaps} swaps: {a.ready['traced']} traces, {a.ready['compiled']} compilations"
            report(row(what, duel(a, b, args.repeats), note))
