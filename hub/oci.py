"""OCI artefacts: what registries of containers keep, as documents that refer to blobs by their digests.

    tag --> manifest --> config, layers        each named by a descriptor: media type, digest, size, annotations

What is in one that is an adapter says `model_pack.py`; where they lie, `oci_layout.py` (a disk) and `oci_registry.py` (HTTP).

https://github.com/opencontainers/image-spec
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from ..errors import GraftaxError
from ..json_files import parse_json
from ..store.manifest import Bytes
from ..typed import Such, checked, shown

IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MOST_OF_JSON = 1 << 22  # bytes of a manifest, a config or an index; registries take no larger ones


def _is_digest(text: str) -> bool:
    return re.fullmatch(r"sha256:[0-9a-f]{64}", text) is not None


Digest = Annotated[str, Such("sha256: and 64 hexadecimal digits", _is_digest)]


@dataclass(frozen=True)
class Descriptor:
    """What is said of a blob where it is referred to."""

    media_type: str
    digest: Digest
    size: Bytes
    annotations: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        plain = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return plain | ({"annotations": dict(self.annotations)} if self.annotations else {})


class Place(Protocol):
    """Where artefacts are: `address` is its name for people, with the artefact's."""

    address: str

    def manifest(self) -> bytes:
        """The manifest of the artefact that is meant, checked."""

    def blob(self, descriptor: Descriptor) -> bytes:
        """A blob of at most the size that is said; it need not be checked."""


@dataclass(frozen=True)
class Artefact:
    """What is put in a place: a manifest, and the blobs that it refers to by their digests."""

    manifest: bytes
    blobs: Mapping[str, bytes]

    @property
    def descriptor(self) -> Descriptor:
        return describe(self.manifest, IMAGE_MANIFEST)


def describe(content: bytes, media_type: str, annotations: Mapping[str, str] | None = None) -> Descriptor:
    """The descriptor of a blob."""
    return Descriptor(media_type, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content), annotations or {})


def json_object(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in a blob."""
    try:
        content = parse_json(data.decode(), where)
    except UnicodeDecodeError as error:
        raise GraftaxError(f"{where}: not UTF-8 text.") from error
    if not isinstance(content, dict):
        raise GraftaxError(f"{where}: expected a JSON object.")
    return content


def descriptor_of(content: Any, where: str) -> Descriptor:
    """A descriptor as it stands in JSON; what else it says is not asked."""
    if not isinstance(content, dict):
        raise GraftaxError(f"{where}: expected a descriptor, got {shown(content)}.")
    known = {"media_type": content.get("mediaType"), "digest": content.get("digest"), "size": content.get("size")}
    return checked(known | {"annotations": content.get("annotations") or {}}, Descriptor, where)


def checked_blob(place: Place, descriptor: Descriptor) -> bytes:
    """A blob, if it is what its descriptor says."""
    return checked_content(place.blob(descriptor), descriptor, place.address)


def checked_content(content: bytes, descriptor: Descriptor, where: str) -> bytes:
    """The content of a blob, if it is what its descriptor says."""
    if len(content) != descriptor.size or describe(content, "").digest != descriptor.digest:
        raise GraftaxError(f"{where}: the blob {descriptor.digest} is damaged: its content is another.")
    return content
