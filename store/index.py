"""The index: what is true of a store now, in an SQLite file on this machine, made of the ledger's events alone.

    ledger, event by event  --apply-->  tables of versions, tags and measurements, and their words for full-text search

Everyone keeps an index of their own and brings it up to date by the events since. It holds nothing that the ledger has not, so
that it may be thrown away at any time. A copy of somebody's index in the store (`snapshots.py`) spares others the long way.
Several processes may share the file: events are applied within one transaction, by whoever comes first.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

from . import events
from .events import now
from .manifest import parse_manifest
from .query import Query
from .tables import open_tables
from .version import Score, Version

_COLUMNS = [field.name for field in fields(Version) if field.name not in ("methods", "labels", "parents", "tags", "metrics")]
_SCORE = [field.name for field in fields(Score) if field.name != "version"]


_OVER, _NOT_OVER = "gone = 0 AND expires <= ?", "gone = 2 AND expires > ?"


class Index:
    """The tables in a file, or in memory alone. A connection has one transaction at a time: each thread opens its own."""

    def __init__(self, file: Path | None = None):
        self._file = file
        self._tables = open_tables(file)
        self._opened = _identity(file) if file else None

    def close(self) -> None:
        self._tables.close()

    def is_in_place(self) -> bool:
        """Whether the file is still the one that was opened, and not deleted meanwhile."""
        try:
            return self._file is None or _identity(self._file) == self._opened
        except FileNotFoundError:
            return False

    def take_over(self, other: Index) -> None:
        """Become a copy of another index, for everyone who has this file open."""
        other._tables.backup(self._tables)

    def copy_to(self, file: Path) -> None:
        """Write the tables into a new file, without gaps."""
        self._tables.execute("VACUUM INTO ?", (str(file),))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All that is written in the block, or, where it ends with an error, nothing."""
        self._tables.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._tables.execute("COMMIT")
        except BaseException:
            if self._tables.in_transaction:  # which some errors end
                self._tables.execute("ROLLBACK")
            raise

    # -- what is told to it ----------------------------------------------------------------------------------------------

    def position(self) -> tuple[int, str]:
        """Number and sha256 of the last event that was applied."""
        number, digest = self._tables.execute("SELECT number, digest FROM position").fetchone()
        return number, digest

    def apply(self, events_in_order: Iterable[tuple[int, str, events.Event]]) -> None:
        """Bring the tables up to date; within `writing`."""
        last = None
        for number, digest, event in events_in_order:
            self._apply(event, number)
            last = number, digest
        if last:
            self._tables.execute("UPDATE position SET number = ?, digest = ?", last)
        self.keep_time()

    @singledispatchmethod
    def _apply(self, event: events.Event, number: int) -> None:
        """The first event, which says nothing of a version."""

    @_apply.register
    def _(self, event: events.Pushed, number: int) -> None:
        manifest = parse_manifest(event.manifest, f"{event.name}:{event.version}")
        added = self._insert(
            "versions",
            event=number,
            name=event.name,
            version=event.version,
            digest=event.digest,
            backbone=manifest.backbone,
            model_type=manifest.model_type,
            fingerprint=manifest.fingerprint,
            methods=json.dumps(manifest.methods),
            task=manifest.task,
            labels=json.dumps(manifest.labels),
            parameters=manifest.parameters,
            size=manifest.size,
            description=manifest.description,
            parents=json.dumps(manifest.parents),
            pushed=event.at,
            expires=event.expires,
            signer=event.signature.key if event.signature else None,
            blobs=b"".join(bytes.fromhex(file.sha256) for file in manifest.files.values()),
        )
        words = {
            "name": event.name,
            "backbone": manifest.backbone or "",
            "methods": " ".join(manifest.methods),
            "task": manifest.task or "",
            "labels": "\n".join(manifest.labels),
            "text": " ".join([manifest.description, *manifest.keywords, manifest.data.name or ""]),
        }
        # SQLite folds case letter by letter, which leaves "straße" and "STRASSE" two words
        self._insert("words", rowid=added, **{column: text.casefold() for column, text in words.items()})
        known = [(added, metric, value) for metric, value in manifest.metrics.items() if value is not None]
        self._tables.executemany("INSERT INTO metrics VALUES (?, ?, ?)", known)
        for tag in event.tags:
            self._point(event.name, tag, {event.version: 1.0})
        self._choose_newest(event.name)

    @_apply.register
    def _(self, event: events.Pointed, number: int) -> None:
        self._point(event.name, event.tag, {int(version): share for version, share in event.shares.items()})

    @_apply.register
    def _(self, event: events.Yanked, number: int) -> None:
        which = (event.reason, event.name, event.version)
        self._tables.execute("UPDATE versions SET yanked = ? WHERE name = ? AND version = ?", which)
        self._choose_newest(event.name)

    @_apply.register
    def _(self, event: events.Removed, number: int) -> None:
        which = (event.name, event.version)
        self._tables.execute("UPDATE versions SET gone = 1 WHERE name = ? AND version = ?", which)
        self._choose_newest(event.name)

    @_apply.register
    def _(self, event: events.Evaluated, number: int) -> None:
        which = (event.name, event.version)
        (found,) = self._tables.execute("SELECT id FROM versions WHERE name = ? AND version = ?", which).fetchone()
        about = (found, event.at, event.task, event.data, event.data_name, event.rows)
        measured = [(*about, metric, one.value, one.low, one.high) for metric, one in event.metrics.items()]
        self._tables.executemany("INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", measured)

    @_apply.register
    def _(self, event: events.Collected, number: int) -> None:
        once = "INSERT INTO given_up VALUES (?, 1) ON CONFLICT (digest) DO UPDATE SET times = times + 1"
        self._tables.executemany(once, [(digest,) for digest in event.blobs])
        self._set_gone(1, "gone IN (0, 2) AND expires <= ?", event.at)

    def _point(self, name: str, tag: str, shares: Mapping[int, float]) -> None:
        self._tables.execute("DELETE FROM tags WHERE name = ? AND tag = ?", (name, tag))
        rows = [(name, tag, version, share) for version, share in shares.items()]
        self._tables.executemany("INSERT INTO tags VALUES (?, ?, ?, ?)", rows)

    def _insert(self, table: str, **row: Any) -> int:
        """A new line of a table; returns its number."""
        marks = ", ".join("?" * len(row))
        added = self._tables.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
        return added.lastrowid or 0

    def _choose_newest(self, name: str) -> None:
        """What a name alone means: its highest version that is there and not withdrawn."""
        self._tables.execute("UPDATE versions SET newest = 0 WHERE name = ? AND newest", (name,))
        self._tables.execute(
            "UPDATE versions SET newest = 1 WHERE id ="
            " (SELECT id FROM versions WHERE name = ? AND NOT gone AND yanked IS NULL ORDER BY version DESC LIMIT 1)",
            (name,),
        )

    def is_in_time(self) -> bool:
        """Whether what counts as there is what this machine's clock says."""
        late = f"SELECT 1 FROM versions WHERE {_OVER} UNION ALL SELECT 1 FROM versions WHERE {_NOT_OVER}"
        return self._tables.execute(late, (now(), now())).fetchone() is None

    def keep_time(self) -> None:
        """Let go of what is over by this machine's clock, and take back what is not; within `writing`."""
        self._set_gone(2, _OVER, now())
        self._set_gone(0, _NOT_OVER, now())

    def _set_gone(self, gone: int, condition: str, moment: str) -> None:
        """Of the versions that end, and of which something is true at a moment, say that they are gone, or not."""
        names = self._tables.execute(f"SELECT DISTINCT name FROM versions WHERE {condition}", (moment,)).fetchall()
        if names:
            self._tables.execute(f"UPDATE versions SET gone = ? WHERE {condition}", (gone, moment))
        for (name,) in names:
            self._choose_newest(name)

    # -- what it is asked ------------------------------------------------------------------------------------------------

    def versions(self, name: str) -> list[Version]:
        """All versions of a name that are there, the newest last."""
        return self._versions("WHERE name = ? AND NOT gone ORDER BY version", (name,))

    def version(self, name: str, version: int, *, gone_too: bool = False) -> Version | None:
        """A version of a name, if it is there, or was."""
        condition = "WHERE name = ? AND version = ?" + ("" if gone_too else " AND NOT gone")
        return next(iter(self._versions(condition, (name, version))), None)

    def newest(self, name: str) -> Version | None:
        """What a name alone means."""
        return next(iter(self._versions("WHERE name = ? AND newest", (name,))), None)

    def of_digest(self, digest: str) -> list[Version]:
        """The versions whose digest begins so; those that are one have one digest."""
        beyond = digest + "g"  # behind every hexadecimal digit
        return self._versions("WHERE digest >= ? AND digest < ? AND NOT gone ORDER BY id", (digest, beyond))

    def names(self, prefix: str, limit: int) -> list[Version]:
        """What each name means that begins so, by name."""
        beyond = prefix + "\x7f"  # behind every character of a name
        return self._versions("WHERE newest AND name >= ? AND name < ? ORDER BY name LIMIT ?", (prefix, beyond, limit))

    def last_number(self, name: str) -> int:
        """The highest version that a name has ever had; 0 where there is no such name."""
        return self._tables.execute("SELECT coalesce(max(version), 0) FROM versions WHERE name = ?", (name,)).fetchone()[0]

    def all_there(self) -> Iterator[Version]:
        """Every version that is there, in the order of pushing."""
        yield from self._versions("WHERE NOT gone ORDER BY id", ())

    def children(self, version: Version) -> list[Version]:
        """The versions that were made from one."""
        which = (version.name, version.version)
        (packed,) = self._tables.execute("SELECT blobs FROM versions WHERE name = ? AND version = ?", which).fetchone()
        blobs = json.dumps(_unpacked(packed))
        made_of = "EXISTS (SELECT 1 FROM json_each(parents) JOIN json_each(?) AS blob ON json_each.value = blob.value)"
        return self._versions(f"WHERE NOT gone AND parents != '[]' AND {made_of} ORDER BY id", (blobs,))

    def holding(self, blob: str) -> list[Version]:
        """The versions that hold a file of this sha256: those that it is as a parent."""
        return self._versions("WHERE NOT gone AND instr(blobs, ?) ORDER BY id", (bytes.fromhex(blob),))

    def tags(self, name: str) -> dict[str, dict[int, float]]:
        """The shares of each tag of a name, by version; those of versions that are gone are the others'."""
        there = "tags JOIN versions USING (name, version) WHERE name = ? AND NOT gone ORDER BY tag, version"
        tags: dict[str, dict[int, float]] = {}
        for tag, version, share in self._tables.execute(f"SELECT tag, version, share FROM {there}", (name,)):
            tags.setdefault(tag, {})[version] = share
        return {tag: {one: share / sum(shares.values()) for one, share in shares.items()} for tag, shares in tags.items()}

    def search(self, query: Query, limit: int) -> list[Version]:
        """The versions that a query finds, the last pushed first."""
        condition, values = query.condition()
        return self._versions(f"{condition} LIMIT ?", (*values, limit))

    def scores(self, task: str, metric: str | None, data: str | None) -> list[Score]:
        """How the versions that are there did on a task: by one metric or all, on the rows whose digest begins so or on all."""
        which = "evaluations.task = ? AND metric = coalesce(?, metric) AND substr(data, 1, length(?)) = ? AND NOT gone"
        return self._scores(f"{which} ORDER BY data, metric, value DESC, id", (task, metric, data or "", data or ""))

    def evaluations(self, version: Version) -> list[Score]:
        """How one version did, wherever it was measured."""
        which = "name = ? AND version = ? ORDER BY evaluations.task, data, metric"
        return self._scores(which, (version.name, version.version))

    def _scores(self, condition: str, values: Iterable[Any]) -> list[Score]:
        joined = "evaluations JOIN versions USING (id)"
        found = self._tables.execute(f"SELECT evaluations.*, id FROM {joined} WHERE {condition}", tuple(values)).fetchall()
        versions = {row["id"]: self._versions("WHERE id = ?", (row["id"],))[0] for row in found}
        return [Score(versions[row["id"]], *(row[key] for key in _SCORE)) for row in found]

    def live_blobs(self) -> set[str]:
        """sha256 of the files of every version that is there."""
        live: set[str] = set()
        for (blobs,) in self._tables.execute("SELECT blobs FROM versions WHERE NOT gone"):
            live.update(_unpacked(blobs))
        return live

    def times_given_up(self, digest: str) -> int:
        """How often a blob was given up: what lies in the store from before is not counted on."""
        found = self._tables.execute("SELECT times FROM given_up WHERE digest = ?", (digest,)).fetchone()
        return found[0] if found else 0

    def count(self) -> tuple[int, int]:
        """How many names there are, and how many versions."""
        names = "SELECT count(*) FROM versions WHERE newest"
        return tuple(self._tables.execute(f"SELECT ({names}), (SELECT count(*) FROM versions WHERE NOT gone)").fetchone())

    def _versions(self, condition: str, values: Iterable[Any]) -> list[Version]:
        found = self._tables.execute(f"SELECT versions.* FROM versions {condition}", tuple(values)).fetchall()
        return [self._version(row) for row in found]

    def _version(self, row: sqlite3.Row) -> Version:
        tags = {tag: shares[row["version"]] for tag, shares in self.tags(row["name"]).items() if row["version"] in shares}
        metrics = self._tables.execute("SELECT metric, value FROM metrics WHERE id = ?", (row["id"],)).fetchall()
        columns: dict[str, Any] = {key: row[key] for key in _COLUMNS}
        columns |= {key: tuple(json.loads(row[key])) for key in ("methods", "labels", "parents")}
        return Version(**columns, tags=tags, metrics=dict(map(tuple, metrics)))


def _identity(file: Path) -> tuple[int, int]:
    """What tells a file from another that was put in its place."""
    there = file.stat()
    return there.st_dev, there.st_ino


def _unpacked(blobs: bytes) -> list[str]:
    """sha256 of each of a version's files."""
    return [blobs[i : i + 32].hex() for i in range(0, len(blobs), 32)]
