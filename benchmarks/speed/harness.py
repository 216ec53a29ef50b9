"""Two programs measured side by side: each in a process of its own, taking turns, so that a noisy machine slows both.

A worker is a generator function: what it yields first is when it is ready, and every later `next` is one unit of work, which it
times itself and yields as a dict of numbers (`seconds` among them). `duel` runs the workers in turn and reports medians and
the ratio of each pair. Where the whole process is what is measured, `Worker.ready` holds the seconds from its start to its
first yield.

    python benchmarks/speed/training_step.py            runs the duel and prints a row for RESULTS.md

Where JAX sees a GPU, both sides compute there (`torch_device`), and the memory is the GPU's that each has asked for.
"""

from __future__ import annotations

import csv
import importlib.util
import multiprocessing
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MINILM = os.environ.get("GRAFTAX_MINILM") or str(ROOT.parent / "shared/assets/backbones/all-MiniLM-L6-v2")
DATA = Path(os.environ.get("GRAFTAX_DATA") or ROOT.parent / "shared/assets/data")

Work = Iterator[dict[str, float]]

for _name in ("JAX_COMPILATION_CACHE_DIR", "GRAFTAX_CACHE"):  # a worker that wants a compilation cache says so
    os.environ.pop(_name, None)
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several programs share the GPU
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}


def torch_device() -> str:
    """Where torch is to compute: on the GPU where there is one, with TF32 for float32 products, which is JAX's way there."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    torch.set_float32_matmul_precision("high")
    return "cuda"


def torch_ready() -> None:
    """Wait for what torch has begun on the GPU."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_mb() -> float:
    """Of the GPU's memory where one is used, else the process's largest resident set."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    if jax is not None and jax.default_backend() != "cpu":
        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _serve(pipe: Any, work: Callable[..., Work], arguments: dict[str, Any]) -> None:
    for numbers in work(**arguments):
        pipe.send({**numbers, "peak_mb": peak_mb()})
        if not pipe.recv():
            break


class Worker:
    """A worker's process. `ready` is its first yield, with the seconds since the process was started."""

    def __init__(self, work: Callable[..., Work], **arguments: Any):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work, arguments), daemon=True)
        began = time.perf_counter()
        self._process.start()
        theirs.close()  # or nobody would notice that the process has ended
        ready = self._pipe.recv()
        self.ready = {**ready, "seconds": time.perf_counter() - began}

    def step(self) -> dict[str, float]:
        self._pipe.send(True)
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.send(False)
        self._process.join(5)
        self._process.kill()


def duel(ours: Worker, theirs: Worker, repeats: int, warmup: int = 3) -> dict[str, float]:
    """Medians of both and of the ratio theirs / ours (above one: we are faster)."""
    pairs = [(ours.step(), theirs.step()) for _ in range(warmup + repeats)][warmup:]
    ours.close(), theirs.close()
    return summary(pairs)


def summary(pairs: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, float]:
    """Medians, and the quartiles of the ratio of each pair."""
    ratios = [b["seconds"] / a["seconds"] for a, b in pairs]
    return {
        "ours": statistics.median(a["seconds"] for a, _ in pairs),
        "theirs": statistics.median(b["seconds"] for _, b in pairs),
        "ratio": statistics.median(ratios),
        "low": sorted(ratios)[len(ratios) // 4],
        "high": sorted(ratios)[len(ratios) * 3 // 4],
        "ours_mb": pairs[-1][0]["peak_mb"],
        "theirs_mb": pairs[-1][1]["peak_mb"],
    }


def row(what: str, result: dict[str, float], note: str = "") -> str:
    """A line of RESULTS.md."""
    r = result
    return (
        f"| {date.today()} | {commit()} | {device()} | {what} | {seconds(r['ours'])} | {seconds(r['theirs'])} | "
        f"**{r['ratio']:.2f}x** ({r['low']:.2f}-{r['high']:.2f}) | {r['ours_mb']:.0f} / {r['theirs_mb']:.0f} MB | {note} |"
    )


def seconds(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.1f} s"


def commit() -> str:
    out = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return out.stdout.strip() or "?"


def device() -> str:
    """What JAX computes on, or the processor."""
    if importlib.util.find_spec("jax"):
        import jax

        if jax.default_backend() != "cpu":
            return jax.devices()[0].device_kind
    return f"{os.cpu_count()} cores, {processor()}"


def processor() -> str:
    """Its maker's name for it, on which ratios depend (torch's products are slow on some), or its architecture."""
    info = Path("/proc/cpuinfo")
    said = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return said.group(1) if said else platform.machine()


def clinc(split: str) -> list[dict[str, str]]:
    """Rows of CLINC150: `text` and `label`."""
    with (DATA / "clinc150" / f"{split}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def report(*rows: str) -> None:
    for line in rows:
        print(line, flush=True)
