"""How the weights of a stack of layers are held in memory: as one array for all layers, or as an array for each.

A kernel of twelve layers is wanted in both forms. A loop over layers wants one array, `[12, in, out]`. Layers that are compiled
one after another (in a training step, or for each token of a text that is written) want twelve arrays of `[in, out]`: of a
slice of the whole XLA would make a copy before it multiplies by it. On a CPU a token took six times as long so, and as much
memory again as the weights.

Both must not be in memory twice. On a CPU an array for one layer can be a part of the array for all, so a backbone holds its
weights *stacked* and has the other form for nothing (`apart`). Elsewhere an array cannot be a part of another: there a backbone
holds its weights *by layer* (`ByLayer`), and every program runs the layers one after another.
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
    """A weight of all layers of a stack, held by layer."""

    each: tuple[Any, ...]  # the layers' arrays, in their order


def share_memory() -> bool:
    """Whether an array on this device can be a part of another."""
    return jax.default_backend() == "cpu"


def held_by_layer(tree: Any) -> bool:
    """Whether weights in a tree are held by layer."""
    return any(isinstance(leaf, ByLayer) for leaf in jax.tree.leaves(tree, is_leaf=_is_by_layer))


def put_by_layer(array: Any) -> Any:
    """A stacked weight of the host, an array or a tree of them, put on the device by layer: the whole is never there."""
    return jax.tree.map(lambda leaf: ByLayer(tuple(map(jax.device_put, leaf))), array)


def layer_of(tree: Any, index: Any) -> Any:
    """The weights of one layer, from those of a stack; where they are stacked the index may be traced."""
    return _each(tree, lambda held: held.each[index], lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False))


def stacked(tree: Any) -> Any:
    """The weights of all layers with a leading layer axis, however they are held."""
    return _each(tree, lambda held: jnp.stack(held.each), lambda leaf: leaf)


def apart(tree: Any) -> tuple[Any, ...]:
    """The weights of each layer by itself, in the memory that the stack's have, however they are held."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=_is_by_layer)
    alone = zip(*(leaf.each if _is_by_layer(leaf) else _views(leaf) for leaf in leaves), strict=True)
    return tuple(jax.tree.unflatten(treedef, layer) for layer in alone)


def _views(array: jax.Array) -> Any:
    """What lies along an array's leading axis, each in the memory of the array: of a CPU's, without a copy."""
    return jax.device_put(list(np.asarray(array)), may_alias=True)


def _each(tree: Any, of_held: Callable[[ByLayer], Any], of_array: Callable[[Any], Any]) -> Any:
    return jax.tree.map(lambda leaf: of_held(leaf) if _is_by_layer(leaf) else of_array(leaf), tree, is_leaf=_is_by_layer)


def _is_by_layer(leaf: Any) -> bool:
    return isinstance(leaf, ByLayer)
