"""What the driver and its workers say to each other.

The driver sends what is to be trained, and workers tell what becomes of it, as it happens. Each message may come twice, or
again in other words, because a shard whose worker was lost is trained again; so a message says what is true by now, and never
only what is new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..tasks.task import Task


@dataclass(frozen=True)
class Order:
    """What all workers of a run are told."""

    backbone: str  # a directory on the worker's disk, or a Hub id
    loading: Mapping[str, Any]  # as `load_backbone` takes it
    fingerprint: str  # that the backbone has where the driver is
    jax: Mapping[str, Any]  # settings of JAX's that numbers depend on
    task: Task
    out: str  # the run's directory, where the driver is, and
    token: str  # what is written there, so that a worker sees whether it is on a disk that both have
    save_every: float


@dataclass(frozen=True)
class Work:
    """A shard, as it is sent."""

    shard: int
    width: int  # of the pack
    jobs: bytes  # as `shipping.sent` has them
    finished: frozenset[str]  # jobs whose adapters have come to the driver already


@dataclass(frozen=True)
class Measure:
    """A cohort whose pack size is to be chosen, by one of its jobs."""

    job: bytes  # as `shipping.sent` has it
    count: int  # of jobs in it
    flops: float  # of all of them


@dataclass(frozen=True)
class Seen:
    """What a first worker has looked at before anything is trained."""

    machine: Mapping[str, Any]  # as `begun.machine` has it
    sizes: Sequence[tuple[int, str]]  # of each cohort the pack size, and why


# -- what workers tell ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardBegins:
    """A worker has the backbone, and begins."""

    shard: int
    node: str  # which machine it is on
    machine: Mapping[str, Any]


@dataclass(frozen=True)
class Steps:
    """How many steps jobs have taken that are in training there."""

    taken: Mapping[str, int]


@dataclass(frozen=True)
class EpochEnds:
    """The lines of `metrics.jsonl` about an adapter, one for each epoch that has ended."""

    name: str
    history: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Finished:
    """An adapter, with what its `Result` has to say."""

    name: str
    files: Mapping[str, bytes]  # of its directory, by name
    metrics: dict[str, float]
    step_seconds: float | None
    history: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class NotFinite:
    """The loss of an adapter was not finite, and nothing becomes of it."""

    name: str
    history: Sequence[dict[str, Any]]


# -- what the cluster tells -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardEnds:
    """All jobs of a shard were told of."""

    shard: int


@dataclass(frozen=True)
class ShardLost:
    """The worker of a shard is no more."""

    shard: int
    why: str
    with_node: bool  # whether its machine is gone: taken away, or broken; else the worker alone has died


@dataclass(frozen=True)
class ShardRefused:
    """A worker cannot train what it was given, nor could it if it were asked again."""

    shard: int
    why: str


Message = ShardBegins | Steps | EpochEnds | Finished | NotFinite | ShardEnds | ShardLost | ShardRefused
