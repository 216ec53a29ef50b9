"""What methods do in training beside their forward pass, over the tree of an adapter.

Methods that do nothing here leave the compiled step as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from ..adapters.graft import State
from ..adapters.method import Leaves, Method
from ..adapters.methods.method_registry import method_of


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
