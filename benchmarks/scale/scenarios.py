"""The fleets and replicas that docs/scale.md is about, put together of measured, compiled and assumed constants."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .adapter_queue import CHATS, CLASSIFIERS, Shard, Work, Workload, cut, steps_of
from .assumptions import Assumptions
from .compiled_costs import LANES, compiled_costs
from .measured_costs import measured_costs
from .simulated_fleet import Delivery, Fleet, Outcome, simulate
from .simulated_replicas import ReplicaCosts
from .step_time import prompt_seconds, tick_seconds, token_seconds

ADAPTERS, MACHINES = 100_000, 1_000
TENANTS, REPLICAS = 10_000, 50
BEST_SLOTS = {CLASSIFIERS.backbone: 16, CHATS.backbone: 1}  # of packs: what the table of packs comes to
EPOCHS = 3
_LEARNER = 3  # an adapter in training is its leaves and two moments of each
_HOST = 2_000  # adapters in a replica's memory, and
_BANK = 256  # in its slots
TOKENS = 100  # of an answer, on the average


@dataclass(frozen=True)
class Scenario:
    """A fleet that trains adapters of one kind. A shard is no longer than `shard_seconds` for one machine, if that can be."""

    workload: Workload
    slots: int
    shard_seconds: float = 60.0
    adapters: int = ADAPTERS
    machines: int = MACHINES
    assumptions: Assumptions = Assumptions()
    most: int = 10**6  # adapters of a shard
    longest_first: bool = True  # else they are cut as they come
    driver_prepares: bool = False  # all rows, before anything is trained; else each machine those of its shards
    delivery: Delivery | None = None  # None: the driver writes files
    keeps_checkpoints: bool = True  # where another machine finds them
    seed: int = 0

    @property
    def tick(self) -> float:
        return tick_seconds(self.workload.backbone, self.slots, self.assumptions)

    @property
    def shards(self) -> list[Shard]:
        steps = steps_of(self.workload, self.adapters, self.seed)
        return cut(steps.tolist(), self.work, self.most, self.shard_seconds, self.longest_first)

    @property
    def work(self) -> Work:
        """What a machine does for an adapter, if it prepares its rows."""
        costs, work = measured_costs(), self.workload
        row = costs.prepare_row + work.row_tokens * costs.prepare_token
        return Work(self.tick / self.slots, costs.prepare_job, row * work.rows_of_a_step / EPOCHS)

    @property
    def prepare(self) -> float:
        """To prepare the rows of an average adapter."""
        return self.work.prepare + mean_steps(self.workload) * self.work.prepare_step

    @property
    def fleet(self) -> Fleet:
        assumed, costs, work = self.assumptions, measured_costs(), self.workload
        compiling = sum(
            compiled_costs()[f"{work.backbone}/{part}/{self.slots}"].seconds_to_compile for part in ("gradient", "update")
        )
        return Fleet(
            machines=self.machines,
            slots=self.slots,
            tick=self.tick,
            work=Work(self.work.step, 0.0, 0.0) if self.driver_prepares else self.work,
            begin=costs.train_many + costs.find_shape,
            queued=self.adapters * self.prepare if self.driver_prepares else 0.0,
            start=assumed.machine + costs.start + compiling,
            base_bytes=work.base_bytes,
            network=assumed.network,
            store=assumed.store,
            preemptions=assumed.preemptions / 3600,
            replacement=assumed.replacement,
            slow_machines=assumed.slow_machines,
            slowness=assumed.slowness,
            checkpoint_every=assumed.checkpoint_every if self.keeps_checkpoints else float("inf"),
            checkpoint=checkpoint_bytes(work, self.slots) / assumed.to_device,
            delivery=self.delivery or Delivery(1, costs.save),
        )

    def outcome(self) -> Outcome:
        return simulate(self.shards, self.fleet, self.seed)


@cache
def mean_steps(workload: Workload) -> float:
    """Of the adapters that are drawn."""
    return float(steps_of(workload, ADAPTERS, 0).mean())


def waiting_bytes(workload: Workload) -> float:
    """Of an average adapter that waits to be trained: its rows, prepared, and its leaves, which are there from the start."""
    costs, rows = measured_costs(), mean_steps(workload) * workload.rows_of_a_step / EPOCHS
    row = costs.prepared_row_bytes + workload.row_tokens * costs.prepared_token_bytes
    return workload.adapter_bytes + costs.prepared_job_bytes + rows * row


def checkpoint_bytes(workload: Workload, slots: int) -> float:
    return _LEARNER * workload.adapter_bytes * slots


def push_seconds(assumptions: Assumptions) -> float:
    """To put one adapter on a hub in an object store, one request after another."""
    return PUSH_REQUESTS * assumptions.store_request


PUSH_REQUESTS = 16  # of an adapter of three files with its card, one after another; `tests/test_scale.py` counts them
EVENT_REQUESTS = 2  # that no other writer may come between: the last event is read, the next one created


def replica_costs(assumptions: Assumptions = Assumptions()) -> ReplicaCosts:
    """A server of Llama-3.2-1B on one H100."""
    lanes, costs = LANES[-1], measured_costs()
    tokens = {texts: token_seconds(texts, assumptions) for texts in range(1, lanes + 1)}
    transfer = CHATS.adapter_bytes / assumptions.network
    return ReplicaCosts(
        lanes=lanes,
        slots=_BANK,
        host=_HOST,
        token=tokens.__getitem__,
        prompt=prompt_seconds(assumptions),
        to_bank=costs.bank + CHATS.adapter_bytes / assumptions.to_device,
        fetch=assumptions.store_request + transfer + costs.read,
    )


def capacity(costs: ReplicaCosts) -> float:
    """Requests a second that one replica can answer, if its lanes are full."""
    return 1 / (TOKENS * costs.token(costs.lanes) / costs.lanes + costs.prompt)
