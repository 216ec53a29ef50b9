"""Tickets: addresses of files that whoever has them may fetch, without a key, for an hour. Clients fetch checkpoints so."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from ...serve.http.complaints import Refused

SECONDS = 3600.0
_MOST = 10_000


class Tickets:
    """The tickets that are good now. Belongs to the server's event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._given: OrderedDict[str, tuple[Path, float]] = OrderedDict()  # the first to end is the first

    def give(self, directory: Path) -> str:
        """A ticket for the files of a directory."""
        self._forget()
        ticket = secrets.token_urlsafe(32)
        self._given[ticket] = directory, self._clock() + SECONDS
        return ticket

    def directory(self, ticket: str) -> Path:
        """What a ticket is for; Refused where it is none, or its time is over."""
        self._forget()
        if ticket not in self._given:
            raise Refused(404, "there is no such file, or its address was good for an hour.", code="not_found")
        return self._given[ticket][0]

    def _forget(self) -> None:
        now = self._clock()
        while self._given and (next(iter(self._given.values()))[1] <= now or len(self._given) > _MOST):
            self._given.popitem(last=False)
