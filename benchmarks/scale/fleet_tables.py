"""Fleets that train a hundred thousand adapters, as tables of docs/scale.md. All of it is computed."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

from ..accelerators.accelerator_table import figure
from .adapter_queue import CHATS, CLASSIFIERS, Workload
from .assumptions import Assumptions
from .breaking_points import breaking_points
from .compiled_costs import SLOTS
from .constants_tables import quantity, spread, table
from .measured_costs import measured_costs
from .scenarios import BEST_SLOTS, EVENT_REQUESTS, MACHINES, Scenario, push_seconds
from .sensitivity import sensitivities
from .simulated_fleet import Delivery, Outcome, delivered
from .step_time import tick_seconds

_WORKLOADS = (CLASSIFIERS, CHATS)


def duration(seconds: float) -> str:
    """In words that suit it."""
    if seconds < 120:
        return f"{figure(seconds)} s"
    return f"{figure(seconds / 60)} min" if seconds < 7200 else f"{figure(seconds / 3600)} h"


def packs() -> str:
    rows = []
    for work in _WORKLOADS:
        alone = tick_seconds(work.backbone, 1, Assumptions())
        for slots in SLOTS:
            tick = tick_seconds(work.backbone, slots, Assumptions())
            rows.append(
                [work.called, str(slots), quantity(tick, "s"), quantity(tick / slots, "s"), f"{alone * slots / tick:.2f}x"]
            )
    return table(["adapters", "slots", "a step of all (computed)", "for each adapter (computed)", "one by one / packed"], rows)


def best(workload: Workload, **changes: Any) -> Scenario:
    """As the tables of packs and shards say that a fleet should be run."""
    return replace(Scenario(workload, BEST_SLOTS[workload.backbone]), **changes)


def shards() -> str:
    rows = []
    for work in _WORKLOADS:
        ways = [
            ("one adapter", Scenario(work, 1, most=1)),
            ("64 adapters, as they come", Scenario(work, 1, most=64, shard_seconds=math.inf, longest_first=False)),
            ("64 adapters", Scenario(work, 1, most=64, shard_seconds=math.inf)),
            *((f"{duration(seconds)} of work", Scenario(work, slots, seconds)) for slots, seconds in _CUT),
        ]
        for cut, way in ways:
            outcome = way.outcome()
            said = [work.called, str(way.slots), cut, f"{len(way.shards):,}", duration(outcome.trained)]
            rows.append([*said, *_shares(outcome)])
    return table(["adapters", "slots", "a shard", "shards", "all trained after", *_SHARES, "rest", "idle"], rows)


_CUT = ((1, 30.0), (1, 60.0), (1, 300.0), (16, 30.0), (16, 60.0), (16, 300.0), (64, 300.0))
_SHARES = ("training", "empty slots", "preparing", "starting")


def _shares(outcome: Outcome) -> list[str]:
    """Of the machines' time until the last adapter is trained; then all that are still there are idle."""
    until = outcome.machines * outcome.trained
    named, late = [outcome.seconds[name] for name in _SHARES], sum(outcome.seconds.values()) - until
    idle = max(0.0, outcome.seconds["idle"] - late)
    return [f"{part / until:.1%}" for part in (*named, until - sum(named) - idle, idle)]


def machines() -> str:
    rows = []
    for work in _WORKLOADS:
        for count in (1, 10, 100, 1000):
            outcome = best(work, machines=count).outcome()
            hours = figure(count * outcome.trained / 3600)
            said = [duration(outcome.trained), hours, f"{outcome.efficiency:.0%}", duration(outcome.written)]
            rows.append([work.called, f"{count:,}", *said])
    return table(
        ["adapters", "machines", "all trained after", "machine hours", "efficiency", "all written by the driver after"], rows
    )


def driver() -> str:
    costs, assumed, rows = measured_costs(), Assumptions(), list[list[str]]()
    pushed, event = costs.save + push_seconds(assumed), EVENT_REQUESTS * assumed.store_request
    ways = [
        ("the driver", "the driver, into directories", True, Delivery(1, costs.save)),
        ("the machines", "the driver, into directories", False, Delivery(1, costs.save)),
        ("the machines", "the driver, and onto a hub in a folder", False, Delivery(1, costs.save + costs.push)),
        ("the machines", "the driver, and onto a hub in an object store", False, Delivery(1, pushed)),
        ("the machines", "the machines, onto a hub in an object store", False, Delivery(MACHINES, pushed, event)),
        ("the machines", "the machines, into an object store", False, Delivery(MACHINES, costs.save + assumed.store_request)),
    ]
    for work in _WORKLOADS:
        runs = {prepares: best(work, driver_prepares=prepares).outcome() for prepares in (True, False)}
        for prepared, written, prepares, delivery in ways:
            end, waiting = delivered(runs[prepares].finished, delivery)
            rows.append([work.called, prepared, written, duration(runs[prepares].trained), duration(end), f"{waiting:,}"])
    head = ["adapters", "rows are prepared by", "adapters are written by", "all trained after", "all written after"]
    return table([*head, "most that wait to be written"], rows)


def losses() -> str:
    rows = []
    for title, rate in (("none", 0.0), ("one in 24 hours", 1 / 24), ("four in an hour", 4.0)):
        for seconds, kept in ((60.0, False), (60.0, True), (600.0, False), (600.0, True)):
            assumptions = replace(Assumptions(), preemptions=rate)
            way = best(CHATS, shard_seconds=seconds, assumptions=assumptions, keeps_checkpoints=kept)
            runs = [replace(way, seed=seed).outcome() for seed in range(_SEEDS)]
            lost = statistics.mean(run.seconds["lost"] / sum(run.seconds.values()) for run in runs)
            preempted = f"{statistics.mean(run.preemptions for run in runs):.0f}"
            trained = duration(statistics.median(run.trained for run in runs))
            rows.append([title, duration(seconds), "every 30 s" if kept else "none", preempted, trained, f"{lost:.2%}"])
    head = [
        "preemptions of a machine",
        "a shard",
        "checkpoints that others find",
        "preemptions in all",
        "all trained after",
        "lost",
    ]
    return table(head, rows)


_SEEDS = 3


def breaks() -> str:
    rows = []
    for work in _WORKLOADS:
        for one in breaking_points(best(work)):
            rows.append([work.called, one.what, one.rate, one.how, one.enough])
    return table(["adapters", "what there is one of", "it does", "which is", "too little for more than (computed)"], rows)


def moves() -> str:
    rows = [
        [f"`{one.assumption.name}`", spread(one.assumption), duration(one.at_low), duration(one.at_high)]
        for one in sensitivities(best(CHATS))
    ]
    return table(["assumption", "range", "all trained after, at its low end", "at its high end"], rows)
