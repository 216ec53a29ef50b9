"""What is in a bank's slots, and a source of adapters that is slow or fails when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from graftax import Adapter, GraftaxError
from graftax.models.backbone import Backbone
from graftax.serve.bank import Bank, Key
from graftax.serve.handles import Handle, digest_of
from graftax.serve.residents import Residents


def slot_of(bank: Bank, key: Key) -> dict[str, Any]:
    """What the bank holds of one adapter, by site."""
    slot, stacked = bank.slot(key), bank.backbone.structure.stacked
    return {
        site: jax.tree.map(lambda leaf, site=site: np.asarray(leaf[:, slot] if stacked(site) else leaf[slot]), leaves)
        for site, leaves in bank.state.items()
    }


def expected_slots(backbone: Backbone, adapters: Mapping[str, Adapter]) -> dict[str, dict[str, Any]]:
    """By digest, what a slot holds of each adapter, in a bank whose layout is that of all of them."""
    bank = Bank(backbone, capacity=len(adapters) + 1, apart=True)
    for name, adapter in adapters.items():
        bank.add(name, adapter)
    return {digest_of(adapter): slot_of(bank, name) for name, adapter in adapters.items()}


def assert_in_its_slot(residents: Residents, handle: Handle, expected: Mapping[str, dict[str, Any]]) -> None:
    """The slot of a handle holds its own adapter, to the last bit."""
    jax.tree.map(np.testing.assert_array_equal, slot_of(residents.bank, handle), expected[handle.digest])


class Elsewhere:
    """A source of adapters by name, as version 1 of each.

    While it is `open`, what is read is there at once; else who reads waits until it is. A name in `broken` cannot be read.
    """

    def __init__(self, adapters: Mapping[str, Adapter]):
        self.adapters = adapters
        self._digests = {name: digest_of(adapter) for name, adapter in adapters.items()}
        self.open = threading.Event()
        self.open.set()
        self.broken: set[str] = set()
        self.reads: list[str] = []

    def resolve(self, name: str, route: str | None = None) -> Handle:
        if name not in self.adapters:
            raise GraftaxError(f"{name} is not elsewhere.")
        return Handle(name, 1, self._digests[name], lambda: self._read(name))

    def _read(self, name: str) -> Adapter:
        self.reads.append(name)
        assert self.open.wait(20)
        if name in self.broken:
            raise OSError(f"the disk of\n{name} is gone")
        return self.adapters[name]


def settled(residents: Residents) -> None:
    """Return when nothing is being read any more."""
    while reading := residents.tiers().reading:
        for handle in reading:
            try:
                residents.adapter(handle)
            except GraftaxError:
                continue
