"""What versions consist of, their manifests and their files: each is checked before it is given out.

A manifest must have the version's digest, a file the one that the manifest names. Where there is no signature, and none is
asked for, the index has the manifest; else it is read with its signature from the event of the push.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from .blobs import get_blobs
from .damage import Damaged, Untrusted
from .events import Pushed
from .index import Index
from .ledger import Ledger
from .manifest import Manifest, parse_manifest
from .objects import Objects
from .own_index import OwnIndex
from .signing import check_signature, refuse_untrusted
from .version import Version


class Contents:
    """Those of a store's versions; `trusted`: public keys, one of which must have signed what is given out."""

    def __init__(self, objects: Objects, ledger: Ledger, index: OwnIndex, trusted: Sequence[str] | None):
        self._objects, self._ledger, self._index, self._trusted = objects, ledger, index, trusted

    def manifest(self, version: Version) -> Manifest:
        """The manifest of a version; Damaged or Untrusted where it is not to be relied on."""
        known = None
        if version.signer is None and self._trusted is None:
            known = self._index.look_up(lambda index: index.manifest_of(version))
        return self._pushed(version)[0] if known is None else parse_manifest(known, str(version))

    def is_trusted(self, version: Version) -> bool:
        """Whether a version is one that may be taken, as far as its manifest and signature go."""
        if self._trusted is None:
            return True
        try:
            self.manifest(version)
        except (Damaged, Untrusted):
            return False
        return True

    def is_name_signed(self, version: Version) -> bool:
        """Whether somebody has signed a version under its name and number, and not its content alone."""
        return version.signer is not None and self._pushed(version)[1]

    def files(self, manifest: Manifest) -> dict[str, bytes]:
        """The files that a manifest names, by their paths; Damaged where one is missing or is not what it was."""

        def places(index: Index) -> list[tuple[str, int]]:
            return [(file.sha256, index.times_given_up(file.sha256)) for file in manifest.files.values()]

        # by the index as it is: no blob of a version is given up as long as that is there
        return dict(zip(manifest.files, get_blobs(self._objects, self._index.look_up(places)), strict=True))

    def problem(self, version: Version) -> str | None:
        """What is wrong with a version, of which everything is read where it lies."""
        try:
            self.files(self._pushed(version)[0])
        except (Damaged, Untrusted) as error:
            return str(error).removeprefix(f"{version}: ")
        return None

    def _pushed(self, version: Version) -> tuple[Manifest, bool]:
        """The manifest in the event of a version's push, and whether it is signed under its name."""
        event = self._ledger.read(version.event)
        if not isinstance(event, Pushed) or (event.name, event.version) != (version.name, version.version):
            raise Damaged(f"{version}: the ledger of {self._objects.url} has something else in this place.")
        if hashlib.sha256(event.manifest.encode()).hexdigest() != version.digest:
            raise Damaged(f"{version}: its manifest is damaged: it has another digest.")
        manifest = parse_manifest(event.manifest, str(version))
        named = event.signature is not None and check_signature(event.signature, str(version), version.digest)
        if self._trusted is not None:
            refuse_untrusted(event.signature, self._trusted, str(version))
        return manifest, named
