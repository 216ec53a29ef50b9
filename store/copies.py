"""The copies that this machine keeps of versions which were pulled without a directory, of whatever store.

They lie in the user's cache, each under its digest. The time of a copy's folder is when it was last asked for.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from .. import disk
from ..errors import GraftaxError
from .manifest import Manifest


@dataclass(frozen=True)
class Forgotten:
    """What was deleted of the copies; a pull fetches it again."""

    versions: int
    bytes: int


@dataclass(frozen=True)
class Copies:
    """Those in a folder."""

    folder: Path

    def find(self, digest: str, manifest: Manifest) -> Path | None:
        """The copy of a version, if it is there and as its manifest says; it counts as asked for."""
        copy = self.folder / digest
        if not _holds(copy, {path: file.sha256 for path, file in manifest.files.items()}):
            return None
        with suppress(OSError):  # in a cache that may not be written to nothing is remembered, or deleted
            os.utime(copy)
        return copy

    def keep(self, digest: str, files: Mapping[str, bytes]) -> Path:
        """Make the copy of a version, in place of one that somebody has changed."""
        copy = self.folder / digest
        try:
            with disk.new_directory(copy, overwrite=True, lightly=True) as draft:
                write_files(draft, files)
        except GraftaxError:
            if not _holds(copy, {path: _digest(content) for path, content in files.items()}):
                raise  # else another process has made the same
        return copy

    def forget(self, unused_for: timedelta) -> Forgotten:
        """Delete what nobody asked for in so long a time, and what killed processes left half written."""
        if not self.folder.is_dir():
            return Forgotten(0, 0)
        disk.sweep(self.folder)
        versions = size = 0
        for copy in [copy for copy in self.folder.iterdir() if not disk.is_draft(copy.name)]:
            with suppress(FileNotFoundError):  # another process deletes it at this moment
                taken = sum(file.stat().st_size for file in copy.rglob("*") if file.is_file())
                if time.time() - copy.stat().st_mtime >= unused_for.total_seconds():
                    disk.remove_directory(copy)
                    versions, size = versions + 1, size + taken
        return Forgotten(versions, size)


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Files by their paths in a directory, which is there."""
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)


def _holds(directory: Path, digests: Mapping[str, str]) -> bool:
    """Whether files of these sha256 are in a directory, by their paths."""
    try:
        return all(_digest((directory / path).read_bytes()) == digest for path, digest in digests.items())
    except OSError:
        return False


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
