"""OCI artefacts on a disk: an image layout, as a directory or as a tar archive of one.

    oci-layout                  which version of the layout
    index.json                  the artefacts that are there, each with its tag
    blobs/sha256/3f0a...        their manifests, configs and layers

https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import io
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from .. import disk
from ..errors import GraftaxError
from ..json_files import read_bytes
from ..typed import checked
from .archives import open_archive, plain_member
from .oci import (
    IMAGE_MANIFEST,
    MOST_OF_JSON,
    Artefact,
    Descriptor,
    checked_blob,
    descriptor_of,
    json_object,
)

_LAYOUT, _INDEX, _BLOBS = "oci-layout", "index.json", "blobs"
_VERSION = {"imageLayoutVersion": "1.0.0"}
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
TAG = "org.opencontainers.image.ref.name"
_ARCHIVE = ".tar"  # what a path ends with that is an archive


class Layout(ABC):
    """A layout, and of it one artefact: that of a tag, or without one the only one there is."""

    def __init__(self, path: Path, tag: str | None):
        self._path, self._tag = path, tag
        self.address = f"oci:{path}" + (f":{tag}" if tag else "")

    @abstractmethod
    def _read(self, file: str, most: int) -> bytes | None:
        """A file of the layout; None where there is none. One of more than `most` bytes is an error."""

    def manifest(self) -> bytes:
        found = self._chosen()
        if found.media_type != IMAGE_MANIFEST:
            raise GraftaxError(f"{self.address}: {found.media_type} is not the manifest of a model, which is {IMAGE_MANIFEST}.")
        if found.size > MOST_OF_JSON:
            raise GraftaxError(f"{self.address}: a manifest of {found.size:,} bytes; at most {MOST_OF_JSON:,} are read.")
        return checked_blob(self, found)

    def blob(self, descriptor: Descriptor) -> bytes:
        content = self._read(_blob(descriptor.digest), descriptor.size)
        if content is None:
            raise GraftaxError(f"{self.address}: the blob {descriptor.digest} is missing.")
        return content

    def entries(self) -> list[tuple[Descriptor, Any]]:
        """What the index names: descriptors, and all that it says of each."""
        marked = self._read(_LAYOUT, MOST_OF_JSON)
        if marked is None:
            raise GraftaxError(f"{self._path}: no OCI image layout: it has no file {_LAYOUT}.")
        if json_object(marked, f"{self._path}: {_LAYOUT}").get("imageLayoutVersion") != _VERSION["imageLayoutVersion"]:
            raise GraftaxError(f"{self._path}: an OCI image layout of another version than {_VERSION['imageLayoutVersion']}.")
        index = self._read(_INDEX, MOST_OF_JSON)
        if index is None:
            raise GraftaxError(f"{self._path}: no OCI image layout: it has no file {_INDEX}.")
        where = f"{self._path}: {_INDEX}"
        listed = checked(json_object(index, where).get("manifests"), tuple[Any, ...], f"{where}: manifests")
        return [(descriptor_of(one, where), one) for one in listed]

    def _chosen(self) -> Descriptor:
        there = [descriptor for descriptor, _ in self.entries()]
        found = there if self._tag is None else [one for one in there if one.annotations.get(TAG) == self._tag]
        if len(found) == 1:
            return found[0]
        count = len(found) or "no"
        problem = (
            f"{count} artefacts there; oci:PATH:TAG says which"
            if self._tag is None
            else f"{count} artefacts of tag {self._tag}"
        )
        tags = ", ".join(sorted(one.annotations[TAG] for one in there if TAG in one.annotations))
        raise GraftaxError(f"{self._path}: {problem}; its tags: {tags or 'none'}.")


class LayoutDirectory(Layout):
    """A layout that is a directory."""

    def _read(self, file: str, most: int) -> bytes | None:
        path = self._path / file
        return read_bytes(path, most) if path.is_file() else None


class LayoutArchive(Layout):
    """A layout that is a tar archive, of which single members are read; it is not compressed."""

    def _read(self, file: str, most: int) -> bytes | None:
        member = self._members.get(file)
        if member is None:
            return None
        if member.size > most:
            raise GraftaxError(f"{self._path}: {file}: {member.size:,} bytes are too many for a file of its kind.")
        with open_archive(self._path, str(self._path)) as archive:
            content = plain_member(archive, member)
        if content is None:
            raise GraftaxError(f"{self._path}: {file} is no plain file in there.")
        return content

    @cached_property
    def _members(self) -> Mapping[str, tarfile.TarInfo]:
        with open_archive(self._path, str(self._path)) as archive:
            return {str(PurePosixPath(member.name)): member for member in archive}


def layout_at(path: Path, tag: str | None) -> Layout:
    """The layout in a place; GraftaxError where nothing is there."""
    if path.is_dir():
        return LayoutDirectory(path, tag)
    if path.is_file():
        return LayoutArchive(path, tag)
    raise GraftaxError(f"{path}: no OCI image layout there: neither a directory nor a tar archive.")


def write_layout(path: Path, tag: str, artefact: Artefact, *, overwrite: bool = False) -> None:
    """Put an artefact into a layout under a tag: into one that is there, or into a new directory or archive (`.tar`).

    Raises GraftaxError: the tag is another artefact's, or the archive is there, and `overwrite` is not given; something else
    is in the place.
    """
    if path.suffix != _ARCHIVE:
        disk.make_directory(path)
        with disk.in_turn(path):
            _add(path, tag, artefact, overwrite)
        return
    archive = _archived(_files(artefact, tag, []))
    if overwrite:
        disk.write_bytes(path, archive)
    elif not disk.create_bytes(path, archive):
        raise GraftaxError(f"{path} exists already; choose another name or pass --overwrite.")


def _add(path: Path, tag: str, artefact: Artefact, overwrite: bool) -> None:
    """Put an artefact into a directory that no other process writes to meanwhile, for the index is read and written."""
    others = []
    for descriptor, said in [] if _is_begun(path) else LayoutDirectory(path, None).entries():
        if descriptor.annotations.get(TAG) != tag:
            others.append(said)
        elif descriptor.digest != artefact.descriptor.digest and not overwrite:
            raise GraftaxError(f"{path}: the tag {tag} is another artefact's; choose another or pass --overwrite.")
    files = _files(artefact, tag, others)
    index = files.pop(_INDEX)  # last: what it names is then there
    for file, content in files.items():
        disk.write_bytes(path / file, content)
    disk.write_bytes(path / _INDEX, index)


def _is_begun(path: Path) -> bool:
    """Whether a directory holds nothing but what is written of a layout before its index."""
    return all(there.name in (_LAYOUT, _BLOBS) or disk.is_draft(there.name) for there in path.iterdir())


def _files(artefact: Artefact, tag: str, others: Sequence[Any]) -> dict[str, bytes]:
    """The files of a layout with an artefact in it; of `others` that are there, only the index speaks."""
    entry = artefact.descriptor.as_json() | {"annotations": {TAG: tag}}
    index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": [*others, entry]}
    blobs = {artefact.descriptor.digest: artefact.manifest, **artefact.blobs}
    return {
        _LAYOUT: json.dumps(_VERSION).encode(),
        _INDEX: json.dumps(index, sort_keys=True).encode(),
        **{_blob(digest): content for digest, content in blobs.items()},
    }


def _archived(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of files, that says nothing of when and by whom it was made."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file, content in sorted(files.items()):
            member = tarfile.TarInfo(file)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def _blob(digest: str) -> str:
    return f"{_BLOBS}/{digest.replace(':', '/')}"
