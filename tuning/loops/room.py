"""What is known of loops in training: on the device in slots, side by side, and of one loop on the host.

A `Room` is a pytree whose leaves have a leading axis of slots, as the learners of a pack have (`train/step.py`). Slot 0 is
nobody's: it holds what changes nothing, and whatever fills a batch up refers to it. On the host the same of one loop is a
`Kept`: its adapter at true size and, by leaf, the gradient that has been summed so far and Adam's two means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from ...adapters.adapter import Adapter, Layout
from ...adapters.graft import State
from ...adapters.method import Method
from ...adapters.sites import Site

ByLeaf = Mapping[str, np.ndarray]  # of an adapter's trainable leaves, by their names (`name_of`)


class Room(NamedTuple):
    """Loops in slots: trees whose leaves are `[slots, ...]`, those in stacks of layers `[slots, layers, ...]`."""

    trainable: State
    fixed: State
    rate: State  # 1 where a leaf is the loop's own, 0 where it is filling
    gradient: State  # summed since the last step
    first: State  # Adam's running mean of the gradient
    second: State  # and of its square


@dataclass(frozen=True)
class Kept:
    """A loop on the host. What it has no leaves of is zero."""

    adapter: Adapter
    gradient: ByLeaf = field(default_factory=dict)
    first: ByLeaf = field(default_factory=dict)
    second: ByLeaf = field(default_factory=dict)


def name_of(method: Method, site: Site, leaf: str) -> str:
    """The name of a leaf: `lora/layers.query.0/a`, of a site outside the layers without the number."""
    layer = "" if site.layer is None else f".{site.layer}"
    return f"{method.key}/{site.name}{layer}/{leaf}"


def trainable_of(adapter: Adapter) -> dict[str, np.ndarray]:
    """The trainable leaves of an adapter, by name."""
    return {
        name_of(method, site, leaf): np.asarray(array)
        for method in adapter.methods
        for site, (own, _) in adapter.states[method.key].items()
        for leaf, array in own.items()
    }


def with_trainable(adapter: Adapter, leaves: ByLeaf) -> Adapter:
    """The adapter with other trainable leaves; those that are not given are zero."""

    def other(method: Method, site: Site, leaf: str, array: Any) -> np.ndarray:
        found = leaves.get(name_of(method, site, leaf))
        return np.zeros_like(array) if found is None else found

    states = {
        method.key: {
            site: ({leaf: other(method, site, leaf, array) for leaf, array in own.items()}, fixed)
            for site, (own, fixed) in adapter.states[method.key].items()
        }
        for method in adapter.methods
    }
    return replace(adapter, states=states)


def stacked(kept: Kept | None, layout: Layout, sites: Sequence[Site]) -> Room:
    """One loop in a layout, as NumPy arrays without the axis of slots; of None what slot 0 holds."""
    base = layout.stack(None if kept is None else kept.adapter, sites)

    def laid(leaves: ByLeaf) -> State:
        if kept is None or not leaves:
            return jax.tree.map(np.zeros_like, base.trainable)
        beside = layout.stack(with_trainable(kept.adapter, leaves), sites).trainable
        return jax.tree.map(lambda leaf, own: np.where(own > 0, leaf, np.float32(0.0)), beside, base.mask)

    means = (laid({}),) * 3 if kept is None else (laid(kept.gradient), laid(kept.first), laid(kept.second))
    return Room(base.trainable, base.fixed, base.mask, *means)


def kept_of(one: Room, adapter: Adapter, layout: Layout, sites: Sequence[Site]) -> Kept:
    """A loop of its slot's leaves, on the host; `adapter`: one of its methods and sizes."""

    def by_leaf(tree: State) -> dict[str, np.ndarray]:
        return trainable_of(replace(adapter, states=layout.unstack(adapter, tree, sites)))

    return Kept(
        replace(adapter, states=layout.unstack(adapter, one.trainable, sites)),
        by_leaf(one.gradient),
        by_leaf(one.first),
        by_leaf(one.second),
    )
