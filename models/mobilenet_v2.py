"""MobileNetV2 (Sandler et al., 2018, arXiv:1801.04381): sixteen blocks (`mobile_blocks.py`) whose depthwise kernels are 3x3.

A stem of one 3x3 convolution and a block without its first step lies below them, a 1x1 convolution above, and the
mean over all positions is classified. `output_stride` below 32 keeps feature maps larger: strides become dilations. With
`tf_padding` convolutions are padded as TensorFlow pads them, by the size of what they are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from ..adapters.geometry import Geometry
from ..adapters.graft import SiteCalls
from ..adapters.methods.head import POOLED
from .activations import ACTIVATIONS
from .config_keys import activation, epsilon, flag, number, size, unread_all
from .conv_steps import ConvNorm, Plain, Step, conv_layer, parts_of, square
from .family import Family, TaskHead
from .layers import Arrays
from .mobile_blocks import Mobile, Names
from .parts import Part
from .pictures import Pictures
from .stages import Kind, StagedConfig, StagedNetwork, stacks_of, staged_parts

#: Output channels of the stem, of the sixteen blocks, and strides of these.
_CHANNELS = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
_STRIDES = (2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
_STEM, _TOP = 32, 1280  # channels of the first convolution, and of the last

_NAMES = Names(conv_layer("expand_1x1"), conv_layer("conv_3x3"), conv_layer("reduce_1x1"))

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
    def stem(self) -> tuple[Step, ...]:
        wide, out = self.scaled(_STEM), self.scaled(_CHANNELS[0])
        first, expand, depthwise, reduce = (
            conv_layer(f"conv_stem.{name}") for name in ("first_conv", "expand_1x1", "conv_3x3", "reduce_1x1")
        )
        return (
            Step("stem_first", "stem", first, (self.num_channels, wide), 3, self.around(stride=2)),
            *([] if self.first_expands else [Step("stem_expand", "stem_expand", expand, (wide, wide), 1)]),
            Step("stem_depthwise", "stem_depthwise", depthwise, (wide, wide), 3, self.around(wide)),
            Step("stem_reduce", "stem_reduce", reduce, (wide, out), 1),
        )

    @property
    def blocks(self) -> tuple[tuple[str, Kind], ...]:
        channels = [self.scaled(each) for each in _CHANNELS]
        found: list[tuple[str, Kind]] = []
        reduced, dilation = 2, 1  # the stem has a stride of 2
        for index, stride in enumerate(_STRIDES):
            inputs, out = channels[index : index + 2]
            if reduced == self.output_stride:
                found.append((f"layer.{index}", self._block(inputs, out, 1, dilation)))
                dilation *= stride  # felt from the next block on
            else:
                found.append((f"layer.{index}", self._block(inputs, out, stride, 1)))
                reduced *= stride
        last = Step("last", "last", conv_layer(""), (channels[-1], self.hidden_size), 1)
        return (*found, ("conv_1x1", Plain(last, self.activation, streams=False)))

    def _block(self, channels: int, out: int, stride: int, dilation: int) -> Mobile:
        wide = self.scaled(channels, self.expand_ratio)
        residual = stride == 1 and channels == out
        around = self.around(wide, stride, dilation)
        return Mobile(channels, wide, out, 3, around, _NAMES, self.activation, residual=residual)

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


class MobileNetV2(StagedNetwork):
    stem_first: ConvNorm
    stem_expand: ConvNorm
    stem_depthwise: ConvNorm
    stem_reduce: ConvNorm

    def __init__(self, config: MobileNetV2Config, arrays: Arrays):
        super().__init__(config, arrays)
        self.activation, self.whole_stem = config.activation, not config.first_expands
        for step in config.stem:
            setattr(self, step.name, step.module(arrays, "", config.norm_eps))

    def stem(self, pixels: jax.Array, calls: SiteCalls) -> jax.Array:
        act = ACTIVATIONS[self.activation]
        h = act(self.stem_first(pixels, calls))
        if self.whole_stem:
            h = act(self.stem_expand(h, calls))
        return self.stem_reduce(act(self.stem_depthwise(h, calls)), calls)


def parts(config: MobileNetV2Config) -> tuple[Part, ...]:
    return (*parts_of(config.stem), *staged_parts(config))


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
