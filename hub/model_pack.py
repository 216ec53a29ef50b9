"""An adapter as an OCI artefact in the form of the ModelPack specification, which other tools for models read too.

    config       what the model is, in ModelPack's words
    layers       the adapter's files, each a blob of its own: weights, configs, documents
    annotations  what the hub knows of the version (`store/manifest.py`), word for word, and the best of it for people

Of one version the same bytes are made everywhere. Read back, the hub's manifest must name the very files that the layers are:
the version has the digest there that it had here. An artefact by other tools has no such annotation; then its files say all.

Nothing in an artefact is trusted: blobs are compared with their digests, paths are those of plain files within one directory,
and archives are never extracted, only read.

https://github.com/modelpack/model-spec
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from ..errors import GraftaxError
from ..notes import note
from ..store.manifest import File, FilePath, Manifest, parse_manifest
from ..store.version import Version
from ..typed import checked
from .archives import open_archive, plain_member
from .describing import is_part
from .oci import (
    IMAGE_MANIFEST,
    MOST_OF_JSON,
    Artefact,
    Descriptor,
    Place,
    checked_blob,
    describe,
    descriptor_of,
    json_object,
)

ARTEFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
_LAYER_TYPE = "application/vnd.cncf.model.{}.v1.raw"  # of a file as it is
#: weights may also say their format in place of "raw", as some tools have it
_LAYER = re.compile(
    r"application/vnd\.cncf\.model\.(?P<kind>weight|weight\.config|doc|code|dataset)\.v1\."
    r"(?:(?P<raw>raw|safetensors)|tar(?P<compressed>\+gzip|\+zstd)?)"
)
_LEFT_OUT = ("code", "dataset")  # kinds of layers that no adapter's file is in
_PATH, _TITLE = "org.cncf.model.filepath", "org.opencontainers.image.title"  # ModelPack's, and that of ORAS
_MANIFEST, _DIGEST = "graftax.manifest", "graftax.digest"  # annotations: the hub's manifest, and its digest

_MOST = 1 << 32  # bytes of an artefact's layers, which are held in memory
_MOST_UNPACKED = 1 << 30  # bytes that its compressed layers may become
_MOST_FILES = 1000  # layers, or members of an archive


# -- writing -------------------------------------------------------------------------------------------------------------


def pack(version: Version, manifest: Manifest, files: Mapping[str, bytes]) -> Artefact:
    """The artefact of a version; `files` are those that its manifest names.

    Raises GraftaxError where it would be larger than what is read.
    """
    config = _json(_config(version, manifest, files))
    layers = [
        describe(content, _LAYER_TYPE.format(_kind(path)), {_PATH: path, _TITLE: path})
        for path, content in sorted(files.items())
    ]
    whole = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": ARTEFACT_TYPE,
        "config": describe(config, CONFIG_TYPE).as_json(),
        "layers": [layer.as_json() for layer in layers],
        "annotations": _annotations(version, manifest),
    }
    blobs = {describe(content, "").digest: content for content in (config, *files.values())}
    artefact = Artefact(_json(whole), blobs)
    if manifest.size > _MOST or len(artefact.manifest) > MOST_OF_JSON:
        much = f"files of {manifest.size:,} bytes and a manifest of {len(artefact.manifest):,}"
        raise GraftaxError(f"{version}: {much}; an OCI artefact holds {_MOST:,} and {MOST_OF_JSON:,}.")
    return artefact


def _kind(path: str) -> str:
    """Which of ModelPack's kinds of files one is."""
    name = PurePosixPath(path)
    if name.suffix == ".safetensors":
        return "weight"
    return "weight.config" if name.suffix == ".json" else "doc"


def _config(version: Version, manifest: Manifest, files: Mapping[str, bytes]) -> dict[str, Any]:
    """ModelPack's own description."""
    descriptor: dict[str, Any] = {
        "name": version.name,
        "version": str(version.version),
        "family": manifest.model_type,
        "description": manifest.description,
        "licenses": [manifest.license] if manifest.license else None,
    }
    technical = {"format": "safetensors", "paramSize": _param_size(manifest.parameters)}
    return {
        "descriptor": {key: value for key, value in descriptor.items() if value},
        "config": {key: value for key, value in technical.items() if value},
        "modelfs": {"type": "layers", "diffIds": [describe(content, "").digest for _, content in sorted(files.items())]},
    }


def _param_size(count: int) -> str | None:
    """A number of parameters as ModelPack writes it, such as 294.9k; None below a thousand, for which it has no word."""
    size, prefixes = count / 1000, "kmbtq"
    while size >= 1000 and len(prefixes) > 1:
        size, prefixes = size / 1000, prefixes[1:]
    return f"{size:.1f}{prefixes[0]}" if size >= 1 else None


def _annotations(version: Version, manifest: Manifest) -> dict[str, str]:
    known = {
        "org.opencontainers.image.title": version.name,
        "org.opencontainers.image.version": str(version.version),
        "org.opencontainers.image.description": manifest.description,
        "org.opencontainers.image.licenses": manifest.license,
        "graftax.backbone": manifest.backbone,
        "graftax.fingerprint": manifest.fingerprint,
        "graftax.task": manifest.task,
        "graftax.methods": "+".join(manifest.methods),
        _DIGEST: f"sha256:{manifest.digest}",
        _MANIFEST: manifest.text(),
    }
    return {key: value for key, value in known.items() if value}


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# -- reading -------------------------------------------------------------------------------------------------------------


def unpack(place: Place) -> tuple[dict[str, bytes], Manifest | None, str]:
    """The files of the artefact in a place by their paths; the hub's manifest of them, where one wrote it; its own digest.

    Raises GraftaxError: no adapter by ModelPack's specification; a blob that is missing, or is not what its digest says; a path
    that is none within a directory; more than can be held.
    """
    where = place.address
    manifest = place.manifest()
    content, digest = json_object(manifest, f"{where}: manifest"), describe(manifest, IMAGE_MANIFEST).digest
    config, layers = _expect_model_pack(content, where)
    json_object(checked_blob(place, config), f"{where}: config")
    annotations = checked(content.get("annotations") or {}, Mapping[str, str], f"{where}: annotations")
    files: dict[str, bytes] = {}
    for path, data in _all_files(place, layers):
        if path in files:
            raise GraftaxError(f"{where}: {path} is there twice.")
        files[path] = data
    if _MANIFEST not in annotations:
        return files, None, digest
    return files, _expect_manifest(annotations, files, where), digest


def _expect_model_pack(content: Mapping[str, Any], where: str) -> tuple[Descriptor, Sequence[Descriptor]]:
    """The descriptors of the config and the layers; an error where it is another kind of artefact."""
    kind = content.get("mediaType", IMAGE_MANIFEST)
    if kind != IMAGE_MANIFEST or content.get("schemaVersion") != 2 or not isinstance(content.get("config"), dict):
        raise GraftaxError(f"{where}: {kind} is not the manifest of a model, which is {IMAGE_MANIFEST}.")
    config = descriptor_of(content["config"], f"{where}: config")
    if config.media_type != CONFIG_TYPE:
        raise GraftaxError(f"{where}: no model by ModelPack's specification: its config is {config.media_type}.")
    if config.size > MOST_OF_JSON:
        raise GraftaxError(f"{where}: a config of {config.size:,} bytes; at most {MOST_OF_JSON:,} are read.")
    listed = checked(content.get("layers"), Sequence[Any], f"{where}: layers")
    if len(listed) > _MOST_FILES:
        raise GraftaxError(f"{where}: {len(listed):,} layers; an adapter has at most {_MOST_FILES:,} files.")
    layers = [descriptor_of(layer, f"{where}: a layer") for layer in listed]
    for layer in layers:
        if not _LAYER.fullmatch(layer.media_type):
            raise GraftaxError(f"{where}: a layer is {layer.media_type}, which is none of ModelPack's media types.")
    if (size := sum(layer.size for layer in layers)) > _MOST:
        raise GraftaxError(f"{where}: layers of {size:,} bytes; at most {_MOST:,} are read.")
    return config, layers


def _all_files(place: Place, layers: Sequence[Descriptor]) -> Iterator[tuple[str, bytes]]:
    """The adapter's files in all layers, with their paths; a note says what else there is."""
    left, room = [], _MOST_UNPACKED
    for layer in layers:
        form = _LAYER.fullmatch(layer.media_type)
        assert form is not None
        if form["kind"] in _LEFT_OUT:
            left.append(f"a layer of {form['kind']}")
            continue
        if form["raw"]:
            path = _path_of(layer, place.address)
            found = [(path, checked_blob(place, layer))] if is_part(path) else []
            left += [] if found else [path]
        else:
            archive = checked_blob(place, layer)
            if form["compressed"]:
                archive = _decompressed(archive, form["compressed"], room, place.address)
                room -= len(archive)
            members = list(_members(archive, place.address))
            found = [(path, data) for path, data in members if is_part(path)]
            left += [path for path, _ in members if not is_part(path)]
        yield from found
    if left:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        note(f"{place.address}: no part of an adapter, and left out: {', '.join(left[:5])}{more}.")


def _path_of(layer: Descriptor, where: str) -> str:
    path = layer.annotations.get(_PATH, layer.annotations.get(_TITLE))
    if path is None:
        raise GraftaxError(f"{where}: the layer {layer.digest} has no path: neither {_PATH} nor {_TITLE}.")
    return _checked_path(path, where)


def _checked_path(path: str, where: str) -> str:
    return checked("/".join(part for part in path.split("/") if part != "."), FilePath, f"{where}: a file's path")


def _decompressed(data: bytes, compressed: str, room: int, where: str) -> bytes:
    """A compressed archive as it is; at most `room` bytes of it are made."""
    if compressed == "+zstd":
        raise GraftaxError(f"{where}: a layer is compressed with zstd, which graftax does not read; raw, tar and tar+gzip are.")
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            archive = stream.read(room + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise GraftaxError(f"{where}: a layer is no sound gzip ({error}).") from error
    if len(archive) > room:
        raise GraftaxError(f"{where}: a layer's archive is of more than {room:,} bytes.")
    return archive


def _members(archive: bytes, where: str) -> Iterator[tuple[str, bytes]]:
    """The plain files in a tar archive; folders are passed over, links and devices are errors."""
    with open_archive(archive, f"{where}: a layer") as members:
        for count, member in enumerate(members, 1):
            if count > _MOST_FILES:
                raise GraftaxError(f"{where}: a layer's archive has more than {_MOST_FILES:,} members.")
            if member.isdir():
                continue
            path = _checked_path(member.name, where)
            data = plain_member(members, member)
            if data is None:
                raise GraftaxError(f"{where}: {path} is a link, a device or has holes; in a layer are plain files.")
            yield path, data


def _expect_manifest(annotations: Mapping[str, str], files: Mapping[str, bytes], where: str) -> Manifest:
    """The hub's manifest of an artefact, which must be of these files."""
    manifest = parse_manifest(annotations[_MANIFEST], f"{where}: {_MANIFEST}")
    if annotations.get(_DIGEST) != f"sha256:{manifest.digest}":
        raise GraftaxError(f"{where}: {_DIGEST} is not the digest of {_MANIFEST}.")
    there = {path: File(hashlib.sha256(content).hexdigest(), len(content)) for path, content in files.items()}
    if different := sorted(path for path in there.keys() | manifest.files if there.get(path) != manifest.files.get(path)):
        raise GraftaxError(f"{where}: {_MANIFEST} is of other files than the layers are: {', '.join(different[:5])}.")
    return manifest
