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
        with closing(Index(file := Path(folder, "copy.sqlite"), hidden=True)) as copy:
            copy.take_over(index)
            number, _ = copy.position()
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        objects.upload(f"{_FOLDER}/{number:09}-{digest}.sqlite", file)
    objects.delete(_newest_first(objects)[_KEPT:])


def lay(file: Path, objects: Objects) -> None:
    """Let a file be the newest snapshot, where there is one; whether it is of the ledger is seen when that is read on."""
    for key in _newest_first(objects):
        if _is_sound(objects.download(key, file), key):
            return
        file.unlink(missing_ok=True)


def begin(index: Index, objects: Objects, ledger: Ledger) -> None:
    """Let an index, whatever is in it, be the newest snapshot that is sound and of this ledger; else empty."""
    for key in _newest_first(objects):
        with suppress(sqlite3.Error):
            if _is_taken(key, objects, index, ledger):
                return
    if index.position()[0] > 0:
        with closing(Index()) as empty:
            index.take_over(empty)


def _is_taken(key: str, objects: Objects, index: Index, ledger: Ledger) -> bool:
    """Whether an index could become this snapshot."""
    with tempfile.TemporaryDirectory() as folder:
        if not _is_sound(objects.download(key, file := Path(folder, "copy.sqlite")), key):
            return False
        with closing(Index(file)) as copy:
            number, digest = copy.position()
            if ledger.digest(number) != digest:
                return False
            index.take_over(copy)
            return True


def _is_sound(digest: str | None, key: str) -> bool:
    return digest is not None and digest in key


def _newest_first(objects: Objects) -> list[str]:
    return sorted((key for key, _ in objects.sizes(_FOLDER) if _NAME.fullmatch(key.rpartition("/")[2])), reverse=True)
