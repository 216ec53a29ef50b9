"""Which assumption moves the result most: each goes through its range, one at a time, and all others stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from .adapter_queue import Shard
from .assumptions import Assumption, every_assumption
from .scenarios import Scenario
from .simulated_fleet import simulate


class Moved(NamedTuple):
    """What one assumption does to the time until the last adapter is trained."""

    assumption: Assumption
    at_low: float  # seconds
    at_high: float


def sensitivities(scenario: Scenario) -> list[Moved]:
    """Of every assumption, that which moves most first."""
    return sorted(_moved(scenario), key=lambda one: -abs(one.at_high - one.at_low))


def _moved(scenario: Scenario) -> Iterator[Moved]:
    shards = scenario.shards  # as they were planned, with what was expected
    for one in every_assumption(scenario.assumptions):
        yield Moved(one, _trained(scenario, shards, one, one.low), _trained(scenario, shards, one, one.high))


def _trained(scenario: Scenario, shards: Sequence[Shard], moved: Assumption, value: float) -> float:
    other = replace(scenario, assumptions=replace(scenario.assumptions, **{moved.name: value}))
    return simulate(shards, other.fleet, other.seed).trained
