"""Server-sent events: an answer that comes in pieces, each a line `data: {...}`; the last is `data: [DONE]`.

What goes wrong before the first piece has a status of its own, for nothing is sent until that is there; behind it, it is a
piece with an error.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...json_files import json_line
from .complaints import Gone, Refused

_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
Pieces = AsyncGenerator[dict[str, Any], None]


async def as_events(pieces: Pieces, headers: Mapping[str, str]) -> Response:
    """The answer, when its first piece is there."""
    try:
        first = await anext(pieces)
    except BaseException:
        await pieces.aclose()
        raise
    return _Events(first, pieces, headers)


class _Events(Response):
    """An answer in pieces, to somebody who may go away meanwhile (`connections.py`)."""

    def __init__(self, first: dict[str, Any], pieces: Pieces, headers: Mapping[str, str]):
        super().__init__(headers={**_HEADERS, **headers})
        del self.headers["content-length"]
        self._first, self._pieces = first, pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._lines()) as lines:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for line in lines:
                event = f"data: {line}\n\n".encode()
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _lines(self) -> AsyncGenerator[str, None]:
        async with aclosing(self._pieces) as pieces:
            try:
                yield json_line(self._first)
                async for piece in pieces:
                    yield json_line(piece)
            except Gone:
                return
            except Refused as refused:
                yield json_line(refused.content())
            except Exception:
                logging.getLogger("graftax").exception("an answer in pieces failed")
                failed = Refused(500, "the server failed to go on; what happened is in its log.")
                yield json_line(failed.content())
            yield "[DONE]"
