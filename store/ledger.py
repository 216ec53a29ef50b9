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
import re
from collections.abc import Iterator

from ..errors import GraftaxError
from .damage import Damaged, NewerSchema
from .events import Event, event_text, parse_event
from .objects import Objects

_A_FOLDER = 1000  # events: a folder of a hundred thousand files is slow to list
_FIRST_WINDOW, _LARGEST_WINDOW = 1, 256  # events that are asked for at once
_FOLDER = "ledger"
_EVENT = re.compile(rf"{_FOLDER}/\d{{6}}/(?P<number>\d{{9}})\.json")

_MEND = "What was done before it stays as it is; to go on, put this one object back from a copy of the hub."


class OtherLedger(GraftaxError):
    """The ledger does not have an event that it had."""


class Ledger:
    """The events in a place."""

    def __init__(self, objects: Objects):
        self._objects = objects
        self._known: tuple[int, str, str] | None = None  # the event that was read last, its sha256 and its stamp

    def after(self, number: int, digest: str) -> Iterator[tuple[int, str, Event]]:
        """The events behind event `number`, whose sha256 is `digest`: of each its number, its sha256 and itself.

        Most often there is none, which one request tells: for what lies from event `number` on, which is known by its stamp
        and else read. Else one event is asked for at first, and then ever more at once. Where one is missing the events end;
        who asks again for those behind the last is told what is wrong.

        Raises:
            OtherLedger: event `number` is not there, or is another; number 0 stands for the beginning of any ledger.
            Damaged: an event cannot be read, or does not follow the one before it; or the next one is missing and later ones
                are there.
        """
        if not self._goes_on(number, digest):
            return
        window = _FIRST_WINDOW
        while True:
            contents = self._objects.get_all(map(_key, range(number + 1, number + 1 + window)))
            for content in contents:
                if content is None:
                    return
                number += 1
                event, previous = self._parsed(number, content)
                if previous != digest:
                    raise Damaged(f"{self._source(number)}: does not follow the event before it. {_MEND}")
                digest = hashlib.sha256(content).hexdigest()
                yield number, digest, event
            window = min(2 * window, _LARGEST_WINDOW)

    def _goes_on(self, number: int, digest: str) -> bool:
        """Whether there is an event behind one of this number and sha256.

        Raises OtherLedger where this one is not there, Damaged where there are some behind it, and not the next.
        """
        stamp, behind = self._listed(number)
        known = stamp is not None and self._known == (number, digest, stamp)
        if number and not known and self.digest(number) != digest:
            raise OtherLedger(f"{self._objects.url}: an older state of this hub, or another one, was put here.")
        # a listing may have begun before the next one was added, and have ended behind it: only then it is asked for
        if behind > number + 1 and self._objects.size(_key(number + 1)) is None:
            raise self._lost(number + 1)
        return behind > 0

    def _listed(self, number: int) -> tuple[str | None, int]:
        """The stamp of an event, and the number of the first that there is behind it, by one listing; else None, and 0."""
        stamp = None
        for key, its_stamp in self._objects.after(_FOLDER, _key(number - 1) if number else ""):
            found = _EVENT.fullmatch(key)
            if found and int(found["number"]) > number:
                return stamp, int(found["number"])
            stamp = its_stamp if found else stamp
        return stamp, 0

    def _lost(self, number: int) -> Damaged:
        return Damaged(f"{self._source(number)}: the ledger has lost this event. {_MEND}")

    def check(self) -> None:
        """Read all of it; Damaged unless every event is there and follows the one before it."""
        last: tuple[int, str] | None = (0, "")
        while last is not None:  # else nothing lies behind it
            last = max(((number, digest) for number, digest, _ in self.after(*last)), default=None)

    def read(self, number: int) -> Event:
        """One event; Damaged where it is missing or cannot be read."""
        content = self._objects.get(_key(number))
        if content is None:
            raise self._lost(number)
        return self._parsed(number, content)[0]

    def digest(self, number: int) -> str:
        """sha256 of an event; empty where there is none of this number."""
        content, stamp = self._objects.get_stamped(_key(number))
        if content is None:
            return ""
        digest = hashlib.sha256(content).hexdigest()
        if stamp is not None:
            self._known = number, digest, stamp
        return digest

    def _parsed(self, number: int, content: bytes) -> tuple[Event, str]:
        """An event and the sha256 of the one before it."""
        try:
            return parse_event(content.decode(), self._source(number))
        except NewerSchema:
            raise
        except (GraftaxError, UnicodeDecodeError) as error:
            what = str(error) if isinstance(error, GraftaxError) else f"{self._source(number)}: no UTF-8 text."
            raise Damaged(f"{what} {_MEND}") from error

    def _source(self, number: int) -> str:
        return f"{self._objects.url}: {_key(number)}"

    def append(self, event: Event, number: int, previous: str) -> bool:
        """Add an event as the one of this number; False where another writer was there first.

        An answer may be lost on its way, and the request be sent again: then the event that is there already is our own.

        Raises GraftaxError where the event could not be read again: nobody could read on behind it.
        """
        text = event_text(event, previous)
        parse_event(text, event.what)
        content = text.encode()
        return self._objects.create(_key(number), content) or self._objects.get(_key(number)) == content

    def exists(self) -> bool:
        """Whether there is a ledger at all; Damaged where its beginning is missing."""
        return self._goes_on(0, "")


def _key(number: int) -> str:
    return f"{_FOLDER}/{number // _A_FOLDER:06}/{number:09}.json"
