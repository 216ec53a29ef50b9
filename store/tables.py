"""The tables of an index, and the files that have them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import GraftaxError

LAYOUT = 1  # of the tables below: a file of another one is made anew
_WAIT = 30.0  # seconds, for another process that is writing
_TABLES = """
CREATE TABLE position (number INTEGER NOT NULL, digest TEXT NOT NULL /* of the last event that was applied */);
INSERT INTO position VALUES (0, '');
CREATE TABLE versions (
    id INTEGER PRIMARY KEY,  -- in the order of pushing
    event INTEGER NOT NULL,
    name TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL,
    backbone TEXT, model_type TEXT, fingerprint TEXT, methods TEXT NOT NULL, task TEXT, labels TEXT NOT NULL,
    parameters INTEGER NOT NULL, size INTEGER NOT NULL, description TEXT NOT NULL, parents TEXT NOT NULL,
    pushed TEXT NOT NULL, expires TEXT, signer TEXT,
    yanked TEXT,  -- the reason
    gone INTEGER NOT NULL DEFAULT 0,  -- removed, or its time is over
    newest INTEGER NOT NULL DEFAULT 0,  -- what the name alone means
    blobs BLOB NOT NULL,  -- sha256 of its files, 32 bytes each
    UNIQUE (name, version)
);
CREATE INDEX by_digest ON versions (digest);
CREATE INDEX by_fingerprint ON versions (fingerprint, newest);
CREATE INDEX by_task ON versions (task, newest);
CREATE INDEX by_newest ON versions (newest, id);
CREATE INDEX by_name ON versions (name) WHERE newest;
CREATE INDEX by_end ON versions (expires) WHERE expires IS NOT NULL AND NOT gone;
CREATE VIRTUAL TABLE words USING fts5 (name, backbone, methods, task, labels, text, content='', tokenize='unicode61');
CREATE TABLE metrics (id INTEGER NOT NULL, metric TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (id, metric)) WITHOUT ROWID;
CREATE TABLE tags (
    name TEXT NOT NULL, tag TEXT NOT NULL, version INTEGER NOT NULL, share REAL NOT NULL, PRIMARY KEY (name, tag, version)
) WITHOUT ROWID;
CREATE TABLE evaluations (
    id INTEGER NOT NULL, at TEXT NOT NULL, task TEXT NOT NULL, data TEXT NOT NULL, data_name TEXT, rows INTEGER NOT NULL,
    metric TEXT NOT NULL, value REAL NOT NULL, low REAL, high REAL, PRIMARY KEY (id, data, metric)
) WITHOUT ROWID;
CREATE INDEX by_measured_task ON evaluations (task, data, metric);
CREATE TABLE given_up (digest TEXT PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID;
"""


def open_tables(file: Path) -> sqlite3.Connection:
    """A connection to the tables in a file, which are made where there are none."""
    tables = sqlite3.connect(file, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    tables.row_factory = sqlite3.Row
    tables.execute("PRAGMA journal_mode = WAL")
    tables.execute("PRAGMA synchronous = NORMAL")
    if tables.execute("PRAGMA user_version").fetchone()[0] != LAYOUT:
        tables.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {LAYOUT}; COMMIT;")
    return tables


def layout_of(file: Path) -> int | None:
    """Which tables a file has; None where it is no such file, or a damaged one."""
    try:
        tables = sqlite3.connect(file)
        try:
            return tables.execute("PRAGMA user_version").fetchone()[0]
        finally:
            tables.close()
    except sqlite3.DatabaseError:
        return None


@contextmanager
def in_one_line(file: Path) -> Iterator[None]:
    """What SQLite cannot do, as one line that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise GraftaxError(f"{file}: {error}; it is a copy of what the hub says and may be deleted.") from error
