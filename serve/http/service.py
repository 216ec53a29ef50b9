"""What the endpoints share: a backbone that is asked, its adapters by name, and how much may be asked at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio.to_thread
from starlette.requests import Request

from ...adapters.adapter import Adapter
from ...counted import counted
from ...errors import GraftaxError
from ...models.backbone import Backbone
from ...models.tokens import Tokenizer
from ...store.manifest import Manifest
from ...store.names import is_reference
from ...store.query import Query
from ...store.store import Store
from ...store.version import Score, Version
from ...typed import shown
from ..engine import Engine
from ..generator import Generator
from ..handles import Handle
from ..on_hub import HubAway, OnHub
from ..predictor import Answers, Predictor
from ..residents import Residents
from ..turns import TENANT
from ..warm_up import WarmUp
from .complaints import Refused
from .limits import Limits
from .mixes import Who, digest_of, handles_of, mix_of, name_of, parts_of
from .prometheus import Counts
from .rounds import Rounds

T = TypeVar("T")
_MOST_LISTED = 1000  # names of a hub


class Telling(Protocol):
    """What people are told of adapters (`graftax/hub/told.py`: hubs are above the server, which is handed one)."""

    def card(self, version: Version) -> str: ...

    def card_without_hub(self, manifest: Manifest) -> str: ...

    def ranking(self, scores: Sequence[Score], task: str, data: str | None) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Service:
    """A backbone with its adapters, as endpoints see it."""

    name: str  # of the base model
    backbone: Backbone
    tokenizer: Tokenizer | None  # to count tokens; None: the backbone reads no texts
    residents: Residents
    engine: Engine
    rounds: Rounds  # of the engine
    predictor: Predictor
    generator: Generator | None  # None: the backbone is no language model
    store: Store | None  # the hub whose names are known,
    hub: OnHub | None  # and what looks them up
    telling: Telling | None  # what is said of adapters; None: nothing but their facts
    limits: Limits
    warm_up: WarmUp | None  # None: programs are compiled when they are asked for
    slots: int  # adapters on the device at most
    roots: tuple[Path, ...]  # folders from which adapters may be loaded while the server runs
    counts: Counts = field(default_factory=Counts)
    started: int = field(default_factory=lambda: int(time.time()))
    facts: dict[str, Any] = field(default_factory=dict)  # by digest, of adapters that were loaded, as the catalogue has them
    owners: dict[str, str | None] = field(default_factory=dict)  # of registered names that one tenant alone may know: whose
    offers: set[str] = field(default_factory=set)  # what further endpoints bring that the page has a view of
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)  # of which adapters are registered
    _reading: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(8))

    @property
    def longest(self) -> int | None:
        """Tokens of a text at most; None where no texts are read."""
        return None if self.tokenizer is None else self.backbone.config.max_tokens

    def shows(self, name: str) -> bool:
        """Whether whoever asks may know an adapter by its name: it is everybody's, or his own."""
        tenant = TENANT.get()
        return self.owners.get(name, tenant) == tenant

    def registered(self) -> dict[str, Handle]:
        """The registered names that whoever asks may know, and what they mean now."""
        return {name: handle for name, handle in self.residents.registered().items() if self.shows(name)}

    def named(self, name: str) -> Handle | None:
        """What a registered name means now that whoever asks may know."""
        return self.residents.named(name) if self.shows(name) else None

    async def resolve(self, model: str, route: str) -> Who:
        """Whom a name means now; None for the base alone.

        Raises Refused where there is no such name, or the hub that may know it is away.
        """
        if model == self.name:
            return None
        if (handle := self.named(model)) is not None:
            return handle
        parts = parts_of(model)
        if parts is None:
            return await self._handle(model, route)
        if self.name in (name for _, name in parts):
            raise Refused(400, f"model: {self.name!r} is the base, which every adapter changes; it is no part.", param="model")
        return mix_of([weight for weight, _ in parts], [await self._handle(name, route) for _, name in parts])

    async def _handle(self, model: str, route: str) -> Handle:
        """The adapter that a name means now; raises as `resolve`."""
        if (handle := self.named(model)) is not None:
            return handle
        if self.hub is None or not self.shows(model):
            said = f"no adapter named {shown(model)} is loaded; loaded are {', '.join(self.registered()) or 'none'}."
            raise self._no_model(model, said)
        try:
            return await self.read(self.residents.resolve, model, route)
        except GraftaxError as error:
            if isinstance(error, HubAway) or (is_reference(model) and await self._hub_is_away()):
                raise Refused(503, str(error), param="model", code="hub_away") from None
            raise self._no_model(model, str(error)) from None

    def _no_model(self, model: str, why: str) -> Refused:
        said = f"there is no model {model!r}: the base is {self.name!r}, and {why}"
        return Refused(404, said, param="model", code="model_not_found")

    async def adapters(self, who: Who) -> list[Adapter]:
        """The adapters of who answers, in memory, which is waited for; Refused where one cannot be had."""
        handles = handles_of(who)
        for handle in handles:
            self.residents.prefetch(handle)
        return [await self._adapter(handle) for handle in handles]

    async def _adapter(self, handle: Handle) -> Adapter:
        """An adapter, which is being read if it is not in memory; raises as `adapters`."""
        try:
            if (adapter := self.residents.adapter_here(handle)) is not None:
                return adapter
            return await self.read(self.residents.adapter, handle)
        except GraftaxError as error:
            await self._refuse_if_away(error)
        try:  # once more: the hub is there, and may not have been when that was begun
            return await self.read(self.residents.adapter, handle)
        except GraftaxError as error:
            await self._refuse_if_away(error)
            raise Refused(422, str(error), param="model", code="adapter_unusable") from None

    async def _refuse_if_away(self, error: GraftaxError) -> None:
        """Refused with an error that is due to the hub, if that does not answer."""
        if await self._hub_is_away():
            raise Refused(503, str(error), param="model", code="hub_away") from None

    async def fitting(self) -> list[Version]:
        """The newest version of each name on the hub that was made for the backbone; none while the hub is away."""
        if self.store is None or (self.hub is not None and self.hub.away is not None):
            return []
        try:
            return await self.read(self.store.search, Query(fingerprint=self.backbone.fingerprint), _MOST_LISTED)
        except GraftaxError:  # which /ready will say
            return []

    async def _hub_is_away(self) -> bool:
        """Whether the hub, which something could not be had of, does not answer."""
        if self.store is None or self.hub is None:
            return False
        try:
            return self.hub.away is not None or not await self.read(self.store.exists)
        except GraftaxError:
            return True

    async def read(self, call: Callable[..., T], *args: Any) -> T:
        """Call what may have to wait for a hub, in a thread; few wait at once, so that all other threads go on."""
        return await anyio.to_thread.run_sync(call, *args, limiter=self._reading, abandon_on_cancel=True)

    async def answered(self, begin: Callable[..., Answers[T]], rows: Sequence[Any], who: Who) -> list[T]:
        """What `Predictor.begin` or `begin_embedding` answers to rows; Refused where it cannot, or takes too long."""
        if len(self.engine.readings.waiting) >= self.limits.max_queue:
            raise too_much(len(self.engine.readings.waiting))
        answers: Answers[T] | None = None
        try:
            async with asyncio.timeout(self.limits.timeout):
                answers = await in_thread(begin, rows, who)
                self.rounds.wake()
                await asyncio.wrap_future(answers.reading.future)
                return await in_thread(answers.result)
        except TimeoutError:
            raise self.too_slow() from None
        except GraftaxError as error:
            raise Refused(422, str(error)) from None
        finally:
            if answers is not None:
                answers.cancel()

    def too_slow(self) -> Refused:
        """A request's time is over."""
        return Refused(503, f"the request took more than {self.limits.timeout:g} s (--timeout).", code="timeout")


def too_much(waiting: int) -> Refused:
    """More is asked than the server lets wait."""
    said = f"{counted(waiting, 'request')} waiting already; try again in a second."
    return Refused(429, said, code="too_many_requests", headers={"Retry-After": "1"})


async def in_thread(call: Callable[..., T], *args: Any) -> T:
    """Call what takes its time, and would hold up all others, in a thread."""
    return await anyio.to_thread.run_sync(call, *args)


def route_of(request: Request, user: str | None) -> str:
    """Of whom or what a tag that shares its traffic is asked: the user, else this request."""
    return user if user is not None else str(request.state.id)


def note(request: Request, **facts: Any) -> None:
    """Keep facts for the trace that a request is part of, if it is (`traces.py`)."""
    kept = getattr(request.state, "facts", None)
    if kept is not None:
        kept.update(facts)


def said_of(who: Who) -> dict[str, Any]:
    """What an answer says about the adapter, or the mix, that made it."""
    return {"adapter": name_of(who), "adapter_digest": digest_of(who)}


def headers_of(who: Who) -> dict[str, str]:
    """The same, in its headers."""
    digest = digest_of(who)
    return {} if digest is None else {"x-adapter-digest": digest}
