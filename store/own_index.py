"""This machine's index of a store: a file in the user's cache, which is brought up to date by the ledger whenever it is asked.

It is only a copy of what the ledger says: where the file is damaged, of another ledger or gone, it is made anew. Several
threads and processes share it; each thread has a connection of its own, for one of SQLite's has one transaction at a time.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from .. import disk
from ..errors import GraftaxError
from .index import Index
from .ledger import Ledger, OtherLedger
from .objects import Objects
from .snapshots import begin, lay
from .tables import COPY, LAYOUT, in_one_line, is_damage

T = TypeVar("T")
_AT_ONCE = 2000  # events held in memory while an index is brought up to date


class OwnIndex:
    """The index in a folder, of a ledger among objects."""

    def __init__(self, folder: Path, objects: Objects, ledger: Ledger):
        self.file = folder / f"index-{LAYOUT}.sqlite"
        self._objects, self._ledger = objects, ledger
        self._of_thread = threading.local()

    def ask(self, question: Callable[[Index], T]) -> T:
        """What the index answers once it has everything that the ledger has now, all as things were at one moment.

        Raises NoStore where none was ever made, and where it is there no more: then what was known stays, whoever asks and
        whatever for, since the folder may only have been moved, or its disk be away for a while.
        """
        with in_one_line(self.file):
            try:
                return self._answer(self._updated(), question)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
            for file in self.file.parent.glob(f"{self.file.name}*"):  # with what SQLite keeps beside it
                file.unlink(missing_ok=True)
            self._of_thread.index = Index(self.file)  # which is empty: it was perhaps a snapshot that was damaged
            return self._answer(self._updated(), question)

    def recall(self, question: Callable[[Index], T]) -> T:
        """What the index answers by what it has, whatever was done since; but what has expired is gone."""
        with in_one_line(self.file):
            return self._answer(self._in_time(self._opened()), question)

    def look_up(self, question: Callable[[Index], T]) -> T:
        """What the index answers of a version that was found in it, whatever was done since."""
        with in_one_line(self.file):
            return self._answer(self._opened(), question)

    def _answer(self, index: Index, question: Callable[[Index], T]) -> T:
        with index.reading():
            return question(index)

    def _updated(self) -> Index:
        index = self._opened()
        if index.position()[0] == 0:
            begin(index, self._objects, self._ledger)
        try:
            self._read_on(index)
        except OtherLedger:
            if not self._ledger.exists():
                raise NoStore(self._objects.url) from None
            begin(index, self._objects, self._ledger)
            self._read_on(index)
        if index.position()[0] == 0:
            raise NoStore(self._objects.url)
        return self._in_time(index)

    def _in_time(self, index: Index) -> Index:
        if not index.is_in_time():
            with index.writing():
                index.keep_time()
        return index

    def _opened(self) -> Index:
        """This thread's connection."""
        index: Index | None = getattr(self._of_thread, "index", None)
        if index is None or not index.is_in_place():
            self._make_folder()
            if not self.file.exists():
                self._begin()
            self._of_thread.index = index = Index(self.file)
        return index

    def _make_folder(self) -> None:
        try:
            disk.make_directory(self.file.parent)
        except GraftaxError as error:
            raise GraftaxError(f"{error} {COPY}") from error

    def _begin(self) -> None:
        """Make the file of the newest snapshot and what came since, before anybody sees it: that is the quickest.

        Whatever is wrong is left to who reads on; of a snapshot that is none, all.
        """
        with suppress(sqlite3.Error), disk.new_file(self.file) as draft:
            lay(draft, self._objects)
            with suppress(GraftaxError), closing(Index(draft, hidden=True)) as index:
                self._read_some(index)

    def _read_on(self, index: Index) -> None:
        """Apply the events that the index does not have yet."""
        while self._read_some(index):
            pass

    def _read_some(self, index: Index) -> bool:
        """Apply the first of them; whether there were any."""
        number, digest = index.position()
        some = list(islice(self._ledger.after(number, digest), _AT_ONCE))
        if some:
            with index.writing():
                if index.position() == (number, digest):  # else another thread or process was here
                    index.apply(some)
        return bool(some)


class NoStore(GraftaxError):
    """A place where no store is."""

    def __init__(self, url: str):
        super().__init__(f"there is no hub at {url}; the first push into an empty place makes one.")
