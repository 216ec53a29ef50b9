"""The tables of an index, and the files that have them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import GraftaxError

LAYOUT = 3  # of the tables below: an index and its snapshots are named after it, and those of another one are passed over
COPY = "This is this machine's copy of what the hub says, which XDG_CACHE_HOME moves to another place."
_WAIT = 30.0  # seconds, for another process that is writing
_CACHE = 32_000  # KiB of pages that are held while many events are applied
# what a manifest says itself: of the table of backbones, plain columns of the versions, and those that are JSON
OF_BACKBONE, PLAIN = ("backbone", "model_type", "fingerprint"), ("task", "parameters", "description")
LISTED = ("methods", "labels", "parents")
# "if not exists": several processes may begin one file at once
_TABLES = """
CREATE TABLE IF NOT EXISTS position (number INTEGER NOT NULL, digest TEXT NOT NULL /* of the last event that was applied */);
INSERT INTO position SELECT 0, '' WHERE NOT EXISTS (SELECT 1 FROM position);
CREATE TABLE IF NOT EXISTS backbones (number INTEGER PRIMARY KEY, backbone TEXT, model_type TEXT, fingerprint TEXT);
CREATE INDEX IF NOT EXISTS by_fingerprint ON backbones (fingerprint, backbone, model_type);
CREATE TABLE IF NOT EXISTS versions (
    id INTEGER PRIMARY KEY,  -- in the order of pushing
    event INTEGER NOT NULL,
    name TEXT NOT NULL, version INTEGER NOT NULL,
    digest BLOB NOT NULL,  -- 32 bytes
    made_for INTEGER NOT NULL,  -- the number of a backbone
    methods TEXT NOT NULL, task TEXT, labels TEXT NOT NULL,
    parameters INTEGER NOT NULL, size INTEGER NOT NULL, description TEXT NOT NULL, parents TEXT NOT NULL,
    pushed TEXT NOT NULL, expires TEXT, signer TEXT,
    yanked TEXT,  -- the reason
    gone INTEGER NOT NULL DEFAULT 0,  -- 1: for good; 2: its time is over by this machine's clock, which may be put back
    newest INTEGER NOT NULL DEFAULT 0,  -- what the name alone means
    blobs BLOB NOT NULL,  -- sha256 of its files, 32 bytes each
    rest BLOB NOT NULL,  -- of its manifest (rest.py)
    UNIQUE (name, version)
);
CREATE INDEX IF NOT EXISTS by_digest ON versions (digest);
CREATE INDEX IF NOT EXISTS by_backbone ON versions (made_for, newest);
CREATE INDEX IF NOT EXISTS by_task ON versions (task, newest);
CREATE INDEX IF NOT EXISTS by_newest ON versions (newest, id);
CREATE INDEX IF NOT EXISTS by_name ON versions (name) WHERE newest;
CREATE INDEX IF NOT EXISTS by_end ON versions (gone, expires) WHERE expires IS NOT NULL;
CREATE VIRTUAL TABLE IF NOT EXISTS words
    USING fts5 (name, backbone, methods, task, labels, text, content='', columnsize=0, tokenize='unicode61');
CREATE TABLE IF NOT EXISTS metrics (
    id INTEGER NOT NULL, metric TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (id, metric)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_value ON metrics (metric, value);
CREATE TABLE IF NOT EXISTS tags (
    name TEXT NOT NULL, tag TEXT NOT NULL, version INTEGER NOT NULL, share REAL NOT NULL, PRIMARY KEY (name, tag, version)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS evaluations (
    id INTEGER NOT NULL, at TEXT NOT NULL, task TEXT NOT NULL, data TEXT NOT NULL, data_name TEXT, rows INTEGER NOT NULL,
    metric TEXT NOT NULL, value REAL NOT NULL, low REAL, high REAL, PRIMARY KEY (id, data, metric)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_measured_task ON evaluations (task, data, metric);
CREATE INDEX IF NOT EXISTS by_measured_value ON evaluations (metric, value);
CREATE TABLE IF NOT EXISTS given_up (digest TEXT PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID;
"""


def open_tables(file: Path | None, *, hidden: bool = False) -> sqlite3.Connection:
    """A connection to the tables in a file, or in memory alone, which are made where there are none.

    Of a file that is `hidden` nobody knows but who has it open, and nobody will where this process dies: what is written
    there is brought to the disk by whoever shows it.
    """
    tables = sqlite3.connect(file or ":memory:", timeout=_WAIT, isolation_level=None, check_same_thread=False)
    tables.row_factory = sqlite3.Row
    tables.create_function("casefold", 1, str.casefold, deterministic=True)  # SQLite's own knows ASCII alone
    # a WAL cannot be shared over a network, on which homes often lie
    tables.execute(f"PRAGMA journal_mode = {'MEMORY' if hidden else 'TRUNCATE'}")
    tables.execute(f"PRAGMA synchronous = {'OFF' if hidden else 'NORMAL'}")
    if hidden:
        tables.execute(f"PRAGMA cache_size = -{_CACHE}")
    if tables.execute("PRAGMA user_version").fetchone()[0] != LAYOUT:
        tables.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {LAYOUT}; COMMIT;")
    return tables


@contextmanager
def transaction(tables: sqlite3.Connection, begin: str) -> Iterator[None]:
    """A transaction: all that is written in the block is there, or, where it ends with an error, nothing."""
    tables.execute(begin)
    try:
        yield
        tables.execute("COMMIT")
    except BaseException:
        if tables.in_transaction:  # which some errors end
            tables.execute("ROLLBACK")
        raise


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that a file is damaged, was never one of SQLite's, or has other tables than these."""
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


@contextmanager
def in_one_line(file: Path) -> Iterator[None]:
    """What SQLite cannot do, as one line that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise GraftaxError(f"{file}: {error}. {COPY} The file may be deleted.") from error
