"""What the model needs to know and nobody here has measured: data sheets, documents of services, and plain assumptions.

Each is one line with a value, the range in which it may well lie, and where it comes from: *published* where somebody else says
so, *assumed* where nobody does. `sensitivity.py` moves each through its range, and docs/scale.md says which of them matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple


def _published(value: float, low: float, high: float, unit: str, why: str) -> Any:
    return field(default=value, metadata={"range": (low, high), "unit": unit, "how": "published", "why": why})


def _assumed(value: float, low: float, high: float, unit: str, why: str) -> Any:
    return field(default=value, metadata={"range": (low, high), "unit": unit, "how": "assumed", "why": why})


@dataclass(frozen=True)
class Assumptions:
    """Of a fleet of machines with one H100 each, and of the services around it. Seconds and bytes."""

    matmul_share: float = _assumed(0.45, 0.25, 0.65, "of the peak", "what products reach of a data sheet; nothing was run here")
    memory_share: float = _assumed(0.7, 0.5, 0.9, "of the bandwidth", "likewise of memory")
    launch: float = _assumed(3e-6, 1e-6, 6e-6, "s a kernel", "from one kernel to the next, with and without CUDA graphs")
    machine: float = _assumed(
        60.0, 20.0, 300.0, "s", "from asking for a machine until a process begins: a booked node, its image"
    )
    to_device: float = _published(25e9, 10e9, 50e9, "B/s", "PCIe 5 x16 has 64 GB/s in its standard; less is reached")
    network: float = _assumed(1.25e9, 0.3e9, 6e9, "B/s a machine", "10 Gbit/s")
    store: float = _assumed(12.5e9, 2.5e9, 125e9, "B/s in all", "of the object store, for all machines together: 100 Gbit/s")
    store_request: float = _assumed(0.03, 0.01, 0.1, "s", "one request to the object store, one after another")
    preemptions: float = _assumed(1 / 24, 0.0, 0.5, "a machine and hour", "machines that may be taken back")
    replacement: float = _assumed(120.0, 30.0, 600.0, "s", "until another machine is there in place of one that was taken")
    slow_machines: float = _assumed(0.02, 0.0, 0.1, "of the machines", "stragglers: heat, neighbours, a bad link")
    slowness: float = _assumed(1.5, 1.2, 3.0, "times", "as long as others take them for a step")
    checkpoint_every: float = _assumed(
        30.0, 10.0, 300.0, "s", "the default of `train_many`; lost is what came after the last one"
    )


class Assumption(NamedTuple):
    """One of them, with what is said of it."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    how: str  # "published" or "assumed"
    why: str


def every_assumption(assumptions: Assumptions = Assumptions()) -> Iterator[Assumption]:
    for one in dataclasses.fields(assumptions):
        low, high = one.metadata["range"]
        said = one.metadata
        yield Assumption(one.name, getattr(assumptions, one.name), low, high, said["unit"], said["how"], said["why"])
