"""Promises: what a call is answered with at once, and what its result is fetched by later.

    promise, is_new = promises.make(tenant, ("model", 7))      the same call sent twice is one promise
    promises.settle(promise, result)                           when what was promised is there
    await promises.result(tenant, promise.id)                  None: not yet, ask again

A client that was cut off sends its call again, so a call has a *key* by which it is known: its model and number, or what the
client's header says. Nobody has to fetch a result: it is kept for a time, for a shorter one once it was fetched (the answer may
have been lost on its way), and no more of them, in number and bytes, than there is room for. What was given up is gone (410),
and so, to whoever asks, is what is another's. All of it belongs to the server's event loop.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...counted import counted
from ...serve.http.complaints import Refused


@dataclass(frozen=True)
class Failure:
    """A call that came to nothing: whose fault that was, in Tinker's words, and one line."""

    message: str
    category: str = "user"  # or "server"


@dataclass(frozen=True)
class Packed:
    """A result that clients read as protobuf; older ones as JSON."""

    data: bytes
    unpacked: Callable[[bytes], Mapping[str, Any]]  # as JSON


Result = Mapping[str, Any] | Packed | Failure
Tell = Callable[[Result], None]  # hears what has come of a call


@dataclass(eq=False)
class Promise:
    """What a call was answered with."""

    tenant: str | None
    key: Hashable
    model: str | None  # that the call was for
    size: int = 0  # bytes that the call holds until it is done
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    result: Result | None = None  # None: not yet
    there: asyncio.Event = field(default_factory=asyncio.Event)
    facts: dict[str, Any] = field(default_factory=dict)  # what its answer says beside the ids
    cancel: Callable[[], None] = lambda: None  # has what was promised not be done, if it can be
    kept_until: float = float("inf")

    @property
    def answer(self) -> dict[str, Any]:
        """What the call is answered with."""
        return {"request_id": self.id, "model_id": self.model, **self.facts}

    @property
    def bytes(self) -> int:
        return len(self.result.data) if isinstance(self.result, Packed) else 0


@dataclass(frozen=True)
class Room:
    """How much is kept."""

    at_once: int = 4096  # promises of one tenant that are not kept yet,
    asked: int = 1 << 28  # and bytes that their calls hold; a single call may be larger
    results: int = 50_000
    bytes: int = 1 << 30  # of all results
    seconds: float = 3600.0  # that a result waits for being fetched,
    seconds_after: float = 120.0  # and is kept once it was


class Promises:
    """All promises of a server."""

    def __init__(self, room: Room = Room(), clock: Callable[[], float] = time.monotonic):
        self._room, self._clock = room, clock
        self._by_id: dict[str, Promise] = {}
        self._by_key: dict[Hashable, Promise] = {}
        self._unsettled, self._asked = Counter[str | None](), Counter[str | None]()  # by tenant: how many, and their bytes
        self._settled: OrderedDict[Promise, None] = OrderedDict()  # the first to have been settled is the first,
        self._fetched: OrderedDict[Promise, None] = OrderedDict()  # and likewise of those that were fetched
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def make(self, tenant: str | None, key: Hashable, model: str | None = None, size: int = 0) -> tuple[Promise, bool]:
        """The promise of a call of `size` bytes, and whether it is a new one.

        Refused where a tenant has too many that are not kept.
        """
        self._give_up()
        if (there := self._by_key.get((tenant, key))) is not None:
            return there, False
        many = self._unsettled[tenant] >= self._room.at_once
        if many or (self._asked[tenant] and self._asked[tenant] + size > self._room.asked):
            held = f"{counted(self._unsettled[tenant], 'call')} of {self._asked[tenant]:,} bytes"
            raise Refused(429, f"{held} under way already.", code="too_many_requests", headers={"Retry-After": "1"})
        promise = Promise(tenant, (tenant, key), model, size)
        self._by_id[promise.id] = self._by_key[promise.key] = promise
        self._unsettled[tenant] += 1
        self._asked[tenant] += size
        return promise, True

    def forget(self, promise: Promise) -> None:
        """Take back a promise that was just made: its call was refused."""
        self._count_down(promise)
        del self._by_id[promise.id], self._by_key[promise.key]

    def find(self, tenant: str | None, name: str) -> Promise:
        """A tenant's promise by its id; Refused where there is none, or none any longer."""
        self._give_up()
        promise = self._by_id.get(name)
        if promise is None or promise.tenant != tenant:
            said = f"there is no call {name!r}, or its result was given up; make the call again."
            raise Refused(410, said, param="request_id", code="gone")
        return promise

    def settle(self, promise: Promise, result: Result) -> None:
        """Say what has come of a promise; only the first word counts."""
        if promise.result is not None or promise.id not in self._by_id:
            return
        promise.result, promise.kept_until = result, self._clock() + self._room.seconds
        promise.there.set()
        self._count_down(promise)
        self._settled[promise] = None
        self._bytes += promise.bytes
        self._give_up()

    def fetched(self, promise: Promise) -> None:
        """Note that a result is on its way to whoever asked."""
        if promise in self._settled:
            del self._settled[promise]
            promise.kept_until = self._clock() + self._room.seconds_after
            self._fetched[promise] = None

    def _count_down(self, promise: Promise) -> None:
        self._unsettled[promise.tenant] -= 1
        self._asked[promise.tenant] -= promise.size
        if not self._unsettled[promise.tenant]:
            del self._unsettled[promise.tenant], self._asked[promise.tenant]

    def _give_up(self) -> None:
        """Forget results whose time is over, and the oldest where they take too much room: those first that were fetched."""
        now = self._clock()
        for results in (self._fetched, self._settled):
            while results and (next(iter(results)).kept_until <= now or self._is_full):
                promise, _ = results.popitem(last=False)
                self._bytes -= promise.bytes
                del self._by_id[promise.id], self._by_key[promise.key]

    @property
    def _is_full(self) -> bool:
        return self._bytes > self._room.bytes or len(self._fetched) + len(self._settled) > self._room.results
