"""Which replica answers a tenant's request: anyone, one that has its adapter, the tenant's own, or its own unless that is busy.

A tenant's replicas are in an order that is its own (as in rendezvous hashing, Thaler and Ravishankar, 1998): where one replica
is lost, its tenants go to the second of their order, and all others stay where they are. The first of the order has a tenant's
adapter resident, most of the time. But one tenant may ask for more than a replica can do; so a request goes down the order
until a replica is found that has no more than `bound` times its share of the requests under way (consistent hashing with
bounded loads, Mirrokni et al., 2018).
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Routing(Protocol):
    """How a replica is chosen."""

    def choose(self, tenant: int, under_way: Sequence[int], there: Sequence[bool]) -> int:
        """A replica that is `there`; `under_way`: how many requests each has."""
        ...


class Anywhere:
    """One after another, whoever asks."""

    def __init__(self) -> None:
        self.next = 0

    def choose(self, tenant: int, under_way: Sequence[int], there: Sequence[bool]) -> int:
        while True:
            self.next = (self.next + 1) % len(there)
            if there[self.next]:
                return self.next


class WhereItIs:
    """One that was asked for the tenant's adapter lately, unless all of these are full; else any that is not.

    So does `graftax serve --ray`. Of those that come into question two are drawn, and the less busy one is asked, as Ray does
    it (the power of two choices, Mitzenmacher, 2001).
    """

    def __init__(self, replicas: int, adapters: int, room: int, seed: int = 0):
        """`adapters`: that a replica is taken to have, those it was asked for last; `room`: requests with which it is full."""
        self.adapters, self.room, self.random = adapters, room, random.Random(seed)
        self.asked = [OrderedDict[int, None]() for _ in range(replicas)]

    def choose(self, tenant: int, under_way: Sequence[int], there: Sequence[bool]) -> int:
        alive = [replica for replica, is_there in enumerate(there) if is_there]
        free = [replica for replica in alive if under_way[replica] < self.room]
        among = [replica for replica in free if tenant in self.asked[replica]] or free or alive
        two = self.random.choice(among), self.random.choice(among)
        chosen = min(two, key=lambda replica: under_way[replica])
        self.asked[chosen][tenant] = None
        self.asked[chosen].move_to_end(tenant)
        if len(self.asked[chosen]) > self.adapters:
            self.asked[chosen].popitem(last=False)
        return chosen


class AtHome:
    """The tenant's own. `bound`: unless that has more than so many times its share; infinite: always."""

    def __init__(self, tenants: int, replicas: int, bound: float = math.inf):
        self.bound = bound
        self.orders = np.argsort(np.random.default_rng(0).random((tenants, replicas)), axis=1).tolist()

    def choose(self, tenant: int, under_way: Sequence[int], there: Sequence[bool]) -> int:
        order = [replica for replica in self.orders[tenant] if there[replica]]
        if math.isinf(self.bound):
            return order[0]
        share = self.bound * (sum(under_way) + 1) / len(order)
        return next(replica for replica in order if under_way[replica] < share)
