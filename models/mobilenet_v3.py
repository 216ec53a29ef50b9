"""MobileNetV3 (Howard et al., 2019, arXiv:1905.02244), large and small: MobileNetV2's blocks with squeeze and excitation.

The blocks are those of `mobile_blocks.py`, gated by a clipped line; activations are ReLU in the first ones, then hard swish.
Behind the mean over all positions stands a layer of its own, whose output heads read. `timm_mobilenet_v3` has the names of
timm's checkpoints, `mobilenet_v3` those of torchvision's (`timm_config.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax

from ..adapters.geometry import Geometry
from ..adapters.graft import SiteCalls
from ..adapters.methods.head import POOLED
from ..errors import GraftaxError
from . import timm_config
from .activations import ACTIVATIONS
from .config_keys import MOST_LAYERS, Key, choice, epsilon, size, sizes
from .conv_steps import Plain, Step, square
from .efficientnet import ALIKE, TENSORFLOW_PADDING, scaled
from .family import Family, TaskHead
from .layers import Arrays, Conv, Linear
from .mobile_blocks import Mobile, Names
from .parts import Part
from .pictures import Pictures
from .stages import Kind, Stemmed, StemmedConfig, stacks_of, stemmed_parts

_SWISH = "hardswish"
#: Of each block: the kernel, channels inside and out, whether it squeezes, whether its activation is hard swish, the stride.
_LARGE = (
    (3, 16, 16, 0, 0, 1),
    (3, 64, 24, 0, 0, 2),
    (3, 72, 24, 0, 0, 1),
    (5, 72, 40, 1, 0, 2),
    (5, 120, 40, 1, 0, 1),
    (5, 120, 40, 1, 0, 1),
    (3, 240, 80, 0, 1, 2),
    (3, 200, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1),
    (3, 480, 112, 1, 1, 1),
    (3, 672, 112, 1, 1, 1),
    (5, 672, 160, 1, 1, 2),
    (5, 960, 160, 1, 1, 1),
    (5, 960, 160, 1, 1, 1),
)
_SMALL = (
    (3, 16, 16, 1, 0, 2),
    (3, 72, 24, 0, 0, 2),
    (3, 88, 24, 0, 0, 1),
    (5, 96, 40, 1, 1, 2),
    (5, 240, 40, 1, 1, 1),
    (5, 240, 40, 1, 1, 1),
    (5, 120, 48, 1, 1, 1),
    (5, 144, 48, 1, 1, 1),
    (5, 288, 96, 1, 1, 2),
    (5, 576, 96, 1, 1, 1),
    (5, 576, 96, 1, 1, 1),
)


def _is_block(value: Any) -> bool:
    one = size(None, least=0)
    whole = isinstance(value, list | tuple) and len(value) == 6 and all(map(one.allows, value))
    return whole and min(*value[:3], value[5]) > 0


def _are_blocks(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_block, value))


KEYS: Mapping[str, Key] = {
    "blocks": Key(_LARGE, _are_blocks, "six whole numbers for each block"),
    "stages": sizes((1, 2, 3, 4, 2, 3), MOST_LAYERS),  # how many blocks each has
    "stem": size(16, "stem_channels"),
    "last": size(960, "last_channels"),
    "head": size(1280, "hidden_size"),
    "num_channels": size(3, "num_channels"),
    "batch_norm_eps": epsilon(1e-5),
    "padding": choice(ALIKE, (TENSORFLOW_PADDING,), "padding"),
}


class Block(NamedTuple):
    kernel: int
    wide: int
    out: int
    squeezes: int
    swish: int
    stride: int


@dataclass(frozen=True)
class Timm:
    """timm's names: blocks lie in stages, and the last convolution is a stage of its own."""

    stem = ("conv_stem", "bn1")
    last = ("conv", "bn1")
    top = "conv_head"

    def block(self, stage: int, index: int, number: int) -> str:
        return f"blocks.{stage}.{index}"

    def last_block(self, stages: int, blocks: int) -> str:
        return f"blocks.{stages}.0"

    def names(self, *, expands: bool, squeezes: bool) -> Names:
        gate = "se.conv_reduce", "se.conv_expand"
        if not expands:
            return Names(("", ""), ("conv_dw", "bn1"), ("conv_pw", "bn2"), *gate)
        return Names(("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"), *gate)


@dataclass(frozen=True)
class Torchvision:
    """torchvision's names: everything is called by its number, in what it lies in."""

    stem = ("features.0.0", "features.0.1")
    last = ("0", "1")
    top = "classifier.0"

    def block(self, stage: int, index: int, number: int) -> str:
        return f"features.{number + 1}.block"

    def last_block(self, stages: int, blocks: int) -> str:
        return f"features.{blocks + 1}"

    def names(self, *, expands: bool, squeezes: bool) -> Names:
        around, gate, narrow = int(expands), int(expands) + 1, int(expands) + 1 + int(squeezes)
        expand, depthwise, reduce = ((f"{place}.0", f"{place}.1") for place in (0, around, narrow))
        return Names(expand, depthwise, reduce, f"{gate}.fc1", f"{gate}.fc2")


@dataclass(frozen=True)
class MobileNetV3Config(StemmedConfig):
    num_channels: int
    stem_channels: int
    each: tuple[Block, ...]
    stages_of_blocks: tuple[int, ...]
    last_channels: int
    hidden_size: int
    norm_eps: float
    padding: str
    spelling: Timm | Torchvision
    activation: str = _SWISH

    def _around(self, kernel: int, stride: int, groups: int = 1) -> Geometry:
        return square(kernel, stride, kernel // 2 if self.padding == ALIKE else None, groups=groups)

    @property
    def stem(self) -> Step:
        return Step("stem_in", "stem", self.spelling.stem, (self.num_channels, self.stem_channels), 3, self._around(3, 2))

    @property
    def blocks(self) -> tuple[tuple[str, Kind], ...]:
        found: list[tuple[str, Kind]] = []
        places = [(stage, index) for stage, count in enumerate(self.stages_of_blocks) for index in range(count)]
        channels = self.stem_channels
        for number, (place, block) in enumerate(zip(places, self.each, strict=True)):
            found.append((self.spelling.block(*place, number), self._block(channels, block)))
            channels = block.out
        path = self.spelling.last_block(len(self.stages_of_blocks), len(self.each))
        last = Step("last", "last", self.spelling.last, (channels, self.last_channels), 1)
        return (*found, (path, Plain(last, self.activation, streams=False)))

    def _block(self, channels: int, block: Block) -> Mobile:
        expands = block.wide != channels
        return Mobile(
            channels=channels,
            wide=block.wide,
            out=block.out,
            kernel=block.kernel,
            around=self._around(block.kernel, block.stride, block.wide),
            names=self.spelling.names(expands=expands, squeezes=bool(block.squeezes)),
            activation=_SWISH if block.swish else "relu",
            expands=expands,
            residual=block.stride == 1 and channels == block.out,
            squeezed=scaled(block.wide, 0.25, 8) if block.squeezes else 0,
            gate="hard_sigmoid",
        )

    def check(self) -> None:
        if sum(self.stages_of_blocks) != len(self.each):
            raise GraftaxError(
                f"config.json: stages of {sum(self.stages_of_blocks)} blocks, of which there are {len(self.each)}."
            )


class MobileNetV3(Stemmed):
    """With a layer between the mean and heads: in timm's a convolution of one position, in torchvision's a linear layer."""

    def __init__(self, config: MobileNetV3Config, arrays: Arrays):
        super().__init__(config, arrays)
        convolves = isinstance(config.spelling, Timm)
        self.before_head = Conv(arrays, "before_head", square(1)) if convolves else Linear(arrays, "before_head")

    def top(self, gathered: jax.Array, calls: SiteCalls) -> jax.Array:
        layer, act = self.before_head, ACTIVATIONS[self.activation]
        if isinstance(layer, Linear):
            return act(calls.linear("before_head", gathered, layer))
        return act(calls.conv("before_head", gathered[..., None, None, :], layer)[..., 0, 0, :])


def parts(config: MobileNetV3Config) -> tuple[Part, ...]:
    convolves, shape = isinstance(config.spelling, Timm), (config.last_channels, config.hidden_size)
    above, path = config.stages[-1].layers.name, config.spelling.top
    if convolves:
        top = Part("conv", "before_head", path, (1, 1, *shape), role="conv_head", above=above, geometry=square(1))
    else:
        top = Part("linear", "before_head", path, shape, role="conv_head", above=above)
    return (*stemmed_parts(config), top)


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"each": tuple(Block(*six) for six in values["blocks"]), "stages_of_blocks": tuple(values["stages"])}


_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "large": {},
    "small": {"blocks": _SMALL, "stages": (1, 2, 3, 2, 3), "last": 576, "head": 1024},
}
_TENSORFLOW = {"padding": TENSORFLOW_PADDING, "batch_norm_eps": 1e-3}
_TIMM = Family(
    model_types=("timm_mobilenet_v3",),
    summary="MobileNetV3, large and small, with timm's names",
    keys=KEYS,
    older=timm_config.BESIDE,
    architectures={
        **{f"mobilenetv3_{name}_100": shape for name, shape in _SHAPES.items()},
        **{f"tf_mobilenetv3_{name}_100": {**shape, **_TENSORFLOW} for name, shape in _SHAPES.items()},
    },
    defaults={"spelling": Timm()},
    parts=parts,
    stacks=stacks_of,
    head=TaskHead(features="pooled", hidden="none", modules=("classifier",), sites=(POOLED,)),
    config=MobileNetV3Config,
    task="image-classify",
    processor=Pictures,
    module=MobileNetV3,
    read=read,
)
_TORCHVISION = replace(
    _TIMM,
    model_types=("mobilenet_v3",),
    summary="MobileNetV3, large and small, with torchvision's names",
    architectures={f"mobilenet_v3_{name}": {**shape, "batch_norm_eps": 1e-3} for name, shape in _SHAPES.items()},
    head=replace(_TIMM.head, modules=("classifier.3",)),
    defaults={"spelling": Torchvision()},
)
FAMILIES = (_TIMM, _TORCHVISION)
