"""A weight of a stack of layers, as one array or as an array for each layer: one of the two, never both in memory.

A loop over layers wants one array `[layers, ...]`. Layers that are compiled one after another (a training step, a token of a
text that is written) want an array each, for XLA copies a layer's slice before it multiplies by it: on a CPU a token took six
times as long so, and as much memory again as the weights. On a CPU a layer's array can be a part of the one for all, and a
backbone has both in the same memory. Elsewhere it cannot: there a backbone holds its stacks layer by layer (`ByLayer`), and
every program runs the layers one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ByLayer:
    """A weight of all layers of a stack, held layer by layer."""

    each: tuple[Any, ...]


def share_memory() -> bool:
    """Whether arrays here can be parts of another array."""
    return jax.default_backend() == "cpu"


def held_by_layer(tree: Any) -> bool:
    """Whether the weights in a tree are held so."""
    return any(isinstance(leaf, ByLayer) for leaf in jax.tree.leaves(tree, is_leaf=_is_by_layer))


def put_by_layer(array: Any) -> Any:
    """A stacked weight, an array or a tree of them, on the device layer by layer; none of it is there as a whole."""
    return jax.tree.map(lambda leaf: ByLayer(tuple(map(jax.device_put, leaf))), array)


def layer_of(tree: Any, index: Any) -> Any:
    """Weights of one layer of a stack; its index may be traced where they are stacked."""
    return _each(tree, lambda held: held.each[index], lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False))


def stacked(tree: Any) -> Any:
    """Weights of all layers with a leading layer axis, whatever they are held as."""
    return _each(tree, lambda held: jnp.stack(held.each), lambda leaf: leaf)


def apart(tree: Any) -> tuple[Any, ...]:
    """The weights of each layer: the same memory, however they are held."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=_is_by_layer)
    alone = zip(*(leaf.each if _is_by_layer(leaf) else _views(leaf) for leaf in leaves), strict=True)
    return tuple(jax.tree.unflatten(treedef, layer) for layer in alone)


def _views(array: jax.Array) -> Any:
    """Parts of an array in the memory of a CPU, without a copy."""
    return jax.device_put(list(np.asarray(array)), may_alias=True)


def _each(tree: Any, of_held: Callable[[ByLayer], Any], of_array: Callable[[Any], Any]) -> Any:
    return jax.tree.map(lambda leaf: of_held(leaf) if _is_by_layer(leaf) else of_array(leaf), tree, is_leaf=_is_by_layer)


def _is_by_layer(leaf: Any) -> bool:
    return isinstance(leaf, ByLayer)
