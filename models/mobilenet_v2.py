"""MobileNetV2 (Sandler et al., 2018, arXiv:1801.04381): blocks that widen, look around channel by channel, and narrow again.

    y = BN(reduce act(BN(depthwise act(BN(expand h)))))         1x1, 3x3 with a kernel for each channel, 1x1
    h = h + y                                                   where stride and channels allow; else h = y

A stem of one 3x3 convolution and a block without its first step lies below the sixteen blocks, a 1x1 convolution above, and the
mean over all positions is classified. `output_stride` below 32 keeps feature maps larger: strides become dilations. With
`tf_padding` convolutions are padded as TensorFlow pads them, by the size of what they are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from ..adapters.geometry import Geometry
from ..adapters.graft import SiteCalls
from ..adapters.methods.head import POOLED
from .activations import ACTIVATIONS
from .config_keys import activation, epsilon, flag, number, size, unread_all
from .family import Family, TaskHead
from .layers import Arrays
from .parts import Part
from .pictures import Pictures
from .stages import ConvNorm, StagedConfig, StagedNetwork, conv_norm_parts, square, stacks_of, staged_parts

#: Output channels of the stem, of the sixteen blocks, and strides of these.
_CHANNELS = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
_STRIDES = (2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
_STEM, _TOP = 32, 1280  # channels of the first convolution, and of the last

#: What MobileNetV2Config declares.
KEYS = {
    "num_channels": size(3, "num_channels"),
    "depth_multiplier": number(1.0, "depth_multiplier"),
    "depth_divisible_by": size(8, "divisor"),
    "min_depth": size(8, "least"),
    "expand_ratio": number(6.0, "expand_ratio"),
    "output_stride": size(32, "output_stride"),
    "first_layer_is_expansion": flag(True, "first_expands"),
    "finegrained_output": flag(True),
    "hidden_act": activation("relu6"),
    "tf_padding": flag(True, "tf_padding"),
    "layer_norm_eps": epsilon(0.001),
    # its processor's, and of training
    **unread_all(image_size=224, classifier_dropout_prob=0.8, initializer_range=0.02, semantic_loss_ignore_index=255),
}


@dataclass(frozen=True)
class Block:
    """A kind of block; the last convolution is one as well, with `wide` 0."""

    channels: int
    wide: int
    out: int
    stride: int = 1
    dilation: int = 1

    @property
    def residual(self) -> bool:
        return self.wide > 0 and self.stride == 1 and self.channels == self.out


@dataclass(frozen=True)
class MobileNetV2Config(StagedConfig):
    num_channels: int
    depth_multiplier: float
    divisor: int  # of which all numbers of channels are multiples
    least: int  # channels
    expand_ratio: float
    output_stride: int
    first_expands: bool  # whether the first convolution stands for the widening of the stem's block
    tf_padding: bool
    hidden_size: int
    norm_eps: float
    activation: str

    def scaled(self, channels: int, by: float | None = None) -> int:
        """So many times the channels, `depth_multiplier` or another number."""
        return _scaled(channels, self.depth_multiplier if by is None else by, self.divisor, self.least)

    @property
    def blocks(self) -> tuple[tuple[str, Any], ...]:
        channels = [self.scaled(each) for each in _CHANNELS]
        found, reduced, dilation = [], 2, 1  # the stem has a stride of 2
        for index, stride in enumerate(_STRIDES):
            inputs, out = channels[index : index + 2]
            wide = self.scaled(inputs, self.expand_ratio)
            if reduced == self.output_stride:
                found.append((f"layer.{index}", Block(inputs, wide, out, 1, dilation)))
                dilation *= stride  # felt from the next block on
            else:
                found.append((f"layer.{index}", Block(inputs, wide, out, stride)))
                reduced *= stride
        return (*found, ("conv_1x1", Block(channels[-1], 0, self.hidden_size)))

    def around(self, channels: int = 1, stride: int = 1, dilation: int = 1) -> Geometry:
        """The geometry of a 3x3 convolution, in as many groups as channels."""
        return square(3, stride, None if self.tf_padding else dilation, dilation, channels)


def _scaled(channels: int, by: float, divisor: int, least: int) -> int:
    """The nearest multiple of the divisor, that takes away no more than a tenth."""
    wanted = round(channels * by)
    near = max(least, int(wanted + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * wanted else near


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """The last convolution, unless it is as wide as ever in a narrow network, is scaled as the others are."""
    by = values["depth_multiplier"]
    whole = values["finegrained_output"] and by < 1.0
    return {"hidden_size": _TOP if whole else _scaled(_TOP, by, values["depth_divisible_by"], values["min_depth"])}


class InvertedResidual(nnx.Module):
    """A block."""

    def __init__(self, config: MobileNetV2Config, kind: Block, arrays: Arrays, name: str):
        self.name, self.residual, self.activation = name, kind.residual, config.activation
        around = config.around(kind.wide, kind.stride, kind.dilation)
        self.expand = ConvNorm(arrays, f"{name}.expand", square(1), config.norm_eps)
        self.depthwise = ConvNorm(arrays, f"{name}.depthwise", around, config.norm_eps)
        self.reduce = ConvNorm(arrays, f"{name}.reduce", square(1), config.norm_eps)

    def __call__(self, h: jax.Array, view: None, calls: SiteCalls, pooled: bool = False) -> jax.Array:
        act = ACTIVATIONS[self.activation]
        y = self.reduce(act(self.depthwise(act(self.expand(h, calls)), calls)), calls)
        if self.residual:
            y = h + calls.branch(f"{self.name}.branch", h, y)
        return calls.stream(f"{self.name}.output", y)


class Last(nnx.Module):
    """The last convolution."""

    def __init__(self, config: MobileNetV2Config, arrays: Arrays, name: str):
        self.activation, self.last = config.activation, ConvNorm(arrays, f"{name}.last", square(1), config.norm_eps)

    def __call__(self, h: jax.Array, view: None, calls: SiteCalls, pooled: bool = False) -> jax.Array:
        return ACTIVATIONS[self.activation](self.last(h, calls))


class MobileNetV2(StagedNetwork):
    def __init__(self, config: MobileNetV2Config, arrays: Arrays):
        super().__init__(config, arrays)
        self.activation, self.whole_stem, eps = config.activation, not config.first_expands, config.norm_eps
        self.stem_first = ConvNorm(arrays, "stem_first", config.around(stride=2), eps)
        if self.whole_stem:
            self.stem_expand = ConvNorm(arrays, "stem_expand", square(1), eps)
        self.stem_depthwise = ConvNorm(arrays, "stem_depthwise", config.around(config.scaled(_STEM)), eps)
        self.stem_reduce = ConvNorm(arrays, "stem_reduce", square(1), eps)

    @staticmethod
    def block(config: MobileNetV2Config, kind: Block, arrays: Arrays, name: str) -> nnx.Module:
        return InvertedResidual(config, kind, arrays, name) if kind.wide else Last(config, arrays, name)

    def stem(self, pixels: jax.Array, calls: SiteCalls) -> jax.Array:
        act = ACTIVATIONS[self.activation]
        h = act(self.stem_first(pixels, calls))
        if self.whole_stem:
            h = act(self.stem_expand(h, calls))
        return self.stem_reduce(act(self.stem_depthwise(h, calls)), calls)


def _step(name: str, where: str, path: str, size: int, channels: tuple[int, int], geometry: Geometry) -> tuple[Part, Part]:
    """A convolution with its norm, as Hugging Face's MobileNetV2ConvLayer has them."""
    prefix = f"{path}." if path else ""
    return conv_norm_parts(name, where, (f"{prefix}convolution", f"{prefix}normalization"), size, channels, geometry)


def parts(config: MobileNetV2Config) -> tuple[Part, ...]:
    wide, out = config.scaled(_STEM), config.scaled(_CHANNELS[0])
    stem = [*_step("stem_first", "stem", "conv_stem.first_conv", 3, (config.num_channels, wide), config.around(stride=2))]
    if not config.first_expands:
        stem += _step("stem_expand", "stem_expand", "conv_stem.expand_1x1", 1, (wide, wide), square(1))
    stem += _step("stem_depthwise", "stem_depthwise", "conv_stem.conv_3x3", 3, (wide, wide), config.around(wide))
    stem += _step("stem_reduce", "stem_reduce", "conv_stem.reduce_1x1", 1, (wide, out), square(1))

    def block_parts(kind: Block) -> tuple[Part, ...]:
        if not kind.wide:
            return _step("last", "last", "", 1, (kind.channels, kind.out), square(1))
        around = config.around(kind.wide, kind.stride, kind.dilation)
        return (
            *_step("expand", "in", "expand_1x1", 1, (kind.channels, kind.wide), square(1)),
            *_step("depthwise", "depthwise", "conv_3x3", 3, (kind.wide, kind.wide), around),
            *_step("reduce", "out", "reduce_1x1", 1, (kind.wide, kind.out), square(1)),
            *([Part("branch", "branch", "reduce_1x1", (kind.out,), role="conv_branch")] if kind.residual else ()),
            Part("stream", "output", "", (kind.out,)),
        )

    return (*stem, *staged_parts(config, block_parts))


FAMILY = Family(
    model_types=("mobilenet_v2",),
    summary="MobileNetV2, of any width and output stride",
    task_model="MobileNetV2",
    prefix="mobilenet_v2",
    keys=KEYS,
    parts=parts,
    stacks=stacks_of,
    head=TaskHead(features="pooled", hidden="none", modules=("classifier",), sites=(POOLED,)),
    config=MobileNetV2Config,
    task="image-classify",
    processor=Pictures,
    module=MobileNetV2,
    read=read,
)
