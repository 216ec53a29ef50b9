"""Whose turn it is, of all who wait: none has to wait for all that another has asked before.

What was done for each party is counted in tokens, and the party for which the least was done is next. Whoever comes anew begins
where the least of those who are there stands, so nobody saves up turns by asking nothing (the virtual token counter: Sheng et
al., Fairness in Serving Large Language Models, OSDI 2024). A party is a *tenant*, such as whoever has an API key; and within a
tenant, all that asks for the same adapters, which is served in the order in which it has come.

    waiting      a1 a2 a3 ... a1000   b1        1,000 requests of one tenant, and then one of another
    their turns  a1 b1 a2 a3 ...
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

#: Who asks, in the thread or task that runs; None where nobody says.
TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)
#: Whether he may know what is every tenant's.
ADMIN: ContextVar[bool] = ContextVar("admin", default=False)

Party = tuple[str | None, frozenset[str]]  # a tenant, and adapters


class Asked(Protocol):
    """What is asked: by whom, and under which adapters."""

    @property
    def tenant(self) -> str | None: ...

    @property
    def adapters(self) -> frozenset[str]: ...


T = TypeVar("T", bound=Asked)


@dataclass
class Account:
    """What was done for a tenant, in tokens, and for each of its parties."""

    done: float
    parties: dict[frozenset[str], Account] = field(default_factory=dict)


class Turns:
    """What was done for whom. Belongs to whoever has the engine's lock."""

    def __init__(self) -> None:
        self._tenants: dict[str | None, Account] = {}
        self._served = False  # what was given out last

    def order(self, waiting: Iterable[T], under_way: Iterable[Asked] = ()) -> Iterator[T]:
        """What waits, in the order of turns. Who begins something charges for it before asking for the next.

        Of what is not begun, no more comes of its party: it cannot begin now, nor can what has come after it.

        Args:
            waiting: in the order in which it has come.
            under_way: what was begun, and has not ended.
        """
        parties: dict[Party, deque[T]] = {}
        for one in waiting:
            parties.setdefault(_party(one), deque()).append(one)
        self._settle({*parties, *map(_party, under_way)})
        turns = [(self._done_for(party), place, party) for place, party in enumerate(parties)]
        heapq.heapify(turns)
        while turns:
            done, place, party = heapq.heappop(turns)
            if done == self._done_for(party):
                self._served = False
                yield parties[party][0]
                if not self._served:
                    continue
                parties[party].popleft()
            if parties[party]:  # or more was done for its tenant meanwhile
                heapq.heappush(turns, (self._done_for(party), place, party))

    def charge(self, one: Asked, tokens: float) -> None:
        """Count what is done for someone; below zero what was counted and is not done."""
        tenant, adapters = _party(one)
        account = self._tenants[tenant]
        account.done += tokens
        account.parties[adapters].done += tokens
        self._served = True

    def _done_for(self, party: Party) -> tuple[float, float]:
        """For a party's tenant, and for itself."""
        account = self._tenants[party[0]]
        return account.done, account.parties[party[1]].done

    def _settle(self, there: set[Party]) -> None:
        _settle(self._tenants, {tenant for tenant, _ in there})
        for tenant, account in self._tenants.items():
            _settle(account.parties, {adapters for of, adapters in there if of == tenant})


def _settle(accounts: dict[Any, Account], there: set[Any]) -> None:
    """Have accounts of all who are there, and of others as long as they are ahead of somebody."""
    least = min((accounts[key].done for key in there if key in accounts), default=None)
    for key in [key for key in accounts if key not in there and (least is None or accounts[key].done <= least)]:
        del accounts[key]
    for key in there:
        accounts.setdefault(key, Account(least or 0.0))


def _party(one: Asked) -> Party:
    return one.tenant, one.adapters
