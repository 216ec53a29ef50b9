"""What the server says when it does not answer: one line in OpenAI's form, and a status that says whose matter it is.

    {"error": {"message": "...", "type": "invalid_request_error", "param": "temperature", "code": null}}

400 the request; 401, 403 its key; 404 what it names; 413 its size; 422 an adapter that is there and cannot do this; 429 too
much at once; 503 the server, or a hub behind it, for the moment. Whatever else happens is 500 with no more than that: what went
wrong is written where the server runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ...errors import GraftaxError, in_a_line
from ...json_files import json_line

GONE = 499  # what proxies write in their logs where the client went away
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Refused(Exception):
    """A request that is answered by an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | int | None = None,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        """`param`: which part of the request it is about; `kind`: the error's type, which else follows from the status."""
        super().__init__(in_a_line(message))
        self.status, self.param, self.code, self.headers = status, param, code, headers
        self.kind = kind or _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")

    def content(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


class Gone(Exception):
    """The client went away: there is nobody to answer."""


def as_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that every reader of JSON takes."""
    return Response(json_line(content), status, headers, media_type="application/json")


def _refusal(refused: Refused) -> Response:
    return as_json(refused.content(), refused.status, refused.headers)


async def on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _refusal(error)


async def on_bad_input(request: Request, error: Exception) -> Response:
    """Of a GraftaxError that no endpoint made anything else of: what was asked for is at fault."""
    return _refusal(Refused(400, str(error)))


async def on_no_route(request: Request, error: Exception) -> Response:
    """Of Starlette's own: a path that is not there, or a method that it does not have."""
    assert isinstance(error, HTTPException)
    return _refusal(Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}.", headers=error.headers))


async def on_gone(request: Request, error: Exception) -> Response:
    """What nobody reads."""
    return Response(status_code=GONE)


async def on_failure(request: Request, error: Exception) -> Response:
    """Of everything else. Starlette raises it once more, and uvicorn writes the traceback where the server runs."""
    return _refusal(Refused(500, "the server failed to answer; what happened is in its log."))


HANDLERS: Mapping[Any, Any] = {
    Refused: on_refused,
    GraftaxError: on_bad_input,
    HTTPException: on_no_route,
    Gone: on_gone,
    Exception: on_failure,
}
