"""A handle: an adapter that can be no other, whatever its name comes to mean.

A name may mean another adapter a moment later: one is loaded in its place, a tag of a hub is moved, a newer version is pushed.
So a name is resolved once, when a request arrives, and from then on the request has a handle. It says by its digest which
adapter that is, and knows how to read it, as long as somebody has the handle, even where nothing has that name any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields

import numpy as np

from ..adapters.adapter import Adapter


class Handle:
    """An adapter under a name. Those of one version on a hub are equal; of what was registered by hand each is like no other.

    Attributes:
        name: what it was asked for by.
        version: of a hub; None for what was registered by hand.
        read: reads the adapter, checked for the backbone, on the host; may take long, and may raise GraftaxError.
        retired: whether it has lost its name, so that nobody will ask for it who does not have it by now.
    """

    def __init__(self, name: str, version: int | None, digest: str | Callable[[], str], read: Callable[[], Adapter]):
        """`digest`: a version's own, or what computes it when somebody asks: it takes a fifth of the time of a swap."""
        self.name, self.version, self.read, self.retired = name, version, read, False
        self._digest = digest

    @property
    def digest(self) -> str:
        """64 hexadecimal digits: a version's own, else what `digest_of` makes of the adapter."""
        if not isinstance(self._digest, str):
            self._digest = self._digest()
        return self._digest

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Handle) and self.version is not None and self._fixed == other._fixed)

    def __hash__(self) -> int:
        return id(self) if self.version is None else hash(self._fixed)

    @property
    def _fixed(self) -> tuple[str, int | None, object]:
        return self.name, self.version, self._digest

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}:{self.version}"

    def __repr__(self) -> str:
        return f"Handle({self}@sha256:{self.digest[:8]})"


def digest_of(adapter: Adapter) -> str:
    """sha256 over all that an adapter's answers hang on: methods, arrays, task, labels and recipe.

    One in memory has the digest that it has when it was read from a file, of whatever format.
    """
    settings = {
        "methods": [[method.name, {f.name: getattr(method, f.name) for f in fields(method)}] for method in adapter.methods],
        "task": adapter.task,
        "labels": adapter.labels,
        "recipe": adapter.recipe,
    }
    leaves = {
        (method_key, site.name, site.path or "", leaf): array
        for method_key, states in adapter.states.items()
        for site, pair in states.items()
        for own in pair
        for leaf, array in own.items()
    }
    arrays = [np.ascontiguousarray(leaves[where]) for where in sorted(leaves)]
    shapes = [(*where, array.dtype.str, array.shape) for where, array in zip(sorted(leaves), arrays, strict=True)]
    digest = hashlib.sha256(json.dumps([settings, shapes], default=repr).encode())
    for array in arrays:
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
