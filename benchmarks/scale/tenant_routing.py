"""Which replica answers a tenant's request: anyone, the tenant's own, or its own unless that one is busy.

A tenant's replicas are in an order that is its own (as in rendezvous hashing, Thaler and Ravishankar, 1998): where one replica
is lost, its tenants go to the second of their order, and all others stay where they are. The first of the order has a tenant's
adapter resident, most of the time. But one tenant may ask for more than a replica can do; so a request goes down the order
until a replica is found that has no more than `bound` times its share of the requests under way (consistent hashing with
bounded loads, Mirrokni et al., 2018).
"""

from __future__ import annotations

import math
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
