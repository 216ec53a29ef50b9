"""A fleet of machines that trains a queue of adapters, simulated: when the last one is written, and where the time went.

A machine begins (it is given, a process starts, the base is read from the store that all of them read, programs are compiled)
and then takes one shard after another. Of a shard each adapter is sent off as it ends. A machine may be taken away: then
everything since its last checkpoint is lost, its shard goes back to the queue, and after a while another machine begins. Some
machines are slow. What is finished is received and written down by few, or by one (`Delivery`), which is why a fleet can be too
large.

Events are in time order, and what will become of a shard is drawn when a machine takes it, so that a run of a hundred thousand
adapters takes a second and the same seed gives the same run. Every second of every machine is put down under one heading, and
the headings add up (`Outcome.seconds`).
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .adapter_queue import Part, Shard, Work, ticks_of


@dataclass(frozen=True)
class Delivery:
    """Who writes finished adapters down, and how long one takes."""

    writers: int  # who do so side by side
    write: float  # seconds of one of them for an adapter
    event: float = 0.0  # seconds that the ledger is taken for it, by one adapter after another; 0: they are put on no hub


@dataclass(frozen=True)
class Fleet:
    """Machines that are alike but for luck. Seconds, and bytes a second."""

    machines: int
    slots: int  # of a pack
    tick: float  # of a pack: a step of all its slots
    work: Work  # what a machine has to do for an adapter
    begin: float  # of a shard: a call of `train_many`, its programs found again
    queued: float  # when the shards are there to be taken: the driver may have rows to prepare first
    start: float  # from asking for a machine until it could train, without reading the base
    base_bytes: float
    network: float  # of a machine
    store: float  # for all machines together
    preemptions: float  # a second, of one machine
    replacement: float  # until another machine is asked for
    slow_machines: float  # share of machines
    slowness: float  # how many times as long as others these take for a tick
    checkpoint_every: float  # seconds of training
    checkpoint: float  # for which training stands still
    delivery: Delivery


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    machines: int
    trained: float  # when the last adapter was
    written: float  # when the last adapter was written down: the makespan
    seconds: dict[str, float]  # of all machines, until the last has nothing to do and all is written
    steps: int  # taken and kept, of all adapters
    preemptions: int
    waiting: int  # finished adapters that were not written yet, at the worst moment
    finished: tuple[float, ...]  # when each adapter was trained

    @property
    def efficiency(self) -> float:
        """The share of the machines' time, until all is trained, in which a step was taken that counts."""
        return self.seconds["training"] / (self.machines * self.trained)


def simulate(shards: Sequence[Shard], fleet: Fleet, seed: int = 0) -> Outcome:
    return _Run(shards, fleet, seed).outcome()


class _Run:
    def __init__(self, shards: Sequence[Shard], fleet: Fleet, seed: int):
        self.fleet, self.random = fleet, np.random.default_rng(seed)
        self.queue = deque(shards)
        #: when each machine has nothing to do, and its pace; None: it is only asked for then, and has to begin
        self.machines: list[tuple[float, int, float | None]] = [(0.0, number, None) for number in range(fleet.machines)]
        self.returning = list[tuple[float, int, Shard]]()  # of machines that will have been taken away: when, and what is left
        self.finished = list[float]()  # when each adapter was trained
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.steps = self.preempted = 0
        self.store_is_free = 0.0

    def outcome(self) -> Outcome:
        fleet, machines, ends = self.fleet, self.machines, list[float]()
        while machines:
            now, number, pace = heapq.heappop(machines)
            comes_back = self.returning[0][0] if self.returning else np.inf
            if self.queue or comes_back <= now:
                if pace is None:
                    heapq.heappush(machines, (self._begun(now), number, self._pace()))
                else:
                    shard = heapq.heappop(self.returning)[2] if comes_back <= now else self.queue.popleft()
                    self._give(shard, now, number, pace)
            elif self.returning:  # what will become of all that train is known: one of them leaves a shard behind
                self.spent["idle"] += comes_back - now
                heapq.heappush(machines, (comes_back, number, pace))
            else:
                ends.append(now)
        trained = max(self.finished)
        written, waiting = delivered(self.finished, fleet.delivery)
        end = max(written, *ends)
        self.spent["idle"] += sum(end - one for one in ends)
        spent, finished = dict(self.spent), tuple(self.finished)
        return Outcome(fleet.machines, trained, written, spent, self.steps, self.preempted, waiting, finished)

    def _give(self, shard: Shard, now: float, number: int, pace: float) -> None:
        """Let a machine train a shard."""
        fleet = self.fleet
        taken_away = self.random.exponential(1 / fleet.preemptions) if fleet.preemptions else np.inf
        seconds = self._train(shard, now, pace, taken_away)
        if seconds is None:
            self.preempted += 1
            self.spent["away"] += fleet.replacement
            heapq.heappush(self.machines, (now + taken_away + fleet.replacement, number, None))
        else:
            heapq.heappush(self.machines, (now + seconds, number, pace))

    def _begun(self, asked: float) -> float:
        """When a machine that is asked for now can train. The base is read as soon as the store is free for it."""
        fleet = self.fleet
        reads = asked + fleet.start
        self.store_is_free = max(self.store_is_free, reads) + fleet.base_bytes / fleet.store
        began = max(self.store_is_free, reads + fleet.base_bytes / fleet.network)
        self.spent["starting"] += began - asked
        self.spent["idle"] += max(0.0, fleet.queued - began)
        return max(began, fleet.queued)

    def _pace(self) -> float:
        """How many times as long as it should a machine takes for a tick."""
        slow = self.fleet.slow_machines and self.random.random() < self.fleet.slow_machines
        return self.fleet.slowness if slow else 1.0

    def _train(self, shard: Shard, now: float, pace: float, taken_away: float) -> float | None:
        """Train a shard; how long that took, or None where the machine was taken away first.

        What is left of the shard then goes back to the queue.
        """
        fleet, prepare = self.fleet, self.fleet.begin + sum(map(self.fleet.work.prepares, shard))
        tick, spans = fleet.tick * pace, ticks_of(shard, fleet.slots)
        ticks = max(end for _, end in spans)
        done = prepare + ticks * tick
        whole = self._with_checkpoints(done)
        saved, stood, ends_itself = 0.0, whole - done, whole <= taken_away
        if not ends_itself:
            done, saved, stood = self._at(taken_away)
            ticks = max(0, int((done - prepare) / tick))
        saved_ticks = max(0, int((saved - prepare) / tick))

        kept, taken, left = 0, 0, list[Part]()
        for part, (begins, ends) in zip(shard, spans, strict=True):
            own = min(max(ticks - begins, 0), part.steps)
            taken += own
            if own == part.steps:
                kept += own
                self.finished.append(now + self._with_checkpoints(prepare + ends * tick))
            else:
                remembered = min(max(saved_ticks - begins, 0), part.steps)
                kept += remembered
                left.append(replace(part, steps=part.steps - remembered))
        self.steps += kept
        if left:
            heapq.heappush(self.returning, (now + taken_away, left[0].adapter, tuple(left)))
        slot = fleet.tick / fleet.slots
        prepared, ticking = min(done, prepare), max(done - prepare, 0.0)
        self.spent["training"] += kept * slot
        self.spent["empty slots"] += (ticks * fleet.slots - taken) * slot
        self.spent["slow"] += ticks * fleet.tick * (pace - 1.0)
        self.spent["lost"] += (taken - kept) * slot + (0.0 if ends_itself else ticking - ticks * tick)
        self.spent["preparing"] += prepared
        self.spent["checkpoints"] += stood
        return whole if ends_itself else None

    def _with_checkpoints(self, seconds: float) -> float:
        """How long so many seconds of training take with the checkpoints between them."""
        return seconds + int(seconds / self.fleet.checkpoint_every) * self.fleet.checkpoint

    def _at(self, seconds: float) -> tuple[float, float, float]:
        """Of so many seconds: those of training, those that the last checkpoint has, and those of checkpoints."""
        every, takes = self.fleet.checkpoint_every, self.fleet.checkpoint
        if np.isinf(every):
            return seconds, 0.0, 0.0
        turns = int(seconds / (every + takes))
        training = turns * every + min(seconds - turns * (every + takes), every)
        return training, turns * every, seconds - training


def delivered(finished: Sequence[float], delivery: Delivery) -> tuple[float, int]:
    """When the last of the adapters that are finished at such moments is written, and how many wait at the worst moment."""
    writers, ledger = [0.0] * delivery.writers, 0.0
    order, done = sorted(finished), list[float]()
    for moment in order:
        free = heapq.heappop(writers)
        ends = max(free, moment) + delivery.write
        heapq.heappush(writers, ends)
        done.append(ends)
    for index, moment in enumerate(sorted(done)):
        ledger = max(ledger, moment) + delivery.event
        done[index] = ledger
    begun = np.searchsorted(order, order, side="right")  # finished until each moment
    ended = np.searchsorted(done, order, side="right")  # written until then
    return done[-1], int(np.max(begun - ended))
