"""The page at /: an HTML file with its style and scripts, all in `web/`. Nothing of it comes from anywhere else.

The page itself is everybody's, for it holds nothing: what it shows it asks for, with the key that is typed into it. That was
written by whoever made an adapter, so the page's policy lets it run these scripts alone, and lets these make no HTML of text.
"""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from .service import Service

_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # the picture that somebody is about to ask with
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # text never becomes HTML
        "trusted-types 'none'",
    ]
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FIRST = "index.html"


async def _show(file: Traversable, service: Service, request: Request) -> Response:
    return Response(file.read_text("utf-8"), headers=_HEADERS, media_type=_KINDS[Path(file.name).suffix])


#: what answers, by path
PAGES = {
    "/" if file.name == _FIRST else f"/page/{file.name}": partial(_show, file)
    for file in files(__package__).joinpath("web").iterdir()
}
