"""The slots of a pack spread over devices, of this process or of several.

Every device has all frozen weights and as many slots as any other; what is computed of a slot is computed where it lies.
Slots know nothing of one another, so in a step nothing is exchanged. Four slots on four devices, two in each of two processes:

    process            0                       1
    device             0           1           2           3
    frozen weights     all         all         all         all
    learners           slot 0      slot 1      slot 2      slot 3

An array with a leading axis of slots is one array of the whole mesh, of which a process holds the parts on its own devices. All
processes ask for the same programs in the same order, since they take the same decisions: what of a slot a decision needs, its
loss or its leaves, is *brought* to every device first, bit by bit. That alone is exchanged, at the ends of epochs.

Where devices share the frozen weights by tensor parallelism (`models/tensor_parallel.py`), all of them compute every slot: to
the slots they are one device, and each has all learners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .. import processes
from ..models.sharded import DEVICES, Split, specs_of
from ..models.tensor_parallel import put
from ..models.unread import Unread


def devices_for(jobs: int, devices: int | None) -> int:
    """Over how many devices the slots for so many jobs are spread: as wanted, or over all accelerators; a CPU counts as one.

    Every process has as many of them.
    """
    if devices is not None:
        each = processes.of_each(devices)
    else:
        each = 1 if jax.default_backend() == "cpu" else jax.local_device_count()
    many = processes.count()
    return min(each, -(-jobs // many)) * many


@dataclass(frozen=True)
class Spread:
    """Of the slots of a pack over devices: a multiple of them."""

    slots: int
    devices: int
    #: where programs leave learners for the next: on all devices that share the frozen weights, which count as one; None: where
    #: they were
    kept: NamedSharding | None = None

    @property
    def here(self) -> int:
        """Slots of one device."""
        return self.slots // self.devices

    @property
    def alone(self) -> bool:
        """Whether there is but one device, and nothing is said of where an array lies."""
        return self.devices == 1

    @cached_property
    def mesh(self) -> Mesh:
        """As many devices of every process, in the order of the processes."""
        return Mesh(np.array(processes.devices(self.devices // processes.count())), (DEVICES,))

    @cached_property
    def by_slot(self) -> NamedSharding:
        """Of arrays with a leading axis of slots."""
        return NamedSharding(self.mesh, PartitionSpec(DEVICES))

    @cached_property
    def own(self) -> range:
        """The slots on devices of this process."""
        if self.alone:
            return range(self.slots)
        each = self.slots // processes.count()
        return range(processes.index() * each, (processes.index() + 1) * each)

    # -- arrays ---------------------------------------------------------------------------------------------------------

    def placed(self, tree: Any) -> Any:
        """A tree of arrays with a leading slot axis, on the devices that have the slots; those of a process's own are read."""
        if self.kept is not None:
            return jax.tree.map(partial(put, sharding=self.kept), tree)
        if self.alone:
            return jax.tree.map(jnp.asarray, tree)
        return jax.tree.map(self._placed, tree)

    def _placed(self, leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == self.by_slot:
            return leaf
        there = np.asarray(leaf)
        return jax.make_array_from_callback(there.shape, self.by_slot, lambda index: there[index])

    def everywhere(self, tree: Any) -> Any:
        """A tree of arrays of this process, which has the same as every other, on every device."""
        return jax.tree.map(self._everywhere, tree)

    def _everywhere(self, leaf: Any) -> Any:
        there = NamedSharding(self.mesh, PartitionSpec())
        if isinstance(leaf, jax.core.Tracer) or (isinstance(leaf, jax.Array) and leaf.sharding == there):
            return leaf  # of weights that are held by layer: none is there twice
        copies = [jax.device_put(leaf, device) for device in self.mesh.local_devices]
        return jax.make_array_from_single_device_arrays(copies[0].shape, there, copies)

    def cut(self, weight: Any, axis: int) -> Split:
        """A frozen weight of this process, cut along an axis: every device gets its part, and no other.

        Of a weight that is still in its file only the parts of this process's devices are read.
        """
        there = NamedSharding(self.mesh, Split(weight, axis).spec)
        part: Callable[[Any], np.ndarray] = weight.part if isinstance(weight, Unread) else np.asarray(weight).__getitem__
        return Split(jax.make_array_from_callback(weight.shape, there, part), axis)

    # -- programs -------------------------------------------------------------------------------------------------------

    def each(self, function: Callable, shared: int = 0) -> Callable:
        """`function` of whole packs, on each device of its own slots; its first `shared` arguments are on every device.

        Or in parts, where they are weights that devices share (`models/sharded.py`).
        """
        return function if self.alone else self._mapped(function, shared, self.by_slot.spec)

    def alike(self, function: Callable) -> Callable:
        """`function` of what is on every device, which each of them computes; of weights that they share."""
        return self._mapped(function, None, PartitionSpec())

    def _mapped(self, function: Callable, shared: int | None, out: PartitionSpec) -> Callable:
        def spread(*args: Any, **known: Any) -> Any:
            specs = tuple(specs_of(arg) if shared is None or i < shared else self.by_slot.spec for i, arg in enumerate(args))
            # what a loop begins with is the same on all devices, and what it ends with is not: no check of that
            here = partial(function, **known)
            return jax.shard_map(here, mesh=self.mesh, in_specs=specs, out_specs=out, check_vma=False)(*args)

        return spread

    def with_slot(self, tree: Any, slot: jax.Array, one: Any) -> Any:
        """In a program: a tree with one slot's leaves replaced, on the device that has it."""
        if self.alone:
            return jax.tree.map(lambda leaf, own: leaf.at[slot].set(own), tree, one)

        def replaced(slot: jax.Array, one: Any, tree: Any) -> Any:
            at, has = self._at(slot)
            return jax.tree.map(lambda leaf, own: jnp.where(has, leaf.at[at].set(own), leaf), tree, one)

        return self.each(replaced, shared=2)(slot, one, tree)

    @cached_property
    def _bring(self) -> Callable[[Any, Any], Any]:
        """`bring(tree, slot)`: the leaves of a slot, with a leading axis of one, on every device."""

        def bits_of(leaf: jax.Array) -> jax.Array:
            if leaf.dtype == jnp.bool_:
                return leaf.astype(jnp.uint8)
            return jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}"))

        def of_bits(bits: jax.Array, leaf: jax.Array) -> jax.Array:
            return bits.astype(bool) if leaf.dtype == jnp.bool_ else jax.lax.bitcast_convert_type(bits, leaf.dtype)

        def here(tree: Any, slot: jax.Array) -> Any:
            at, has = self._at(slot)

            def brought(leaf: jax.Array) -> jax.Array:
                mine = jax.lax.dynamic_slice_in_dim(leaf, at, 1)
                # zero of those that have it not: a sum of integers loses nothing, as one of floats would of minus zero
                return of_bits(jax.lax.psum(jnp.where(has, bits_of(mine), 0), DEVICES), leaf)

            return jax.tree.map(brought, tree)

        specs = PartitionSpec(DEVICES), PartitionSpec()
        return jax.jit(jax.shard_map(here, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False))

    def brought(self, tree: Any, slot: int) -> tuple[Any, int]:
        """A tree with a leading axis of slots on a device of this process, and where in it a slot is."""
        if self.alone:
            return tree, slot
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), self._bring(tree, np.int32(slot))), 0

    def _at(self, slot: jax.Array) -> tuple[jax.Array, jax.Array]:
        """On a device, in a program: which of its slots a slot is, and whether it is one of them."""
        at = slot - jax.lax.axis_index(DEVICES) * self.here
        return jnp.clip(at, 0, self.here - 1), (at >= 0) & (at < self.here)
