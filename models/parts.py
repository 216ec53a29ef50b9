"""Every module of a backbone, declared once.

A family (`bert.py`, `albert.py`, ...) lists its `Part`s: what kind of module it is, what it is called here, what it is called
in a Hugging Face checkpoint, and its shape. Loading, saving, random weights, the fingerprint and the *sites* at which
adapter methods act are all derived from that list, so a fact about a checkpoint stands in one place.

Layers are stacked: a part called `layers.query` holds the weights of all layers with a leading layer axis, and the encoder
scans over it. An encoder-decoder has two stacks, `encoder.layers` and `decoder.layers`. Kernels are stored `[in, out]` (Flax),
checkpoints have `[out, in]` (torch), unless the part is a `conv1d`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..adapters.sites import LM_HEAD, stack_of

LayerPaths = Mapping[str, tuple[str, ...]]  # by stack: module path of each of its layers

#: kind -> (leaf, name in the checkpoint, transposed?). A constant is no site.
_LEAVES: dict[str, tuple[tuple[str, str, bool], ...]] = {
    "linear": (("kernel", "weight", True), ("bias", "bias", False)),
    "norm": (("scale", "weight", False), ("bias", "bias", False)),
    "embedding": (("table", "weight", False),),
    "constant": (("value", "", False),),
}


@dataclass(frozen=True)
class Weight:
    """One array of the backbone and where a checkpoint keeps it."""

    name: str  # "layers.query.kernel"
    key: str  # "encoder.layer.3.attention.self.query.weight", without the family's prefix
    shape: tuple[int, ...]  # of one layer, as stored here
    transposed: bool
    layer: int | None  # None: not stacked
    task: bool = False  # the key never has the family's prefix


@dataclass(frozen=True)
class Part:
    """One module, or (kinds `branch`, `stream`, `attention`, `input`) one weightless place where a method may act."""

    kind: str
    name: str  # ours; "layers.query" is stacked, "word_embeddings" is not
    path: str  # Hugging Face module path, relative to the layer when stacked; empty: the layer itself
    shape: tuple[int, ...]  # linear (in, out); norm, branch, stream, attention, input (dim,); embedding (rows, dim); constant
    bias: bool = True  # of a linear layer or norm
    above: bool = False  # above the layers
    task: bool = False  # a module of the task model beside the backbone, like `lm_head`: its path takes no prefix
    conv1d: bool = False  # a linear layer that checkpoints hold as it is here, [in, out] (GPT-2)
    stored: str = ""  # where checkpoints hold its weights, if not at `path`
    tied: str = ""  # the part whose weights it uses, having none of its own

    @property
    def stack(self) -> str:
        return stack_of(self.name)

    def weights(self, layer_paths: LayerPaths) -> Iterator[Weight]:
        """The arrays of this part, layer by layer."""
        for leaf, key, transposed in _LEAVES.get(self.kind, ()):
            if self.tied or (leaf == "bias" and not self.bias):
                continue
            shape = self.shape[1:] if (self.kind, leaf) == ("linear", "bias") else self.shape
            for layer, path in enumerate((self.stored,) if self.stored else self.paths(layer_paths)):
                at, name = layer if self.stack else None, f"{path}.{key}" if key else path
                yield Weight(f"{self.name}.{leaf}", name, shape, transposed and not self.conv1d, at, self.task)

    def paths(self, layer_paths: LayerPaths) -> tuple[str, ...]:
        """Module paths: one per layer in a stack, else one."""
        if not self.stack:
            return (self.path,)
        return tuple(f"{prefix}.{self.path}" if self.path else prefix for prefix in layer_paths[self.stack])


def projection(hidden: int, vocabulary: int, table: str = "") -> Part:
    """The projection to the vocabulary; `table`: the part whose weights it uses, where it has none of its own."""
    return Part("linear", LM_HEAD, LM_HEAD, (hidden, vocabulary), bias=False, above=True, task=True, tied=table)
