"""Shards, `.tar`, as webdataset writes them: members that are called the same up to their first dot are one row.

    cat/0007.jpg  cat/0007.cls                  the columns image and label
    0008.png  0008.json {"label": "dog"}        image, and those of the object
    0009.jpg  0009.txt                          image and text

Several shards in a folder are one set of rows, in the order of their names. Pictures stay where they are until they are
decoded; nothing is unpacked.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import GraftaxError
from ..json_files import parse_json, refuse_pointer
from ..notes import note
from .picture_values import SUFFIXES, Picture, Stored
from .text_files import decoded

_LABEL, _OBJECT, _TEXT = "cls", "json", "txt"  # how names of what is no picture end
_MOST_BYTES = 1 << 20  # of such


def shards_in(folder: Path) -> list[Path]:
    """The shards of a folder that holds nothing else but what is hidden; none of any other folder."""
    try:
        entries = [entry for entry in sorted(folder.iterdir()) if entry.name[0] != "."]
    except OSError as error:
        raise GraftaxError(f"{folder}: cannot be read ({error.strerror}).") from error
    return entries if all(entry.suffix.lower() == ".tar" for entry in entries) else []


def read_shards(shards: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of some shards.

    Raises GraftaxError: a shard that is none or is compressed, two pictures or two labels in one row.
    """
    rows, passed_over = list[dict[str, Any]](), set[str]()
    for shard in shards:
        refuse_pointer(shard)
        try:
            with tarfile.open(shard, "r:") as archive:
                for key, members in groupby(_members(archive, shard), _key):
                    rows.append(_row(archive, shard, key, members, passed_over))
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise GraftaxError(f"{shard}: no sound tar archive, or a compressed one ({error}).") from error
        except OSError as error:
            raise GraftaxError(f"{shard}: cannot be read ({error.strerror}).") from error
    if passed_over:
        ignored = "ignored, for no picture, class, text or object is called so"
        note(f"{shards[0].parent if len(shards) > 1 else shards[0]}: {ignored}: {', '.join(sorted(passed_over)[:20])}.")
    return [row for row in rows if row]


def _members(archive: tarfile.TarFile, shard: Path) -> Iterator[tarfile.TarInfo]:
    """The files of a shard, in their order; what is hidden, and folders, are passed over."""
    for member in archive:
        name = PurePosixPath(member.name).name
        if member.isdir() or not name or name[0] == "." or name.startswith("__"):
            continue
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise GraftaxError(f"{shard}: {member.name} is a link or the like, and no file.")
        yield member


def _key(member: tarfile.TarInfo) -> str:
    """What all members of a row are called up to the dot."""
    path = PurePosixPath(member.name)
    return str(path.with_name(path.name.partition(".")[0]))


def _row(
    archive: tarfile.TarFile, shard: Path, key: str, members: Iterable[tarfile.TarInfo], passed_over: set[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for member in members:
        where, kind = f"{shard}: {member.name}", PurePosixPath(member.name).name.partition(".")[2].lower()
        if f".{kind.rpartition('.')[2]}" in SUFFIXES:
            found: dict[str, Any] = {"image": Picture(Stored(shard, member.offset_data, member.size), where)}
        elif kind in (_LABEL, _TEXT):
            found = {"label" if kind == _LABEL else "text": _text(archive, member, where).strip()}
        elif kind == _OBJECT:
            found = parse_json(_text(archive, member, where), where, not_numbers=True)
            if not isinstance(found, dict):
                raise GraftaxError(f"{where} is not a JSON object.")
        else:
            passed_over.add(f".{kind}")
            continue
        if twice := sorted(row.keys() & found.keys()):
            raise GraftaxError(f"{where}: a second {twice[0]!r} of {key}; a row has one of each.")
        row |= found
    return row


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> str:
    if member.size > _MOST_BYTES:
        raise GraftaxError(f"{where}: {member.size:,} bytes are too many for a file of its kind.")
    content = archive.extractfile(member)
    assert content is not None  # it is a file
    return decoded(content.read(), where)
