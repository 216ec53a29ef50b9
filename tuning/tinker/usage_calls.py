"""GET billing/usage/events: what a tenant's loops have learnt from, hour by hour. Nothing has a price here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...serve.http.complaints import Refused, as_json
from ...serve.http.service import in_thread
from ...typed import shown
from .accounts import HOUR
from .tinker_service import TinkerService


async def events(tinker: TinkerService, request: Request) -> Response:
    """An event for each loop and hour, of the hours that began in the time that is asked for."""
    begin, end = (_seconds(request, name) for name in ("starting_on", "ending_before"))
    costs = await in_thread(tinker.accounts.of, tinker.tenant, begin, end)
    told: list[dict[str, Any]] = [
        {
            "bucket_start": _moment(hour),
            "bucket_end": _moment(hour + HOUR),
            "session_id": loop.partition(":")[0],
            "event_info": {"type": "training", "token_count": cost.tokens},
        }
        for loop, hour, cost in costs
    ]
    known = {session.id: session for session in tinker.sessions.of(tinker.tenant)}
    named = {event["session_id"]: known[event["session_id"]] for event in told if event["session_id"] in known}
    metadata = {name: {key: str(value) for key, value in one.user_metadata.items()} for name, one in named.items()}
    return as_json({"data": told, "sessions": {name: {"user_metadata": said} for name, said in metadata.items()}})


def _seconds(request: Request, name: str) -> int:
    """A moment that is asked for, in seconds since 1970; one that names no zone is UTC."""
    said = request.query_params.get(name, "")
    try:
        moment = datetime.fromisoformat(said)
        return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise Refused(400, f"{name} must be a date and time (ISO 8601), got {shown(said)}.", param=name) from None


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
