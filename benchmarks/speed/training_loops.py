"""Training loops of many clients at once, against the same clients one by one, through Tinker's public client.

    python benchmarks/speed/training_loops.py [BASE] [--clients 16] [--steps 8] [--repeats 3]

Each client has a model of its own on `graftax serve --training` (LoRA in attention and feed-forward, of rank 2, 4, 8, 16 or 32)
and takes steps as loops are written: a gradient of four texts of 16 to 64 tokens and a step of Adam are asked for, and both are
waited for. At once the clients are threads of this process; the server batches what waits together. How many calls do so is
chance, and each number a program: at once they have run eight times before anything is measured. They take turns. A row has the
time that all clients took together. BASE: a directory; by default stories260K.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from harness import DATA, ROOT, report, row, summary

os.environ["TINKER_TELEMETRY"] = "0"
RANKS, TEXTS, LENGTHS = (2, 4, 8, 16, 32), 4, (16, 64)


def server_of(base: str, directory: str) -> tuple[subprocess.Popen[str], str]:
    """A server's process, and its address."""
    options = ["--training", directory, "--port", "0", "--no-warm-up"]
    command = [sys.executable, "-m", "graftax", "serve", "-b", base, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[-1].removesuffix("/v1")


class Client:
    """A client with a model and data of its own."""

    def __init__(self, service: Any, number: int, base: str, vocabulary: int):
        from tinker import types

        rank = RANKS[number % len(RANKS)]
        self._types = types
        self._model = service.create_lora_training_client(base, rank=rank, seed=number, train_unembed=False).result()
        random = np.random.default_rng(number)
        texts = [random.integers(3, vocabulary, random.integers(*LENGTHS)) for _ in range(TEXTS)]
        self._data = [
            types.Datum(
                model_input=types.ModelInput.from_ints(text[:-1].tolist()),
                loss_fn_inputs={"target_tokens": text[1:], "weights": np.ones(len(text) - 1, np.float32)},
            )
            for text in texts
        ]

    def train(self, steps: int) -> None:
        for _ in range(steps):
            gradient = self._model.forward_backward(self._data, "cross_entropy")
            step = self._model.optim_step(self._types.AdamParams(learning_rate=1e-3))
            gradient.result()
            step.result()


def timed(work: Callable[[], Any]) -> dict[str, float]:
    began = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - began, "peak_mb": 0.0}


def main() -> None:
    import tinker

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", nargs="?", type=Path, default=DATA.parent / "backbones" / "stories260K")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm", type=int, default=8, help="times at once before anything is measured")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        process, url = server_of(str(chosen.base), directory)
        try:
            service = tinker.ServiceClient(base_url=url, api_key="tml-none")
            clients = [Client(service, number, chosen.base.name, 512) for number in range(chosen.clients)]
            threads = ThreadPoolExecutor(chosen.clients)

            def at_once() -> None:
                list(threads.map(lambda client: client.train(chosen.steps), clients))

            def one_by_one() -> None:
                for client in clients:
                    client.train(chosen.steps)

            for work in (one_by_one, *[at_once] * chosen.warm):
                work()
            found = summary([(timed(at_once), timed(one_by_one)) for _ in range(chosen.repeats)])
            service.close("success").result()
        finally:
            process.terminate()
            process.wait()
    what = f"{chosen.clients} Tinker clients of mixed ranks, {chosen.steps} steps each, at once, against one by one"
    report(row(what, found, f"both columns graftax, {chosen.base.name} (`training_loops.py`)"))


if __name__ == "__main__":
    main()
