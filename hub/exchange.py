"""Adapters between a hub of graftax's and other places, and what the addresses of these are.

    adapters/bank                    a directory: graftax's, PEFT's or AdapterHub's
    hf://user/adapter[@revision]     a repository of the Hugging Face Hub     (hugging_face.py)
    oci:PATH[:TAG]                   an artefact in an OCI image layout, a directory or a `.tar` of one  (oci_layout.py)
    oci://HOST/REPOSITORY:TAG        an artefact in a registry                (oci_registry.py)

An adapter that comes is read before it is kept, and one that goes to an OCI artefact and comes back is the same version, to the
digest. Where nothing says of which weights a backbone must be, only loading the adapter for one can tell whether it fits.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from .. import disk
from ..adapters.directory import CONFIG, MARKS, from_hub
from ..adapters.facts import EXTRA
from ..adapters.files import export_adapter, load_adapter, save_adapter
from ..adapters.located import Located, on_hugging_face
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..store.manifest import Manifest
from ..store.store import Store
from ..store.version import Version
from ..typed import shown
from .card import FILE as CARD
from .card import library_of, write_card
from .describing import BESIDE, files_of, library_in, manifest_of, note_where_unknown, with_card
from .hugging_face import card_there, fetch_repository, put_repository
from .model_pack import pack, unpack
from .oci import json_object
from .oci_layout import Layout, layout_at, write_layout
from .oci_registry import Registry

Format = Literal["graftax", "peft", "adapters", "oci"]
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_LAYOUT = re.compile(rf"(?P<path>.+?)(?::(?P<tag>{_TAG}))?", re.DOTALL)
_PART = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_REGISTRY = re.compile(
    rf"//(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?)/(?P<repository>{_PART}(?:/{_PART})*)(?::(?P<tag>{_TAG}))?"
)
_WORDS = {"graftax": "graftax's", "peft": "PEFT's", "adapters": "AdapterHub's"}


@dataclass(frozen=True)
class Repository:
    """One of the Hugging Face Hub."""

    hub_id: str
    revision: str


@dataclass(frozen=True)
class InLayout:
    """An artefact in an OCI image layout."""

    path: Path
    tag: str | None


@dataclass(frozen=True)
class InRegistry:
    """An artefact in a registry."""

    host: str
    repository: str
    tag: str | None


Address = Path | Repository | InLayout | InRegistry


def parse_address(place: str | Path) -> Address:
    """What an address means; what is there as a directory is that directory.

    Raises GraftaxError where it is none that is known.
    """
    text = str(place)
    if isinstance(place, Path) or Path(text).exists():
        return Path(text)
    scheme, colon, rest = text.partition(":")
    if scheme == "oci" and colon:
        return _parse_oci(rest, text)
    if scheme == "hf" and (found := on_hugging_face(text)) is not None:
        return Repository(found[0], found[1] or "main")
    if scheme != "hf" and "://" not in text:
        return Path(text)
    raise GraftaxError(f"{shown(text)}: expected a directory, hf://user/adapter, oci:PATH or oci://HOST/REPOSITORY:TAG.")


def _parse_oci(rest: str, text: str) -> Address:
    if match := _REGISTRY.fullmatch(rest):
        return InRegistry(match["host"], match["repository"], match["tag"])
    whole = Path(rest)
    if rest and whole.exists():  # a path may have a colon in it
        return InLayout(whole, None)
    match = _LAYOUT.fullmatch(rest)
    if match is None or "://" in text:
        raise GraftaxError(
            f"{shown(text)}: expected oci:PATH, oci:PATH:TAG or oci://HOST/REPOSITORY:TAG, all in small letters."
        )
    return InLayout(Path(match["path"]), match["tag"])


# -- from there to a hub -------------------------------------------------------------------------------------------------


def take(source: str | Path, name: str, backbone: Backbone | None = None) -> tuple[Manifest, dict[str, bytes]]:
    """What is known of an adapter elsewhere, and its files, with the card that it has on a hub under a name.

    With a backbone it is loaded for it, strictly, and the manifest has its fingerprint. Without one a note says so where
    nobody knows of which weights it must be. What was another hub's version is taken as it was there.

    Raises GraftaxError: no sound adapter there, or one that does not fit; the place cannot be reached.
    """
    address = parse_address(source)
    if isinstance(address, Path):
        return _read(_Arrived(Located(address, str(source))), name, backbone)
    if isinstance(address, Repository):
        directory = fetch_repository(address.hub_id, address.revision)  # which the Hub's cache has under its commit
        place = f"hf://{address.hub_id}@{directory.name}"
        return _read(_Arrived(Located(directory, str(source)), place), name, backbone)
    files, known, digest = unpack(_place(address))
    place = f"oci:{address.path.name}" if isinstance(address, InLayout) else f"oci://{address.host}/{address.repository}"
    with tempfile.TemporaryDirectory(prefix="graftax-import-") as folder:
        directory = Path(folder) / "adapter"
        _write_directory(directory, files, overwrite=False)
        return _read(_Arrived(Located(directory, str(source)), f"{place}@{digest}", known), name, backbone)


@dataclass(frozen=True)
class _Arrived:
    """An adapter from elsewhere, which is now a directory."""

    located: Located
    place: str | None = None  # where it was found, to be kept with it; None: in this directory
    known: Manifest | None = None  # what another hub knew of it


def _read(arrived: _Arrived, name: str, backbone: Backbone | None) -> tuple[Manifest, dict[str, bytes]]:
    """As `take`."""
    directory, source, known = arrived.located.directory, arrived.located.name, arrived.known
    with arrived.located.named():
        files, manifest = files_of(directory), manifest_of(directory)
        if known is not None and manifest.fingerprint not in (None, known.fingerprint):
            raise GraftaxError(f"{source}: the hub's manifest and the adapter's own files name different fingerprints.")
        manifest = known or manifest
        if backbone is not None:
            manifest = _expect_fit(directory, manifest, backbone)
        if known is None:
            if (place := arrived.place or _library_and_name(directory)) is not None:
                manifest = manifest.found(place)
            return with_card(manifest, files, directory, name, source)
    note_where_unknown(manifest, source)
    return manifest, files


def _library_and_name(directory: Path) -> str | None:
    """What is kept of a directory of another library's, whose path says nothing to others; graftax's own say all themselves."""
    if (library := library_in(directory)) == "graftax" or (directory / EXTRA).is_file():
        return None
    return f"{'peft' if library == 'peft' else 'adapters'}:{directory.resolve().name}"


def _expect_fit(directory: Path, manifest: Manifest, backbone: Backbone) -> Manifest:
    """The manifest of an adapter with what is known once it is loaded for a backbone; an error where it does not fit."""
    if manifest.fingerprint not in (None, backbone.fingerprint):
        made_for = f"{manifest.backbone}, fingerprint {manifest.fingerprint[:12]}"
        this = f"{backbone.name}, {backbone.fingerprint[:12]}"
        raise GraftaxError(f"{directory}: made for another backbone ({made_for}; this one is {this}).")
    adapter = load_adapter(directory, backbone)
    return replace(
        manifest,
        fingerprint=backbone.fingerprint,
        model_type=manifest.model_type or backbone.family.model_types[0],
        task=manifest.task or adapter.task,
        labels=manifest.labels or adapter.labels,
        methods=tuple(method.name for method in adapter.methods),
    )


# -- from a hub to there -------------------------------------------------------------------------------------------------


def hand_over(
    store: Store,
    version: Version,
    target: str | Path,
    *,
    format: Format | None = None,
    backbone: Backbone | None = None,
    overwrite: bool = False,
) -> str:
    """Put a version elsewhere; returns where it is now.

    Args:
        store: that it is in.
        version: the one.
        target: an address.
        format: whose files; None: as they are. "oci" is an artefact, also where `target` is a plain path.
        backbone: the one it is for, where its files must be written anew.
        overwrite: replace what is there under this address.

    Raises:
        GraftaxError: files of that format cannot be written of it; the target is taken, or cannot be written to.
    """
    address = parse_address(target)
    if format == "oci" and isinstance(address, Path):
        address = InLayout(address, None)
    if isinstance(address, InLayout | InRegistry):
        if format not in (None, "oci"):
            raise GraftaxError(
                f"{target}: an OCI artefact holds a version's own files, not {_WORDS[format]}; leave out the format."
            )
        return _put_artefact(store, version, address, overwrite)
    if format == "oci":
        raise GraftaxError(f"{target}: an OCI artefact is put into oci:PATH[:TAG] or oci://HOST/REPOSITORY[:TAG].")
    files = _files_in(store, version, format, backbone)
    if isinstance(address, Path):
        _write_directory(address, files, overwrite)
        return str(address)
    own = files[CARD].decode(errors="replace") if CARD in files else None
    existing = card_there(address.hub_id, address.revision) or own
    evaluations, library = store.index().evaluations(version), library_of(_config_in(files, version))
    name = f"hf://{address.hub_id}"  # what it is called for who reads it there
    files[CARD] = write_card(store.manifest(version), evaluations, existing, name, library=library).encode()
    return put_repository(address.hub_id, address.revision, files, f"{version}, sha256:{version.digest}")


def _put_artefact(store: Store, version: Version, address: InLayout | InRegistry, overwrite: bool) -> str:
    """Put a version as an OCI artefact, under its number where the address has no tag."""
    address = replace(address, tag=address.tag or str(version.version))
    assert address.tag is not None
    artefact = pack(version, store.manifest(version), store.files(version))
    if isinstance(address, InLayout):
        write_layout(address.path, address.tag, artefact, overwrite=overwrite)
        return f"oci:{address.path}:{address.tag}"
    registry = _registry(address)
    registry.put(artefact, overwrite=overwrite)
    return registry.address


def _files_in(store: Store, version: Version, format: Format | None, backbone: Backbone | None) -> dict[str, bytes]:
    """The files of a version in a format: its own, where they are in it, or what a backbone lets be written of it."""
    own = store.files(version)
    there = _format_of(own, version)
    if format in (None, there) or (format, there) == ("graftax", "peft"):  # ours are PEFT's, where PEFT has the method
        return own
    assert format is not None
    if (format, there) == ("peft", "graftax"):
        raise GraftaxError(f"{version}: PEFT has no files for {'+'.join(version.methods)}.")
    if backbone is None:
        raise GraftaxError(
            f"{version}: to write its files, {_WORDS[there]}, as {_WORDS[format]}, its backbone is needed: --backbone."
        )
    with tempfile.TemporaryDirectory(prefix="graftax-export-") as folder:
        written = Path(folder) / version.name.rpartition("/")[2]
        with Located(directory := store.pull(version), str(version)).named():
            adapter = load_adapter(directory, backbone)
        with Located(written, str(version)).named():
            (export_adapter if format == "adapters" else save_adapter)(adapter, written, backbone)
            files = files_of(written)
    if format == "peft" and _format_of(files, version) != "peft":
        raise GraftaxError(f"{version}: PEFT has no files for {'+'.join(version.methods)}.")
    return {path: own[path] for path in BESIDE if path in own} | files


def _format_of(files: Mapping[str, bytes], version: Version) -> Format:
    """Whose files those of a version are."""
    config = _config_in(files, version)
    if from_hub(config):
        return "adapters"
    return "graftax" if config.get("peft_type") == "GRAFTAX" else "peft"


def _config_in(files: Mapping[str, bytes], version: Version) -> dict[str, object]:
    """The adapter's config; of a fusion that of a member."""
    path = next(path for path in sorted(files) if PurePosixPath(path).name == CONFIG)
    return json_object(files[path], f"{version}: {path}")


def _write_directory(directory: Path, files: Mapping[str, bytes], overwrite: bool) -> None:
    """An adapter's directory, whole or not at all."""
    with disk.new_directory(directory, overwrite, MARKS) as draft:
        for path, content in files.items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).write_bytes(content)


def _place(address: InLayout | InRegistry) -> Layout | Registry:
    return layout_at(address.path, address.tag) if isinstance(address, InLayout) else _registry(address)


def _registry(address: InRegistry) -> Registry:
    if address.tag is None:
        raise GraftaxError(f"oci://{address.host}/{address.repository}: say which artefact, oci://HOST/REPOSITORY:TAG.")
    return Registry(address.host, address.repository, address.tag)
