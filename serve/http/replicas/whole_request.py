"""An ASGI app that is asked without a socket: a request as data, its answer message by message.

    async for message in answer_of(app, WholeRequest("POST", "/v1/completions", b"", headers, body)):
        ...                 # {"type": "http.response.start", "status": 200, ...}, then one body after another

Both can be sent from process to process, so that a replica of a server may be anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message


class WholeRequest(NamedTuple):
    """A request of HTTP, whole."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    client: tuple[str, int] | None = None  # who asks: address and port
    scheme: str = "http"

    def scope(self) -> dict[str, Any]:
        """What ASGI tells an app of a request."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": self.scheme,
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query,
            "root_path": "",
            "headers": self.headers,
            "client": self.client,
            "server": None,
        }


async def answer_of(app: ASGIApp, asked: WholeRequest) -> AsyncIterator[Message]:
    """What an app answers. Whoever stops reading before the end is a client that has gone away, which the app is told.

    What the app raises is raised here, behind what it has said before.
    """
    said: asyncio.Queue[Message | None] = asyncio.Queue()
    gone = asyncio.Event()
    coming: list[Message] = [{"type": "http.request", "body": asked.body, "more_body": False}]

    async def receive() -> Message:
        if coming:
            return coming.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def run() -> None:
        try:
            await app(asked.scope(), receive, said.put)
        finally:
            said.put_nowait(None)

    running = asyncio.create_task(run())
    try:
        while (message := await said.get()) is not None:
            yield message
        await running
    finally:
        gone.set()
        with suppress(Exception):  # nobody is left to be told
            await running
