"""Writing to disk so that a crash at any moment leaves the old content or the new, never half of one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import GraftaxError


@contextmanager
def new_directory(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A directory to fill, put in place of `path` in one rename when the block ends without an error."""
    if path.exists() and not overwrite:
        raise GraftaxError(f"{path} exists already; choose another name or pass --overwrite.")
    if path.exists() and not path.is_dir():
        raise GraftaxError(f"{path} is not a directory.")
    with full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with full_disk(path):
            yield draft
            for file in draft.rglob("*"):
                _sync(file)
            _sync(draft)
            draft.chmod(0o755)
            if path.exists():
                old = draft.with_name(f"{draft.name}.old")
                path.rename(old)
                try:
                    draft.rename(path)
                except BaseException:
                    old.rename(path)
                    raise
                shutil.rmtree(old)
            else:
                draft.rename(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content atomically."""
    with full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(draft, 0o644)  # mkstemp's files are for their owner alone
            os.replace(draft, path)
        finally:
            Path(draft).unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """A full disk as one clear line, also where safetensors or orbax report it in an exception of their own."""
    try:
        yield
    except GraftaxError:
        raise
    except Exception as error:
        known = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if known or any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT)):
            raise GraftaxError(f"{path}: no space left on the disk; nothing was changed there.") from error
        raise


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory (made if need be) against other processes; however this one ends, the lock ends with it."""
    with full_disk(directory):
        directory.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":  # it has no such locks
        yield
        return
    import fcntl

    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GraftaxError(f"another process is training into {directory}; wait for it or choose another.") from None
        yield
    finally:
        os.close(handle)
