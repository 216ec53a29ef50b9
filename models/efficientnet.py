"""EfficientNet (Tan & Le, 2019, arXiv:1905.11946): groups of blocks with squeeze and excitation, scaled in width and depth.

The block is that of `mobile_blocks.py`; a 3x3 convolution lies below, a 1x1 above. Where a convolution has a stride, it is
padded as TensorFlow pads pictures of even sides, one more behind than before, whatever the size: so transformers does it.
Blocks in `depthwise_padding` are padded alike on both sides, as TensorFlow pads odd ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax

from ..adapters.geometry import Geometry
from ..adapters.methods.head import POOLED
from ..errors import GraftaxError
from .config_keys import MOST_LAYERS, Key, activation, choice, epsilon, indices, number, size, sizes, unread_all
from .conv_steps import Plain, Step, square
from .family import Family, TaskHead
from .layers import Arrays
from .mobile_blocks import Mobile, Names
from .pictures import Pictures
from .stages import Kind, Stemmed, StemmedConfig, stacks_of, stemmed_parts

STEM, TOP = 32, 1280  # channels of the first convolution and of the last, before they are scaled

#: What EfficientNetConfig declares: B7's.
KEYS: Mapping[str, Key] = {
    "num_channels": size(3, "num_channels"),
    "width_coefficient": number(2.0),
    "depth_coefficient": number(3.1),
    "depth_divisor": size(8),
    "kernel_sizes": sizes((3, 3, 5, 3, 5, 5, 3)),
    "in_channels": sizes((32, 16, 24, 40, 80, 112, 192)),
    "out_channels": sizes((16, 24, 40, 80, 112, 192, 320)),
    "depthwise_padding": indices(()),
    "strides": sizes((1, 2, 2, 2, 1, 2, 1)),
    "num_block_repeats": sizes((1, 2, 2, 3, 3, 4, 1)),
    "expand_ratios": sizes((1, 6, 6, 6, 6, 6, 6)),
    "squeeze_expansion_ratio": number(0.25, "squeezed"),
    "hidden_act": activation("swish"),
    "hidden_dim": size(2560, "hidden_size"),
    "pooling_type": choice("mean", ("max",), "pooling"),
    "batch_norm_eps": epsilon(0.001),
    # its processor's, and of training
    **unread_all(image_size=600, initializer_range=0.02, batch_norm_momentum=0.99, dropout_rate=0.5, drop_connect_rate=0.2),
}


@dataclass(frozen=True)
class Spelling:
    """What modules are called in a checkpoint; blocks by their number, or their group and their index in it."""

    stem: tuple[str, str]
    block: str
    names: Names
    last: tuple[str, str]
    last_block: str = ""
    bare: Names | None = None  # of blocks that do not widen, where these are called otherwise


TRANSFORMERS = Spelling(
    stem=("embeddings.convolution", "embeddings.batchnorm"),
    block="encoder.blocks.{number}",
    names=Names(
        expand=("expansion.expand_conv", "expansion.expand_bn"),
        depthwise=("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm"),
        reduce=("projection.project_conv", "projection.project_bn"),
        squeeze="squeeze_excite.reduce",
        excite="squeeze_excite.expand",
    ),
    last=("top_conv", "top_bn"),
    last_block="encoder",
)


@dataclass(frozen=True)
class Group:
    """Blocks one behind another, of which the first alone may have a stride and other channels than it is given."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    inputs: int
    out: int


#: How a convolution with a stride is padded: as transformers does it, as TensorFlow does, or alike on both sides.
TRANSFORMERS_PADDING, TENSORFLOW_PADDING, ALIKE = "transformers", "TF same", "alike"


@dataclass(frozen=True)
class EfficientNetConfig(StemmedConfig):
    num_channels: int
    stem_channels: int
    groups: tuple[Group, ...]
    hidden_size: int
    squeezed: float  # the part of a block's input channels between squeeze and excitation; 0: there is neither
    activation: str
    norm_eps: float
    padding: str
    spelling: Spelling
    pooling: str = "mean"
    padded_alike: tuple[int, ...] = ()  # blocks
    skips_first: bool = False  # whether the first block of a group has no residual branch, whatever its channels

    def _around(self, kernel: int, stride: int, channels: int, *, alike: bool) -> Geometry:
        """Of a convolution in as many groups as channels."""
        half = kernel // 2
        if alike or stride == 1 or self.padding == ALIKE:
            return square(kernel, stride, half, groups=channels)
        if self.padding == TENSORFLOW_PADDING:
            return square(kernel, stride, None, groups=channels)
        return Geometry((stride, stride), ((half - 1, half), (half - 1, half)), groups=channels)

    @property
    def stem(self) -> Step:
        channels = self.num_channels, self.stem_channels
        return Step("stem_in", "stem", self.spelling.stem, channels, 3, self._around(3, 2, 1, alike=False))

    @property
    def blocks(self) -> tuple[tuple[str, Kind], ...]:
        found: list[tuple[str, Kind]] = []
        for place, group in enumerate(self.groups):
            for index in range(group.repeats):
                one = group if index == 0 else replace(group, stride=1, inputs=group.out)
                path = self.spelling.block.format(number=len(found), group=place, index=index)
                found.append((path, self._block(one, len(found), first=index == 0)))
        last = Step("last", "last", self.spelling.last, (self.groups[-1].out, self.hidden_size), 1)
        return (*found, (self.spelling.last_block, Plain(last, self.activation, streams=False)))

    def _block(self, group: Group, block: int, *, first: bool) -> Mobile:
        expands, names = group.expand != 1, self.spelling.names
        wide = group.inputs * group.expand
        return Mobile(
            channels=group.inputs,
            wide=wide,
            out=group.out,
            kernel=group.kernel,
            around=self._around(group.kernel, group.stride, wide, alike=block in self.padded_alike),
            names=names if expands else self.spelling.bare or names,
            activation=self.activation,
            expands=expands,
            residual=group.stride == 1 and group.inputs == group.out and not (first and self.skips_first),
            squeezed=max(1, int(group.inputs * self.squeezed)) if self.squeezed else 0,
            squeezes_by=self.activation,
        )

    def check(self) -> None:
        if (count := sum(group.repeats for group in self.groups)) > MOST_LAYERS:
            raise GraftaxError(f"config.json: {count:,} blocks; supported are up to {MOST_LAYERS:,}.")
        made = self.stem_channels
        for group in self.groups:
            if group.inputs != made:
                raise GraftaxError(f"config.json: a group of blocks takes {group.inputs} channels, and is given {made}.")
            if group.stride > 2 or group.kernel % 2 == 0:
                raise GraftaxError(f"config.json: a kernel of {group.kernel} with a stride of {group.stride}: not supported.")
            made = group.out


def scaled(channels: int, by: float, divisor: int) -> int:
    """The nearest multiple of the divisor, that takes away no more than a tenth."""
    wanted = channels * by
    near = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * wanted else near


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    columns = {name: values[name] for name in ("kernel_sizes", "strides", "expand_ratios", "in_channels", "out_channels")}
    repeats = [math.ceil(values["depth_coefficient"] * each) for each in values["num_block_repeats"]]
    lengths = {name: len(column) for name, column in {"num_block_repeats": repeats, **columns}.items()}
    if len({*lengths.values()}) > 1:
        raise GraftaxError(f"config.json: lists of unlike lengths, one number for each group of blocks: {lengths}.")
    by, divisor = values["width_coefficient"], values["depth_divisor"]
    if values["hidden_dim"] != (top := scaled(TOP, by, divisor)):
        raise GraftaxError(f"config.json: hidden_dim is {values['hidden_dim']}, and width_coefficient makes it {top}.")
    groups = tuple(
        Group(count, kernel, stride, expand, scaled(inputs, by, divisor), scaled(out, by, divisor))
        for count, kernel, stride, expand, inputs, out in zip(repeats, *columns.values(), strict=True)
    )
    alike = tuple(values["depthwise_padding"])
    return {"stem_channels": scaled(STEM, by, divisor), "groups": groups, "padded_alike": alike}


class EfficientNet(Stemmed):
    def __init__(self, config: EfficientNetConfig, arrays: Arrays):
        super().__init__(config, arrays)
        self.pooling = config.pooling

    def gathered(self, h: jax.Array) -> jax.Array:
        return h.max((-3, -2)) if self.pooling == "max" else h.mean((-3, -2))


FAMILY = Family(
    model_types=("efficientnet",),
    summary="EfficientNet, B0 to B7",
    task_model="EfficientNet",
    prefix="efficientnet",
    keys=KEYS,
    older=unread_all(num_hidden_layers=None),  # which the class makes of the others
    defaults={"padding": TRANSFORMERS_PADDING, "spelling": TRANSFORMERS, "skips_first": True},
    parts=stemmed_parts,
    stacks=stacks_of,
    head=TaskHead(features="pooled", hidden="none", modules=("classifier",), sites=(POOLED,)),
    config=EfficientNetConfig,
    task="image-classify",
    processor=Pictures,
    module=EfficientNet,
    read=read,
)
