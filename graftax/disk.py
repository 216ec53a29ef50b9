"""Writing to disk so that a crash at any moment leaves the old content or the new, never half of one.

What is being written lies in a *draft*, a hidden folder beside the place where it will be, and gets there in one rename. A
process that is killed leaves its draft behind. While it lives it holds a lock on it, so that anyone may tell such a draft from
one that is being written, and the next write into the same folder sweeps it away.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import GraftaxError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DRAFT = ".graftax-draft-"  # how the names of drafts begin, and those of nothing else


@contextmanager
def new_directory(path: Path, overwrite: bool = False, marks: Sequence[str] = ()) -> Iterator[Path]:
    """A directory to fill, put in place of `path` in one rename when the block ends without an error.

    With `overwrite` what is there is replaced, if it is of the same sort: it holds a file named in `marks`, or nothing.
    """
    with writing(path):
        if path.exists() and not overwrite:
            raise GraftaxError(f"{path} exists already; choose another name or pass --overwrite.")
        if path.exists() and not path.is_dir():
            raise GraftaxError(f"{path} is not a directory.")
        if marks:
            refuse_foreign(path, marks)
    with writing(path), _draft_beside(path) as draft:
        (new := draft / "new").mkdir()
        yield new
        for file in new.rglob("*"):
            _sync(file)
        _sync(new)
        if path.exists():
            old = draft / "old" / path.name
            old.parent.mkdir()
            path.rename(old)
            try:
                new.rename(path)
            except BaseException:
                old.rename(path)
                raise
        else:
            new.rename(path)
        _sync(path.parent)


def refuse_foreign(path: Path, marks: Sequence[str]) -> None:
    """An error where a directory holds something, and no file that says it is of the sort that may be replaced."""
    if path.is_dir() and any(path.iterdir()) and not any((path / mark).is_file() for mark in marks):
        raise GraftaxError(f"{path} is there and holds other things (no {' or '.join(marks)}); it is not replaced.")


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content atomically."""
    with writing(path), _draft_beside(path) as draft:
        _write_synced(new := draft / "new", content)
        os.replace(new, path)


def create_bytes(path: Path, content: bytes) -> bool:
    """Make a file of this content, unless there is one of its name: then False, and nothing is changed.

    Of several processes that create one name at once, exactly one is told True. The file is on the disk before it is there
    under its name, so that neither a reader nor the machine's next start finds a part of it.
    """
    with writing(path):
        if path.exists():
            return False
    with writing(path), _draft_beside(path) as draft:
        _write_synced(new := draft / "new", content)
        try:
            os.link(new, path)
        except FileExistsError:
            return False
        _sync(path.parent)
        return True


def _write_synced(path: Path, content: bytes) -> None:
    """A file that is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


@contextmanager
def _draft_beside(path: Path) -> Iterator[Path]:
    """A locked, empty folder on the disk of `path`, which is gone when the block ends."""
    make_directory(path.parent)
    sweep(path.parent)
    while True:
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=path.parent))
        with suppress(FileNotFoundError):
            handle = _lock(draft)
            if draft.exists():
                break
            os.close(handle)
        # another process has swept it away before it was locked
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(handle)


def make_directory(directory: Path) -> None:
    """A directory, where there is none; a file in its way, or a place that may not be written to, is one line."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise GraftaxError(f"{directory}: no directory can be made there ({error.strerror}).") from error


def is_draft(name: str) -> bool:
    """Whether a folder of this name is a draft."""
    return name.startswith(_DRAFT)


def sweep(directory: Path) -> None:
    """Remove the drafts of processes that are no more; what one of them had just moved away for its draft goes back."""
    for draft in directory.glob(f"{_DRAFT}*"):
        with suppress(OSError):  # it is being written, or another user's: then it stays
            handle = _lock(draft, wait=False)
            try:
                for old in draft.glob("old/*"):
                    if not (directory / old.name).exists():
                        old.rename(directory / old.name)
                shutil.rmtree(draft)
            finally:
                os.close(handle)


def _lock(directory: Path, wait: bool = True) -> int:
    """A handle that locks a directory until it is closed; BlockingIOError where another process holds it.

    The directory itself is locked: a lock file would lie among what is written there, and stay.
    """
    from filelock import lock_descriptor

    handle = os.open(directory, os.O_RDONLY)
    try:
        if not lock_descriptor(handle, blocking=wait):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(directory))
    except BaseException:
        os.close(handle)
        raise
    return handle


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path, left: str = "nothing was changed there") -> Iterator[None]:
    """What the disk refuses as one line: no permission, a place where nothing can be made, no room.

    A full disk, also where safetensors or orbax have an exception of their own, says what is `left`.
    """
    try:
        yield
    except GraftaxError:
        raise
    except Exception as error:
        known = getattr(error, "errno", None) in _FULL
        if known or any(os.strerror(number) in str(error) for number in _FULL):
            raise GraftaxError(f"{path}: no space left on the disk; {left}.") from error
        if isinstance(error, OSError):
            raise GraftaxError(f"{path}: cannot be written ({error}).") from error
        raise


class Locked:
    """A directory that this process has locked."""

    def __init__(self, directory: Path, handle: int):
        self._directory, self._handle = directory, handle

    def check(self) -> None:
        """Refuse to go on in a directory that was removed meanwhile; what is there now under its name is not locked."""
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._directory), os.fstat(self._handle)):
                return
        raise GraftaxError(f"{self._directory} was removed while it was written to; run the same command again to begin anew.")


@contextmanager
def locked(directory: Path) -> Iterator[Locked]:
    """Hold a directory (made if need be) against other processes; however this one ends, the lock ends with it."""
    with writing(directory):
        make_directory(directory)
        try:
            handle = _lock(directory, wait=False)
        except BlockingIOError:
            raise GraftaxError(f"another process is training into {directory}; wait for it or choose another.") from None
    try:
        sweep(directory)
        yield Locked(directory, handle)
    finally:
        os.close(handle)
