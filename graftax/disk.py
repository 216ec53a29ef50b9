"""Writing to disk so that a crash at any moment leaves the old content or the new, never half of one.

What is being written lies in a *draft*, a hidden folder beside the place where it will be, and gets there in one rename. A
process that is killed leaves its draft behind. While it lives it holds a lock on it, so that anyone may tell such a draft from
one that is being written, and the next write into the same folder sweeps it away (or, of a process that writes there all the
time, one soon after). What is to be replaced lies *aside*, in another such folder, until the draft is in its place; whoever
sweeps puts it back.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import GraftaxError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DRAFT, _ASIDE = ".graftax-draft-", ".graftax-aside-"  # how the names of these folders begin, and those of nothing else
_SWEPT_FOR = 0.25  # seconds
_swept: tuple[Path | None, float] = (None, 0.0)  # the folder that this process swept last, and when


class DiskFull(GraftaxError):
    """There is no space left."""


@contextmanager
def new_directory(path: Path, overwrite: bool = False, marks: Sequence[str] = (), *, lightly: bool = False) -> Iterator[Path]:
    """A directory to fill, put in place of `path` in one rename when the block ends without an error.

    With `overwrite` what is there is replaced, if it is of the same sort: it holds a file named in `marks`, or nothing.
    `lightly`: for what can be had again, and is looked through before it is used; it may be lost with the machine's power.
    """
    with writing(path):
        if path.exists() and not overwrite:
            raise GraftaxError(f"{path} exists already; choose another name or pass --overwrite.")
        if path.exists() and not path.is_dir():
            raise GraftaxError(f"{path} is not a directory.")
        if marks:
            refuse_foreign(path, marks)
    with writing(path), _folder_beside(path, _DRAFT) as draft:
        yield draft
        if not lightly:
            _sync_all(draft)
        if path.exists():
            _put_in_place(draft, path)
        else:
            draft.rename(path)
        if not lightly:
            _sync(path.parent)


def _put_in_place(draft: Path, path: Path) -> None:
    """Let a draft be what is at a path, where something is."""
    with _folder_beside(path, _ASIDE) as aside:
        path.rename(old := aside / path.name)
        try:
            draft.rename(path)
        except BaseException:
            old.rename(path)
            raise


def remove_directory(path: Path) -> None:
    """Remove a directory, so that others find the whole of it or nothing."""
    with writing(path), _folder_beside(path, _DRAFT) as draft, suppress(FileNotFoundError):  # another process was quicker
        path.rename(draft / "gone")


def refuse_foreign(path: Path, marks: Sequence[str]) -> None:
    """An error where a directory holds something, and no file that says it is of the sort that may be replaced."""
    if path.is_dir() and any(path.iterdir()) and not any((path / mark).is_file() for mark in marks):
        raise GraftaxError(f"{path} is there and holds other things (no {' or '.join(marks)}); it is not replaced.")


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content atomically."""
    with writing(path), _folder_beside(path, _DRAFT) as draft:
        _write_synced(new := draft / "new", content)
        os.replace(new, path)


def copy_file(source: Path, path: Path) -> None:
    """Replace a file's content atomically by that of another."""
    with writing(path), _folder_beside(path, _DRAFT) as draft:
        shutil.copyfile(source, new := draft / "new")
        _sync(new)
        os.replace(new, path)


def create_bytes(path: Path, content: bytes) -> bool:
    """Make a file of this content, unless there is one of its name: then False, and nothing is changed.

    Of several processes that create one name at once, exactly one is told True. The file is on the disk before it is there
    under its name, so that neither a reader nor the machine's next start finds a part of it.
    """
    with writing(path):
        if path.exists():
            return False
    with writing(path), _folder_beside(path, _DRAFT) as draft:
        _write_synced(new := draft / "new", content)
        try:
            os.link(new, path)
        except FileExistsError:
            return False
        _sync(path.parent)
        return True


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file to make, which is there under its name when the block ends without an error, unless another is by then."""
    with writing(path), _folder_beside(path, _DRAFT) as draft:
        yield (new := draft / "new")
        _sync(new)
        with suppress(FileExistsError):
            os.link(new, path)


def _write_synced(path: Path, content: bytes) -> None:
    """A file that is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


@contextmanager
def _folder_beside(path: Path, kind: str) -> Iterator[Path]:
    """A locked, empty folder on the disk of `path`, which is gone when the block ends, unless it was moved."""
    make_directory(path.parent)
    _sweep_now_and_then(path.parent)
    while True:
        folder = path.parent / f"{kind}{secrets.token_hex(8)}"
        folder.mkdir()
        with suppress(FileNotFoundError):
            handle = _lock(folder)
            if folder.exists():
                break
            os.close(handle)
        # another process has swept it away before it was locked
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
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
    """Whether a folder of this name is a draft, or what one is to replace."""
    return name.startswith((_DRAFT, _ASIDE))


def sweep(directory: Path) -> None:
    """Remove the drafts of processes that are no more; what one of them had just moved aside for its draft goes back."""
    try:
        names = os.listdir(directory)
    except OSError:  # gone, or not to be looked into
        return
    for name in [name for name in names if name.startswith((_DRAFT, _ASIDE))]:
        with suppress(OSError):  # it is being written, or another user's: then it stays
            handle = _lock(left := directory / name, wait=False)
            try:
                for old in left.iterdir() if name.startswith(_ASIDE) else ():
                    if not (directory / old.name).exists():
                        old.rename(directory / old.name)
                shutil.rmtree(left)
            finally:
                os.close(handle)


def _sweep_now_and_then(directory: Path) -> None:
    """Sweep, unless it was just done: a folder of thousands takes as long to look through as a file to be written."""
    global _swept
    where, when = _swept
    if where != directory or time.monotonic() - when > _SWEPT_FOR:
        sweep(directory)
        _swept = directory, time.monotonic()


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


def _sync_all(directory: Path) -> None:
    for folder, _, files in os.walk(directory):
        for one in [*files, "."]:
            _sync(os.path.join(folder, one))


def _sync(path: Path | str) -> None:
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
            raise DiskFull(f"{path}: no space left on the disk; {left}.") from error
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
def in_turn(directory: Path) -> Iterator[None]:
    """Hold a directory against others who do the same; whoever comes second waits."""
    with writing(directory):
        handle = _lock(directory)
    try:
        yield
    finally:
        os.close(handle)


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
