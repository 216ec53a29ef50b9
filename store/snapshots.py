"""Snapshots: copies of the index in the store itself, so that who comes new need not read every event.

    snapshots/1/000102400-5b0c...sqlite   after event 102,400; the sha256 of the copy is in its name

Whoever adds every 1024th event leaves one. A snapshot is only a shorter way: one that is missing, damaged or of other tables
than this graftax has is passed over, and the ledger is read from an older one, or from its beginning.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

from .index import Index
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
        copy = Index(file)
        number, _ = copy.position()
        copy.close()
        content = file.read_bytes()
    objects.put(f"{_FOLDER}/{number:09}-{hashlib.sha256(content).hexdigest()}.sqlite", content)
    objects.delete(_newest_first(objects)[_KEPT:])


def newest_snapshot(objects: Objects) -> bytes | None:
    """The last snapshot that is sound; None where there is none."""
    for key in _newest_first(objects):
        content = objects.get(key)
        if content is not None and hashlib.sha256(content).hexdigest() in key:
            return content
    return None


def _newest_first(objects: Objects) -> list[str]:
    return sorted((key for key in objects.keys(_FOLDER) if _NAME.fullmatch(key.rpartition("/")[2])), reverse=True)
