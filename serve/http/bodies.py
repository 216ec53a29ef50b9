"""A request's body, read no further than a limit; and the JSON object in it."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect, Request

from ...errors import GraftaxError
from ...json_files import parse_json
from .complaints import Gone, Refused
from .limits import Limits


async def read_object(request: Request, limits: Limits) -> dict[str, Any]:
    """The object; Refused where the body is none, or is too large, or does not come."""
    return object_in(await read_body(request, limits))


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body; Refused where it is too large, or does not come."""
    try:
        async with asyncio.timeout(limits.patience):
            return await _read(request, limits.max_body)
    except TimeoutError:
        raise Refused(408, f"the body did not come within {limits.patience:g} s.") from None
    except ClientDisconnect:
        raise Gone from None


def object_in(data: bytes) -> dict[str, Any]:
    """The object in a body; Refused where there is none."""
    try:
        content = parse_json(data.decode(), "the body")
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except GraftaxError as error:
        raise Refused(400, str(error)) from None
    if not isinstance(content, dict):
        raise Refused(400, "the body must be a JSON object.")
    return content


async def _read(request: Request, most: int) -> bytes:
    """The body; of one that is too large no more is read than shows that."""
    said = request.headers.get("content-length", "")
    size = int(said) if said.isdecimal() else 0
    data = bytearray()
    if size <= most:
        async for chunk in request.stream():
            data += chunk
            if (size := len(data)) > most:
                break
    if size > most:
        raise Refused(413, f"the body has more than the {most:,} bytes that this server takes (--max-body).")
    return bytes(data)
