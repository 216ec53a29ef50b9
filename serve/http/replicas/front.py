"""The front of several replicas: who asks it is answered by one of them, and cannot tell which.

The model that a request names is found in its body. Requests for one adapter go where that adapter is already, as long as
there is room (`ask`, given by who knows the replicas). Nothing depends on that: every replica can answer every request, since
it reads what it lacks from the hub or from where `--adapter` says. So an adapter that a replica has dropped is no 404, and a
replica that dies takes nothing with it but the answers that it had begun.

What would be true of one replica alone is not handed on. Adapters cannot be loaded by name while it runs, because the next
replica would not know them; a hub's names are known to all. `/metrics` has the numbers of each replica, told apart by a label.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from ..bodies import read_body
from ..complaints import HANDLERS, Refused
from ..limits import Limits
from ..prometheus import EXPOSITION, with_label
from ..web_page import PAGES
from .whole_request import WholeRequest

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]  # HEAD comes with GET
_TRIES = 3  # replicas that are asked before a request is given up

Ask = Callable[[str, WholeRequest], AsyncIterator[Message]]
AskAll = Callable[[WholeRequest], Awaitable[Mapping[str, tuple[int, str]]]]


class ReplicaGone(Exception):
    """The replica that was asked has died, or there is none."""


def make_front(base: str, limits: Limits, ask: Ask, ask_all: AskAll) -> Starlette:
    """The app that hands requests to replicas.

    Args:
        base: what requests name the backbone by; they may go to any replica.
        limits: of those, `max_body` and `patience` hold here.
        ask: what a replica answers, one where the adapter of this name is if possible; of "" any. Raises `ReplicaGone`.
        ask_all: what every replica answers, by its name: a status and a text.
    """

    async def relay(request: Request) -> Response:
        asked = await _asked(request, limits)
        name = _model_named(asked.body)
        return await _begun(ask, "" if name == base else name, asked)

    async def gathered(request: Request) -> Response:
        answers = await ask_all(await _asked(request, limits))
        if refusals := [one for one in answers.values() if one[0] != 200]:
            (status, text), *_ = refusals
            return Response(text, status, media_type="application/json")
        said = with_label("replica", {name: text for name, (_, text) in answers.items()})
        return Response(said, media_type=EXPOSITION)

    routes = [
        Route("/v1/load_lora_adapter", _not_here, methods=["POST"]),
        Route("/v1/unload_lora_adapter", _not_here, methods=["POST"]),
        *(Route(path, _nobodys, methods=["GET"]) for path in ("/traffic", *PAGES)),
        Route("/metrics", gathered, methods=["GET"]),
        Route("/{path:path}", relay, methods=_METHODS),
    ]
    return Starlette(routes=routes, exception_handlers=HANDLERS)


async def _not_here(request: Request) -> Response:
    raise Refused(501, "adapters of several replicas come from a hub (--hub) or from --adapter, and are not loaded by name.")


async def _nobodys(request: Request) -> Response:
    raise Refused(501, "the page shows what goes on in one process, and here are several; /metrics has all of their numbers.")


async def _asked(request: Request, limits: Limits) -> WholeRequest:
    """The request as data; Refused where its body is too large, or does not come."""
    scope, body = request.scope, await read_body(request, limits)
    return WholeRequest(
        scope["method"],
        scope["path"],
        scope["query_string"],
        list(scope["headers"]),
        body,
        client=scope.get("client"),
        scheme=scope["scheme"],
    )


def _model_named(body: bytes) -> str:
    """The model that a body names; "" where it names none, or is no JSON: the replica that is asked will say so."""
    try:
        content = json.loads(body)
    except ValueError:
        return ""
    name = content.get("model") if isinstance(content, dict) else None
    return name if isinstance(name, str) else ""


async def _begun(ask: Ask, name: str, asked: WholeRequest) -> Response:
    """The answer of a replica, whose first message has come. One that dies before that is as if it had not been asked."""
    for _ in range(_TRIES):
        messages = ask(name, asked)
        try:
            return _Relayed(await anext(messages), messages)
        except ReplicaGone:
            continue
    raise Refused(503, "no replica answers; try again.", headers={"retry-after": "1"})


class _Relayed(Response):
    """What a replica answers, as it comes."""

    def __init__(self, first: Message, further: AsyncIterator[Message]):
        self._first, self._further = first, further
        super().__init__(status_code=first["status"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(self._first)
        async for message in self._further:
            await send(message)
