"""Pages of other hosts, which a browser lets ask any server that it can reach, this machine's own among them.

It keeps the answer from such a page, unless the server names the page's origin (CORS); but what it asked for is done by then.
So who asks for work, and for no key, is refused where the browser says that a page from elsewhere asks. Programs say no such
thing. With keys no page can ask at all, for it knows none and may send none.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from ...errors import GraftaxError
from ...typed import shown
from .complaints import Refused, as_json

EVERY = "*"
_ONLY_LOOKS_ON = ("GET", "HEAD", "OPTIONS")
_OWN = ("same-origin", "none")  # what a browser says of this server's own page, and of who types the address
_READABLE = ("x-adapter-digest", "x-request-id", "retry-after")  # headers of answers


def origins_of(given: Sequence[str]) -> tuple[str, ...]:
    """The origins that are given, as a browser writes them; GraftaxError where one is none."""
    return tuple(map(_origin_of, given))


def _origin_of(text: str) -> str:
    if text in (EVERY, "null"):  # null: what a page in a file has
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if not parts.scheme or not parts.netloc or parts.path or parts.query or parts.fragment:
        raise GraftaxError(
            f"--allowed-origins {shown(text)}: an origin is such as https://chat.example.org, or {EVERY} for any."
        )
    return text.lower()


def with_origins(app: ASGIApp, allowed: Sequence[str]) -> ASGIApp:
    """An app that answers pages of these origins, whose browsers are told that they may read the answers."""
    if not allowed:
        return app
    anything = ("*",)
    return CORSMiddleware(app, allow_origins=allowed, allow_methods=anything, allow_headers=anything, expose_headers=_READABLE)


class OwnPages:
    """An app that is asked for work by programs, its own page, and pages of allowed origins."""

    def __init__(self, app: ASGIApp, allowed: Sequence[str]):
        self._app, self._allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = scope["type"] == "http" and scope["method"] not in _ONLY_LOOKS_ON
        if asks and self._is_foreign(headers := Headers(scope=scope)):
            page = shown(headers.get("origin", "another host"))
            refused = Refused(403, f"a page of {page} asks, and may not (--allowed-origins).", code="origin_not_allowed")
            await as_json(refused.content(), refused.status)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_foreign(self, headers: Headers) -> bool:
        """Whether a browser asks for a page from elsewhere; it says so itself, but for a server that it does not trust."""
        origin, said = headers.get("origin"), headers.get("sec-fetch-site")
        if EVERY in self._allowed or origin in self._allowed:
            return False
        if said is not None:
            return said not in _OWN
        return origin is not None and not origin.endswith(f"://{headers.get('host', '')}")
