"""What backbones of convolutions share: blocks one behind another, and features that are the mean over the picture.

Blocks are of unlike widths and strides, so no one stack holds them all. Consecutive blocks of one kind form a *stage*, whose
weights are stacked; a stage may be a single block. Below the first lies a stem, above the last the pooling and a head.

What a block is made of is the family's; most are of convolutions with a batch norm behind each (`conv_steps.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import jax
from flax import nnx

from ..adapters.graft import Grafts, SiteCalls
from ..adapters.structure import Cut
from .activations import ACTIVATIONS
from .backbone_config import MOST_MAPS, Config
from .conv_steps import Step
from .inputs import Outputs
from .layers import Arrays
from .network import Unrolled
from .parts import Layers, Part, in_stack
from .stack import Chain, Stack


class Kind(Protocol):
    """A kind of block, in the family's own words; two blocks of equal kinds are of one stage where they follow each other."""

    @property
    def out(self) -> int:
        """Its output channels."""

    def parts(self) -> tuple[Part, ...]:
        """By their names within the block."""

    def module(self, arrays: Arrays, name: str, eps: float) -> nnx.Module:
        """Of that name, called as `Stack.layers` is; `eps` is the norms'."""


@dataclass(frozen=True)
class Stage:
    """Consecutive blocks of one kind."""

    name: str  # "stage0", of the module that holds them
    block: Kind
    paths: tuple[str, ...]  # module path of each block in a checkpoint, without the family's prefix

    @property
    def layers(self) -> Layers:
        return Layers(f"{self.name}.layers", len(self.paths), self.paths.__getitem__, self.block.out)


class StagedConfig(Config):
    """What is asked of the config of such a family."""

    norm_eps: float

    @property
    @abstractmethod
    def blocks(self) -> tuple[tuple[str, Kind], ...]:
        """Each block's module path, and what kind of block it is."""

    @property
    def halved(self) -> tuple[int, ...]:
        """The stages in front of which the network makes the feature map smaller, beside those whose own convolutions do."""
        return ()

    @property
    def ends(self) -> tuple[int, ...]:
        """The stages whose feature map is the last of its size, the last few of them."""
        begins = {*self.halved, *(index for index, stage in enumerate(self.stages) if _strides(stage))}
        last = len(self.stages) - 1
        return (*(stage - 1 for stage in sorted(begins) if stage), last)[-MOST_MAPS:]

    @property
    def maps(self) -> tuple[int, ...]:
        return tuple(self.stages[stage].block.out for stage in self.ends)

    @property
    def stages(self) -> tuple[Stage, ...]:
        runs = [(kind, tuple(path for path, _ in run)) for kind, run in groupby(self.blocks, lambda block: block[1])]
        return tuple(Stage(f"stage{index}", kind, paths) for index, (kind, paths) in enumerate(runs))


def _strides(stage: Stage) -> bool:
    """Whether a stage makes the feature map smaller."""
    return any(max(part.geometry.stride) > 1 for part in stage.block.parts() if part.geometry is not None)


def stacks_of(config: StagedConfig) -> tuple[Layers, ...]:
    return tuple(stage.layers for stage in config.stages)


def staged_parts(config: StagedConfig) -> tuple[Part, ...]:
    """The parts of all stages."""
    return tuple(part for stage in config.stages for part in in_stack(stage.layers.name, stage.block.parts()))


class StemmedConfig(StagedConfig):
    """Where the stem is one convolution with its norm and activation (`Stemmed`)."""

    activation: str

    @property
    @abstractmethod
    def stem(self) -> Step:
        """That convolution."""


def stemmed_parts(config: StemmedConfig) -> tuple[Part, ...]:
    """The parts of the stem and of all stages."""
    return (*config.stem.parts(), *staged_parts(config))


class StagedNetwork(Chain):
    """A stem, stages of blocks, and the mean over all positions of the last feature map.

    What frozen layers make of a picture is kept as the feature map that enters the first adapted block, and where all blocks
    are frozen as that mean, or as the last map where a head reads its positions. A family may gather otherwise, and have layers
    above (`top`).
    """

    def __init__(self, config: StagedConfig, arrays: Arrays):
        self.names = tuple(stage.name for stage in config.stages)
        self.ends = tuple(config.stages[stage].layers.name for stage in config.ends)
        for stage in config.stages:
            name = stage.layers.name
            setattr(self, stage.name, Stack(name, stage.block.module(arrays, name, config.norm_eps), len(stage.paths)))

    @abstractmethod
    def stem(self, pixels: jax.Array, calls: SiteCalls) -> jax.Array:
        """What enters the first block."""

    def gathered(self, h: jax.Array) -> jax.Array:
        """What is read of the last feature map, without weights."""
        return h.mean((-3, -2))

    def top(self, gathered: jax.Array, calls: SiteCalls) -> jax.Array:
        """The features that heads read, of what is gathered."""
        return gathered

    @property
    def stacks(self) -> tuple[Stack, ...]:
        return tuple(getattr(self, name) for name in self.names)

    def enter(self, stack: int, h: Any, calls: SiteCalls) -> jax.Array:
        return h if stack else self.stem(h.pixels, calls)

    def __call__(
        self, inputs: Any, grafts: Grafts, *, pooled: bool = False, layers: Unrolled | None = None, maps: int = 0
    ) -> Outputs:
        h, found = self.through(inputs, grafts, layers, self.ends[len(self.ends) - maps :])
        if inputs.hidden is not None and grafts.cut.top:
            gathered, found = (self.gathered(h), (h,)) if maps else (h, ())
        else:
            gathered = self.gathered(h)
        features = self.top(gathered, grafts.outside())
        return Outputs(h, features, features, maps=found)

    def frozen(self, inputs: Any, cut: Cut, *, pooled: bool) -> jax.Array:
        h = super().frozen(inputs, cut, pooled=pooled)
        return self.gathered(h) if cut.top and pooled else h


class Stemmed(StagedNetwork):
    """The stem is one step and its activation."""

    def __init__(self, config: StemmedConfig, arrays: Arrays):
        super().__init__(config, arrays)
        self.activation, self.first = config.activation, config.stem.name
        setattr(self, self.first, config.stem.module(arrays, "", config.norm_eps))

    def stem(self, pixels: jax.Array, calls: SiteCalls) -> jax.Array:
        step: Any = getattr(self, self.first)
        return ACTIVATIONS[self.activation](step(pixels, calls))
