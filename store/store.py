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
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from filelock import FileLock

from .. import disk
from ..errors import GraftaxError
from ..notes import note
from .blobs import all_blobs, get_blobs, put_blob
from .events import Begun, Collected, Evaluated, Event, Measure, Moment, Pointed, Pushed, Removed, Signature, Yanked
from .index import Index
from .ledger import Ledger
from .manifest import File, Manifest, parse_manifest
from .names import LATEST, Reference, check_name, check_tag, parse_reference
from .objects import objects_at
from .places import cache_folder, default_store
from .query import Query
from .signing import check_signature, refuse_untrusted, sign, trusted_keys
from .snapshots import EVERY, newest_snapshot, write_snapshot
from .tables import LAYOUT, in_one_line, layout_of
from .version import Score, Version

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
        self._index: Index | None = None

    # -- the index -------------------------------------------------------------------------------------------------------

    def index(self) -> Index:
        """The index, with everything in it that the ledger has now."""
        with in_one_line(self._file):
            index = self._open()
            number, digest = index.position()
            if number and self._ledger.digest(number) != digest:  # another store stands here now, or an older state of this one
                index = self._open(anew=True)
            events = self._ledger.after(*index.position())
            while some := list(islice(events, _AT_ONCE)):
                with index.writing():
                    number, _ = index.position()  # another process may have been here
                    index.apply(event for event in some if event[0] > number)
            if index.has_expired():
                with index.writing():
                    index.apply(())
            return index

    def _open(self, anew: bool = False) -> Index:
        """This process's connection to the index on this machine, which begins as the newest snapshot."""
        if self._index is not None and (anew or not self._file.exists()):
            self._index.close()
            self._index = None
        if self._index is None:
            disk.make_directory(self._cache)
            with FileLock(self._cache / "index.lock"):  # else two processes would begin the same file
                if anew or layout_of(self._file) != LAYOUT:
                    self._begin_index()
                self._index = Index(self._file)
        return self._index

    def _begin_index(self) -> None:
        for old in self._cache.glob(f"{self._file.name}*"):  # with what SQLite keeps beside it
            old.unlink(missing_ok=True)
        if (snapshot := newest_snapshot(self.objects)) is not None:
            disk.write_bytes(self._file, snapshot)

    # -- changes ---------------------------------------------------------------------------------------------------------

    def _add(self, next_event: Callable[[Index], Event | None]) -> None:
        """Add the event that makes sense as things are; None: there is nothing to be done.

        `next_event` is asked again, with the index as it is then, whenever another writer was quicker.
        """
        pause = 0.01
        while True:
            index = self.index()
            number, digest = index.position()
            if number == 0:
                self._begin()
                continue
            event = next_event(index)
            if event is None:
                return
            if self._ledger.append(event, number + 1, digest):
                if (number + 1) % EVERY == 0:
                    write_snapshot(self.index(), self.objects)
                return
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _begin(self) -> None:
        """Make a store, in a place where nothing is."""
        if not self._ledger.exists() and not self.objects.is_empty():
            raise GraftaxError(f"{self.url}: there is no hub here, and other things are; a hub begins in an empty place.")
        self._ledger.append(Begun(), 1, "")

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
            GraftaxError: the version is there already; a name or a tag that cannot be one; the store cannot be written to.
        """
        check_name(name)
        for tag in tags:
            check_tag(tag)
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
        manifest = replace(manifest, files={path: File(digest, len(contents[path])) for path, digest in digests.items()})
        signature = sign(manifest.digest, key_file) if key_file else None
        put: set[tuple[str, int]] = set()
        added = False

        def next_event(index: Index) -> Event | None:
            nonlocal added
            before, wanted = index.newest(name), version or index.last_number(name) + 1
            added = before is None or before.digest != manifest.digest or version not in (None, before.version)
            if not added:
                return None
            if wanted <= index.last_number(name):
                raise GraftaxError(
                    f"{name}:{wanted} is there already, or was; the next is {name}:{index.last_number(name) + 1}."
                )
            for path, digest in digests.items():
                where = (digest, index.times_given_up(digest))
                if where not in put:
                    put_blob(self.objects, *where, contents[path])
                    put.add(where)
            return Pushed(name, wanted, manifest.digest, manifest.text(), signature, expires)

        self._add(next_event)
        found = self.index().of_digest(manifest.digest)
        there = max((one for one in found if one.name == name), key=lambda one: one.version)
        for tag in tags:
            self.point(name, tag, {there.version: 1.0})
        return there, added

    def point(self, name: str, tag: str, shares: Mapping[int, float]) -> None:
        """Let a tag point to a version, or to several, each with its share of what comes; with none it is taken away."""
        check_name(name), check_tag(tag)

        def next_event(index: Index) -> Event | None:
            for version in shares:
                _expect(index, name, version)
            if not shares and tag not in index.tags(name):
                raise GraftaxError(f"{name} has no tag {tag}.")
            return Pointed(name, tag, {str(version): share for version, share in shares.items()})

        self._add(next_event)

    def yank(self, name: str, version: int, reason: str | None) -> None:
        """Withdraw a version: its name alone leads to others, and its number with a warning. No reason: take that back."""

        def next_event(index: Index) -> Event | None:
            _expect(index, name, version)
            return Yanked(name, version, reason)

        self._add(next_event)

    def remove(self, name: str, version: int, *, force: bool = False) -> None:
        """Remove a version; its files are deleted by the next collection.

        Raises GraftaxError where a tag points to it or another version was made from it, unless it is forced.
        """

        def next_event(index: Index) -> Event | None:
            there = _expect(index, name, version)
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
            _expect(index, version.name, version.version)
            return Evaluated(version.name, version.version, task, data, data_name, rows, metrics)

        self._add(next_event)

    def collect(self) -> Garbage:
        """Delete the blobs that no version refers to."""
        there = list(all_blobs(self.objects))
        deleted: list[str] = []

        def next_event(index: Index) -> Event | None:
            live = index.live_blobs()
            garbage = {digest for _, digest, times in there if digest not in live and times == index.times_given_up(digest)}
            deleted[:] = [key for key, digest, times in there if digest in garbage or times < index.times_given_up(digest)]
            return Collected(tuple(sorted(garbage))) if garbage else None

        if self._ledger.exists():
            self._add(next_event)
        sizes = [self.objects.size(key) or 0 for key in deleted]
        self.objects.delete(deleted)
        return Garbage(len(deleted), sum(sizes))

    # -- questions -------------------------------------------------------------------------------------------------------

    def search(self, query: Query, limit: int = 50) -> list[Version]:
        """The versions that a query finds, the last pushed first."""
        return self.index().search(query, limit)

    def resolve(self, reference: str, *, route: str | None = None) -> Version:
        """The version that a text refers to (names.py).

        Args:
            reference: such as "bank/intent:prod".
            route: of whom or what it is asked, where a tag shares its traffic: the same always comes to the same version.
                Without it each call is drawn.

        Raises:
            GraftaxError: there is no such version; what there is instead is said.
        """
        found = self._resolved(parse_reference(reference), route)
        if found.yanked is not None and parse_reference(reference).digest is None:
            note(f"{found} was withdrawn: {found.yanked}")
        return found

    def expect_versions(self, name: str) -> list[Version]:
        """All versions of a name that are there; an error where there are none."""
        return _expect_name(self.index(), check_name(name), self.url)

    def has(self, name: str) -> bool:
        """Whether there is such a name, under which a version may be; of a store that was never made nothing is."""
        return self.exists() and self.index().last_number(name) > 0

    def exists(self) -> bool:
        """Whether there is a store at all."""
        return self._ledger.exists()

    def _resolved(self, reference: Reference, route: str | None) -> Version:
        index, name = self.index(), reference.name
        if reference.digest is not None:
            found = [one for one in index.of_digest(reference.digest) if name in (None, one.name)]
            if len({one.digest for one in found}) > 1:
                raise GraftaxError(f"{reference}: {len(found)} versions on {self.url} have a digest that begins so.")
            if not found:
                raise GraftaxError(f"{reference}: no version on {self.url} has this digest.")
            return found[-1]
        assert name is not None
        if reference.version is not None:
            return _expect(index, name, reference.version, self.url)
        if reference.tag is not None:
            shares = index.tags(name).get(reference.tag)
            if shares:
                return _expect(index, name, _drawn(shares, f"{name}:{reference.tag}", route), self.url)
            _expect_name(index, name, self.url)
            tags = ", ".join([LATEST, *index.tags(name)])
            raise GraftaxError(f"{name} on {self.url} has no tag {reference.tag}; it has {tags}.")
        if (newest := index.newest(name)) is not None:
            return newest
        versions = _expect_name(index, name, self.url)
        raise GraftaxError(f"{name} on {self.url}: every version was withdrawn; say which: {versions[-1]}.")

    def manifest(self, version: Version) -> Manifest:
        """The manifest of a version, checked against its digest, its signature and whom this store's user trusts."""
        return self._pushed(version)[0]

    def _pushed(self, version: Version) -> tuple[Manifest, Signature | None]:
        event = self._ledger.read(version.event)
        if not isinstance(event, Pushed) or event.digest != version.digest:
            raise GraftaxError(f"{version}: the ledger of {self.url} has something else in this place.")
        manifest = parse_manifest(event.manifest, str(version))
        if hashlib.sha256(event.manifest.encode()).hexdigest() != version.digest:
            raise GraftaxError(f"{version}: its manifest is damaged: it has another digest.")
        if event.signature is not None:
            check_signature(event.signature, version.digest, str(version))
        if self._trusted is not None:
            refuse_untrusted(event.signature, self._trusted, str(version))
        return manifest, event.signature

    def files(self, version: Version) -> dict[str, bytes]:
        """The files of a version, each checked against its digest."""
        manifest, index = self.manifest(version), self.index()
        wanted = [(file.sha256, index.times_given_up(file.sha256)) for file in manifest.files.values()]
        return dict(zip(manifest.files, get_blobs(self.objects, wanted), strict=True))

    def pull(self, version: Version, directory: Path | None = None, *, overwrite: bool = False) -> Path:
        """The files of a version as a directory, whole or not at all: a new one, or one that this machine keeps for all."""
        kept = self._cache.parent / "versions" / version.digest
        target = directory if directory is not None else kept
        if directory is None and kept.is_dir():
            self.manifest(version)  # whom the user trusts may have changed
            return kept
        files = self.files(version)
        try:
            with disk.new_directory(target, overwrite, tuple(files)) as draft:
                for path, content in files.items():
                    (draft / path).parent.mkdir(parents=True, exist_ok=True)
                    (draft / path).write_bytes(content)
        except GraftaxError:
            if directory is not None or not kept.is_dir():  # else another process has pulled the same
                raise
        return target

    def verify(self, versions: Sequence[Version] | None = None) -> list[Damage]:
        """What is wrong with some versions, or with all: a manifest, a signature or a blob that is not what it says."""
        found = []
        for version in self.index().all_there() if versions is None else versions:
            try:
                self.files(version)
            except GraftaxError as error:
                found.append(Damage(version, str(error)))
        return found

    def scores(self, task: str, *, metric: str | None = None, data: str | None = None) -> list[Score]:
        """Every measurement on a task."""
        return self.index().scores(task, metric, data)


def _expect(index: Index, name: str, version: int, url: str = "the hub") -> Version:
    """A version that is there; else an error that says which are."""
    if (found := index.version(name, version)) is not None:
        return found
    there = _expect_name(index, name, url)
    raise GraftaxError(f"{name}:{version} is not on {url}; there are versions {', '.join(str(one.version) for one in there)}.")


def _expect_name(index: Index, name: str, url: str) -> list[Version]:
    """The versions of a name; an error where there are none."""
    if not (there := index.versions(name)):
        near = [str(one.name) for one in index.search(Query(text=name), 3)]
        raise GraftaxError(f"{name} is not on {url}" + (f"; there is {', '.join(near)}." if near else "."))
    return there


def _drawn(shares: Mapping[int, float], what: str, route: str | None) -> int:
    """One of the versions, by their shares."""
    if len(shares) == 1:
        return next(iter(shares))
    if route is None:
        point = random.random()
    else:
        point = int.from_bytes(hashlib.sha256(f"{what}\0{route}".encode()).digest()[:7]) / (1 << 56)
    for version, share in sorted(shares.items()):
        if point < share:
            return version
        point -= share
    return max(shares)
