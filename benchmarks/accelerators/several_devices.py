"""A pack spread over several devices that are not there: shapes in place of arrays, each with where its parts would be.

What `train_many` does on a mesh (`train/spreading.py`, `train/frozen_weights.py`) is done on a mesh of described devices, so
the compiled program is that of one of them, with its part of the weights, its slots, and what it exchanges with the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ...models.sharded import DEVICES, Split
from ...train.spreading import Spread
from ...train.step import Programs
from .described_devices import Device


def shape_there(leaf: Any, sharding: NamedSharding | None) -> jax.ShapeDtypeStruct:
    """A shape with where the array would be; None: nothing is said of it."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


@dataclass(frozen=True, kw_only=True)
class DescribedSpread(Spread):
    """Of slots over so many devices of a kind."""

    kind: Device

    @cached_property
    def mesh(self) -> Mesh:
        return Mesh(self.kind.several(self.devices), (DEVICES,))

    def placed(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: shape_there(leaf, self.by_slot), tree)

    def everywhere(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: shape_there(leaf, NamedSharding(self.mesh, PartitionSpec())), tree)

    def cut(self, weight: Any, axis: int) -> Split:
        return Split(shape_there(weight, NamedSharding(self.mesh, Split(weight, axis).spec)), axis)


@dataclass(frozen=True, eq=False)
class ProgramsElsewhere(Programs):
    """The programs of a run over described devices."""

    kind: Device | None = None

    @cached_property
    def spread(self) -> Spread:
        assert self.kind is not None
        return DescribedSpread(self.slots, self.devices, kind=self.kind)
