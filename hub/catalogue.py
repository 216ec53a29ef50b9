"""What is on a hub: found, shown, taken, tagged, withdrawn and removed.

This is the part of a hub that needs no adapter, and so neither JAX nor a backbone: a command that asks it a question answers
at once. `hub.py` has the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from ..errors import GraftaxError
from ..notes import note
from ..shown import Shown
from ..store.copies import Forgotten
from ..store.names import check_name, parse_reference
from ..store.query import Query
from ..store.store import Damage, Garbage, Store
from ..store.version import Version
from ..typed import Location, Name, Positive, Some, held
from .leaderboard import Leaderboard, leaderboard
from .page import page_of


class Catalogue(Shown):
    """The versions on the hub at a URL; `url` and `trusted` as of `Hub`."""

    @held
    def __init__(self, url: Location | None = None, *, trusted: Location | None = None):
        self.store = Store(url, trusted=None if trusted is None else Path(trusted))

    def facts(self) -> Mapping[str, object]:
        names, versions = self.store.count()
        return {"url": self.store.url, "adapters": names, "versions": versions}

    @held
    def pull(
        self, reference: Name, directory: Location | None = None, *, overwrite: bool = False, route: str | None = None
    ) -> Path:
        """An adapter's directory: a new one, or without `directory` one that this machine keeps for every process.

        Every file is checked against its digest, and the manifest against its signature.

        Args:
            reference: a name, or name:3, name:tag, name@sha256:..., sha256:...
            directory: to be made.
            overwrite: replace the adapter that is there.
            route: where a tag shares its traffic, of whom it is asked: the same always gets the same version.
        """
        version = self.store.resolve(reference, route=route)
        if parse_reference(reference).tag is not None:  # which may be another tomorrow, or was drawn
            note(f"{reference} is {version}.")
        if directory is None:
            return self.store.pull(version)
        return self.store.pull(version, Path(directory), overwrite=overwrite)

    @held
    def pull_all(self, references: Sequence[Name], *, route: str | None = None) -> Sequence[Path]:
        """The directories of many adapters, each as of `pull` without a directory, in their order.

        Several are fetched at once, and what they refer to is asked once: so it is quicker than one `pull` after another.
        Raises GraftaxError for the first that is not there.
        """
        return self.store.pull_all(references, route=route)

    @held
    def list(self, prefix: str = "", *, limit: Some = 1000) -> Sequence[Version]:
        """The newest version of each name that begins so, by name."""
        if prefix:
            check_name(prefix.removesuffix("/"))
        return self.store.index().names(prefix, limit)

    @held
    def find(self, query: Query, *, limit: Some = 50) -> Sequence[Version]:
        """The versions of which all that a query says is true, the last pushed first; at most `limit`."""
        return self.store.search(query, limit)

    @held
    def versions(self, name: Name) -> Sequence[Version]:
        """All versions of a name, the newest last."""
        return self.store.index().versions(check_name(name))

    @held
    def resolve(self, reference: Name, *, route: str | None = None) -> Version:
        """The version that a text refers to; `route` as of `pull`."""
        return self.store.resolve(reference, route=route)

    @held
    def show(self, reference: Name) -> str:
        """A page about a version: what it is, what it fits, how it did, where it comes from."""
        return page_of(self.store, self._one(reference))

    @held
    def tag(self, name: Name, tag: Name, to: Some | Mapping[Some, Positive] | None) -> None:
        """Let a tag of a name point to a version, or to several by their shares ({3: 0.9, 4: 0.1}); None takes it away."""
        shares = {} if to is None else {to: 1.0} if isinstance(to, int) else to
        if to is not None and not shares:
            raise GraftaxError(f"{name}:{tag} is to point to no version; None takes a tag away.")
        self.store.point(name, tag, shares)

    @held
    def yank(self, reference: Name, reason: Name | None) -> Version:
        """Withdraw a version: its digest still leads to it, its number with a warning, its name and shared tags to others.

        `reason`: for who meets it; None takes it back.
        """
        version = self._one(reference)
        self.store.yank(version.name, version.version, reason)
        return version

    @held
    def remove(self, reference: Name, *, force: bool = False) -> Sequence[Version]:
        """Remove a version, or with a name alone all of them; what others refer to only if it is forced."""
        named = parse_reference(reference)
        alone = named.name is not None and named.version is named.tag is named.digest is None
        found = self.store.expect_versions(str(named.name)) if alone else [self._one(reference)]
        for version in found:
            self.store.remove(version.name, version.version, force=force)
        return found

    @held
    def verify(self, reference: Name | None = None) -> Sequence[Damage]:
        """What is wrong with a version, or with any: files, manifests and signatures are read and checked."""
        return self.store.verify(None if reference is None else [self._one(reference)])

    def collect(self) -> Garbage:
        """Delete what no version refers to any more."""
        return self.store.collect()

    @held
    def forget(self, unused_for: timedelta = timedelta(days=30)) -> Forgotten:
        """Delete this machine's copies of versions, of this hub and of others, that nobody asked for in so long a time.

        A copy is made by whatever reads an adapter by its name, and by `pull` without a directory; it is made again when it is
        asked for again.
        """
        return self.store.copies.forget(unused_for)

    @held
    def leaderboard(self, task: Name, *, metric: str | None = None, data: str | None = None) -> Leaderboard:
        """The versions ranked that were measured on the same rows of a task, with intervals.

        Args:
            task: its name.
            metric: by default the task's main one.
            data: the rows' name, or their sha256 or how it begins; by default those on which most versions were measured.
        """
        return leaderboard(self.store.scores(task), task, metric=metric, data=data)

    @held
    def parents(self, version: Version) -> dict[str, Version | None]:
        """What a version was made from: sha256 of each one's weights, and the first pushed that has them, where one does."""
        index = self.store.index()
        return {blob: next(iter(index.holding(blob)), None) for blob in version.parents}

    @held
    def children(self, version: Version) -> Sequence[Version]:
        """What was made from a version."""
        return self.store.index().children(version)

    def _one(self, reference: str) -> Version:
        """The version that a text refers to, where it can be no other: what is changed or compared is not drawn by lot."""
        named = parse_reference(reference)
        if named.name is not None and named.tag is not None:
            shares = self.store.index().tags(named.name).get(named.tag, {})
            if len(shares) > 1:
                raise GraftaxError(f"{reference} is shared by the versions {', '.join(map(str, sorted(shares)))}; say which.")
        return self.store.resolve(reference)
