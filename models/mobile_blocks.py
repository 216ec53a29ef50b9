"""The block that MobileNets and EfficientNets are made of: it widens, looks around channel by channel, and narrows again.

y = act(BN(expand h))                                       1x1; not in every block
y = act(BN(depthwise y))                                    a kernel for each channel
y = y * gate(W2 act(W1 mean(y) + b1) + b2)                  squeeze and excitation (Hu et al., 2017, arXiv:1709.01507),
                                                            of the mean over all positions; where the block has it
y = BN(reduce y)                                            1x1
h = h + y                                                   where stride and channels allow; else h = y
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
from flax import nnx

from ..adapters.geometry import Geometry
from ..adapters.graft import SiteCalls
from .activations import ACTIVATIONS
from .conv_steps import ConvNorm, Step, parts_of
from .layers import Arrays
from .parts import Part

GATES: Mapping[str, Callable[[jax.Array], jax.Array]] = {"sigmoid": jax.nn.sigmoid, "hard_sigmoid": jax.nn.hard_sigmoid}


@dataclass(frozen=True)
class Names:
    """Paths of a block's modules in a checkpoint: of a convolution and its norm each."""

    expand: tuple[str, str]
    depthwise: tuple[str, str]
    reduce: tuple[str, str]
    squeeze: str = ""  # both have biases and no norm
    excite: str = ""


@dataclass(frozen=True)
class Mobile:
    """A kind of block."""

    channels: int
    wide: int
    out: int
    kernel: int
    around: Geometry  # of the depthwise convolution
    names: Names
    activation: str
    expands: bool = True
    residual: bool = True
    squeezed: int = 0  # channels between squeeze and excitation; 0: there is none
    squeezes_by: str = "relu"  # the activation between them
    gate: str = "sigmoid"  # one of `GATES`

    @property
    def steps(self) -> dict[str, Step]:
        """By name, in their order."""
        names, wide = self.names, (self.wide, self.wide)
        expand = Step("expand", "in", names.expand, (self.channels, self.wide), 1)
        every = (
            *([expand] if self.expands else ()),
            Step("depthwise", "depthwise", names.depthwise, wide, self.kernel, self.around),
            *(self._gate if self.squeezed else ()),
            Step("reduce", "out", names.reduce, (self.wide, self.out), 1),
        )
        return {step.name: step for step in every}

    @property
    def _gate(self) -> tuple[Step, Step]:
        squeeze = Step("squeeze", "squeeze", (self.names.squeeze, ""), (self.wide, self.squeezed), 1)
        return squeeze, Step("excite", "excite", (self.names.excite, ""), (self.squeezed, self.wide), 1)

    def parts(self) -> tuple[Part, ...]:
        path = self.names.reduce[0].rpartition(".")[0] or self.names.reduce[0]  # what holds the last convolution, if anything
        branch = Part("branch", "branch", path, (self.out,), role="conv_branch")
        return (*parts_of(self.steps.values()), *([branch] if self.residual else ()), Part("stream", "output", "", (self.out,)))

    def module(self, arrays: Arrays, name: str, eps: float) -> MobileBlock:
        return MobileBlock(self, arrays, name, eps)


class MobileBlock(nnx.Module):
    expand: ConvNorm
    depthwise: ConvNorm
    squeeze: ConvNorm
    excite: ConvNorm
    reduce: ConvNorm

    def __init__(self, kind: Mobile, arrays: Arrays, name: str, eps: float):
        self.name, self.kind = name, kind
        for step in kind.steps.values():
            setattr(self, step.name, step.module(arrays, name, eps))

    def __call__(self, h: jax.Array, view: None, calls: SiteCalls, pooled: bool = False) -> jax.Array:
        kind, act = self.kind, ACTIVATIONS[self.kind.activation]
        y = act(self.expand(h, calls)) if kind.expands else h
        y = act(self.depthwise(y, calls))
        if kind.squeezed:
            mean = y.mean((-3, -2), keepdims=True)
            few = ACTIVATIONS[kind.squeezes_by](self.squeeze(mean, calls))
            y = y * GATES[kind.gate](self.excite(few, calls))
        y = self.reduce(y, calls)
        if kind.residual:
            y = h + calls.branch(f"{self.name}.branch", h, y)
        return calls.stream(f"{self.name}.output", y)
