"""Blobs: the content of files, each under its own sha256, so that what many versions have in common is there once.

    blobs/3f/3f0a...        a blob
    blobs/3f/3f0a....1      the same, put there again after it had been given up once

Who collects garbage first writes into the ledger which blobs are *given up*, and then deletes them. A writer who was about to
refer to such a blob reads that event before its own can be added, and puts the blob again, under the next number, which the
deletion does not touch. So neither has to wait for the other, and no blob that a version refers to is ever deleted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .damage import Damaged
from .objects import Objects

_KEY = re.compile(r"blobs/[0-9a-f]{2}/(?P<digest>[0-9a-f]{64})(?:\.(?P<times>\d+))?")


def put_blob(objects: Objects, digest: str, times: int, content: bytes) -> None:
    """Put a blob, where it is not there; `times` says how often it was given up."""
    key = _key(digest, times)
    if objects.size(key) is None:
        objects.create(key, content)
    elif objects.get(key) != content:  # damaged: what is put in its place is what its name says
        objects.put(key, content)


def get_blobs(objects: Objects, wanted: Iterable[tuple[str, int]]) -> Iterator[bytes]:
    """Several blobs, each by its digest and how often it was given up, in their order.

    Raises Damaged where one is missing, or is not what its name says.
    """
    wanted = list(wanted)
    found = objects.get_all(_key(digest, times) for digest, times in wanted)
    for (digest, _), content in zip(wanted, found, strict=True):
        yield _checked(content, digest, objects.url)


def _checked(content: bytes | None, digest: str, url: str) -> bytes:
    if content is None:
        raise Damaged(f"{url}: the blob sha256:{digest} is missing.")
    if hashlib.sha256(content).hexdigest() != digest:
        raise Damaged(f"{url}: the blob sha256:{digest} is damaged: its content has another digest.")
    return content


@dataclass(frozen=True)
class Blob:
    """A blob that lies in a place."""

    key: str
    size: int
    digest: str
    times: int  # that it had been given up when it was put


def all_blobs(objects: Objects) -> Iterator[Blob]:
    """Every blob in a place."""
    for key, size in objects.sizes("blobs"):
        if match := _KEY.fullmatch(key):
            yield Blob(key, size, match["digest"], int(match["times"] or 0))


def _key(digest: str, times: int) -> str:
    return f"blobs/{digest[:2]}/{digest}" + (f".{times}" if times else "")
