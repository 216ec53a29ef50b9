"""Adapters in the host's memory: read in the background before they are needed, forgotten when others need the room.

An adapter is read once, however many ask for it meanwhile. What could not be read is told to everyone who asks for it, until
somebody who comes later has it tried again. Files are read by a few threads, while the lock is nobody's.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass

from ..adapters.adapter import Adapter
from ..errors import GraftaxError
from .handles import Handle

_READERS = 4  # threads: more than a disk needs, so that a hub that is slow to answer does not hold up all others


@dataclass(frozen=True)
class Kept:
    """An adapter that is in memory."""

    adapter: Adapter
    bytes: int  # of its arrays


class HostMemory:
    """Adapters by handle, the last used at most. Calls may come from several threads."""

    def __init__(self, most: int, read: Callable[[Handle], Adapter]):
        """`most`: bytes of all that are kept, the last one is, whatever its size; `read`: how one that is not there is had."""
        self._most = most
        self._read_one = read
        self._kept: OrderedDict[Handle, Kept] = OrderedDict()  # the one that was used last is the last
        self._bytes = 0
        self._reading: dict[Handle, Future[Adapter]] = {}
        self._failed: dict[Handle, str] = {}
        self.reads = 0
        self._closed = False
        self._lock = threading.Lock()
        self._readers = ThreadPoolExecutor(_READERS, "graftax-adapters")

    def prefetch(self, handle: Handle) -> None:
        """Begin to read an adapter that is not there, also where that has failed before; returns at once."""
        with self._lock:
            self._failed.pop(handle, None)
            self._found(handle)

    def has(self, handle: Handle) -> bool:
        """Whether the adapter is there."""
        with self._lock:
            return handle in self._kept

    def find(self, handle: Handle) -> Adapter | None:
        """The adapter, if it is there; else it is being read from now on. GraftaxError where that has failed."""
        with self._lock:
            return self._found(handle)

    def wait(self, handle: Handle) -> Adapter:
        """The adapter, as soon as it is there, also where that has failed before; GraftaxError where it fails again."""
        with self._lock:
            self._failed.pop(handle, None)
            if (adapter := self._found(handle)) is not None:
                return adapter
            reading = self._reading[handle]
        try:
            return reading.result()
        except CancelledError:
            raise self._ended(handle) from None
        except GraftaxError as error:
            raise GraftaxError(str(error)) from None  # one for each who waits: an error remembers where it was raised

    def keep(self, handle: Handle, adapter: Adapter) -> None:
        """Keep an adapter that is in memory anyway, as the one used last."""
        with self._lock:
            self._keep(handle, adapter)

    def drop(self, handle: Handle) -> Adapter | None:
        """Forget an adapter, and return it if it was there."""
        with self._lock:
            return self._drop(handle)

    def facts(self) -> tuple[tuple[Handle, ...], int, tuple[Handle, ...]]:
        """Which are there, how many bytes they have, and which are being read."""
        with self._lock:
            return tuple(self._kept), self._bytes, tuple(self._reading)

    def close(self) -> None:
        """Begin to read nothing more."""
        with self._lock:
            self._closed = True
            self._readers.shutdown(wait=False, cancel_futures=True)
            self._reading = {handle: reading for handle, reading in self._reading.items() if not reading.cancelled()}

    # -- with the lock ----------------------------------------------------------------------------------------------------

    def _found(self, handle: Handle) -> Adapter | None:
        """As `find`."""
        if (kept := self._kept.get(handle)) is not None:
            self._kept.move_to_end(handle)
            return kept.adapter
        if handle in self._failed:
            raise GraftaxError(self._failed[handle])
        if handle not in self._reading:
            if self._closed:
                raise self._ended(handle)
            self._reading[handle] = self._readers.submit(self._read, handle)
        return None

    def _ended(self, handle: Handle) -> GraftaxError:
        return GraftaxError(f"{handle}: no adapters are read any more.")

    def _keep(self, handle: Handle, adapter: Adapter) -> None:
        self._drop(handle)
        kept = Kept(adapter, adapter.nbytes)
        self._kept[handle] = kept
        self._bytes += kept.bytes
        while self._bytes > self._most and len(self._kept) > 1:
            leaving = next(iter(self._kept))
            _ = leaving.digest  # computed before the adapter is gone, which a handle may keep for that alone
            self._drop(leaving)

    def _drop(self, handle: Handle) -> Adapter | None:
        if (kept := self._kept.pop(handle, None)) is None:
            return None
        self._bytes -= kept.bytes
        return kept.adapter

    # -- in a thread of the readers ---------------------------------------------------------------------------------------

    def _read(self, handle: Handle) -> Adapter:
        """Read an adapter, and keep it; whatever happens to that, it is not being read any more."""
        try:
            adapter = self._read_one(handle)
        except BaseException as error:
            text = str(error) if isinstance(error, GraftaxError) else f"{handle}: cannot be read ({error!r})."
            with self._lock:
                self._failed[handle] = text
                del self._reading[handle]
            raise GraftaxError(text) from error
        with self._lock:
            self._keep(handle, adapter)
            del self._reading[handle]
            self.reads += 1
        return adapter
