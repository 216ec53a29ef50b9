"""What methods do in training beside their forward pass, over the tree of an adapter.

Methods that do nothing here leave the compiled step as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ..adapters.graft import State
from ..adapters.method import Leaves, Method
from ..adapters.methods.method_registry import method_of
from ..adapters.structure import Structure


def each_method(tree: State) -> Iterator[tuple[str, Method]]:
    """The methods of an adapter's tree, by their keys, in the order of these."""
    for key in sorted({key for keys in tree.values() for key in keys}):
        yield key, method_of(key)


def at_sites(tree: State, key: str) -> dict[str, Leaves]:
    """One method's leaves, by the name of the site."""
    return {name: keys[key] for name, keys in tree.items() if key in keys}


def objective(loss: jax.Array, trainable: State, fixed: State) -> jax.Array:
    """What is minimised: the task's loss and what methods add to it (`Method.objective`)."""
    for key, method in each_method(trainable):
        loss = method.objective(loss, at_sites(trainable, key), at_sites(fixed, key))
    return loss


def tied(grads: State, rate: State, structure: Structure) -> tuple[State, State]:
    """Gradients in which what sites share (`Method.shared`) has at each of them the sum of all; and others to take the norm of.

    In these that sum counts once, however many sites there are. `rate`: 0 where a leaf is filling, whose gradient is 0.
    """
    made = {name: {key: dict(leaves) for key, leaves in keys.items()} for name, keys in grads.items()}
    once = {name: {key: dict(leaves) for key, leaves in keys.items()} for name, keys in grads.items()}
    for key, method in each_method(grads):
        groups: dict[Any, list[tuple[str, str]]] = {}
        for name, leaves in at_sites(grads, key).items():
            for leaf in sorted(leaves.keys() & {*method.shared}):
                layered = structure.stacked(name)
                groups.setdefault((leaf, leaves[leaf].shape[layered:]), []).append((name, leaf))
        for group in groups.values():
            here = [(grads[name][key][leaf], rate[name][key][leaf] > 0, structure.stacked(name)) for name, leaf in group]
            total = sum(jnp.sum(grad, 0) if layered else grad for grad, _, layered in here)
            copies = sum(jnp.sum(own) for _, own, _ in here)
            for (name, leaf), (_, own, _) in zip(group, here, strict=True):
                made[name][key][leaf] = jnp.where(own, total, 0.0)
                once[name][key][leaf] = made[name][key][leaf] / jnp.sqrt(jnp.maximum(copies, 1).astype(jnp.float32))
    return made, once


def revised(trainable: State, fixed: State, grads: State, step: jax.Array) -> tuple[State, State]:
    """The trainable and the fixed leaves after the optimizer's step, as methods revise them (`Method.revise`)."""
    trees: tuple[State, State] = ({}, {})
    for key, method in each_method(trainable):
        made = method.revise(at_sites(trainable, key), at_sites(fixed, key), at_sites(grads, key), step)
        for tree, sites in zip(trees, made, strict=True):
            for name, leaves in sites.items():
                tree.setdefault(name, {})[key] = leaves
    return trees


def settled(trainable: State, fixed: State) -> Any:
    """The leaves that an adapter in training answers with and is saved with (`Method.settled`)."""
    return {
        name: {key: method_of(key).settled(leaves, fixed[name][key]) for key, leaves in keys.items()}
        for name, keys in trainable.items()
    }
