"""Events applied: what each of them makes true in the tables of an index (`tables.py`)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from functools import singledispatch
from typing import Any, TypeAlias

from .events import Collected, Evaluated, Event, Pointed, Pushed, Removed, Yanked, now
from .manifest import parse_manifest
from .rest import pack_rest
from .tables import LISTED, OF_BACKBONE, PLAIN

Tables: TypeAlias = sqlite3.Connection
_OVER, _NOT_OVER = "gone = 0 AND expires <= ?", "gone = 2 AND expires > ?"


def apply(tables: Tables, events_in_order: Iterable[tuple[int, str, Event]]) -> None:
    """Bring the tables up to date; within a transaction."""
    last = None
    for number, digest, event in events_in_order:
        _apply(event, number, tables)
        last = number, digest
    if last:
        tables.execute("UPDATE position SET number = ?, digest = ?", last)
    keep_time(tables)


@singledispatch
def _apply(event: Event, number: int, tables: Tables) -> None:
    """The first event, which says nothing of a version."""


@_apply.register
def _(event: Pushed, number: int, tables: Tables) -> None:
    manifest = parse_manifest(event.manifest, f"{event.name}:{event.version}")
    added = _insert(
        tables,
        "versions",
        event=number,
        name=event.name,
        version=event.version,
        digest=bytes.fromhex(event.digest),
        made_for=_backbone(tables, tuple(getattr(manifest, key) for key in OF_BACKBONE)),
        size=manifest.size,
        pushed=event.at,
        expires=event.expires,
        signer=event.signature.key if event.signature else None,
        blobs=b"".join(bytes.fromhex(file.sha256) for file in manifest.files.values()),
        rest=pack_rest(event.manifest, (*OF_BACKBONE, *PLAIN, *LISTED)),
        **{key: getattr(manifest, key) for key in PLAIN},
        **{key: json.dumps(getattr(manifest, key)) for key in LISTED},
    )
    words = {
        "name": event.name,
        "backbone": manifest.backbone or "",
        "methods": " ".join(manifest.methods),
        "task": manifest.task or "",
        "labels": "\n".join(manifest.labels),
        "text": " ".join(
            [manifest.description, *manifest.keywords, *filter(None, (manifest.data.name, manifest.imported_from))]
        ),
    }
    # SQLite folds case letter by letter, which leaves "straße" and "STRASSE" two words
    _insert(tables, "words", rowid=added, **{column: text.casefold() for column, text in words.items()})
    known = [(added, metric, value) for metric, value in manifest.metrics.items() if value is not None]
    tables.executemany("INSERT INTO metrics VALUES (?, ?, ?)", known)
    for tag in event.tags:
        _point(tables, event.name, tag, {event.version: 1.0})
    _choose_newest(tables, event.name)


@_apply.register
def _(event: Pointed, number: int, tables: Tables) -> None:
    _point(tables, event.name, event.tag, {int(version): share for version, share in event.shares.items()})


@_apply.register
def _(event: Yanked, number: int, tables: Tables) -> None:
    which = (event.reason, event.name, event.version)
    tables.execute("UPDATE versions SET yanked = ? WHERE name = ? AND version = ?", which)
    _choose_newest(tables, event.name)


@_apply.register
def _(event: Removed, number: int, tables: Tables) -> None:
    which = (event.name, event.version)
    tables.execute("UPDATE versions SET gone = 1 WHERE name = ? AND version = ?", which)
    _choose_newest(tables, event.name)


@_apply.register
def _(event: Evaluated, number: int, tables: Tables) -> None:
    which = (event.name, event.version)
    (found,) = tables.execute("SELECT id FROM versions WHERE name = ? AND version = ?", which).fetchone()
    about = (found, event.at, event.task, event.data, event.data_name, event.rows)
    measured = [(*about, metric, one.value, one.low, one.high) for metric, one in event.metrics.items()]
    tables.executemany("INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", measured)


@_apply.register
def _(event: Collected, number: int, tables: Tables) -> None:
    once = "INSERT INTO given_up VALUES (?, 1) ON CONFLICT (digest) DO UPDATE SET times = times + 1"
    tables.executemany(once, [(digest,) for digest in event.blobs])
    _set_gone(tables, 1, "gone IN (0, 2) AND expires <= ?", event.at)


def _backbone(tables: Tables, facts: tuple[str | None, ...]) -> int:
    """The number of a backbone of which this is known: most versions are made for a few."""
    same = " AND ".join(f"{key} IS ?" for key in OF_BACKBONE)
    found = tables.execute(f"SELECT number FROM backbones WHERE {same}", facts).fetchone()
    return found[0] if found else _insert(tables, "backbones", **dict(zip(OF_BACKBONE, facts, strict=True)))


def _point(tables: Tables, name: str, tag: str, shares: Mapping[int, float]) -> None:
    tables.execute("DELETE FROM tags WHERE name = ? AND tag = ?", (name, tag))
    rows = [(name, tag, version, share) for version, share in shares.items()]
    tables.executemany("INSERT INTO tags VALUES (?, ?, ?, ?)", rows)


def _insert(tables: Tables, table: str, **row: Any) -> int:
    """A new line of a table; returns its number."""
    marks = ", ".join("?" * len(row))
    added = tables.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
    return added.lastrowid or 0


def _choose_newest(tables: Tables, name: str) -> None:
    """What a name alone means: its highest version that is there and not withdrawn."""
    tables.execute("UPDATE versions SET newest = 0 WHERE name = ? AND newest", (name,))
    tables.execute(
        "UPDATE versions SET newest = 1 WHERE id ="
        " (SELECT id FROM versions WHERE name = ? AND NOT gone AND yanked IS NULL ORDER BY version DESC LIMIT 1)",
        (name,),
    )


def is_in_time(tables: Tables) -> bool:
    """Whether what counts as there is what this machine's clock says."""
    late = f"SELECT 1 FROM versions WHERE {_OVER} UNION ALL SELECT 1 FROM versions WHERE {_NOT_OVER}"
    return tables.execute(late, (now(), now())).fetchone() is None


def keep_time(tables: Tables) -> None:
    """Let go of what is over by this machine's clock, and take back what is not; within a transaction."""
    _set_gone(tables, 2, _OVER, now())
    _set_gone(tables, 0, _NOT_OVER, now())


def _set_gone(tables: Tables, gone: int, condition: str, moment: str) -> None:
    """Of the versions that end, and of which something is true at a moment, say that they are gone, or not."""
    names = tables.execute(f"SELECT DISTINCT name FROM versions WHERE {condition}", (moment,)).fetchall()
    if names:
        tables.execute(f"UPDATE versions SET gone = ? WHERE {condition}", (gone, moment))
    for (name,) in names:
        _choose_newest(tables, name)
