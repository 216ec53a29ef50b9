"""Replicas that write texts for many tenants, each with an adapter of its own, simulated: how long tenants wait.

A replica has so many lanes, and every token that it writes is one for each text in its lanes (continuous batching). How long
that takes depends on how many there are. So a replica is a queue whose texts share it: with n texts under way each comes at
1 / token(n) tokens a second, and a clock that counts the tokens of any one text tells which ends next. Reading a prompt, and
writing an adapter into the bank, stops the clock.

An adapter is in a slot of the bank, in the host's memory, or only in the store, as in `serve/residents.py`: what was used least
recently goes first, and what is in use stays. A request whose adapter is in the store waits until it is fetched; others go on.

With one lane, texts of exponential lengths and no prompts this is the queue M/M/1, with more lanes and a token that takes as
long M/M/c, and the tests hold it against both.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from .tenant_routing import Routing


@dataclass(frozen=True)
class Traffic:
    """Requests: when each arrives, from which tenant, and how many tokens it wants."""

    arrives: np.ndarray
    tenant: np.ndarray
    tokens: np.ndarray


def drawn_traffic(seconds: float, rate: float, tenants: int, popularity: float, tokens: float, seed: int) -> Traffic:
    """Poisson arrivals; tenant k asks in proportion to k ** -popularity (Zipf); lengths are exponential."""
    random = np.random.default_rng(seed)
    count = random.poisson(rate * seconds)
    weights = np.arange(1, tenants + 1, dtype=np.float64) ** -popularity
    return Traffic(
        np.sort(random.uniform(0.0, seconds, count)),
        random.choice(tenants, count, p=weights / weights.sum()),
        random.exponential(tokens, count),
    )


@dataclass(frozen=True)
class ReplicaCosts:
    """What a replica has, and how long it takes for what."""

    lanes: int  # texts at once
    slots: int  # adapters in the bank, no fewer than lanes
    host: int  # adapters in the host's memory
    token: Callable[[int], float]  # seconds for a token of each of so many texts
    prompt: float  # seconds for a prompt
    to_bank: float  # seconds in which an adapter is written into a slot
    fetch: float  # seconds until one from the store is in the host's memory


class Outage(NamedTuple):
    """A replica that dies. Its requests are sent elsewhere when that is noticed."""

    replica: int
    dies: float
    noticed: float
    returns: float  # with nothing in its tiers


@dataclass(frozen=True)
class Answers:
    """Of each request, in the order of arrival."""

    first: np.ndarray  # seconds from its arrival until its prompt was read
    whole: np.ndarray  # until its last token
    tiers: Counter[str]  # where adapters were when they were asked for: bank, host, store
    busiest: float  # the share of the time in which the busiest replica had a text under way


@dataclass
class _Replica:
    costs: ReplicaCosts
    clock: float = 0.0  # tokens of any one text
    moment: float = 0.0  # to which all this is true
    stopped: float = 0.0  # seconds for which the clock stands still from then on
    texts: list[tuple[float, int]] = field(default_factory=list)  # where the clock will be when each ends
    waiting: deque[int] = field(default_factory=deque)  # requests whose adapter is here
    fetching: set[int] = field(default_factory=set)  # and those for whose it is not
    bank: OrderedDict[int, int] = field(default_factory=OrderedDict)  # adapter -> how many texts use it
    host: OrderedDict[int, None] = field(default_factory=OrderedDict)
    version: int = 0  # of its texts: events of an older one are void
    busy: float = 0.0  # seconds

    def advance(self, now: float) -> None:
        seconds = now - self.moment
        stood = min(self.stopped, seconds)
        self.busy += seconds if self.texts else stood
        if self.texts:
            self.clock += (seconds - stood) / self.costs.token(len(self.texts))
        self.stopped, self.moment = self.stopped - stood, now

    def next_end(self) -> float:
        return self.moment + self.stopped + (self.texts[0][0] - self.clock) * self.costs.token(len(self.texts))

    def find(self, adapter: int) -> str:
        """In which tier an adapter is."""
        return "bank" if adapter in self.bank else "host" if adapter in self.host else "store"

    def keep(self, adapter: int) -> None:
        """In the host's memory, in place of the one that was used least recently."""
        self.host[adapter] = None
        self.host.move_to_end(adapter)
        if len(self.host) > self.costs.host:
            self.host.popitem(last=False)

    def hold(self, adapter: int) -> None:
        """Have it in a slot, where it stays until it is let go."""
        if adapter not in self.bank:
            if len(self.bank) == self.costs.slots:
                del self.bank[next(one for one, users in self.bank.items() if not users)]
            self.bank[adapter] = 0
            self.stopped += self.costs.to_bank
        self.bank[adapter] += 1
        self.bank.move_to_end(adapter)


class _Run:
    def __init__(self, traffic: Traffic, costs: ReplicaCosts, replicas: int, routing: Routing):
        self.traffic, self.costs, self.routing = traffic, costs, routing
        self.replicas = [_Replica(costs) for _ in range(replicas)]
        self.there, self.alive = [True] * replicas, [True] * replicas
        self.under_way = [0] * replicas
        self.first, self.whole = np.full(len(traffic.arrives), np.nan), np.full(len(traffic.arrives), np.nan)
        self.tiers: Counter[str] = Counter()
        self.events = list[tuple[float, int, Callable[[float], None]]]()
        self.number = itertools.count()

    def at(self, moment: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.number), act))

    def go(self, outages: Sequence[Outage]) -> Answers:
        for outage in outages:
            self.at(outage.dies, partial(self.die, outage.replica))
            self.at(outage.noticed, partial(self.notice, outage.replica))
            self.at(outage.returns, partial(self.come_back, outage.replica))
        for request, moment in enumerate(self.traffic.arrives.tolist()):
            while self.events and self.events[0][0] <= moment:
                self.step()
            self.route(request, moment)
        while self.events:
            self.step()
        busiest = max(one.busy / one.moment if one.moment else 0.0 for one in self.replicas)
        return Answers(self.first, self.whole, self.tiers, busiest)

    def step(self) -> None:
        now, _, act = heapq.heappop(self.events)
        act(now)

    # -- a request ------------------------------------------------------------------------------------------------------

    def route(self, request: int, now: float) -> None:
        tenant = int(self.traffic.tenant[request])
        number = self.routing.choose(tenant, self.under_way, self.there)
        self.under_way[number] += 1
        replica = self.replicas[number]
        tier = replica.find(tenant)
        self.tiers[tier] += 1
        if not self.alive[number] or tier == "store":  # of one that is dead nothing comes, until that is noticed
            replica.fetching.add(request)
            if self.alive[number]:
                self.at(now + self.costs.fetch, lambda then: self.fetched(number, replica, request, then))
            return
        self.arrive(number, request, now)

    def fetched(self, number: int, replica: _Replica, request: int, now: float) -> None:
        if self.replicas[number] is replica and request in replica.fetching:  # and it has not died since
            replica.fetching.remove(request)
            self.arrive(number, request, now)

    def arrive(self, number: int, request: int, now: float) -> None:
        replica = self.replicas[number]
        replica.keep(int(self.traffic.tenant[request]))
        replica.waiting.append(request)
        replica.advance(now)
        self.fill(number)

    def fill(self, number: int) -> None:
        """Put waiting requests in free lanes, and say when the next text ends."""
        replica = self.replicas[number]
        while replica.waiting and len(replica.texts) < self.costs.lanes:
            request = replica.waiting.popleft()
            replica.hold(int(self.traffic.tenant[request]))
            replica.stopped += self.costs.prompt
            heapq.heappush(replica.texts, (replica.clock + float(self.traffic.tokens[request]), request))
            self.first[request] = replica.moment + replica.stopped - self.traffic.arrives[request]
        replica.version += 1
        version = replica.version
        if replica.texts:
            self.at(replica.next_end(), lambda now: self.end(number, replica, version, now))

    def end(self, number: int, replica: _Replica, version: int, now: float) -> None:
        if self.replicas[number] is not replica or replica.version != version:
            return
        replica.advance(now)
        _, request = heapq.heappop(replica.texts)
        replica.bank[int(self.traffic.tenant[request])] -= 1
        self.whole[request] = now - self.traffic.arrives[request]
        self.under_way[number] -= 1
        self.fill(number)

    # -- a replica that dies --------------------------------------------------------------------------------------------

    def die(self, number: int, now: float) -> None:
        """It answers nothing more; whatever it has is kept apart until somebody looks."""
        replica, self.alive[number] = self.replicas[number], False
        replica.advance(now)
        dead = _Replica(self.costs, moment=now, busy=replica.busy)
        dead.fetching = replica.fetching | set(replica.waiting) | {request for _, request in replica.texts}
        self.replicas[number] = dead

    def notice(self, number: int, now: float) -> None:
        """Its requests begin anew elsewhere."""
        self.there[number] = False
        lost, self.replicas[number].fetching = sorted(self.replicas[number].fetching), set()
        self.under_way[number] = 0
        for request in lost:
            self.route(request, now)

    def come_back(self, number: int, now: float) -> None:
        self.there[number] = self.alive[number] = True
        self.replicas[number].advance(now)


def answered(traffic: Traffic, costs: ReplicaCosts, replicas: int, routing: Routing, outages: Sequence[Outage] = ()) -> Answers:
    """What becomes of the traffic."""
    return _Run(traffic, costs, replicas, routing).go(outages)
