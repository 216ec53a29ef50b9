"""The ledger: a store's events in their order, each an object that is created once and never changed.

    ledger/000000/000001.json   begun
    ledger/000000/000002.json   pushed bank/intent:1
    ...

Event n is created under its number, and of several writers that try exactly one succeeds. The others read what came before
them, look whether what they are about to do still makes sense, and try the next number. A writer that is killed has either
created its event or not; there is nothing to clean up and nothing to unlock. Each event holds the sha256 of the one before it:
a ledger that was put back to an older state, or is another one altogether, is recognised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ..errors import GraftaxError
from .events import Event, event_text, parse_event
from .objects import Objects

_A_FOLDER = 1000  # events: a folder of a hundred thousand files is slow to list
_FIRST_WINDOW, _LARGEST_WINDOW = 1, 64  # events that are asked for at once


class Ledger:
    """The events in a place."""

    def __init__(self, objects: Objects):
        self._objects = objects

    def after(self, number: int, digest: str) -> Iterator[tuple[int, str, Event]]:
        """The events behind event `number`, whose sha256 is `digest`: of each its number, its sha256 and itself.

        Most often there is none or one, so that at first one is asked for, and then ever more at once.

        Raises GraftaxError where an event cannot be read, or does not follow the one before it.
        """
        window = _FIRST_WINDOW
        while True:
            numbers = range(number + 1, number + 1 + window)
            texts = [self._objects.get(_key(numbers[0]))] if window == 1 else self._objects.get_all(map(_key, numbers))
            for number, content in zip(numbers, texts, strict=True):
                if content is None:
                    return
                source = f"{self._objects.url}: {_key(number)}"
                event, previous = parse_event(_decoded(content, source), source)
                if previous != digest:
                    raise GraftaxError(f"{source}: does not follow the event before it; somebody has changed the ledger.")
                digest = hashlib.sha256(content).hexdigest()
                yield number, digest, event
            window = min(2 * window, _LARGEST_WINDOW)

    def read(self, number: int) -> Event:
        """One event."""
        source = f"{self._objects.url}: {_key(number)}"
        content = self._objects.get(_key(number))
        if content is None:
            raise GraftaxError(f"{source}: the ledger has lost this event.")
        return parse_event(_decoded(content, source), source)[0]

    def digest(self, number: int) -> str | None:
        """sha256 of an event; None where there is none of this number."""
        content = self._objects.get(_key(number))
        return None if content is None else hashlib.sha256(content).hexdigest()

    def append(self, event: Event, number: int, previous: str) -> bool:
        """Add an event as the one of this number; False where another writer was there first.

        An answer may be lost on its way, and the request be sent again: then the event that is there already is our own.
        """
        content = event_text(event, previous).encode()
        return self._objects.create(_key(number), content) or self._objects.get(_key(number)) == content

    def exists(self) -> bool:
        """Whether there is a ledger at all."""
        return self._objects.size(_key(1)) is not None


def _key(number: int) -> str:
    return f"ledger/{number // _A_FOLDER:06}/{number:09}.json"


def _decoded(content: bytes, source: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise GraftaxError(f"{source}: damaged, no UTF-8 text.") from error
