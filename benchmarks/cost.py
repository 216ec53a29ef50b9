"""What a training step costs, by its compiled program, and what energy was used, where the machine can tell.

FLOPs and bytes are XLA's own count of the step's gradient program: products, attention, the adapter, all that it runs. They do
not depend on how busy the machine is, as seconds do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from ..models.backbone import Backbone
from ..tasks.task import Task
from ..train.job import Job
from ..train.pack import Pack

JOULES_PER_FLOP = 1e-10  # of the estimate: 100 GFLOP/s at 10 W, a laptop's core in float32
_RAPL = Path("/sys/class/powercap")
_saved = 0.0  # seconds of compiling that the cache on disk has spared this process


def _heard(event: str, duration_secs: float, **_: str | int) -> None:
    global _saved
    if event == "/jax/compilation_cache/compile_time_saved_sec":
        _saved += duration_secs


jax.monitoring.register_event_duration_secs_listener(_heard)


@dataclass(frozen=True)
class StepCost:
    """Of one training step's gradient program."""

    flops: float
    memory_bytes: int  # arguments (the backbone among them), temporaries and outputs
    compile_seconds: float  # as it took when it was compiled, be it an earlier process that did it
    feature_seconds: float  # of what is computed once, before the first step: frozen layers below everything trained


def step_cost(backbone: Backbone, task: Task, job: Job) -> StepCost:
    """The cost of a job's step, trained alone; its program is the one that training runs."""
    pack = Pack(backbone, task, [job], 1)
    pack.admit(0, 0)
    times, began = [], time.perf_counter()
    while pack.features and pack.features.step():
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
    began, before = time.perf_counter(), _saved
    program = pack.step_program()
    seconds = time.perf_counter() - began + _saved - before
    memory, counted = program.memory_analysis(), program.cost_analysis()
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    once = float(np.median(times)) * len(times) if times else 0.0  # the first was compiled, too
    return StepCost(float(counted.get("flops", 0.0)), int(used), seconds, once)


@dataclass(frozen=True)
class Energy:
    """Joules; `source` says who counted: "rapl", "nvml" or, of an estimate, "flops"."""

    joules: float | None = None
    source: str | None = None


@dataclass
class Meter:
    """A stretch of the run, to be read when it is over."""

    used: Energy = Energy()

    def share(self, part: float) -> Energy:
        return Energy(None if self.used.joules is None else self.used.joules * part, self.used.source)


@contextmanager
def metered() -> Iterator[Meter]:
    """Energy of the block, as NVML counts it (a GPU) or RAPL (the processor's packages); empty where neither can be read.

    RAPL's counters wrap after some minutes to hours: a block in which one did has no reading.
    """
    read, source = (_nvml, "nvml") if jax.default_backend() == "gpu" else (_rapl, "rapl")
    meter, before = Meter(), read()
    yield meter
    after = read()
    if before is not None and after is not None and after > before:
        meter.used = Energy(after - before, source)


def _rapl() -> float | None:
    """Joules so far of all packages; often only the superuser may read them."""
    try:
        counters = [int((zone / "energy_uj").read_text()) for zone in _RAPL.glob("intel-rapl:?")]
    except (OSError, ValueError):
        return None
    return sum(counters) / 1e6 if counters else None


def _nvml() -> float | None:
    """Joules so far of the first GPU; needs pynvml."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0)) / 1e3
    except Exception:  # no such library, no driver, a card that does not count
        return None
