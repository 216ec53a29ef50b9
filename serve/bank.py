"""A bank: many adapters resident on the device, stacked so that each row of a batch can pick its own.

Leaves are `[layer, slot, ...]` (or `[slot, ...]` outside the layers). Slot 0 changes nothing: rows without an adapter use it.
A slot holds what its methods' `prepare` makes of an adapter's leaves, so that no batch computes that again. Loading an adapter
writes one slot in place; nothing is compiled unless the bank must grow: a method or site it has not seen, a rank beyond its
bucket (powers of two from 8), more adapters than slots (doubled each time).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..adapters.adapter import Adapter, Layout
from ..adapters.graft import State, prepared
from ..adapters.sites import stack_of
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
        self._frozen: dict[str, Any] = {}  # weights of the sites in the layout
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
        if not isinstance(name, str) or not name:
            raise GraftaxError(f"an adapter is loaded under a name, a text that is not empty; got {name!r}.")
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
            self._write(self._slots[name], adapter)

    def remove(self, name: str) -> None:
        """Forget an adapter; its slot is free, and what it holds is read by no row."""
        self._free.append(self.slot(name))
        del self._slots[name], self.adapters[name]

    def _rebuild(self) -> None:
        """Build every leaf anew, at the present layout and capacity."""
        self._frozen = {slot.name: self.backbone.frozen_at(self.backbone.params, slot.name) for slot in self.layout.slots}
        shapes = jax.eval_shape(prepared, self.layout.stack(None, self.backbone.sites).state, self._frozen)

        def room(name: str, leaf: Any) -> jax.Array:
            axis = 1 if stack_of(name) else 0
            return jnp.zeros((*leaf.shape[:axis], self._capacity, *leaf.shape[axis:]), leaf.dtype)

        self.state = {name: jax.tree.map(partial(room, name), tree) for name, tree in shapes.items()}
        self._write(0, None)
        for name, adapter in self.adapters.items():
            self._write(self._slots[name], adapter)
        self.growths += 1

    def _write(self, slot: int, adapter: Adapter | None) -> None:
        one = self.layout.stack(adapter, self.backbone.sites).state
        self.state = self._put(self.state, np.int32(slot), one, self._frozen)


def _put(state: State, slot: jax.Array, one: State, frozen: dict[str, Any]) -> State:
    def put(name: str, leaf: jax.Array, own: jax.Array) -> jax.Array:
        return leaf.at[:, slot].set(own) if stack_of(name) else leaf.at[slot].set(own)

    ready = prepared(one, frozen)
    return {name: jax.tree.map(partial(put, name), tree, ready[name]) for name, tree in state.items()}
