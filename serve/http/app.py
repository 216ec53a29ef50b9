"""The app: which endpoint answers where, what every answer has, and what begins and ends with the server."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .chat_completions import answer_chat
from .classify import classify, tag
from .complaints import GONE, HANDLERS
from .completions import complete
from .embeddings import embed
from .further import Further, Poll, Unguarded
from .health import health, ready
from .keys import Guarded, Key
from .lora_adapters import load_adapter, unload_adapter
from .model_cards import list_models, show_model
from .offered import leaderboard, list_adapters, show_adapter
from .openapi import BODIES, endpoint, openapi_of
from .origins import OwnPages, with_origins
from .prometheus import metrics
from .score import score
from .service import Service
from .traffic import traffic
from .web_page import PAGES

_GET: dict[str, Callable[..., Any]] = {
    "/health": health,
    "/ready": ready,
    "/metrics": metrics,
    "/catalogue": list_adapters,
    "/catalogue/{name:path}": show_adapter,
    "/leaderboard/{task}": leaderboard,
    "/traffic": traffic,
    "/v1/models": list_models,
    "/v1/models/{name:path}": show_model,
}
_POST: dict[str, Callable[..., Any]] = {
    "/v1/completions": complete,
    "/v1/chat/completions": answer_chat,
    "/v1/embeddings": embed,
    "/classify": classify,
    "/v1/classify": classify,
    "/v1/tag": tag,
    "/score": score,
    "/v1/score": score,
    "/v1/load_lora_adapter": load_adapter,
    "/v1/unload_lora_adapter": unload_adapter,
}
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def make_app(
    service: Service, keys: tuple[Key, ...] = (), origins: tuple[str, ...] = (), further: Sequence[Further] = ()
) -> ASGIApp:
    """The app of a service.

    Args:
        service: what is asked.
        keys: with any, nobody is answered who has none.
        origins: of pages that may ask (`origins.py`).
        further: what is answered besides; started in this order, and stopped in the opposite one.
    """
    routes = [Route(path, partial(answer, service), methods=["GET"]) for path, answer in _GET.items()]
    routes += [Route(path, partial(answer, service), methods=["POST"]) for path, answer in _POST.items()]
    others = [route for one in further for route in one.routes]
    bodies = dict(BODIES)
    for one in further:
        bodies |= one.bodies
    told: dict[str, Callable[..., Any]] = {"/openapi.json": endpoint(partial(openapi_of, [*routes, *others], bodies)), **PAGES}
    pages = [Route(path, partial(answer, service), methods=["GET"]) for path, answer in told.items()]
    polls = frozenset(route.path for route in others if isinstance(route, Poll))
    unguarded = [route for route in others if isinstance(route, Unguarded)]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.rounds.start()
        if service.warm_up is not None:
            service.warm_up.start()
        for one in further:
            one.start()
        yield
        for one in reversed(further):
            one.stop()
        if service.warm_up is not None:
            service.warm_up.stop()
        service.rounds.stop()
        service.residents.close()

    app: ASGIApp = Starlette(routes=[*routes, *pages, *others], exception_handlers=HANDLERS, lifespan=lifespan)
    app = Guarded(app, keys, polls=polls, unguarded=unguarded) if keys else OwnPages(app, origins)
    return _Marked(with_origins(app, origins), service, polls)


class _Marked:
    """An app whose requests have an id and a moment, and whose answers say the id and are counted."""

    def __init__(self, app: ASGIApp, service: Service, polls: frozenset[str]):
        """`polls`: paths that are asked for no work."""
        self._app, self._counts, self._polls = app, service.counts, polls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _ID.fullmatch(given) else uuid.uuid4().hex
        marks = {"id": name, "begun": int(time.time())}
        begun, statuses = time.monotonic(), list[int]()

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = name
                statuses.append(message["status"])
                self._counts.responses[message["status"]] += 1
            await send(message)

        try:
            await self._app({**scope, "state": {**scope.get("state", {}), **marks}}, receive, marked)
        finally:
            asks = scope["method"] == "POST" and scope["path"] not in self._polls  # what only looks on is no traffic
            if asks and statuses and statuses[0] != GONE:
                self._counts.recent.ended(statuses[0] >= 400, time.monotonic() - begun)
