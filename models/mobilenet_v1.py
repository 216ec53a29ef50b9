"""MobileNet (Howard et al., 2017, arXiv:1704.04861): convolutions taken apart, what they see from which channels they mix.

    h = act(BN(conv h))                 3x3, with a kernel for each channel; then 1x1; thirteen times, behind a 3x3 convolution

There are no residual branches. With `tf_padding` convolutions are padded as TensorFlow pads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..adapters.geometry import Geometry
from ..adapters.methods.head import POOLED
from .config_keys import Key, activation, epsilon, flag, number, size, unread_all
from .conv_steps import Plain, Step, conv_layer, square
from .family import Family, TaskHead
from .pictures import Pictures
from .stages import Kind, Stemmed, StemmedConfig, stacks_of, stemmed_parts

_STEM = 32
_CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)

#: What MobileNetV1Config declares.
KEYS: Mapping[str, Key] = {
    "num_channels": size(3, "num_channels"),
    "depth_multiplier": number(1.0, "depth_multiplier"),
    "min_depth": size(8, "least"),
    "hidden_act": activation("relu6"),
    "tf_padding": flag(True, "tf_padding"),
    "layer_norm_eps": epsilon(0.001),
    # its processor's, and of training
    **unread_all(image_size=224, classifier_dropout_prob=0.999, initializer_range=0.02),
}


@dataclass(frozen=True)
class MobileNetV1Config(StemmedConfig):
    num_channels: int
    depth_multiplier: float
    least: int  # channels
    tf_padding: bool
    hidden_size: int
    norm_eps: float
    activation: str

    def scaled(self, channels: int) -> int:
        return _scaled(channels, self.depth_multiplier, self.least)

    def _around(self, stride: int, groups: int = 1) -> Geometry:
        """Of a 3x3 convolution."""
        return square(3, stride, None if self.tf_padding else 1, groups=groups)

    @property
    def stem(self) -> Step:
        channels = self.num_channels, self.scaled(_STEM)
        return Step("stem_in", "stem", conv_layer("conv_stem"), channels, 3, self._around(2))

    @property
    def blocks(self) -> tuple[tuple[str, Kind], ...]:
        """Two for each pair of convolutions."""
        found: list[tuple[str, Kind]] = []
        channels = self.scaled(_STEM)
        for stride, each in zip(_STRIDES, _CHANNELS, strict=True):
            out = self.scaled(each)
            around = Step("depthwise", "depthwise", conv_layer(""), (channels, channels), 3, self._around(stride, channels))
            mix = Step("pointwise", "out", conv_layer(""), (channels, out), 1)
            found += [(f"layer.{len(found) + at}", Plain(step, self.activation)) for at, step in enumerate((around, mix))]
            channels = out
        return tuple(found)


def _scaled(channels: int, by: float, least: int) -> int:
    return max(int(channels * by), least)


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"hidden_size": _scaled(_CHANNELS[-1], values["depth_multiplier"], values["min_depth"])}


FAMILY = Family(
    model_types=("mobilenet_v1",),
    summary="MobileNet, of any width",
    task_model="MobileNetV1",
    prefix="mobilenet_v1",
    keys=KEYS,
    parts=stemmed_parts,
    stacks=stacks_of,
    head=TaskHead(features="pooled", hidden="none", modules=("classifier",), sites=(POOLED,)),
    config=MobileNetV1Config,
    task="image-classify",
    processor=Pictures,
    module=Stemmed,
    read=read,
)
