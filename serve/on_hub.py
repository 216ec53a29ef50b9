"""Names that are looked up on a hub: a version is an adapter, and its digest the adapter's.

A hub in a bucket answers in some ten milliseconds, and requests may come by the thousand. So it is asked once in a while, by
one of them, and the others are answered by what this machine knows of it; what is not known here is asked for at once. A hub
that cannot be reached is taken to say what it said last.
"""

from __future__ import annotations

import threading
import time
from functools import partial

from ..adapters.adapter import Adapter
from ..adapters.files import load_adapter
from ..adapters.located import Located
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..store.store import Store
from ..store.version import Version
from .handles import Handle


class HubAway(GraftaxError):
    """A name that is not known here, while the hub that may know it cannot be reached."""


class OnHub:
    """The adapters of a hub for a backbone, as a `Source` (`residents.py`). Calls may come from several threads."""

    def __init__(self, store: Store, backbone: Backbone, *, seconds: float = 1.0):
        """`seconds`: for how long what the hub said is taken for what it says."""
        self.away: str | None = None  # why the hub could not be reached when it was asked last
        self._store = store
        self._backbone = backbone
        self._seconds = seconds
        self._asked = -seconds  # when that was
        self._asking = threading.Lock()

    def resolve(self, name: str, route: str | None = None) -> Handle:
        """The version that a reference means now, such as bank/intent, bank/intent:3 or bank/intent:prod.

        `route`: where a tag shares its traffic, of whom it is asked: the same always gets the same version.

        Raises GraftaxError where there is no such version, HubAway where none is known and the hub cannot be reached.
        """
        self.refresh()
        try:
            version = self._store.recall(name, route=route)
        except GraftaxError:  # perhaps it is there since then
            if self.away is not None:
                raise HubAway(f"{name} is not known here, and the hub is away: {self.away}") from None
            version = self._store.resolve(name, route=route)
        return Handle(version.name, version.version, version.digest, partial(self._read, version))

    def refresh(self) -> None:
        """Ask the hub what is new, unless that was done a moment ago or somebody is at it."""
        if time.monotonic() - self._asked >= self._seconds and self._asking.acquire(blocking=False):
            try:
                self._ask()
            finally:
                self._asking.release()

    def _ask(self) -> None:
        """Bring what this machine knows of the hub up to date, if the hub can be reached."""
        try:
            self.away = None if self._store.exists() else f"there is no hub at {self._store.url}"
            if self.away is None:
                self._store.index()
        except GraftaxError as error:
            self.away = str(error)
        self._asked = time.monotonic()

    def _read(self, version: Version) -> Adapter:
        """A version's adapter, its files pulled if need be and checked against its digest."""
        directory = self._store.pull(version)
        with Located(directory, str(version)).named():
            return load_adapter(directory, self._backbone)
