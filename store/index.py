"""The index: what is true of a store now, in an SQLite file on this machine, made of the ledger's events alone.

    ledger, event by event  --apply-->  tables of versions, tags and measurements, and their words for full-text search

Everyone keeps an index of their own and brings it up to date by the events since. It holds nothing that the ledger has not, so
that it may be thrown away at any time. A copy of somebody's index in the store (`snapshots.py`) spares others the long way.
Several processes may share the file: events are applied within one transaction, by whoever comes first.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any

from .applying import apply, is_in_time, keep_time
from .events import Event
from .query import Query
from .rest import whole_text
from .tables import LISTED, OF_BACKBONE, PLAIN, open_tables, transaction
from .version import Score, Version

#: columns of a version that its manifest does not say
_OF_PUSH = ("name", "version", "event", "size", "pushed", "expires", "signer", "yanked")
_SCORE = [field.name for field in fields(Score) if field.name != "version"]


class Index:
    """The tables in a file (`hidden`: which nobody else sees), or in memory alone.

    A connection has one transaction at a time: each thread opens its own.
    """

    def __init__(self, file: Path | None = None, *, hidden: bool = False):
        self._file = file
        self._tables = open_tables(file, hidden=hidden)
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

    def reading(self) -> AbstractContextManager[None]:
        """All that is asked in the block is answered as things were at one moment."""
        return transaction(self._tables, "BEGIN")

    def writing(self) -> AbstractContextManager[None]:
        """All that is written in the block, or, where it ends with an error, nothing."""
        return transaction(self._tables, "BEGIN IMMEDIATE")

    # -- what is told to it ----------------------------------------------------------------------------------------------

    def position(self) -> tuple[int, str]:
        """Number and sha256 of the last event that was applied."""
        number, digest = self._tables.execute("SELECT number, digest FROM position").fetchone()
        return number, digest

    def apply(self, events_in_order: Iterable[tuple[int, str, Event]]) -> None:
        """Bring the tables up to date; within `writing`."""
        apply(self._tables, events_in_order)

    def is_in_time(self) -> bool:
        """Whether what counts as there is what this machine's clock says."""
        return is_in_time(self._tables)

    def keep_time(self) -> None:
        """Let go of what is over by this machine's clock, and take back what is not; within `writing`."""
        keep_time(self._tables)

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
        bounds = [bytes.fromhex(digest.ljust(64, digit)) for digit in "0f"]
        return self._versions("WHERE digest BETWEEN ? AND ? AND NOT gone ORDER BY id", bounds)

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

    def manifest_of(self, version: Version) -> str | None:
        """The text of a version's manifest; None where it is not known here, or is of another form than graftax writes."""
        which = (version.name, version.version)
        row = self._tables.execute("SELECT * FROM versions WHERE name = ? AND version = ?", which).fetchone()
        if row is None:
            return None
        try:
            text = whole_text(row["rest"], self._of_manifest(row), _unpacked(row["blobs"]))
            return text if hashlib.sha256(text.encode()).hexdigest() == version.digest else None
        except ValueError:
            return None

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
        columns = self._of_manifest(row) | {key: row[key] for key in _OF_PUSH} | {"digest": row["digest"].hex()}
        return Version(**columns, tags=tags, metrics=dict(map(tuple, metrics)))

    def _of_manifest(self, row: sqlite3.Row) -> dict[str, Any]:
        """What of a version's manifest is in columns, as it is there."""
        which = f"SELECT {', '.join(OF_BACKBONE)} FROM backbones WHERE number = ?"
        backbone = self._tables.execute(which, (row["made_for"],)).fetchone()
        lists = {key: tuple(json.loads(row[key])) for key in LISTED}
        return dict(zip(OF_BACKBONE, backbone, strict=True)) | {key: row[key] for key in PLAIN} | lists


def _identity(file: Path) -> tuple[int, int]:
    """What tells a file from another that was put in its place."""
    there = file.stat()
    return there.st_dev, there.st_ino


def _unpacked(blobs: bytes) -> list[str]:
    """sha256 of each of a version's files."""
    return [blobs[i : i + 32].hex() for i in range(0, len(blobs), 32)]
