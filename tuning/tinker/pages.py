"""Long lists, told page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from ...serve.http.complaints import Refused

_MOST = 1000


@dataclass(frozen=True)
class Page:
    """A part of a list, and where it lies."""

    items: Sequence[Any]
    cursor: dict[str, int]


def page_of(request: Request, items: Sequence[Any], usual: int) -> Page:
    """The part that a request asks for by `limit` and `offset`; `usual`: how many where it does not say."""
    offset, limit = _number(request, "offset", 0), min(_number(request, "limit", usual), _MOST)
    return Page(items[offset : offset + limit], {"offset": offset, "limit": limit, "total_count": len(items)})


def _number(request: Request, name: str, usual: int) -> int:
    said = request.query_params.get(name, str(usual))
    if not said.isdecimal() or len(said) > 9:
        raise Refused(400, f"{name} must be a whole number, got {said!r}.", param=name)
    return int(said)
