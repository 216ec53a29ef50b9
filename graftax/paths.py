"""Paths that people give: where something else stands than is wanted there, an error says what, and not that nothing does."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from .errors import GraftaxError


def expect_file(path: Path, missing: str | None = None) -> None:
    """An error unless there is a file; `missing` is its line where there is nothing at all."""
    mode = _mode(path)
    if mode is None:
        raise GraftaxError(missing or f"{path}: no such file.")
    if stat.S_ISDIR(mode):
        raise GraftaxError(f"{path}: a directory; a file is wanted here.")
    if not stat.S_ISREG(mode):
        raise GraftaxError(f"{path}: a pipe or a device; a file is wanted here.")


def expect_directory(path: Path, missing: str | None = None) -> None:
    """An error unless there is a directory; `missing` is its line where there is nothing at all."""
    mode = _mode(path)
    if mode is None:
        raise GraftaxError(missing or f"{path}: no such directory.")
    if not stat.S_ISDIR(mode):
        raise GraftaxError(f"{path}: a file; a directory is wanted here.")


def is_directory(path: Path) -> bool:
    """Whether there is a directory; an error where that cannot be seen."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def anywhere(location: Any) -> Any:
    """What is there on this machine by its whole path, for a process that stands in another folder; all else as it is."""
    there = isinstance(location, str | Path) and Path(location).exists()
    return str(Path(location).absolute()) if there else location


def _mode(path: Path) -> int | None:
    """What the file system says of the kind of what is there; None where there is nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise GraftaxError(f"{path}: a link to {path.readlink()}, and there is nothing.") from None
        return None
    except (OSError, ValueError) as error:  # no permission, a name of 300 bytes or with a zero byte in it
        raise GraftaxError(f"{path}: cannot be looked at ({getattr(error, 'strerror', None) or error}).") from error
