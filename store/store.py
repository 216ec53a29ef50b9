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
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from .. import disk
from ..errors import GraftaxError
from ..notes import note
from .blobs import Blob, all_blobs, get_blobs, put_blob
from .damage import Damaged, Untrusted
from .events import Begun, Collected, Evaluated, Event, Measure, Moment, Pointed, Pushed, Removed, Signature, Yanked, now
from .index import Index
from .ledger import Ledger, OtherLedger
from .manifest import File, Manifest, parse_manifest
from .names import check_name, check_tag, parse_reference
from .places import cache_folder, default_store, objects_at
from .query import Query
from .resolving import expect, expect_name, resolve
from .signing import check_signature, refuse_untrusted, sign, trusted_keys
from .snapshots import EVERY, begin, lay, write_snapshot
from .tables import COPY, LAYOUT, in_one_line, is_damage
from .version import Score, Version

T = TypeVar("T")
E = TypeVar("E", bound=Event)
_AT_ONCE = 2000  # events held in memory while an index is brought up to date
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
        self._cache = cache_folder(self.url)
        named = trusted or os.environ.get("GRAFTAX_HUB_TRUSTED")
        self._trusted = trusted_keys(Path(named)) if named else None
        self._file = self._cache / f"index-{LAYOUT}.sqlite"
        self._of_thread = threading.local()  # a connection of SQLite's has one transaction at a time

    # -- the index -------------------------------------------------------------------------------------------------------

    def index(self) -> Index:
        """The index, with everything in it that the ledger has now; GraftaxError where there is no store."""
        return self._asked(lambda index: index)

    def _asked(self, question: Callable[[Index], T]) -> T:
        """What the index of a store that is there answers, brought up to date."""

        def asked_of_a_store(index: Index) -> T:
            if index.position()[0] == 0:
                raise GraftaxError(f"there is no hub at {self.url}; the first push into an empty place makes one.")
            return question(index)

        return self._sound(asked_of_a_store)

    def _sound(self, question: Callable[[Index], T]) -> T:
        """What the index, brought up to date, answers; a file that is damaged is made anew."""
        with in_one_line(self._file):
            try:
                return question(self._updated())
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
            for file in self._cache.glob(f"{self._file.name}*"):  # with what SQLite keeps beside it
                file.unlink(missing_ok=True)
            self._of_thread.index = Index(self._file)  # which is empty: it was perhaps a snapshot that was damaged
            return question(self._updated())

    def _updated(self) -> Index:
        index = self._opened()
        if index.position()[0] == 0:
            begin(index, self.objects, self._ledger)
        try:
            self._read_on(index)
        except OtherLedger:
            begin(index, self.objects, self._ledger)
            self._read_on(index)
        if not index.is_in_time():
            with index.writing():
                index.keep_time()
        return index

    def _opened(self) -> Index:
        """This thread's connection to the index on this machine."""
        index: Index | None = getattr(self._of_thread, "index", None)
        if index is None or not index.is_in_place():
            self._make_cache()
            if not self._file.exists():
                lay(self._file, self.objects)
            self._of_thread.index = index = Index(self._file)
        return index

    def _make_cache(self) -> None:
        try:
            disk.make_directory(self._cache)
        except GraftaxError as error:
            raise GraftaxError(f"{error} {COPY}") from error

    def _read_on(self, index: Index) -> None:
        """Apply the events that the index does not have yet."""
        while True:
            number, digest = index.position()
            some = list(islice(self._ledger.after(number, digest), _AT_ONCE))
            if not some:
                return
            with index.writing():
                if index.position() == (number, digest):  # else another thread or process was here
                    index.apply(some)

    # -- changes ---------------------------------------------------------------------------------------------------------

    def _add(self, next_event: Callable[[Index], E | None], *, begins: bool = False) -> E | None:
        """Add the event that makes sense as things are, and return it; None: there is nothing to be done.

        `next_event` is asked again, with the index as it is then, whenever another writer was quicker. Where there is no store
        one is made if the event `begins` it.
        """
        pause = 0.01
        while True:
            index = self._sound(lambda index: index) if begins else self.index()
            number, digest = index.position()
            if number == 0:
                self._begin()
                continue
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
        signature = sign(manifest.digest, key_file) if key_file else None
        put: set[tuple[str, int]] = set()
        there: Version | None = None

        def next_event(index: Index) -> Pushed | None:
            nonlocal there
            there = index.newest(name) if version is None else index.version(name, version)
            if there is not None and _is_same(there, manifest, signature, expires):
                return None
            if version is None:
                _refuse_withdrawn(index, name, manifest)
            last = index.last_number(name)
            wanted = last + 1 if version is None else version
            if 0 < wanted <= last:
                raise GraftaxError(f"{name}:{wanted} is there already, or was; the next is {name}:{last + 1}.")
            event = Pushed(name, wanted, manifest.digest, manifest.text(), signature, expires, tuple(tags))
            for path, digest in digests.items():
                where = (digest, index.times_given_up(digest))
                if where not in put:
                    put_blob(self.objects, *where, contents[path])
                    put.add(where)
            return event

        if (added := self._add(next_event, begins=True)) is not None:
            there = self._asked(lambda index: index.version(name, added.version, gone_too=True))
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
        return self._asked(lambda index: index.search(query, limit))

    def resolve(self, reference: str, *, route: str | None = None) -> Version:
        """The version that a text refers to (names.py).

        Args:
            reference: such as "bank/intent:prod".
            route: of whom or what it is asked, where a tag shares its traffic: the same always comes to the same version.
                Without it each call is drawn.

        Raises:
            GraftaxError: there is no such version; what there is instead is said.
        """
        named = parse_reference(reference)
        found = self._asked(lambda index: resolve(index, named, self.url, route=route, is_trusted=self._is_trusted))
        if found.yanked is not None and named.digest is None:
            note(f"{found} was withdrawn: {found.yanked}")
        return found

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
        return self._sound(Index.count)

    def manifest(self, version: Version) -> Manifest:
        """The manifest of a version, checked against its digest, its signature and whom this store's user trusts."""
        return self._pushed(version)[0]

    def _is_trusted(self, version: Version) -> bool:
        """Whether a version is one that may be taken, as far as its manifest and signature go."""
        if self._trusted is None:
            return True
        try:
            self.manifest(version)
        except (Damaged, Untrusted):
            return False
        return True

    def _pushed(self, version: Version) -> tuple[Manifest, Signature | None]:
        event = self._ledger.read(version.event)
        if not isinstance(event, Pushed) or (event.name, event.version) != (version.name, version.version):
            raise Damaged(f"{version}: the ledger of {self.url} has something else in this place.")
        if hashlib.sha256(event.manifest.encode()).hexdigest() != version.digest:
            raise Damaged(f"{version}: its manifest is damaged: it has another digest.")
        manifest = parse_manifest(event.manifest, str(version))
        if event.signature is not None:
            check_signature(event.signature, version.digest, str(version))
        if self._trusted is not None:
            refuse_untrusted(event.signature, self._trusted, str(version))
        return manifest, event.signature

    def files(self, version: Version) -> dict[str, bytes]:
        """The files of a version, each checked against its digest."""
        manifest = self.manifest(version)
        with in_one_line(self._file):
            index = self._opened()  # as it is: no blob of a version is given up as long as that is there
            wanted = [(file.sha256, index.times_given_up(file.sha256)) for file in manifest.files.values()]
        return dict(zip(manifest.files, get_blobs(self.objects, wanted), strict=True))

    def pull(self, version: Version, directory: Path | None = None, *, overwrite: bool = False) -> Path:
        """The files of a version as a directory, whole or not at all: a new one, or one that this machine keeps for all."""
        kept = self._cache.parent / "versions" / version.digest
        target = directory if directory is not None else kept
        if directory is None and _is_whole(kept, manifest := self.manifest(version)):
            return kept
        files = self.files(version)
        try:
            with disk.new_directory(target, overwrite or directory is None, () if directory is None else tuple(files)) as draft:
                for path, content in files.items():
                    (draft / path).parent.mkdir(parents=True, exist_ok=True)
                    (draft / path).write_bytes(content)
        except GraftaxError:
            if directory is not None or not _is_whole(kept, manifest):  # else another process has pulled the same
                raise
        return target

    def verify(self, versions: Sequence[Version] | None = None) -> list[Damage]:
        """What is wrong with some versions, or with all: a manifest, a signature or a blob that is not what it says.

        Raises Damaged where all are asked about and the ledger is not whole.
        """
        if versions is None:
            self._ledger.check()
        found = []
        for version in self._asked(Index.all_there) if versions is None else versions:
            try:
                self.files(version)
            except (Damaged, Untrusted) as error:
                found.append(Damage(version, str(error)))
        return found

    def scores(self, task: str, *, metric: str | None = None, data: str | None = None) -> list[Score]:
        """Every measurement on a task."""
        return self._asked(lambda index: index.scores(task, metric, data))


def _is_same(there: Version, manifest: Manifest, signature: Signature | None, expires: Moment | None) -> bool:
    """Whether a version is what is to be pushed, and signed and ending as is asked for."""
    signed = signature is None or there.signer == signature.key
    return there.digest == manifest.digest and signed and there.expires == expires


def _refuse_withdrawn(index: Index, name: str, manifest: Manifest) -> None:
    """An error where the last version of a name that is this very one was withdrawn: its reason still holds."""
    same = [one for one in index.of_digest(manifest.digest) if one.name == name]
    if same and same[-1].yanked is not None:
        raise GraftaxError(
            f"{same[-1]} is the same and was withdrawn: {same[-1].yanked}. Take that back (hub yank {same[-1]} --undo), or "
            "give the number of the version that it is to be (--version)."
        )


def _is_whole(directory: Path, manifest: Manifest) -> bool:
    """Whether the files of a manifest are in a directory, and what they were."""
    for path, file in manifest.files.items():
        try:
            if hashlib.sha256((directory / path).read_bytes()).hexdigest() != file.sha256:
                return False
        except OSError:
            return False
    return True
