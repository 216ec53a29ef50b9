"""A bank: many adapters resident on the device, stacked so that each row of a batch can pick its own.

Leaves are `[layer, slot, ...]` (or `[slot, ...]` outside the layers). Slot 0 changes nothing: rows without an adapter use it.
Loading an adapter writes one slot in place; nothing is compiled unless the bank must grow: a method or site it has not seen, a
rank beyond its bucket (powers of two from 8), more adapters than slots (doubled each time).
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ..adapters.adapter import Adapter, Layout
from ..adapters.graft import STACK, State
from ..errors import GraftaxError
from ..models.backbone import Backbone


class Bank:
    """Adapters by name. `state` is the tree that `Backbone.forward` takes together with `slots`."""

    def __init__(self, backbone: Backbone, capacity: int = 8):
        self.backbone = backbone
        self.adapters: dict[str, Adapter] = {}
        self._slots: dict[str, int] = {}
        self._free = list(range(capacity - 1, 0, -1))  # slot 0 is "no adapter"
        self._capacity = capacity
        self.layout = Layout((), 0)
        self.state: State = {}
        self.growths = 0  # how often the shape changed: each means compiling what is called next
        self._put = jax.jit(_put, donate_argnums=0)

    def __len__(self) -> int:
        return len(self.adapters)

    def slot(self, name: str | None) -> int:
        if name is None:
            return 0
        if name not in self._slots:
            raise GraftaxError(f"no adapter named {name!r} is loaded; loaded are {', '.join(self._slots) or 'none'}.")
        return self._slots[name]

    def add(self, name: str, adapter: Adapter) -> None:
        """Make an adapter resident; one of the same name is replaced."""
        layout = Layout.of([adapter], self.backbone.sites, grow=self.layout, bucket=True)
        known = name in self._slots
        if not known and not self._free:
            self._free = list(range(2 * self._capacity - 1, self._capacity - 1, -1))
            self._capacity *= 2
            layout_changed = True
        else:
            layout_changed = layout != self.layout
        if not known:
            self._slots[name] = self._free.pop()
        self.adapters[name] = adapter
        if layout_changed:
            self.layout = layout
            self._rebuild()
        else:
            one = self.layout.stack(adapter, self.backbone.sites).state
            self.state = self._put(self.state, np.int32(self._slots[name]), one)

    def remove(self, name: str) -> None:
        """Forget an adapter; its slot is free, and what it holds is read by no row."""
        self._free.append(self.slot(name))
        del self._slots[name], self.adapters[name]

    def _rebuild(self) -> None:
        """Build every leaf anew on the host, at the present layout and capacity."""
        sites = self.backbone.sites
        blank = self.layout.stack(None, sites).state

        def room(name: str, leaf: np.ndarray) -> np.ndarray:
            leaf = np.asarray(leaf)
            axis = 1 if name.startswith(STACK) else 0
            return np.repeat(np.expand_dims(leaf, axis), self._capacity, axis=axis)

        state: Any = {name: jax.tree.map(lambda leaf, n=name: room(n, leaf), tree) for name, tree in blank.items()}
        for adapter_name, adapter in self.adapters.items():
            slot, one = self._slots[adapter_name], self.layout.stack(adapter, sites).state
            for name, tree in state.items():
                at = (slice(None), slot) if name.startswith(STACK) else (slot,)
                jax.tree.map(lambda leaf, own, at=at: leaf.__setitem__(at, own), tree, one[name])
        self.state = jax.device_put(state)
        self.growths += 1


def _put(state: State, slot: jax.Array, one: State) -> State:
    return {
        name: jax.tree.map(
            lambda leaf, own, n=name: leaf.at[:, slot].set(own) if n.startswith(STACK) else leaf.at[slot].set(own),
            tree,
            one[name],
        )
        for name, tree in state.items()
    }
