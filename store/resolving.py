"""What a reference means in a store as it is now, and what is said where it means nothing."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping

from ..errors import GraftaxError
from .index import Index
from .names import LATEST, Reference
from .query import Query
from .version import Version


def resolve(
    index: Index, reference: Reference, url: str, *, route: str | None, is_trusted: Callable[[Version], bool]
) -> Version:
    """The version that a reference means in the store at a URL.

    Of several of one digest it is the last that is trusted. `route` says whose part of a shared tag's traffic this is; without
    it one is drawn. Raises GraftaxError, which says what there is instead, where there is none.
    """
    name = reference.name
    if reference.digest is not None:
        found = [one for one in index.of_digest(reference.digest) if name in (None, one.name)]
        if len({one.digest for one in found}) > 1:
            raise GraftaxError(f"{reference}: {len(found)} versions on {url} have a digest that begins so.")
        if not found:
            raise GraftaxError(f"{reference}: no version on {url} has this digest.")
        return next(filter(is_trusted, reversed(found)), found[-1])
    assert name is not None
    if reference.version is not None:
        return expect(index, name, reference.version, url)
    if reference.tag is not None:
        shares = index.tags(name).get(reference.tag)
        if shares:
            kept = {one: share for one, share in shares.items() if expect(index, name, one).yanked is None}
            shares = kept or shares  # what is withdrawn is passed over as long as there is another
            return expect(index, name, _drawn(shares, f"{name}:{reference.tag}", route), url)
        expect_name(index, name, url)
        tags = ", ".join([LATEST, *index.tags(name)])
        raise GraftaxError(f"{name} on {url} has no tag {reference.tag}; it has {tags}.")
    if (newest := index.newest(name)) is not None:
        return newest
    versions = expect_name(index, name, url)
    raise GraftaxError(f"{name} on {url}: every version was withdrawn; say which: {versions[-1]}.")


def expect(index: Index, name: str, version: int, url: str = "the hub") -> Version:
    """A version that is there; else an error that says which are."""
    if (found := index.version(name, version)) is not None:
        return found
    there = expect_name(index, name, url)
    raise GraftaxError(f"{name}:{version} is not on {url}; there are versions {', '.join(str(one.version) for one in there)}.")


def expect_name(index: Index, name: str, url: str) -> list[Version]:
    """The versions of a name; an error where there are none."""
    if not (there := index.versions(name)):
        near = [str(one.name) for one in index.search(Query(text=name), 3)]
        raise GraftaxError(f"{name} is not on {url}" + (f"; there is {', '.join(near)}." if near else "."))
    return there


def _drawn(shares: Mapping[int, float], what: str, route: str | None) -> int:
    """One of the versions, by their shares, whatever is the sum of these."""
    if len(shares) == 1:
        return next(iter(shares))
    if route is None:
        point = random.random()
    else:
        point = int.from_bytes(hashlib.sha256(f"{what}\0{route}".encode()).digest()[:7]) / (1 << 56)
    point *= sum(shares.values())
    for version, share in sorted(shares.items()):
        if point < share:
            return version
        point -= share
    return max(shares)
