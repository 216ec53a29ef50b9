"""VGG (Simonyan & Zisserman, 2014, arXiv:1409.1556), with batch norms or without: 3x3 convolutions, and halves between them.

    h = relu(conv h)  or  relu(BN(conv h))                      the largest of every four neighbours is taken behind each stage
    h = relu(W2 relu(W1 h))                                     W1 over 7x7 positions

The last two layers are convolutions, as in timm, whose names these are (`timm_config.py`): of a picture of 224 x 224 the first
sees all of the last feature map, of a larger one parts, over which the mean is taken. A smaller map is spread to 7x7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from ..adapters.graft import SiteCalls
from ..adapters.methods.head import POOLED
from . import timm_config
from .config_keys import Key, flag, size
from .conv_steps import Plain, Step, square
from .family import Family, TaskHead
from .layers import Arrays
from .map_pooling import largest, mean_in_bins
from .parts import Part
from .pictures import Pictures
from .stages import StagedConfig, StagedNetwork, stacks_of, staged_parts

_LAST = 7  # positions, in height and width, that the first layer behind the stages sees


def _are_stages(value: Any) -> bool:
    one = size(None)
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(s, list | tuple) and s for s in value)
        and all(one.allows(channels) for stage in value for channels in stage)
    )


KEYS: Mapping[str, Key] = {
    "stages": Key(((64,), (128,), (256, 256), (512, 512), (512, 512)), _are_stages, "a list of channels for each stage"),
    "batch_norm": flag(False, "batch_norm"),
    "hidden_size": size(4096, "hidden_size"),
    "num_channels": size(3, "num_channels"),
}


@dataclass(frozen=True)
class VGGConfig(StagedConfig):
    num_channels: int
    hidden_size: int
    batch_norm: bool
    channels: tuple[tuple[int, ...], ...]  # by stage
    norm_eps: float = 1e-5

    @property
    def blocks(self) -> tuple[tuple[str, Plain], ...]:
        """One for each convolution, no two of which are of one kind: they are called by their number."""
        found: list[tuple[str, Plain]] = []
        number, channels = 0, self.num_channels
        for stage in self.channels:
            for out in stage:
                paths = str(number), str(number + 1) if self.batch_norm else ""
                step = Step("conv", "out", paths, (channels, out), 3, square(3, 1, 1), biased=True)
                found.append(("features", Plain(step, "relu")))
                number, channels = number + (3 if self.batch_norm else 2), out
            number += 1
        first = Step("first", "in", ("fc1", ""), (channels, self.hidden_size), _LAST)
        second = Step("second", "out", ("fc2", ""), (self.hidden_size, self.hidden_size), 1)
        return (*found, *(("pre_logits", Plain(step, "relu")) for step in (first, second)))

    @property
    def maps(self) -> tuple[int, ...]:
        """None: the last two layers see the whole map, and what they make of it is no map any more."""
        return ()

    @property
    def halved(self) -> tuple[int, ...]:
        return tuple(sum(map(len, self.channels[: stage + 1])) for stage in range(len(self.channels)))


class VGG(StagedNetwork):
    def __init__(self, config: VGGConfig, arrays: Arrays):
        super().__init__(config, arrays)
        self.halved = config.halved

    def stem(self, pixels: jax.Array, calls: SiteCalls) -> jax.Array:
        return pixels

    def enter(self, stack: int, h: Any, calls: SiteCalls) -> jax.Array:
        h = super().enter(stack, h, calls)
        if stack in self.halved:
            h = largest(h, 2, 2)
        if stack == self.halved[-1] and min(h.shape[-3:-1]) < _LAST:
            h = mean_in_bins(h, (max(h.shape[-3], _LAST), max(h.shape[-2], _LAST)))
        return h


def parts(config: VGGConfig) -> tuple[Part, ...]:
    return staged_parts(config)


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"channels": tuple(map(tuple, values["stages"]))}


_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


def _stages(layers: int) -> dict[str, Any]:
    return {"stages": [[width] * depth for width, depth in zip(_WIDTHS, _DEPTHS[layers], strict=True)]}


FAMILY = Family(
    model_types=("vgg",),
    summary="VGG of 11 to 19 layers, with batch norms or without, with timm's names",
    keys=KEYS,
    older=timm_config.BESIDE,
    architectures={
        **{f"vgg{layers}": _stages(layers) for layers in _DEPTHS},
        **{f"vgg{layers}_bn": {**_stages(layers), "batch_norm": True} for layers in _DEPTHS},
    },
    parts=parts,
    stacks=stacks_of,
    head=TaskHead(features="pooled", hidden="none", modules=("head.fc",), sites=(POOLED,)),
    config=VGGConfig,
    task="image-classify",
    processor=Pictures,
    module=VGG,
    read=read,
)
