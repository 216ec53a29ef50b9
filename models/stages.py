"""What backbones of convolutions share: blocks one behind another, and features that are the mean over the picture.

Blocks are of unlike widths and strides, so no one stack holds them all. Consecutive blocks of one kind form a *stage*, whose
weights are stacked; a stage may be a single block. Below the first lies a stem, above the last the pooling and a head.

A convolution is followed by a batch norm with statistics that are frozen (`ConvNorm`); of each the methods see its own site.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import jax
from flax import nnx

from ..adapters.geometry import Geometry
from ..adapters.graft import Grafts, SiteCalls
from ..adapters.structure import Cut
from .backbone_config import Config
from .inputs import Outputs
from .layers import Arrays, BatchNorm, Conv
from .network import Unrolled
from .parts import Layers, Part, in_stack
from .stack import Chain, Stack


@dataclass(frozen=True)
class Stage:
    """Consecutive blocks of one kind."""

    name: str  # "stage0", of the module that holds them
    block: Any  # what kind that is: the family's own words, among them `out`, its output channels
    paths: tuple[str, ...]  # module path of each block in a checkpoint, without the family's prefix

    @property
    def layers(self) -> Layers:
        return Layers(f"{self.name}.layers", len(self.paths), self.paths.__getitem__, self.block.out)


class StagedConfig(Config):
    """What is asked of the config of such a family."""

    norm_eps: float

    @property
    @abstractmethod
    def blocks(self) -> tuple[tuple[str, Any], ...]:
        """Each block's module path, and what kind of block it is."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        runs = [(kind, tuple(path for path, _ in run)) for kind, run in groupby(self.blocks, lambda block: block[1])]
        return tuple(Stage(f"stage{index}", kind, paths) for index, (kind, paths) in enumerate(runs))


def stacks_of(config: StagedConfig) -> tuple[Layers, ...]:
    return tuple(stage.layers for stage in config.stages)


def staged_parts(config: StagedConfig, block_parts: Callable[[Any], Sequence[Part]]) -> tuple[Part, ...]:
    """The parts of all stages, of the parts of each kind of block by their names within it."""
    return tuple(part for stage in config.stages for part in in_stack(stage.layers.name, block_parts(stage.block)))


def square(size: int, stride: int = 1, padding: int | None = 0, dilation: int = 1, groups: int = 1) -> Geometry:
    """A geometry that is the same in height and width; `padding` None: TensorFlow's."""
    sides = None if padding is None else ((padding, padding), (padding, padding))
    return Geometry((stride, stride), sides, (dilation, dilation), groups)


def conv_norm_parts(
    name: str, where: str, paths: tuple[str, str], size: int, channels: tuple[int, int], geometry: Geometry
) -> tuple[Part, Part]:
    """A square convolution of so many channels, in and out, and its batch norm.

    `where` says where in its block it stands, "in" or "out", and is part of both roles; `paths` are theirs in a checkpoint.
    """
    inputs, out = channels
    shape = (size, size, inputs // geometry.groups, out)
    conv = Part("conv", f"{name}.conv", paths[0], shape, role=f"conv_{where}", bias=False, geometry=geometry)
    return conv, Part("batch_norm", f"{name}.norm", paths[1], (out,), role=f"norm_{where}")


class ConvNorm(nnx.Module):
    """A convolution and its batch norm, with their parts' names."""

    def __init__(self, arrays: Arrays, name: str, geometry: Geometry, eps: float):
        self.name = name
        self.conv = Conv(arrays, f"{name}.conv", geometry)
        self.norm = BatchNorm(arrays, f"{name}.norm", eps)

    def __call__(self, h: jax.Array, calls: SiteCalls) -> jax.Array:
        return calls.norm(f"{self.name}.norm", calls.conv(f"{self.name}.conv", h, self.conv), self.norm)


class StagedNetwork(Chain):
    """A stem, stages of blocks, and the mean over all positions of the last feature map.

    What frozen layers make of a picture is kept as the feature map that enters the first adapted block, and where all blocks
    are frozen as that mean.
    """

    def __init__(self, config: StagedConfig, arrays: Arrays):
        self.names = tuple(stage.name for stage in config.stages)
        for stage in config.stages:
            name = stage.layers.name
            setattr(self, stage.name, Stack(name, self.block(config, stage.block, arrays, name), len(stage.paths)))

    @staticmethod
    @abstractmethod
    def block(config: Any, kind: Any, arrays: Arrays, name: str) -> nnx.Module:
        """The module of one stage's blocks, called as `Stack.layers` is."""

    @abstractmethod
    def stem(self, pixels: jax.Array, calls: SiteCalls) -> jax.Array:
        """What enters the first block."""

    @property
    def stacks(self) -> tuple[Stack, ...]:
        return tuple(getattr(self, name) for name in self.names)

    def enter(self, stack: int, h: Any, calls: SiteCalls) -> jax.Array:
        return h if stack else self.stem(h.pixels, calls)

    def __call__(self, inputs: Any, grafts: Grafts, *, pooled: bool = False, layers: Unrolled | None = None) -> Outputs:
        h = self.through(inputs, grafts, layers)
        features = h if inputs.hidden is not None and grafts.cut.top else h.mean((-3, -2))
        return Outputs(h, features, features)

    def frozen(self, inputs: Any, cut: Cut, *, pooled: bool) -> jax.Array:
        h = super().frozen(inputs, cut, pooled=pooled)
        return h.mean((-3, -2)) if cut.top else h
