"""The jobs, their events and the files that were uploaded for them, in an SQLite file that outlives the process.

    table = JobTable(folder / "jobs.sqlite")
    table.add(record)                                       # a job is there, whatever happens from now on
    table.change(record.id, status="running", began=now)    # each change is on the disk when the call returns
    table.next_in_line()                                    # those that wait, in the order in which they came

All threads share one connection under a lock: what is asked takes less than a millisecond. A job's request, its cost and the
like are JSON in its row, for nothing is searched in them.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ... import disk
from ...errors import GraftaxError
from ...store.tables import transaction
from ..training_cost import Cost
from .job_record import ENDS, JobCheckpoint, JobError, JobEvent, JobRecord, JobRequest, Status

#: What each version has added.
_TABLES = (
    """
CREATE TABLE files (
    id TEXT PRIMARY KEY, tenant TEXT, name TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
    created INTEGER NOT NULL, expires INTEGER
);
CREATE TABLE jobs (
    place INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, tenant TEXT, status TEXT NOT NULL, created INTEGER NOT NULL,
    began INTEGER, finished INTEGER, pack_size INTEGER, steps_in_all INTEGER, model TEXT UNIQUE,
    request TEXT NOT NULL, cost TEXT NOT NULL, error TEXT, pushed TEXT
);
CREATE INDEX jobs_by_status ON jobs (status);
CREATE TABLE events (
    place INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, job TEXT NOT NULL, created INTEGER NOT NULL,
    level TEXT NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL, data TEXT NOT NULL, step INTEGER NOT NULL
);
CREATE INDEX events_by_job ON events (job);
CREATE TABLE checkpoints (
    id TEXT PRIMARY KEY, job TEXT NOT NULL, created INTEGER NOT NULL, step INTEGER NOT NULL, model TEXT UNIQUE NOT NULL,
    metrics TEXT NOT NULL, UNIQUE (job, step)
);
""",
    """
CREATE TABLE loops (
    id TEXT NOT NULL, hour INTEGER NOT NULL, tenant TEXT, steps INTEGER NOT NULL, tokens INTEGER NOT NULL,
    seconds REAL NOT NULL, PRIMARY KEY (id, hour)
);
CREATE TABLE digests (model TEXT PRIMARY KEY, digest TEXT NOT NULL);
""",
)
VERSION = len(_TABLES)
_JSON = {"request": JobRequest, "cost": Cost, "error": JobError}  # columns of a job that hold one of these


@dataclass(frozen=True)
class UploadedFile:
    """A file that somebody has uploaded; its content lies in the training folder under its id. Times are since 1970."""

    id: str  # "file-..."
    tenant: str | None
    name: str
    purpose: str
    bytes: int
    sha256: str
    created: int
    expires: int | None


class JobTable:
    """The tables in a file, which is made where it is not there."""

    def __init__(self, file: Path):
        """Raises GraftaxError where the file is none of these, or another version's, or cannot be written."""
        self._lock = threading.RLock()
        try:
            self._tables = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
            self._tables.row_factory = sqlite3.Row
            self._tables.execute("PRAGMA synchronous = FULL")  # a job that was accepted survives the loss of power
            with self._writing():
                (version,) = self._tables.execute("PRAGMA user_version").fetchone()
                if version < VERSION:
                    for statement in filter(str.strip, ";".join(_TABLES[version:]).split(";")):
                        self._tables.execute(statement)
                    self._tables.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.Error as error:
            raise GraftaxError(f"{file}: the table of jobs cannot be opened ({error}).") from error
        if version > VERSION:
            raise GraftaxError(f"{file} is a newer version's table of jobs; go on with that, or name another folder.")

    def close(self) -> None:
        with self._lock:
            self._tables.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """All that is written in the block, or, where it ends with an error, such as DiskFull, nothing."""
        try:
            with self._lock, transaction(self._tables, "BEGIN IMMEDIATE"):
                yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            raise disk.DiskFull("the table of jobs: no space left on the disk; nothing was changed there.") from error

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._tables.execute(query, values).fetchall()

    # -- jobs -------------------------------------------------------------------------------------------------------------

    def add(self, job: JobRecord) -> None:
        """Put a job behind all others."""
        known = {name: getattr(job, name) for name in ("id", "tenant", "status", "created", "began", "finished")}
        known |= {name: getattr(job, name) for name in ("pack_size", "steps_in_all", "model", "pushed")}
        known |= {name: _json_of(getattr(job, name)) for name in _JSON}
        names = ", ".join(known)
        with self._writing():
            self._tables.execute(f"INSERT INTO jobs ({names}) VALUES ({', '.join('?' * len(known))})", [*known.values()])

    def change(self, job: str, *, only_if: Sequence[Status] = (), **changes: Any) -> bool:
        """Change fields of a job, unless `only_if` names states and its own is none of them. Whether it was changed."""
        sets = ", ".join(f"{name} = ?" for name in changes)
        values = [_json_of(value) if name in _JSON else value for name, value in changes.items()]
        condition = f" AND status IN ({', '.join('?' * len(only_if))})" if only_if else ""
        with self._writing():
            done = self._tables.execute(f"UPDATE jobs SET {sets} WHERE id = ?{condition}", [*values, job, *only_if])
        return done.rowcount == 1

    def job(self, job: str) -> JobRecord | None:
        """A job by its id, if there is one."""
        return next(map(_job_of, self._rows("SELECT * FROM jobs WHERE id = ?", job)), None)

    def in_states(self, *states: Status) -> list[JobRecord]:
        """The jobs that are in one of these states, in the order in which they came."""
        places = ", ".join("?" * len(states))
        return [*map(_job_of, self._rows(f"SELECT * FROM jobs WHERE status IN ({places}) ORDER BY place", *states))]

    def to_be_pushed(self) -> list[JobRecord]:
        """The jobs whose models are on no hub, in the order in which they came."""
        return [*map(_job_of, self._rows("SELECT * FROM jobs WHERE status = 'succeeded' AND pushed IS NULL ORDER BY place"))]

    def not_over(self) -> list[JobRecord]:
        """The jobs that have not ended, in the order in which they came."""
        places = ", ".join("?" * len(ENDS))
        return [*map(_job_of, self._rows(f"SELECT * FROM jobs WHERE status NOT IN ({places}) ORDER BY place", *ENDS))]

    def spent(self, tenant: str | None, but: str = "") -> Cost:
        """What all jobs and loops of a tenant have cost so far, without the job of an id."""
        sums = ", ".join(f"coalesce(sum(json_extract(cost, '$.{field.name}')), 0)" for field in fields(Cost))
        (of_jobs,) = self._rows(f"SELECT {sums} FROM jobs WHERE tenant IS ? AND id != ?", tenant, but)
        sums = ", ".join(f"coalesce(sum({field.name}), 0)" for field in fields(Cost))
        (of_loops,) = self._rows(f"SELECT {sums} FROM loops WHERE tenant IS ?", tenant)
        return Cost(*of_jobs) + Cost(*of_loops)

    def listed(self, tenant: str | None, limit: int, after: str | None = None) -> list[JobRecord]:
        """A tenant's jobs (None: everybody's), the newest first; `after`: those that come behind the job of this id."""
        return [*map(_job_of, self._page("jobs", "tenant IS ? OR ? IS NULL", (tenant, tenant), limit, after))]

    def lately(self, limit: int) -> list[JobRecord]:
        """The jobs that were the last to succeed, the newest first."""
        query = "SELECT * FROM jobs WHERE status = 'succeeded' ORDER BY finished DESC, place DESC LIMIT ?"
        return [*map(_job_of, self._rows(query, limit))]

    def made(self, model: str) -> JobRecord | None:
        """The job that has made a model, be it its last or that of a checkpoint."""
        query = "SELECT * FROM jobs WHERE model = ? OR id = (SELECT job FROM checkpoints WHERE model = ?)"
        return next(map(_job_of, self._rows(query, model, model)), None)

    def _page(self, table: str, condition: str, values: Sequence[Any], limit: int, after: str | None) -> list[sqlite3.Row]:
        """Rows of a table, the newest first, from behind the one of an id."""
        before = "" if after is None else f" AND place < (SELECT place FROM {table} WHERE id = ?)"
        query = f"SELECT * FROM {table} WHERE ({condition}){before} ORDER BY place DESC LIMIT ?"
        return self._rows(query, *values, *([] if after is None else [after]), limit)

    # -- events and checkpoints --------------------------------------------------------------------------------------------

    def tell(
        self,
        job: str,
        message: str,
        *,
        level: Literal["info", "warn", "error"] = "info",
        data: Mapping[str, Any] | None = None,
        step: int = 0,
    ) -> None:
        """Add an event of a job: of type "metrics" where there are data. `step`: how many it had taken then."""
        kind = "message" if data is None else "metrics"
        values = (_new_id("ftevent"), job, int(time.time()), level, kind, message, json.dumps(data or {}), step)
        with self._writing():
            self._tables.execute(
                "INSERT INTO events (id, job, created, level, kind, message, data, step) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )

    def forget_metrics_beyond(self, job: str, step: int) -> None:
        """Drop what was told of steps that a job takes anew, because it goes on from a checkpoint before them."""
        with self._writing():
            self._tables.execute("DELETE FROM events WHERE job = ? AND kind = 'metrics' AND step > ?", (job, step))
            self._tables.execute("DELETE FROM checkpoints WHERE job = ? AND step > ?", (job, step))

    def events(self, job: str, limit: int, after: str | None = None) -> list[JobEvent]:
        """The events of a job, the newest first; `after`: those that come behind the event of this id."""
        return [*map(_event_of, self._page("events", "job = ?", (job,), limit, after))]

    def has_event(self, job: str, event: str) -> bool:
        """Whether an event of this id has happened to a job."""
        return bool(self._rows("SELECT 1 FROM events WHERE job = ? AND id = ?", job, event))

    def keep(self, job: str, step: int, model: str, metrics: Mapping[str, float]) -> None:
        """Note the adapter of an epoch's end, instead of one of the same step."""
        values = (_new_id("ftckpt"), job, int(time.time()), step, model, json.dumps(metrics))
        with self._writing():
            self._tables.execute(
                "INSERT OR REPLACE INTO checkpoints (id, job, created, step, model, metrics) VALUES (?, ?, ?, ?, ?, ?)", values
            )

    def checkpoints(self, job: str) -> list[JobCheckpoint]:
        """The adapters of a job's epochs, the newest first."""
        rows = self._rows("SELECT * FROM checkpoints WHERE job = ? ORDER BY step DESC", job)
        return [JobCheckpoint(**{**dict(row), "metrics": json.loads(row["metrics"])}) for row in rows]

    def note_digest(self, model: str, digest: str) -> None:
        """Note of what content a model is, so that nobody has to read it to know."""
        with self._writing():
            self._tables.execute("INSERT OR REPLACE INTO digests VALUES (?, ?)", (model, digest))

    def forget_digest(self, model: str) -> None:
        with self._writing():
            self._tables.execute("DELETE FROM digests WHERE model = ?", (model,))

    def digest(self, model: str) -> str | None:
        """What was noted of a model."""
        return next((row["digest"] for row in self._rows("SELECT digest FROM digests WHERE model = ?", model)), None)

    # -- loops ------------------------------------------------------------------------------------------------------------

    def charge_loops(self, costs: Mapping[tuple[str, str | None], Cost], hour: int) -> None:
        """Add what loops have cost, by their ids and tenants, in the hour that began so many seconds after 1970."""
        added = ", ".join(f"{field.name} = {field.name} + excluded.{field.name}" for field in fields(Cost))
        query = f"INSERT INTO loops VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id, hour) DO UPDATE SET {added}"
        with self._writing():
            for (loop, tenant), cost in costs.items():
                self._tables.execute(query, (loop, hour, tenant, *asdict(cost).values()))

    def loop_costs(self, tenant: str | None, begin: int, end: int) -> list[tuple[str, int, Cost]]:
        """By loop and hour what a tenant's loops have cost in the hours that began in a time, the first hour first."""
        query = "SELECT id, hour, steps, tokens, seconds FROM loops WHERE tenant IS ? AND hour >= ? AND hour < ?"
        rows = self._rows(f"{query} ORDER BY hour, tokens DESC, id", tenant, begin, end)
        return [(loop, hour, Cost(*numbers)) for loop, hour, *numbers in rows]

    # -- files ------------------------------------------------------------------------------------------------------------

    def add_file(self, file: UploadedFile) -> None:
        with self._writing():
            self._tables.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [*asdict(file).values()])

    def file(self, file: str) -> UploadedFile | None:
        """A file by its id, if there is one."""
        return next((UploadedFile(*row) for row in self._rows("SELECT * FROM files WHERE id = ?", file)), None)

    def files(self, tenant: str | None) -> list[UploadedFile]:
        """A tenant's files (None: everybody's), the newest first."""
        rows = self._rows("SELECT * FROM files WHERE tenant IS ? OR ? IS NULL ORDER BY rowid DESC", tenant, tenant)
        return [UploadedFile(*row) for row in rows]

    def remove_file(self, file: str) -> None:
        with self._writing():
            self._tables.execute("DELETE FROM files WHERE id = ?", (file,))


def new_job_id() -> str:
    return _new_id("ftjob")


def new_file_id() -> str:
    return _new_id("file")


def _new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:24]}"


def _json_of(value: JobRequest | Cost | JobError | None) -> str | None:
    return None if value is None else json.dumps(asdict(value))


def _job_of(row: sqlite3.Row) -> JobRecord:
    known: dict[str, Any] = dict(row)
    del known["place"]
    for name, kind in _JSON.items():
        known[name] = None if known[name] is None else kind(**json.loads(known[name]))
    return JobRecord(**known)


def _event_of(row: sqlite3.Row) -> JobEvent:
    known: dict[str, Any] = dict(row)
    del known["place"], known["step"]
    return JobEvent(**{**known, "data": json.loads(known["data"])})
