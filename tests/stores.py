"""Stores as the tests open them: each as if on a machine of its own, whose copy of the index is nobody else's."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from graftax.store import events
from graftax.store.index import Index
from graftax.store.manifest import File, Manifest
from graftax.store.store import Store

NOTHING = Manifest(files={})
FILES = {"weights.bin": b"weights", "config.json": b"{}"}


def store_of(url: str | Path, machine: Path, **options: Any) -> Store:
    """The store at a URL as a machine sees it that keeps its copies in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(machine))
        return Store(url, **options)


def in_memory() -> str | None:
    """Where to write what no power cut is to survive; None where there is no such place: then on the disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def about(description: str, **known: Any) -> Manifest:
    """A manifest that says a word."""
    return Manifest(files={}, description=description, **known)


def with_files(manifest: Manifest, contents: dict[str, bytes]) -> Manifest:
    """The manifest as it is once its files were pushed."""
    return replace(manifest, files={path: File(digest(content), len(content)) for path, content in contents.items()})


def pulled(folder: Path) -> dict[str, bytes]:
    """What is in a directory, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def content_of(index: Index) -> dict[str, list[str]]:
    """Every row of an index, its tables' own order aside; of the words for full-text search, what is found by them."""
    tables = index._tables
    names = [
        name for (name,) in tables.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'words%'")
    ]
    content = {
        name: sorted(json.dumps(list(map(repr, row))) for row in tables.execute(f"SELECT * FROM {name}")) for name in names
    }
    vocabulary = "CREATE VIRTUAL TABLE temp.found USING fts5vocab('main', 'words', 'instance')"
    tables.execute(vocabulary)
    content["words"] = sorted(repr(tuple(row)) for row in tables.execute("SELECT * FROM temp.found"))
    tables.execute("DROP TABLE temp.found")
    return content


class Clock(datetime):
    """A clock that the tests set."""

    time = datetime(2026, 11, 28, 20, 0, 0, tzinfo=UTC)

    @classmethod
    def now(cls, zone: Any = None) -> datetime:
        return cls.time

    @classmethod
    def at(cls, seconds: float) -> str:
        """The moment that is so many seconds from now."""
        return events.moment(cls.time + timedelta(seconds=seconds))


@contextmanager
def clock() -> Iterator[type[Clock]]:
    """The clock that stores go by while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "datetime", Clock)
        patch.setattr(Clock, "time", Clock.time)
        yield Clock
