"""Snapshots: copies of the index in the store itself, so that who comes new need not read every event.

    snapshots/1/000102400-5b0c...sqlite   after event 102,400; the sha256 of the copy is in its name

Whoever adds every 1024th event leaves one. A snapshot is only a shorter way: one that is missing, damaged, of another ledger
or of other tables than this graftax has is passed over, and the ledger is read from an older one, or from its beginning.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path

from .index import Index
from .ledger import Ledger
from .objects import Objects
from .tables import LAYOUT

EVERY = 1024  # events
_KEPT = 2  # the last ones: somebody may be reading the one before the last
_FOLDER = f"snapshots/{LAYOUT}"
_NAME = re.compile(r"(?P<number>\d{9})-(?P<digest>[0-9a-f]{64})\.sqlite")


def write_snapshot(index: Index, objects: Objects) -> None:
    """Leave a copy of an index, and delete those that nobody needs any more."""
    with tempfile.TemporaryDirectory() as folder:
        index.copy_to(file := Path(folder, "copy.sqlite"))
        with closing(Index(file)) as copy:
            number, _ = copy.position()
        content = file.read_bytes()
    objects.put(f"{_FOLDER}/{number:09}-{hashlib.sha256(content).hexdigest()}.sqlite", content)
    objects.delete(_newest_first(objects)[_KEPT:])


def begin(index: Index, objects: Objects, ledger: Ledger) -> None:
    """Let an index, whatever is in it, be the newest snapshot that is sound and of this ledger; else empty."""
    for key in _newest_first(objects):
        with suppress(sqlite3.Error):
            if _is_taken(objects.get(key), key, index, ledger):
                return
    if index.position()[0] > 0:
        with closing(Index()) as empty:
            index.take_over(empty)


def _is_taken(content: bytes | None, key: str, index: Index, ledger: Ledger) -> bool:
    """Whether an index could become this snapshot."""
    if content is None or hashlib.sha256(content).hexdigest() not in key:
        return False
    with tempfile.TemporaryDirectory() as folder:
        (file := Path(folder, "copy.sqlite")).write_bytes(content)
        with closing(Index(file)) as copy:
            number, digest = copy.position()
            if ledger.digest(number) != digest:
                return False
            index.take_over(copy)
            return True


def _newest_first(objects: Objects) -> list[str]:
    return sorted((key for key, _ in objects.sizes(_FOLDER) if _NAME.fullmatch(key.rpartition("/")[2])), reverse=True)
