"""A store: versions of directories under names, which many may write to at once.

    blobs/       the files' content, by digest            (blobs.py)
    ledger/      what was done, in order                  (ledger.py, events.py)
    snapshots/   copies of the index, to begin from       (snapshots.py)

Whatever changes a store is one event in its ledger. It is added by the same few steps: bring the index up to date, look whether
the change makes sense, try to add the event behind the last one that was read; where another writer was quicker, again from the
beginning. Before the event nothing can be seen of a change; with it, all.

A store knows nothing of adapters beyond the words in a manifest; `hub/` does.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from .. import disk
from ..errors import GraftaxError
from ..notes import note
from .blobs import Blob, all_blobs, put_blob
from .contents import Contents
from .copies import Copies, write_files
from .events import Begun, Collected, Evaluated, Event, Measure, Moment, Pointed, Pushed, Removed, Yanked, now
from .index import Index
from .ledger import Ledger
from .manifest import File, Manifest, parse_manifest
from .names import Reference, check_name, check_tag, parse_reference
from .own_index import NoStore, OwnIndex
from .places import cache_folder, default_store, objects_at
from .query import Query
from .resolving import expect, expect_name, resolve
from .signing import Signer, trusted_keys
from .snapshots import EVERY, write_snapshot
from .version import Score, Version

T = TypeVar("T")
E = TypeVar("E", bound=Event)
_PULLED_AT_ONCE = 8  # versions
_LONGEST_PAUSE = 0.5  # seconds between two tries, where many write


@dataclass(frozen=True)
class Garbage:
    """What a collection gave up."""

    blobs: int
    bytes: int


@dataclass(frozen=True)
class Damage:
    """What is wrong with a version."""

    version: Version
    problem: str


class Store:
    """The store at a URL; made with the first push where there is none.

    Args:
        url: a folder, or `s3://bucket/prefix`, `gs://...`, `az://...`; by default GRAFTAX_HUB, else a folder of this user's.
        trusted: a file of public keys; then only what one of them has signed is pulled. By default GRAFTAX_HUB_TRUSTED.
    """

    def __init__(self, url: str | Path | None = None, *, trusted: Path | None = None):
        self.objects = objects_at(url if url is not None else default_store())
        self.url = self.objects.url
        self._ledger = Ledger(self.objects)
        cache = cache_folder(self.url)
        self.copies = Copies(cache.parent / "versions")
        self._index = OwnIndex(cache, self.objects, self._ledger)
        named = trusted or os.environ.get("GRAFTAX_HUB_TRUSTED")
        self._contents = Contents(self.objects, self._ledger, self._index, trusted_keys(Path(named)) if named else None)

    def index(self) -> Index:
        """The index, with everything in it that the ledger has now; GraftaxError where there is no store."""
        return self._index.ask(lambda index: index)

    # -- changes ---------------------------------------------------------------------------------------------------------

    def _add(self, next_event: Callable[[Index], E | None], *, begins: bool = False) -> E | None:
        """Add the event that makes sense as things are, and return it; None: there is nothing to be done.

        `next_event` is asked again, with the index as it is then, whenever another writer was quicker. Where there is no store
        one is made if the event `begins` it.
        """
        pause = 0.01
        while True:
            try:
                index = self.index()
            except NoStore:
                if not begins:
                    raise
                self._begin()
                begins = False  # one that is gone by then was moved or removed, and is not made anew
                continue
            begins = False
            number, digest = index.position()
            event = next_event(index)
            if event is None:
                return None
            if self._ledger.append(event, number + 1, digest):
                if (number + 1) % EVERY == 0:
                    self._leave_snapshot()
                return event
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _begin(self) -> None:
        """Make a store, in a place where nothing is."""
        empty = self.objects.is_empty()  # this first: meanwhile another writer may make one
        if not empty and not self._ledger.exists():
            raise GraftaxError(f"{self.url}: there is no hub here, and other things are; a hub begins in an empty place.")
        self.objects.begin()
        self._ledger.append(Begun(), 1, "")

    def _leave_snapshot(self) -> None:
        try:
            write_snapshot(self.index(), self.objects)
        except GraftaxError as error:  # what was to be done is done
            note(f"no snapshot of the index could be left in the hub, and others will read longer: {error}")

    def push(
        self,
        name: str,
        manifest: Manifest,
        contents: Mapping[str, bytes],
        *,
        version: int | None = None,
        tags: Sequence[str] = (),
        expires: Moment | None = None,
        key_file: Path | None = None,
    ) -> tuple[Version, bool]:
        """Add a version, whole or not at all; returns it and whether it is new: what is newest already is not added again.

        Args:
            name: such as "bank/intent".
            manifest: what is known of it; its files are those of `contents`.
            contents: of each file, by its path.
            version: the number it is to have; by default the next.
            tags: that are to point to it, alone.
            expires: when it is gone by itself.
            key_file: a private key, to sign it with.

        Raises:
            GraftaxError: the number was given to something else; a name or a tag that cannot be one; a time that is over; the
                store cannot be written to.
        """
        check_name(name)
        for tag in tags:
            check_tag(tag)
        if expires is not None and expires <= now():
            raise GraftaxError(f"{name}: its time would be over at {expires}, which is past.")
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
        manifest = replace(manifest, files={path: File(digest, len(contents[path])) for path, digest in digests.items()})
        parse_manifest(manifest.text(), name)  # what could not be read again is not written
        signer = Signer(key_file) if key_file else None
        put: set[tuple[str, int]] = set()
        there: Version | None = None

        def next_event(index: Index) -> Pushed | None:
            nonlocal there
            there = index.newest(name) if version is None else index.version(name, version)
            if there is not None and _is_same(there, manifest, signer, expires):
                return None
            if version is None:
                _refuse_withdrawn(index, name, manifest)
            last = index.last_number(name)
            wanted = last + 1 if version is None else version
            if 0 < wanted <= last:
                raise GraftaxError(f"{name}:{wanted} is there already, or was; the next is {name}:{last + 1}.")
            signature = None if signer is None else signer.sign(f"{name}:{wanted}", manifest.digest)
            event = Pushed(name, wanted, manifest.digest, manifest.text(), signature, expires, tuple(tags))
            for path, digest in digests.items():
                where = (digest, index.times_given_up(digest))
                if where not in put:
                    put_blob(self.objects, *where, contents[path])
                    put.add(where)
            return event

        if (added := self._add(next_event, begins=True)) is not None:
            there = self._index.ask(lambda index: index.version(name, added.version, gone_too=True))
        assert there is not None
        if added is None:
            for tag in tags:
                self.point(name, tag, {there.version: 1.0})
        return there, added is not None

    def point(self, name: str, tag: str, shares: Mapping[int, float]) -> None:
        """Let a tag point to a version, or to several, each with its share of what comes; with none it is taken away."""
        check_name(name), check_tag(tag)

        def next_event(index: Index) -> Event | None:
            for version in shares:
                expect(index, name, version)
            before = index.tags(name).get(tag, {})
            if not shares and not before:
                raise GraftaxError(f"{name} has no tag {tag}.")
            if before == shares:
                return None
            return Pointed(name, tag, {str(version): share for version, share in shares.items()})

        self._add(next_event)

    def yank(self, name: str, version: int, reason: str | None) -> None:
        """Withdraw a version: its name alone leads to others, and its number with a warning. No reason: take that back."""

        def next_event(index: Index) -> Event | None:
            expect(index, name, version)
            return Yanked(name, version, reason)

        self._add(next_event)

    def remove(self, name: str, version: int, *, force: bool = False) -> None:
        """Remove a version; its files are deleted by the next collection.

        Raises GraftaxError where a tag points to it or another version was made from it, unless it is forced.
        """

        def next_event(index: Index) -> Event | None:
            there = expect(index, name, version)
            others = [f"tag {tag}" for tag in there.tags] + [str(child) for child in index.children(there)]
            if others and not force:
                raise GraftaxError(f"{there}: {', '.join(others)} refers to it; --force removes it all the same.")
            return Removed(name, version)

        self._add(next_event)

    def add_evaluation(
        self, version: Version, task: str, data: str, rows: int, metrics: Mapping[str, Measure], data_name: str | None = None
    ) -> None:
        """Keep how a version did on rows whose digest is `data`."""

        def next_event(index: Index) -> Event | None:
            expect(index, version.name, version.version)
            return Evaluated(version.name, version.version, task, data, data_name, rows, metrics)

        self._add(next_event)

    def collect(self) -> Garbage:
        """Delete the blobs that no version refers to, and what killed writers left half written."""
        self.index()  # an error where there is none
        self.objects.sweep()
        there = list(all_blobs(self.objects))
        deleted: list[Blob] = []

        def next_event(index: Index) -> Collected | None:
            live = index.live_blobs()
            dead = [blob for blob in there if blob.digest not in live and blob.times == index.times_given_up(blob.digest)]
            deleted[:] = dead + [blob for blob in there if blob.times < index.times_given_up(blob.digest)]
            return Collected(tuple(sorted(blob.digest for blob in dead))) if dead else None

        self._add(next_event)
        self.objects.delete([blob.key for blob in deleted])
        return Garbage(len(deleted), sum(blob.size for blob in deleted))

    # -- questions -------------------------------------------------------------------------------------------------------

    def search(self, query: Query, limit: int = 50) -> list[Version]:
        """The versions that a query finds, the last pushed first."""
        return self._index.ask(lambda index: index.search(query, limit))

    def resolve(self, reference: str, *, route: str | None = None) -> Version:
        """The version that a text refers to (names.py).

        Args:
            reference: such as "bank/intent:prod".
            route: of whom or what it is asked, where a tag shares its traffic: the same always comes to the same version.
                Without it each call is drawn.

        Raises:
            GraftaxError: there is no such version; what there is instead is said.
        """
        return self.resolve_all([reference], route=route)[0]

    def resolve_all(self, references: Sequence[str], *, route: str | None = None) -> list[Version]:
        """As `resolve`, the versions that texts refer to, all at one moment."""
        named = [parse_reference(reference) for reference in references]
        found = self._index.ask(lambda index: [self._resolved(index, one, route) for one in named])
        for reference, version in zip(named, found, strict=True):
            _note_withdrawn(reference, version)
        return found

    def find(self, reference: str) -> Version | None:
        """As `resolve`; None where there is no store, or no such name in it."""
        if not self._index.file.exists() and not self.exists():  # and nothing is to be made on this machine
            return None
        named = parse_reference(reference)

        def known(index: Index) -> Version | None:
            there = named.name is None or index.last_number(named.name) > 0
            return self._resolved(index, named, None) if there else None

        try:
            found = self._index.ask(known)
        except NoStore:
            return None
        if found is not None:
            _note_withdrawn(named, found)
        return found

    def recall(self, reference: str, *, route: str | None = None) -> Version:
        """As `resolve`, by what this machine knows of the store, which is not asked: it was just now, or is away."""
        named = parse_reference(reference)
        return self._index.recall(lambda index: self._resolved(index, named, route))

    def known(self, question: Callable[[Index], T]) -> T:
        """What this machine's index answers, whatever was done since: the store is not asked, and may be away."""
        return self._index.recall(question)

    def _resolved(self, index: Index, reference: Reference, route: str | None) -> Version:
        return resolve(index, reference, self.url, route=route, is_trusted=self._contents.is_trusted)

    def expect_versions(self, name: str) -> list[Version]:
        """All versions of a name that are there; an error where there are none."""
        return expect_name(self.index(), check_name(name), self.url)

    def has(self, name: str) -> bool:
        """Whether there is such a name, under which a version may be; of a store that was never made nothing is."""
        return self.exists() and self.index().last_number(name) > 0

    def exists(self) -> bool:
        """Whether there is a store at all; Damaged where one has lost its beginning."""
        return self._ledger.exists()

    def count(self) -> tuple[int, int]:
        """How many names there are, and how many versions; none where there is no store."""
        try:
            return self._index.ask(Index.count)
        except NoStore:
            return 0, 0

    def manifest(self, version: Version) -> Manifest:
        """The manifest of a version, checked against its digest, its signature and whom this store's user trusts."""
        return self._contents.manifest(version)

    def is_name_signed(self, version: Version) -> bool:
        """Whether somebody has signed a version under its name and number, and not its content alone."""
        return self._contents.is_name_signed(version)

    def files(self, version: Version) -> dict[str, bytes]:
        """The files of a version, each checked against its digest."""
        return self._contents.files(self.manifest(version))

    def file(self, version: Version, path: str) -> bytes | None:
        """One of them; None where the version has no such file."""
        manifest = self.manifest(version)
        if path not in manifest.files:
            return None
        return self._contents.files(replace(manifest, files={path: manifest.files[path]}))[path]

    def pull(self, version: Version, directory: Path | None = None, *, overwrite: bool = False) -> Path:
        """The files of a version as a directory, whole or not at all: a new one, or one that this machine keeps for all."""
        manifest = self.manifest(version)
        if directory is None:
            kept = self.copies.find(version.digest, manifest)
            return kept if kept is not None else self.copies.keep(version.digest, self._contents.files(manifest))
        files = self._contents.files(manifest)
        with disk.new_directory(directory, overwrite, tuple(files)) as draft:
            write_files(draft, files)
        return directory

    def pull_all(self, references: Sequence[str], *, route: str | None = None) -> list[Path]:
        """As `pull`, the directories that this machine keeps of the versions that texts refer to, several fetched at once."""
        with ThreadPoolExecutor(_PULLED_AT_ONCE) as pool:
            return list(pool.map(self.pull, self.resolve_all(references, route=route)))

    def verify(self, versions: Sequence[Version] | None = None) -> list[Damage]:
        """What is wrong with some versions, or with all: a manifest, a signature or a blob that is not what it says.

        Raises Damaged where all are asked about and the ledger is not whole.
        """
        if versions is None:
            self._ledger.check()
        checked = self._index.ask(Index.all_there) if versions is None else versions
        problems = ((version, self._contents.problem(version)) for version in checked)
        return [Damage(version, problem) for version, problem in problems if problem is not None]

    def scores(self, task: str, *, metric: str | None = None, data: str | None = None) -> list[Score]:
        """Every measurement on a task."""
        return self._index.ask(lambda index: index.scores(task, metric, data))


def _is_same(there: Version, manifest: Manifest, signer: Signer | None, expires: Moment | None) -> bool:
    """Whether a version is what is to be pushed, and signed and ending as is asked for."""
    signed = signer is None or there.signer == signer.key
    return there.digest == manifest.digest and signed and there.expires == expires


def _note_withdrawn(reference: Reference, version: Version) -> None:
    if version.yanked is not None and reference.digest is None:
        note(f"{version} was withdrawn: {version.yanked}")


def _refuse_withdrawn(index: Index, name: str, manifest: Manifest) -> None:
    """An error where the last version of a name that is this very one was withdrawn: its reason still holds."""
    same = [one for one in index.of_digest(manifest.digest) if one.name == name]
    if same and same[-1].yanked is not None:
        raise GraftaxError(
            f"{same[-1]} is the same and was withdrawn: {same[-1].yanked}. Take that back (hub yank {same[-1]} --undo), or "
            "give the number of the version that it is to be (--version)."
        )
