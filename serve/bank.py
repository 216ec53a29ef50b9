"""A bank: many adapters resident on the device, in slots along one axis, so that each batch row can pick its own.

Leaves are `[layer, slot, ...]` (or `[slot, ...]` outside the layers). Slot 0 changes nothing: batch rows without an adapter
use it. A slot holds what its methods' `prepare` makes of an adapter's leaves, so that no batch computes that again. Loading an
adapter writes one slot in place; nothing is compiled unless the bank must grow: a method or site it has not seen, a rank
beyond its bucket (powers of two from 8), more adapters than slots (doubled each time). One that may go can give up its slot.

For instance, of a backbone of two layers the adapters "law" and "medicine" lie in slots 1 and 2 of nine, so A is `[2, 9, 8,
32]`. A batch of three batch rows, for "medicine", no adapter and "law", is the batch with `slots = [2, 0, 1]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from ..adapters.adapter import Adapter, Layout
from ..adapters.fitting import refuse_unfit
from ..adapters.graft import State, prepared
from ..adapters.methods.method_registry import method_of
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.tensor_parallel import of_adapter
from ..typed import Name, Some, held, shown
from .handles import Handle

Key = str | Handle  # what an adapter is asked for by


class Bank:
    """Adapters by name or handle. `state` is the tree that `Backbone.forward` takes together with `slots`."""

    @held
    def __init__(self, backbone: Backbone, capacity: Some = 8, *, apart: bool = False):
        """`apart`: whether each bucket has leaves of its own (`Layout`), so that a batch can do without those beyond it."""
        self.backbone = backbone
        self.adapters: dict[Key, Adapter] = {}
        self._slots: dict[Key, int] = {}
        self._buckets: dict[Key, int] = {}  # of each the largest (`Layout.largest`)
        self._capacity = capacity  # slots; 0 is "no adapter"
        self.layout = Layout(apart=apart)
        self.state: State = {}
        self.growths = 0  # how often the shape changed: each means compiling what is called next
        self._put = jax.jit(partial(_put, backbone), donate_argnums=0)

    def __len__(self) -> int:
        return len(self.adapters)

    @property
    def is_full(self) -> bool:
        """Whether one more adapter would have to grow the bank."""
        return len(self) + 1 >= self._capacity

    def slot(self, name: Key | None) -> int:
        """The slot of an adapter; 0, which changes nothing, for None. GraftaxError where there is no such adapter."""
        if name is None:
            return 0
        if not isinstance(name, Key) or name not in self._slots:
            loaded = ", ".join(map(str, self._slots)) or "none"
            raise GraftaxError(f"no adapter named {shown(name)} is loaded; loaded are {loaded}.")
        return self._slots[name]

    def state_for(self, adapters: Iterable[Key]) -> State:
        """`state` for a batch that uses these adapters alone: without what lies apart in larger buckets than theirs.

        It has as many shapes as there are buckets, for each of which a program is compiled.
        """
        smallest = self.layout.buckets[:1]  # which is always there: a program for nobody at all would be one more
        return self.layout.within(self.state, max((*smallest, *(self._buckets[name] for name in adapters)), default=0))

    def kinds(self) -> list[State]:
        """What `state_for` may give: a state for each bucket."""
        return [self.layout.within(self.state, bucket) for bucket in self.layout.buckets or (0,)]

    @held
    def add(self, name: Name, adapter: Adapter, *, any_backbone: bool = False) -> None:
        """Make an adapter resident; one of the same name is replaced. Where that fails, the bank is as it was.

        Raises GraftaxError for an adapter that is not this backbone's (`adapters/fitting.py`).
        """
        refuse_unfit(adapter, self.backbone, any_backbone=any_backbone, name=name)
        self.put(name, adapter)

    def put(self, name: Key, adapter: Adapter, *, instead_of: Key | None = None) -> None:
        """As `add`, of an adapter that was checked for this backbone before, as what `adapter_for` gives was.

        `instead_of`: one that is resident; the new one has its slot, and it is forgotten.
        """
        layout = Layout.of([adapter], self.backbone.sites, grow=self.layout, bucket=True)
        slots, adapters, buckets = dict(self._slots), {**self.adapters, name: adapter}, dict(self._buckets)
        if instead_of is not None:
            del adapters[instead_of], buckets[instead_of]
            slots[name] = slots.pop(instead_of)
        elif name not in slots:
            slots[name] = self._unused()
        capacity = self._capacity if slots[name] < self._capacity else 2 * self._capacity
        grows = (layout, capacity) != (self.layout, self._capacity)
        if grows:
            held = {slots[name]: adapter for name, adapter in adapters.items()}
            state = self._built(layout, capacity, held)
        else:
            state = self._written(slots[name], adapter)
        buckets[name] = layout.largest(adapter)
        self.layout, self._capacity, self._slots, self.adapters, self._buckets = layout, capacity, slots, adapters, buckets
        self.state, self.growths = state, self.growths + grows

    def reserve(self, adapters: Iterable[Adapter]) -> None:
        """Grow once, such that each of these, and whatever has methods, sites and buckets of theirs, needs no growth."""
        layout = Layout.of(adapters, self.backbone.sites, grow=self.layout, bucket=True)
        if layout != self.layout:
            held = {self._slots[name]: adapter for name, adapter in self.adapters.items()}
            self.state = self._built(layout, self._capacity, held)
            self.layout, self.growths = layout, self.growths + 1

    @held
    def remove(self, name: Key) -> None:
        """Forget an adapter; its slot is free, and what it holds is read by no batch row."""
        self.slot(name)
        self._slots = {other: slot for other, slot in self._slots.items() if other != name}
        self.adapters = {other: adapter for other, adapter in self.adapters.items() if other != name}
        self._buckets = {other: bucket for other, bucket in self._buckets.items() if other != name}

    def _unused(self) -> int:
        """The first free slot, which lies beyond the capacity where none is."""
        used = {*self._slots.values()}
        return next(slot for slot in range(1, self._capacity + 1) if slot not in used)

    def _built(self, layout: Layout, capacity: int, held: Mapping[int, Adapter]) -> State:
        """The leaves of all slots of a layout, made anew; `held`: the adapter in each slot."""
        nothing = layout.stack(None, self.backbone.sites).state
        shapes = shapes_of_slots(self.backbone, layout, capacity)
        state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding), shapes)
        state = self._put(state, np.int32(0), nothing, self.backbone.params)
        for slot, adapter in held.items():
            own = layout.stack(adapter, self.backbone.sites).state
            state = self._put(state, np.int32(slot), own, self.backbone.params)
        return state

    def _written(self, slot: int, adapter: Adapter) -> State:
        """The leaves with one slot written in place. If that fails when they are given away already, they are made again."""
        one = self.layout.stack(adapter, self.backbone.sites).state
        try:
            return self._put(self.state, np.int32(slot), one, self.backbone.params)
        except BaseException:
            if any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state)):
                held = {self._slots[name]: adapter for name, adapter in self.adapters.items()}
                self.state = self._built(self.layout, self._capacity, held)
            raise


def shapes_of_slots(backbone: Backbone, layout: Layout, capacity: int) -> State:
    """The shapes of the leaves of so many slots of a layout."""
    nothing = layout.stack(None, backbone.sites).state

    def room(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
        axis = 1 if backbone.structure.stacked(name) else 0
        return jax.ShapeDtypeStruct((*leaf.shape[:axis], capacity, *leaf.shape[axis:]), leaf.dtype)

    of_one = jax.eval_shape(partial(_ready, backbone), nothing, backbone.params)
    shapes = {name: jax.tree.map(partial(room, name), tree) for name, tree in of_one.items()}
    return _placed(backbone, shapes, lambda leaf, there: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there))


def _placed(backbone: Backbone, state: State, put: Callable[[Any, NamedSharding], Any]) -> State:
    """The leaves of all slots, each put where it belongs where devices share the backbone's weights."""
    if (mesh := backbone.mesh) is None:
        return state
    roles = {name: site.role for name, site in backbone.structure.named.items()}

    def put_leaf(name: str, key: str, leaf: str, array: Any) -> Any:
        return put(array, of_adapter(mesh, roles[name], method_of(key).axes.get(leaf, ()), array.shape))

    return {
        name: {
            key: {leaf: put_leaf(name, key, leaf, array) for leaf, array in leaves.items()} for key, leaves in methods.items()
        }
        for name, methods in state.items()
    }


def _ready(backbone: Backbone, one: State, params: Any) -> State:
    """What a slot holds of an adapter."""
    return prepared(one, {name: backbone.frozen_at(params, name) for name in one}, backbone.structure)


def _put(backbone: Backbone, state: State, slot: jax.Array, one: State, params: Any) -> State:
    """The leaves of all slots with those of one adapter written into its slot; jitted."""

    def put(name: str, leaf: jax.Array, own: jax.Array) -> jax.Array:
        return leaf.at[:, slot].set(own) if backbone.structure.stacked(name) else leaf.at[slot].set(own)

    ready = _ready(backbone, one, params)
    written = {name: jax.tree.map(partial(put, name), tree, ready[name]) for name, tree in state.items()}
    return _placed(backbone, written, jax.lax.with_sharding_constraint)
