"""Inception v3 (Szegedy et al., 2015, arXiv:1512.00567): blocks of branches side by side, whose channels are put together.

Five kinds of block, which timm and torchvision call InceptionA to InceptionE. A branch is convolutions one behind another, of
3x3, 5x5, 1x7 and so on, each with its batch norm; some begin with a mean over neighbours, some end in two convolutions side by
side. A branch of none but the largest of windows halves the map, where the others have a stride.

The names are timm's and torchvision's, which are the same (`timm_config.py`). The head beside the network, which is for
training alone, is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ..adapters.geometry import Geometry
from ..adapters.graft import SiteCalls
from ..adapters.methods.head import POOLED
from . import timm_config
from .config_keys import Key, number, size
from .conv_steps import ConvNorm, Plain, Step, parts_of, square
from .family import Family, TaskHead
from .layers import Arrays
from .map_pooling import largest, mean_around
from .parts import Part
from .pictures import Pictures
from .stages import Kind, Stemmed, StemmedConfig, stacks_of, stemmed_parts

KEYS: Mapping[str, Key] = {"depth_multiplier": number(1.0, "depth_multiplier"), "num_channels": size(3, "num_channels")}


@dataclass(frozen=True)
class Branch:
    """Steps one behind another, and then those of `ends` side by side."""

    steps: tuple[Step, ...]
    ends: tuple[Step, ...] = ()
    averages: bool = False  # whether it is given the mean around each position

    @property
    def out(self) -> int:
        return sum(step.channels[1] for step in self.ends or self.steps[-1:])


@dataclass(frozen=True)
class Mixed:
    """A kind of block."""

    channels: int
    branches: tuple[Branch, ...]
    halves: bool = False  # whether there is a branch of the largest of windows besides

    @property
    def out(self) -> int:
        return sum(branch.out for branch in self.branches) + (self.channels if self.halves else 0)

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step for branch in self.branches for step in (*branch.steps, *branch.ends))

    def parts(self) -> tuple[Part, ...]:
        return (*parts_of(self.steps), Part("stream", "output", "", (self.out,)))

    def module(self, arrays: Arrays, name: str, eps: float) -> MixedBlock:
        return MixedBlock(self, arrays, name, eps)


class MixedBlock(nnx.Module):
    def __init__(self, kind: Mixed, arrays: Arrays, name: str, eps: float):
        self.name, self.kind = name, kind
        for step in kind.steps:
            setattr(self, step.name, step.module(arrays, name, eps))

    def __call__(self, h: jax.Array, view: None, calls: SiteCalls, pooled: bool = False) -> jax.Array:
        found = []
        for branch in self.kind.branches:
            y = mean_around(h) if branch.averages else h
            for step in branch.steps:
                y = self._through(step, y, calls)
            found += [self._through(step, y, calls) for step in branch.ends] or [y]
        if self.kind.halves:
            found.append(largest(h, 3, 2))
        return calls.stream(f"{self.name}.output", jnp.concatenate(found, -1))

    def _through(self, step: Step, y: jax.Array, calls: SiteCalls) -> jax.Array:
        module: ConvNorm = getattr(self, step.name)
        return jax.nn.relu(module(y, calls))


class Shape(NamedTuple):
    """Of a convolution as the paper has it. One without a stride keeps the map's size."""

    out: int
    height: int
    width: int
    stride: int = 1


class Said(NamedTuple):
    """A branch, before its channels are scaled: the convolutions one behind another."""

    name: str
    shapes: tuple[Shape, ...]
    spreads: bool = False  # whether it ends in two, of 1x3 and 3x1, each with as many channels as the last
    averages: bool = False


def _pool(out: int) -> Said:
    return Said("branch_pool", (Shape(out, 1, 1),), averages=True)


def _a(pooled: int) -> tuple[Said, ...]:
    return (
        Said("branch1x1", (Shape(64, 1, 1),)),
        Said("branch5x5", (Shape(48, 1, 1), Shape(64, 5, 5))),
        Said("branch3x3dbl", (Shape(64, 1, 1), Shape(96, 3, 3), Shape(96, 3, 3))),
        _pool(pooled),
    )


_B = (
    Said("branch3x3", (Shape(384, 3, 3, 2),)),
    Said("branch3x3dbl", (Shape(64, 1, 1), Shape(96, 3, 3), Shape(96, 3, 3, 2))),
)


def _c(few: int) -> tuple[Said, ...]:
    across, down = Shape(few, 1, 7), Shape(few, 7, 1)
    return (
        Said("branch1x1", (Shape(192, 1, 1),)),
        Said("branch7x7", (Shape(few, 1, 1), across, Shape(192, 7, 1))),
        Said("branch7x7dbl", (Shape(few, 1, 1), down, across, down, Shape(192, 1, 7))),
        _pool(192),
    )


_D = (
    Said("branch3x3", (Shape(192, 1, 1), Shape(320, 3, 3, 2))),
    Said("branch7x7x3", (Shape(192, 1, 1), Shape(192, 1, 7), Shape(192, 7, 1), Shape(192, 3, 3, 2))),
)
_E = (
    Said("branch1x1", (Shape(320, 1, 1),)),
    Said("branch3x3", (Shape(384, 1, 1),), spreads=True),
    Said("branch3x3dbl", (Shape(448, 1, 1), Shape(384, 3, 3)), spreads=True),
    _pool(192),
)
#: In their order.
_MIXED = {
    **{"Mixed_5b": _a(32), "Mixed_5c": _a(64), "Mixed_5d": _a(64), "Mixed_6a": _B, "Mixed_6b": _c(128), "Mixed_6c": _c(160)},
    **{"Mixed_6d": _c(160), "Mixed_6e": _c(192), "Mixed_7a": _D, "Mixed_7b": _E, "Mixed_7c": _E},
}


def _step(path: str, where: str, inputs: int, shape: Shape, by: float) -> Step:
    height, width = shape.height // 2, shape.width // 2
    sides = ((0, 0), (0, 0)) if shape.stride > 1 else ((height, height), (width, width))
    around = Geometry((shape.stride, shape.stride), sides)
    channels = inputs, _scaled(shape.out, by)
    return Step(path, where, (f"{path}.conv", f"{path}.bn"), channels, (shape.height, shape.width), around)


def _branch(said: Said, inputs: int, by: float) -> Branch:
    numbered = len(said.shapes) > 1 or said.spreads
    last = len(said.shapes) - 1
    steps: list[Step] = []
    for index, shape in enumerate(said.shapes):
        where = "in" if index == 0 else "out" if index == last and not said.spreads else "middle"
        path = f"{said.name}_{index + 1}" if numbered else said.name
        steps.append(_step(path, where, steps[-1].channels[1] if steps else inputs, shape, by))
    if not said.spreads:
        return Branch(tuple(steps), averages=said.averages)
    out, given = said.shapes[-1].out, steps[-1].channels[1]
    both = (("a", Shape(out, 1, 3)), ("b", Shape(out, 3, 1)))
    ends = tuple(_step(f"{said.name}_{last + 2}{letter}", "out", given, shape, by) for letter, shape in both)
    return Branch(tuple(steps), ends)


def _scaled(channels: int, by: float) -> int:
    return max(int(channels * by), 1)


#: Behind the first convolution: its name, output channels, kernel and padding.
_PLAIN = (
    ("Conv2d_2a_3x3", 32, 3, 0),
    ("Conv2d_2b_3x3", 64, 3, 1),
    ("Conv2d_3b_1x1", 80, 1, 0),
    ("Conv2d_4a_3x3", 192, 3, 0),
)
_HALVED = (2, len(_PLAIN))  # the blocks in front of which the map is halved


@dataclass(frozen=True)
class InceptionConfig(StemmedConfig):
    num_channels: int
    depth_multiplier: float
    hidden_size: int
    norm_eps: float = 1e-3
    activation: str = "relu"

    @property
    def stem(self) -> Step:
        channels = self.num_channels, _scaled(32, self.depth_multiplier)
        return Step("stem_in", "stem", ("Conv2d_1a_3x3.conv", "Conv2d_1a_3x3.bn"), channels, 3, square(3, 2))

    @property
    def blocks(self) -> tuple[tuple[str, Kind], ...]:
        found: dict[str, Kind] = {}
        by, channels = self.depth_multiplier, self.stem.channels[1]
        for name, out, side, padding in _PLAIN:
            step = Step("conv", "out", ("conv", "bn"), (channels, _scaled(out, by)), side, square(side, 1, padding))
            found[name] = Plain(step, "relu")
            channels = step.channels[1]
        for name, said in _MIXED.items():
            mixed = Mixed(channels, tuple(_branch(each, channels, by) for each in said), halves=said in (_B, _D))
            found[name] = mixed
            channels = mixed.out
        return tuple(found.items())

    @property
    def halved(self) -> tuple[int, ...]:
        return _HALVED


class InceptionV3(Stemmed):
    def enter(self, stack: int, h: Any, calls: SiteCalls) -> jax.Array:
        h = super().enter(stack, h, calls)
        return largest(h, 3, 2) if stack in _HALVED else h


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    by = values["depth_multiplier"]
    return {
        "hidden_size": sum(_scaled(shape.out, by) * (2 if said.spreads else 1) for said in _E for shape in said.shapes[-1:])
    }


_PREPARED = {"input_size": [3, 299, 299], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "crop_pct": 0.875}
FAMILY = Family(
    model_types=("inception_v3",),
    summary="Inception v3, with timm's and torchvision's names",
    keys=KEYS,
    older=timm_config.BESIDE,
    architectures={name: {"pretrained_cfg": _PREPARED} for name in ("inception_v3", "tf_inception_v3", "gluon_inception_v3")},
    parts=stemmed_parts,
    stacks=stacks_of,
    head=TaskHead(features="pooled", hidden="none", modules=("fc",), sites=(POOLED,)),
    config=InceptionConfig,
    task="image-classify",
    processor=Pictures,
    module=InceptionV3,
    read=read,
)
