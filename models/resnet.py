"""ResNet (He et al., 2015, arXiv:1512.03385): four stages of residual blocks, of 18 to 152 layers and any width.

    h = largest of windows of act(BN(conv h))                   the stem: 7x7, then 3x3, each with a stride of 2
    h = act(shortcut(h) + BN(conv relu(BN(conv h))))            "basic" blocks, of two 3x3 convolutions
    h = act(shortcut(h) + BN(conv relu(BN(conv relu(BN(conv h))))))     "bottleneck": 1x1, 3x3 with fewer channels, 1x1
    shortcut(h) = BN(conv h), 1x1, where stride or channels change; else h

Where a stage has a stride, it is that of the first 3x3 convolution (called v1.5), unless `downsample_in_bottleneck` says that
it is the 1x1's before it. `resnet` has the names of transformers' checkpoints, `timm_resnet` those of timm's and torchvision's
(`timm_config.py`); there the 3x3 convolutions may be in groups (ResNeXt; Xie et al., 2016, arXiv:1611.05431).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import nnx

from ..adapters.graft import SiteCalls
from ..adapters.methods.head import POOLED
from ..errors import GraftaxError
from . import timm_config
from .activations import ACTIVATIONS
from .config_keys import MOST_LAYERS, Key, activation, choice, flag, nullable, size, sizes, unread_all
from .conv_steps import ConvNorm, Step, conv_layer, parts_of, square
from .family import Family, TaskHead
from .layers import Arrays
from .map_pooling import largest
from .parts import Part
from .pictures import Pictures
from .stages import Kind, Stemmed, StemmedConfig, stacks_of, stemmed_parts

#: What transformers' ResNetConfig declares.
KEYS: Mapping[str, Key] = {
    "num_channels": size(3, "num_channels"),
    "embedding_size": size(64, "stem_channels"),
    "hidden_sizes": nullable(sizes((256, 512, 1024, 2048))),
    "depths": nullable(sizes((3, 4, 6, 3), MOST_LAYERS)),
    "layer_type": choice("bottleneck", ("basic",), "layer_type"),
    "hidden_act": activation("relu"),
    "downsample_in_first_stage": flag(False, "strided_first"),
    "downsample_in_bottleneck": flag(False, "strided_1x1"),
}
#: What transformers writes beside it, for backbones of detectors.
BESIDE = unread_all(out_features=None, out_indices=None, _out_features=None, _out_indices=None, stage_names=None)


@dataclass(frozen=True)
class Names:
    """What modules are called in a checkpoint."""

    stem: tuple[str, str]
    block: str  # of the stage and of the block within it
    steps: tuple[tuple[str, str], ...]
    shortcut: tuple[str, str]
    first_stage: int = 0


TRANSFORMERS = Names(
    conv_layer("embedder.embedder"),
    "encoder.stages.{}.layers.{}",
    tuple(conv_layer(f"layer.{index}") for index in range(3)),
    conv_layer("shortcut"),
)
TIMM = Names(
    ("conv1", "bn1"),
    "layer{}.{}",
    tuple((f"conv{index}", f"bn{index}") for index in (1, 2, 3)),
    ("downsample.0", "downsample.1"),
    first_stage=1,
)


@dataclass(frozen=True)
class Residual:
    """A kind of block."""

    channels: int
    inner: int
    out: int
    stride: int
    activation: str
    names: Names
    bottleneck: bool
    strided_1x1: bool = False
    groups: int = 1

    @property
    def steps(self) -> tuple[Step, ...]:
        """In their order, "first" to "third"."""
        first, second, third = self.names.steps
        if not self.bottleneck:
            return (
                Step("first", "in", first, (self.channels, self.out), 3, square(3, self.stride, 1)),
                Step("second", "out", second, (self.out, self.out), 3, square(3, 1, 1)),
            )
        before, around = (self.stride, 1) if self.strided_1x1 else (1, self.stride)
        wide = square(3, around, 1, groups=self.groups)
        return (
            Step("first", "in", first, (self.channels, self.inner), 1, square(1, before)),
            Step("second", "middle", second, (self.inner, self.inner), 3, wide),
            Step("third", "out", third, (self.inner, self.out), 1),
        )

    @property
    def shortcut(self) -> Step | None:
        if self.stride == 1 and self.channels == self.out:
            return None
        return Step("shortcut", "shortcut", self.names.shortcut, (self.channels, self.out), 1, square(1, self.stride))

    def parts(self) -> tuple[Part, ...]:
        last = self.steps[-1]
        branch = Part("branch", "branch", last.paths[1], (self.out,), role="conv_branch")
        shortcut = self.shortcut.parts() if self.shortcut else ()
        return (*parts_of(self.steps), *shortcut, branch, Part("stream", "output", "", (self.out,)))

    def module(self, arrays: Arrays, name: str, eps: float) -> ResidualBlock:
        return ResidualBlock(self, arrays, name, eps)


@dataclass(frozen=True)
class ResNetConfig(StemmedConfig):
    num_channels: int
    stem_channels: int
    layer_type: str
    activation: str
    strided_first: bool  # whether the first stage has a stride, too
    strided_1x1: bool
    depths: tuple[int, ...]
    channels: tuple[int, ...]  # that leave each stage
    hidden_size: int
    names: Names
    norm_eps: float = 1e-5
    groups: int = 1  # of the 3x3 convolutions in bottlenecks
    inner_width: int = 64  # how many channels these have where 64 would be a quarter of what leaves the block

    @property
    def stem(self) -> Step:
        around = square(7, 2, 3)
        return Step("stem_in", "stem", self.names.stem, (self.num_channels, self.stem_channels), 7, around)

    @property
    def blocks(self) -> tuple[tuple[str, Kind], ...]:
        found: list[tuple[str, Kind]] = []
        channels = self.stem_channels
        for stage, (depth, out) in enumerate(zip(self.depths, self.channels, strict=True)):
            for index in range(depth):
                stride = 2 if index == 0 and (stage or self.strided_first) else 1
                path = self.names.block.format(stage + self.names.first_stage, index)
                found.append((path, self._block(channels, out, stride)))
                channels = out
        return tuple(found)

    def _block(self, channels: int, out: int, stride: int) -> Residual:
        bottleneck = self.layer_type == "bottleneck"
        inner = self._inner(out) if bottleneck else out
        strided_1x1 = self.strided_1x1 and stride > 1
        return Residual(channels, inner, out, stride, self.activation, self.names, bottleneck, strided_1x1, self.groups)

    def check(self) -> None:
        there = f"config.json: hidden_sizes {list(self.channels)}"
        if len(self.depths) != len(self.channels):
            raise GraftaxError(f"{there} of {len(self.depths)} depths; each stage has one of both.")
        if self.layer_type == "basic" and (self.groups, self.inner_width) != (1, 64):
            raise GraftaxError("config.json: groups and inner_width are a bottleneck's, and layer_type is basic.")
        if self.layer_type == "bottleneck" and self._inner(min(self.channels)) < 1:
            raise GraftaxError(f"{there}: of the smallest a bottleneck's inside, by inner_width a part of it, has no channel.")

    def _inner(self, out: int) -> int:
        """Channels inside of a bottleneck."""
        return out // 4 * self.inner_width // 64 * self.groups


class ResidualBlock(nnx.Module):
    shortcut: ConvNorm

    def __init__(self, kind: Residual, arrays: Arrays, name: str, eps: float):
        self.name, self.kind = name, kind
        for step in (*kind.steps, *([kind.shortcut] if kind.shortcut else [])):
            setattr(self, step.name, step.module(arrays, name, eps))

    def __call__(self, h: jax.Array, view: None, calls: SiteCalls, pooled: bool = False) -> jax.Array:
        y = h
        for step in self.kind.steps[:-1]:
            y = jax.nn.relu(getattr(self, step.name)(y, calls))
        y = getattr(self, self.kind.steps[-1].name)(y, calls)
        beside = self.shortcut(h, calls) if self.kind.shortcut else h
        y = calls.branch(f"{self.name}.branch", beside, y)
        return calls.stream(f"{self.name}.output", ACTIVATIONS[self.kind.activation](beside + y))


class ResNet(Stemmed):
    def stem(self, pixels: jax.Array, calls: SiteCalls) -> jax.Array:
        return largest(super().stem(pixels, calls), 3, 2, 1)


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """Null stands for what the class has by default."""
    depths, channels = (tuple(values[name] or KEYS[name].default) for name in ("depths", "hidden_sizes"))
    return {"depths": depths, "channels": channels, "hidden_size": channels[-1]}


_FAMILY = Family(
    model_types=("resnet",),
    summary="ResNet of 18 to 152 layers (v1.5)",
    task_model="ResNet",
    prefix="resnet",
    keys=KEYS,
    older=BESIDE,
    parts=stemmed_parts,
    stacks=stacks_of,
    head=TaskHead(features="pooled", hidden="none", modules=("classifier.1",), sites=(POOLED,)),
    config=ResNetConfig,
    defaults={"names": TRANSFORMERS},
    task="image-classify",
    processor=Pictures,
    module=ResNet,
    read=read,
)

_BASIC = (64, 128, 256, 512)
_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_PLAIN: Mapping[str, Mapping[str, Any]] = {
    f"resnet{layers}": {"depths": depths, **({"layer_type": "basic", "hidden_sizes": _BASIC} if layers < 50 else {})}
    for layers, depths in _DEPTHS.items()
}
_WIDER: Mapping[str, Mapping[str, Any]] = {
    **{f"wide_resnet{layers}_2": {"depths": _DEPTHS[layers], "inner_width": 128} for layers in (50, 101)},
    **{
        f"resnext{layers}_{groups}x{width}d": {"depths": _DEPTHS[layers], "groups": groups, "inner_width": width}
        for layers, groups, width in ((50, 32, 4), (101, 32, 4), (101, 32, 8), (101, 64, 4))
    },
}
_TIMM = replace(
    _FAMILY,
    model_types=("timm_resnet",),
    summary="ResNet, Wide ResNet and ResNeXt with timm's and torchvision's names",
    task_model="",
    prefix="",
    keys={**KEYS, "groups": size(1, "groups"), "inner_width": size(64, "inner_width")},
    older=timm_config.BESIDE,
    architectures={**_PLAIN, **_WIDER},
    head=replace(_FAMILY.head, modules=("fc",)),
    defaults={"names": TIMM},
)
FAMILIES = (_FAMILY, _TIMM)
