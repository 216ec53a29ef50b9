"""The frozen weights on the devices that a pack is spread over: all of them on each, or a part of each on every device.

The second (`fsdp`, `models/sharded.py`) is for a backbone that does not fit one device beside what a step needs. Its weights
come to the devices one after the other, from where the backbone has them: from the host's memory or, where it was loaded
unread (`models/unread.py`), from their files, of which each process then reads what its own devices are to have.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from .. import processes
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.by_layer import ByLayer
from ..models.parts import LEAVES
from ..models.sharded import split_by
from ..models.unread import Unread
from ..notes import note
from ..tasks.task import some_of
from .spreading import Spread


def whole_on_each(backbone: Backbone, spread: Spread) -> tuple[Any, Any]:
    """A backbone's parameters, and what `Backbone.unrolled` has of them, all on every device."""
    there = replace(backbone, params=spread.everywhere(backbone.params))
    return there.params, spread.everywhere(there.unrolled)


def shared_by_all(backbone: Backbone, spread: Spread) -> tuple[Any, Any]:
    """The same with weights of which each device holds a part, those of stacks by layer.

    Raises GraftaxError where no weight can be cut into so many parts; what is whole beside others that are not, a note says.
    """
    parts, devices = backbone.family.parts(backbone.config), spread.devices
    names = {f"{part.name}.{leaf.name}": leaf.named for part in parts for leaf in LEAVES.get(part.kind, ())}
    in_stacks = {weight.name for weight in backbone.weights if weight.layer is not None}
    layers = {name: _layers(held) if name in in_stacks else [held] for name, held in backbone.held().items()}

    def cut_into(devices: int) -> list[str]:
        """The weights that so many devices can share."""
        shapes = {name: [leaf.shape for leaf in jax.tree.leaves(each[0])] for name, each in layers.items()}
        return [name for name in names if any(split_by(names[name], shape, devices) for shape in shapes.get(name, ()))]

    if not (cut := cut_into(devices)):
        fits = [str(fewer) for fewer in range(2, devices) if cut_into(fewer)]
        could = f"; by {' or '.join(fits)} they can" if fits else ""
        raise GraftaxError(f"--fsdp: the weights of {backbone.name} cannot be divided by {devices} devices{could}.")
    if uncut := [name for name in layers if names[name] and name not in cut]:
        note(f"--fsdp: {some_of(uncut)} cannot be divided by {devices} devices: each has all of that.")

    def put(name: str, weight: Any) -> Any:
        def one(leaf: Any) -> Any:
            axis = split_by(names[name], leaf.shape, devices)
            if axis is None:
                return spread.everywhere(leaf.read() if isinstance(leaf, Unread) else leaf)
            return spread.cut(leaf, axis)

        if isinstance(weight, Unread) and not weight.in_parts:
            weight = weight.read()
        return jax.tree.map(one, weight)

    with processes.sound("the weights"):  # what one of them finds in its files, the others do not see
        held = {
            name: ByLayer(tuple(put(name, layer) for layer in each)) if name in in_stacks else put(name, each[0])
            for name, each in layers.items()
        }
    known: dict[str, Any] = {"fingerprint": backbone.fingerprint, "name": backbone.name, "quantize": backbone.quantize}
    there = Backbone.around(backbone.family, backbone.config, held, remat=backbone.remat, **known)
    return there.params, there.unrolled


def _layers(held: Any) -> list[Any]:
    """A weight of a stack, layer by layer, where it is."""
    leaves, treedef = jax.tree.flatten(held, is_leaf=lambda leaf: isinstance(leaf, ByLayer))
    apart = zip(*(leaf.each if isinstance(leaf, ByLayer) else np.asarray(leaf) for leaf in leaves), strict=True)
    return [jax.tree.unflatten(treedef, layer) for layer in apart]
