"""What there is one of, and how large a fleet has to be for it to be too slow, or a queue for it to be too small.

A machine finishes  1 / (steps * tick / slots + prepare)  adapters a second, if nothing keeps it. What serves so many adapters a
second is enough for as many machines as finish them. What is read by all machines when they begin is as slow as the store.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from ..accelerators.accelerator_table import figure
from .measured_costs import measured_costs
from .scenarios import EVENT_REQUESTS, Scenario, checkpoint_bytes, mean_steps, push_seconds, waiting_bytes

_GIGABYTE = 1e9
DRIVER_MEMORY = 64 * _GIGABYTE


class Breaking(NamedTuple):
    """One of them."""

    what: str
    rate: str  # what it does, in words
    how: str  # what that comes from: measured, counted, assumed
    enough: str  # for how much that is enough, in words
    machines: float  # at which it breaks; infinite where it is not machines that break it


def breaking_points(scenario: Scenario) -> list[Breaking]:
    """The first to break first."""
    return sorted(_points(scenario), key=lambda one: one.machines)


def _points(scenario: Scenario) -> Iterator[Breaking]:
    kind, assumed, costs, work = scenario.workload, scenario.assumptions, measured_costs(), scenario.work
    each = 1 / (mean_steps(kind) * work.step + scenario.prepare)  # adapters a second of one machine that is never idle
    pushes, events = push_seconds(assumed), EVENT_REQUESTS * assumed.store_request
    for what, how, seconds in (
        ("adapters pushed one by one to a hub in an object store", "counted, assumed", pushes),
        ("the ledger of a hub in an object store, whoever pushes", "counted, assumed", events),
        ("adapters pushed one by one to a hub in a folder", "measured", costs.push),
        ("adapters written by one driver", "measured", costs.save),
        ("adapters received by one driver", "assumed", kind.adapter_bytes / assumed.network),
        ("rows prepared by one driver in place of the machines", "measured", scenario.prepare),
    ):
        machines = 1 / seconds / each
        yield Breaking(what, f"{figure(1 / seconds)} adapters a second", how, _machines(machines), machines)
    store = f"{figure(assumed.store / _GIGABYTE)} GB a second"
    kept = checkpoint_bytes(kind, scenario.slots) / assumed.checkpoint_every
    machines = assumed.store / kept
    yield Breaking("checkpoints of all machines in the store", store, "assumed", _machines(machines), machines)
    machines = assumed.machine * assumed.store / kind.base_bytes
    what = f"the base read by all at once, within the {assumed.machine:.0f} s that a machine takes to begin"
    yield Breaking(what, store, "assumed", _machines(machines), machines)
    own = waiting_bytes(kind)
    what, said = f"adapters that wait in a driver's {DRIVER_MEMORY / _GIGABYTE:.0f} GB", f"{figure(own / 1e6)} MB an adapter"
    yield Breaking(what, said, "measured", f"{figure(DRIVER_MEMORY / own)} adapters", math.inf)


def _machines(count: float) -> str:
    return f"{figure(count)} machines"
