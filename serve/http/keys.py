"""API keys: who may ask, and who may change which adapters there are. The server knows the keys' hashes alone.

    # keys.txt: a line for each, sha256 of the key; `admin` behind it: may load and unload adapters
    9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752 admin
    fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9 rpm=60 tpm=20000 max_parallel_requests=4

Behind the hash also stands how much the key may ask, and have trained (`quotas.py`). Who has a key has turns of his own among
all who wait (`turns.py`), however many requests others have sent before. A key is compared in a time that says nothing of how
much of it was right: with all hashes, each to its end.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...errors import GraftaxError
from ...json_files import read_bytes
from ...paths import expect_file
from ...typed import shown
from ..turns import ADMIN, TENANT
from .complaints import Refused, as_json
from .quotas import METER, Meter, Quota, TrainingQuota
from .web_page import PAGES

_HASH = re.compile(r"[0-9a-fA-F]{64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,11}")
#: what asks after a server's health has no key; nor has the page, which asks with that of whoever looks at it
_OPEN = ("/health", "/ready", *PAGES)
_FOR_ADMINS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Key:
    """What is known of a key."""

    hash: bytes
    admin: bool
    quota: Quota = Quota()
    training: TrainingQuota = TrainingQuota()


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file; GraftaxError where a line is none, or there is none at all."""
    expect_file(path, f"{path}: no such file of API keys.")
    lines = read_bytes(path, _MOST_BYTES).decode("ascii", "replace").splitlines()
    keys: list[Key] = []
    for number, line in enumerate(lines, 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        try:
            keys.append(_key_of(line.split()))
        except GraftaxError as error:
            raise GraftaxError(f"{path}: line {number} is no key: {error}") from None
    if not keys:
        raise GraftaxError(f"{path} has no keys, so nobody could ask.")
    return tuple(keys)


def _key_of(words: list[str]) -> Key:
    """The key of a line, which has some words; GraftaxError where they are none."""
    if not _HASH.fullmatch(words[0]):
        raise GraftaxError("expected 64 hexadecimal digits (sha256).")
    limits: dict[str, int] = {}
    names = (*Quota.names(), *TrainingQuota.names())
    for word in (further := [word for word in words[1:] if word != "admin"]):
        name, _, number = word.partition("=")
        if name not in names or not _NUMBER.fullmatch(number):
            raise GraftaxError(f"behind it may stand admin, and NAME=NUMBER of {', '.join(names)}, got {shown(word)}.")
        limits[name] = int(number)
    if len(limits) < len(further) or words.count("admin") > 1:
        raise GraftaxError("it says something twice.")
    asking, training = ({name: limits[name] for name in kind.names() if name in limits} for kind in (Quota, TrainingQuota))
    return Key(bytes.fromhex(words[0]), "admin" in words, Quota(**asking), TrainingQuota(**training))


def found(keys: tuple[Key, ...], given: str) -> Key | None:
    """The key that somebody has given, if it is one."""
    digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
    return next((key for key, same in [(key, hmac.compare_digest(key.hash, digest)) for key in keys] if same), None)


class Guarded:
    """An app that is asked with a key alone, and by each as much as it may ask. What asks for no work is not counted."""

    def __init__(
        self,
        app: ASGIApp,
        keys: tuple[Key, ...],
        clock: Callable[[], float] = time.monotonic,
        polls: frozenset[str] = frozenset(),
        unguarded: Sequence[Route] = (),
    ):
        """`polls`: paths that are asked for no work; `unguarded`: what is answered to everybody."""
        self._app, self._keys, self._polls, self._unguarded = app, keys, polls, unguarded
        self._meters = {key.hash: Meter(key.quota, clock) for key in keys if key.quota != Quota()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN or self._is_unguarded(scope):
            await self._app(scope, receive, send)
            return
        given = _given(Headers(scope=scope))
        key = found(self._keys, given)
        refused = self._refusal(scope, key, given)
        asks = scope["method"] == "POST" and scope["path"] not in self._polls
        meter = self._meters.get(key.hash) if key is not None and asks else None
        if refused is None and meter is not None:
            refused = meter.begin()
        if refused is not None or key is None:
            assert refused is not None
            await as_json(refused.content(), refused.status, refused.headers)(scope, receive, send)
            return
        TENANT.set(key.hash.hex())
        ADMIN.set(key.admin)
        if meter is None:
            await self._app(scope, receive, send)
        else:
            await self._metered(meter, scope, receive, send)

    def _is_unguarded(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._unguarded)

    async def _metered(self, meter: Meter, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request answered that its meter has counted, and say what is left."""

        async def said(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(meter.headers())
            await send(message)

        METER.set(meter)
        try:
            await self._app(scope, receive, said)
        finally:
            meter.end()

    def _refusal(self, scope: Scope, key: Key | None, given: str) -> Refused | None:
        if key is None:
            needed = "a key is needed: Authorization: Bearer KEY, or X-API-Key: KEY."
            said = "the key is none of this server's." if given else needed
            return Refused(401, said, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if scope["path"] in _FOR_ADMINS and not key.admin:
            return Refused(403, "adapters are loaded and unloaded with an admin's key.", code="insufficient_permissions")
        return None


def _given(headers: Headers) -> str:
    """The key that a request brings, as OpenAI's clients and many others write it, or as Tinker's does; empty: none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
