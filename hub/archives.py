"""Tar archives that strangers made: plain files in them are read, and nothing is ever extracted."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import GraftaxError


@contextmanager
def open_archive(archive: Path | bytes, where: str) -> Iterator[tarfile.TarFile]:
    """An archive that is not compressed, a file or its content; what is wrong with it is one line that begins with `where`."""
    try:
        stream = io.BytesIO(archive) if isinstance(archive, bytes) else archive.open("rb")
        with stream, tarfile.open(fileobj=stream, mode="r:") as members:
            yield members
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise GraftaxError(f"{where}: no sound tar archive ({error}).") from error
    except OSError as error:
        raise GraftaxError(f"{where}: cannot be read ({error.strerror}).") from error


def plain_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    """What is in a member; None where it is not a plain file, whose bytes all lie in the archive."""
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        return None
    content = archive.extractfile(member)
    return None if content is None else content.read()
