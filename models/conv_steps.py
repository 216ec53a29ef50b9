"""A convolution and the batch norm behind it, said once: a `Step`, of which both its parts and its module follow.

    step = Step("first", "in", ("conv1", "bn1"), (16, 32), 3, square(3, 2, 1))
    step.parts()                    the two parts, by their names within the block: "first.conv", "first.norm"
    step.module(arrays, block, eps) what computes with their weights; the methods see the site of each

A step without a norm is a convolution with a bias. A block that is one step and its activation is a `Plain`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from ..adapters.geometry import Geometry
from ..adapters.graft import SiteCalls
from .activations import ACTIVATIONS
from .layers import Arrays, BatchNorm, Conv
from .parts import Part


def square(size: int, stride: int = 1, padding: int | None = 0, dilation: int = 1, groups: int = 1) -> Geometry:
    """A geometry that is the same in height and width; `padding` None: TensorFlow's."""
    sides = None if padding is None else ((padding, padding), (padding, padding))
    return Geometry((stride, stride), sides, (dilation, dilation), groups)


def conv_layer(path: str) -> tuple[str, str]:
    """Paths of a convolution and its norm, as transformers' ConvLayers of several families have them."""
    prefix = f"{path}." if path else ""
    return f"{prefix}convolution", f"{prefix}normalization"


@dataclass(frozen=True)
class Step:
    """A convolution and its batch norm."""

    name: str  # "first", among the steps of its block
    where: str  # it stands in its block, "in" or "out": part of both roles
    paths: tuple[str, str]  # of both in a checkpoint, within the block; the second is empty where there is no norm
    channels: tuple[int, int]  # in and out
    size: int | tuple[int, int]  # of the kernel: its side, or height and width
    geometry: Geometry = Geometry()
    biased: bool = False  # whether the convolution has a bias beside its norm

    @property
    def normed(self) -> bool:
        return bool(self.paths[1])

    def parts(self) -> tuple[Part, ...]:
        (inputs, out), sides = self.channels, (self.size, self.size) if isinstance(self.size, int) else self.size
        shape = (*sides, inputs // self.geometry.groups, out)
        role, bias = f"conv_{self.where}", self.biased or not self.normed
        conv = Part("conv", f"{self.name}.conv", self.paths[0], shape, role=role, bias=bias, geometry=self.geometry)
        if not self.normed:
            return (conv,)
        return conv, Part("batch_norm", f"{self.name}.norm", self.paths[1], (out,), role=f"norm_{self.where}")

    def module(self, arrays: Arrays, block: str, eps: float) -> ConvNorm:
        """`block`: the name of the module that it lies in; empty below and above the stages."""
        return ConvNorm(self, arrays, f"{block}.{self.name}" if block else self.name, eps)


class ConvNorm(nnx.Module):
    """A step's module: its attributes are called as its parts are."""

    def __init__(self, step: Step, arrays: Arrays, name: str, eps: float):
        self.name = name
        self.conv = Conv(arrays, f"{name}.conv", step.geometry)
        self.norm = BatchNorm(arrays, f"{name}.norm", eps) if step.normed else None

    def __call__(self, h: jax.Array, calls: SiteCalls) -> jax.Array:
        y = calls.conv(f"{self.name}.conv", h, self.conv)
        return y if self.norm is None else calls.norm(f"{self.name}.norm", y, self.norm)


def parts_of(steps: Iterable[Step]) -> tuple[Part, ...]:
    return tuple(part for step in steps for part in step.parts())


@dataclass(frozen=True)
class Plain:
    """A kind of block: one step and its activation."""

    step: Step
    activation: str
    streams: bool = True  # whether methods may act on what leaves it

    @property
    def out(self) -> int:
        return self.step.channels[1]

    def parts(self) -> tuple[Part, ...]:
        return (*self.step.parts(), *([Part("stream", "output", "", (self.out,))] if self.streams else ()))

    def module(self, arrays: Arrays, name: str, eps: float) -> PlainBlock:
        return PlainBlock(self, arrays, name, eps)


class PlainBlock(nnx.Module):
    """The module of such blocks, whose attribute is called as the step is."""

    def __init__(self, kind: Plain, arrays: Arrays, name: str, eps: float):
        self.name, self.kind = name, kind
        setattr(self, kind.step.name, kind.step.module(arrays, name, eps))

    def __call__(self, h: jax.Array, view: None, calls: SiteCalls, pooled: bool = False) -> jax.Array:
        step: Any = getattr(self, self.kind.step.name)
        y = ACTIVATIONS[self.kind.activation](step(h, calls))
        return calls.stream(f"{self.name}.output", y) if self.kind.streams else y
