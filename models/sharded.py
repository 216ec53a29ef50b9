"""Frozen weights of which each device holds a part, and which are whole only while they are computed with.

This is FSDP (Zhao et al., 2023, arXiv:2304.11277), the third stage of ZeRO (Rajbhandari et al., 2019, arXiv:1910.02054). Of a
kernel `[in, out]` device i of n holds the rows from i in / n on. A layer's kernels are gathered from all devices when the
layer is run, and are not kept: for the gradient they are gathered anew (`stack.py`). So a device has an n-th of the layers and
one or two whole ones beside it; what lies outside of the layers, such as the words' table, is whole for the time of a step.
Nothing of a frozen weight is summed, for it has no gradient; and what was gathered is what was there, so what is computed is
what whole weights give.

Along which axis a weight is cut follows from the names of its axes, which `parts.py` declares for each kind of module. The
leading one is best: of columns each device would have a piece of every row, and the whole would be written a second time, to
put the pieces in their places. (Of a Llama's tables and kernels on sixteen TPUs that took half of all temporaries.)

    split_by(("in", "out"), (4096, 11008), 8)     -2: along "in", which comes before "out" in `_ALONG`
    split_by(("rows", "dim"), (50257, 768), 8)    -1: the rows cannot be divided by 8
    split_by(("in", "out"), (3, 768), 8)          -1
    split_by((), (768,), 8)                       None: a bias is small, and whole everywhere
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.sharding import PartitionSpec

from .by_layer import ByLayer

DEVICES = "slots"  # the axis of the mesh: the devices that have the slots of a pack (`train/spreading.py`)
_ALONG = ("in", "rows", "out", "dim")  # names of axes along which a weight may be cut, the best first


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Split:
    """A weight that is cut along an axis: in a program on each device, its part."""

    part: Any
    axis: int = field(metadata={"static": True})  # counted from the last, -1

    @property
    def spec(self) -> PartitionSpec:
        """Of the whole array: where its parts are."""
        return PartitionSpec(*[None] * (self.part.ndim + self.axis), DEVICES)


def split_by(names: Sequence[str], shape: Sequence[int], devices: int) -> int | None:
    """The axis, from the last, along which an array is cut whose last axes have these names; None where none can be."""
    axes = {name: index - len(names) for index, name in enumerate(names)}
    fitting = (axes[name] for name in _ALONG if name in axes and shape[axes[name]] % devices == 0)
    return next(fitting, None)


def specs_of(tree: Any) -> Any:
    """Where the parts of each array of a tree are; what is not cut is whole on every device."""
    return jax.tree.map(
        lambda leaf: Split(leaf.spec, leaf.axis) if _is_split(leaf) else PartitionSpec(), tree, is_leaf=_is_split
    )


def is_split(tree: Any) -> bool:
    """Whether some weight in a tree is cut."""
    return any(_is_split(leaf) for leaf in jax.tree.leaves(tree, is_leaf=_is_split))


def whole(layer: Any, h: jax.Array) -> Any:
    """In a program on each device: a layer with its weights gathered from all devices, when h, which enters it, is there.

    Nothing else says when: a compiler would gather what it can of all layers as soon as a step begins, and keep it.
    """
    if not is_split(layer):
        return layer
    layer, _ = jax.lax.optimization_barrier((layer, h))
    return jax.tree.map(lambda leaf: _gathered(leaf) if _is_split(leaf) else leaf, layer, is_leaf=_is_split)


def whole_outside_layers(tree: Any) -> Any:
    """The same of what lies outside of the stacks, whose layers are gathered one by one as they are run."""
    return jax.tree.map(
        lambda leaf: _gathered(leaf) if _is_split(leaf) else leaf,
        tree,
        is_leaf=lambda leaf: _is_split(leaf) or isinstance(leaf, ByLayer),
    )


def keep_but_gathered(primitive: Any, *_: Any, **__: Any) -> bool:
    """A policy of `jax.checkpoint` that keeps all that a gradient reads, but for weights that were gathered for it."""
    return primitive is not jax.lax.all_gather_p


def _gathered(split: Split) -> jax.Array:
    return jax.lax.all_gather(split.part, DEVICES, axis=split.part.ndim + split.axis, tiled=True)


def _is_split(leaf: Any) -> bool:
    return isinstance(leaf, Split)
