"""Lists in pages, as OpenAI's API has them: `limit` objects behind the one whose id is `after`, and whether there are more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from ...serve.http.complaints import Refused
from ...typed import shown


def limit_of(request: Request, default: int, most: int = 100) -> int:
    """How many objects a page may have."""
    said = request.query_params.get("limit")
    if said is None:
        return default
    if not (said.isascii() and said.isdecimal() and len(said) < 10 and 1 <= int(said) <= most):
        raise Refused(400, f"limit must be a whole number from 1 to {most:,}, got {shown(said)}.", param="limit")
    return int(said)


def behind(objects: Sequence[dict[str, Any]], after: str | None) -> Sequence[dict[str, Any]]:
    """Those behind the object of an id; Refused where it is none of them."""
    if after is None:
        return objects
    for place, one in enumerate(objects):
        if one["id"] == after:
            return objects[place + 1 :]
    raise unknown(after)


def unknown(after: str) -> Refused:
    """`after` is the id of nothing in the list."""
    return Refused(400, f"after: nothing in this list has the id {shown(after)}.", param="after")


def page_of(objects: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """The first `limit` objects, of a list that says with one more that there are more."""
    data = [*objects[:limit]]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": len(objects) > limit}
