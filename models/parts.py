"""Every module of a backbone, declared once.

A family (`bert.py`, `albert.py`, ...) lists its `Part`s: what kind of module it is, what it is called here, what it is called
in a Hugging Face checkpoint, and its shape. Loading, saving, random weights, the fingerprint and the *sites* at which
adapter methods act are all derived from that list, so a fact about a checkpoint stands in one place.

Layers of one kind form a stack (`Layers`): a part of the stack `layers` holds the weights of all layers with a leading layer
axis, and the backbone scans over it. A backbone may have several stacks, of unlike widths, and parts below, between and above
them; an encoder-decoder has one in each of its towers, `encoder.layers` and `decoder.layers`.

Kernels are stored `[in, out]` (Flax), checkpoints have `[out, in]` (torch): the order of a weight's axes in a checkpoint is a
permutation, that of its kind unless the part says another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..adapters.geometry import Geometry
from ..adapters.sites import LM_HEAD, OIHW, OUT_IN

LayerPaths = Mapping[str, tuple[str, ...]]  # by stack: module path of each of its layers


@dataclass(frozen=True)
class Layers:
    """A stack of layers of one kind."""

    name: str  # "layers": where the module of the backbone has it, and with which the names of its sites begin
    count: int  # layers that have weights of their own
    path: Callable[[int], str]  # module path of each in a Hugging Face checkpoint, without the family's prefix
    hidden: int  # channels of the residual stream
    shared: int = 0  # of layers that share weights (ALBERT), as how many they count; 0: each is applied once

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(map(self.path, range(self.count)))


@dataclass(frozen=True)
class Leaf:
    """An array of a module."""

    name: str  # "kernel"
    key: str  # behind the module's path in a checkpoint, "weight"; empty: the array has the module's path itself
    axes: tuple[int, ...] | None = None  # see `Weight`; None: in the order in which they are here
    #: what its axes are called, by which devices share it (`sharded.py`); empty: it is small, and every device has it
    named: tuple[str, ...] = ()


#: By kind, what arrays a module has. Constants and layer scales are no sites; a batch norm is one of kind `norm`.
LEAVES: dict[str, tuple[Leaf, ...]] = {
    "linear": (Leaf("kernel", "weight", OUT_IN, ("in", "out")), Leaf("bias", "bias")),
    "conv": (Leaf("kernel", "weight", OIHW, ("high", "wide", "in", "out")), Leaf("bias", "bias")),
    "norm": (Leaf("scale", "weight"), Leaf("bias", "bias")),
    "batch_norm": (
        *(Leaf("scale", "weight"), Leaf("bias", "bias")),
        *(Leaf("mean", "running_mean"), Leaf("var", "running_var")),
    ),
    "embedding": (Leaf("table", "weight", named=("rows", "dim")),),
    "layer_scale": (Leaf("scale", ""),),
    "constant": (Leaf("value", ""),),
}


@dataclass(frozen=True)
class Weight:
    """One array of the backbone and where a checkpoint keeps it."""

    part: str  # "layers.query"
    leaf: str  # "kernel"
    key: str  # "encoder.layer.3.attention.self.query.weight", without the family's prefix
    shape: tuple[int, ...]  # of one layer, as stored here
    axes: tuple[int, ...]  # which axis of the checkpoint's tensor each of ours is
    layer: int | None  # None: not stacked
    task: bool = False  # the key never has the family's prefix

    @property
    def name(self) -> str:
        """Of the array that it is in: "layers.query.kernel"."""
        return f"{self.part}.{self.leaf}"

    def as_stored(self, array: np.ndarray) -> np.ndarray:
        """The array, shaped as it is here, with its axes in a checkpoint's order; a view."""
        return array.transpose(np.argsort(self.axes))

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in np.argsort(self.axes))


@dataclass(frozen=True)
class Part:
    """One module, or (kinds `branch`, `stream`, `attention`, `input`) one weightless place where a method may act."""

    kind: str
    name: str  # ours: "layers.query", "word_embeddings"; the path of the backbone's module that holds its weights
    path: str  # Hugging Face module path, relative to the layer in a stack; empty: the layer itself
    shape: tuple[int, ...]  # of linear, conv, embedding as of a site; norm, branch, stream, attention, input (dim,); constant
    role: str = ""  # what it is in its layer or tower, "query"; empty: its name
    stack: str = ""  # the stack of layers that has it in every layer
    above: str = ""  # outside the stacks: the one that it lies above; empty: below all of them
    tower: str = ""  # of an encoder-decoder: "encoder" or "decoder"
    bias: bool = True  # of a linear layer, convolution or norm
    geometry: Geometry | None = None  # of a convolution
    task: bool = False  # a module of the task model beside the backbone, like `lm_head`: its path takes no prefix
    axes: tuple[int, ...] | None = None  # of a kernel's in a checkpoint (`Weight`), where that is not its kind's usual order
    stored: str = ""  # where checkpoints hold its weights, if not at `path`
    #: what stands behind its path in a checkpoint, by leaf, where that is no module with arrays of the usual names: of
    #: `attn.in_proj`, whose kernel is `attn.in_proj_weight`, "_weight"
    suffixes: Mapping[str, str] = field(default_factory=dict)
    module: bool = True  # whether there is a module at its path, by which PEFT finds it and whose call it can change
    tied: str = ""  # the part whose weights it uses, having none of its own

    @property
    def site(self) -> str:
        """The kind of its sites."""
        return "norm" if self.kind == "batch_norm" else self.kind

    def weights(self, layer_paths: LayerPaths) -> Iterator[Weight]:
        """The arrays of this part, layer by layer."""
        for leaf in LEAVES.get(self.kind, ()):
            if self.tied or (leaf.name == "bias" and not self.bias):
                continue
            shape = self.shape[-1:] if leaf.name == "bias" else self.shape
            axes = (self.kernel_axes if leaf.name == "kernel" else leaf.axes) or tuple(range(len(shape)))
            for layer, path in enumerate((self.stored,) if self.stored else self.paths(layer_paths)):
                key = path + self.suffixes.get(leaf.name, f".{leaf.key}" if leaf.key else "")
                yield Weight(self.name, leaf.name, key, shape, axes, layer if self.stack else None, self.task)

    @property
    def kernel_axes(self) -> tuple[int, ...]:
        """The order of its kernel's axes in a checkpoint; empty where it has no kernel."""
        usual = next((leaf.axes for leaf in LEAVES.get(self.kind, ()) if leaf.name == "kernel"), None)
        return self.axes or usual or ()

    def paths(self, layer_paths: LayerPaths) -> tuple[str, ...]:
        """Module paths: one per layer in a stack, else one."""
        if not self.stack:
            return (self.path,)
        return tuple(".".join(filter(None, (prefix, self.path))) for prefix in layer_paths[self.stack])


def in_stack(stack: str, parts: Iterable[Part], tower: str = "") -> tuple[Part, ...]:
    """The parts of every layer of a stack, given by their names within it: "query" becomes "layers.query"."""
    return tuple(
        replace(part, name=f"{stack}.{part.name}", role=part.role or part.name, stack=stack, tower=tower) for part in parts
    )


def in_tower(tower: str, parts: Iterable[Part]) -> tuple[Part, ...]:
    """Parts of a tower outside its layers, given by their names and paths within it: "input" becomes "encoder.input"."""
    return tuple(
        replace(part, name=f"{tower}.{part.name}", path=f"{tower}.{part.path}", role=part.role or part.name, tower=tower)
        for part in parts
    )


def projection(hidden: int, vocabulary: int, above: str, table: str = "") -> Part:
    """The projection to the vocabulary; `table`: the part whose weights it uses, where it has none of its own."""
    return Part("linear", LM_HEAD, LM_HEAD, (hidden, vocabulary), bias=False, above=above, task=True, tied=table)


def text_site(hidden: int, above: str) -> Part:
    """Where a method reads the tokens' ids. What it finds there is heard by those layers alone that carry state themselves."""
    return Part("text", "text", "", (hidden,), above=above, task=True)
