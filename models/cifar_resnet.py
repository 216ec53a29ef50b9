"""ResNet for small pictures (He et al., 2015, arXiv:1512.03385, section 4.2), as trained on CIFAR: model_type "cifar_resnet".

    h = relu(BN(conv h))                                        the stem, 3x3
    h = relu(shortcut(h) + BN(conv relu(BN(conv h))))           blocks of two 3x3 convolutions, in three stages
    logits = W mean(h) + b

Where a stage begins, the first convolution has stride 2 and more channels, and the shortcut has no weights: every second
position of h, with channels of zeros on both sides (the paper's option A). Hugging Face has no class of it; the keys are those
of its torch original, and `config.json` says depth, stages and shortcut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ..adapters.graft import SiteCalls
from ..adapters.methods.head import POOLED
from ..errors import GraftaxError
from .config_keys import epsilon, layers, only, size, sizes, unread_all
from .conv_steps import Step, parts_of, square
from .family import Family, TaskHead
from .layers import Arrays
from .parts import Part
from .pictures import Pictures
from .stages import Stemmed, StemmedConfig, stacks_of, stemmed_parts

OPTION_A = "option A: subsample by 2 and zero-pad channels equally on both sides"

KEYS = {
    "depth": size(20, "depth"),
    "blocks_per_stage": layers(3, "blocks_per_stage"),
    "stage_channels": sizes((16, 32, 64)),
    "block": only("basic"),
    "shortcut": only(OPTION_A),
    "batch_norm_eps": epsilon(1e-5),
    **unread_all(image_size=32, image_mean=None, image_std=None),  # which its processor reads
}


@dataclass(frozen=True)
class Block:
    """A kind of block."""

    channels: int
    out: int
    stride: int

    @property
    def first(self) -> Step:
        return Step("first", "in", ("conv1", "bn1"), (self.channels, self.out), 3, square(3, self.stride, 1))

    @property
    def second(self) -> Step:
        return Step("second", "out", ("conv2", "bn2"), (self.out, self.out), 3, square(3, 1, 1))

    def parts(self) -> tuple[Part, ...]:
        branch = Part("branch", "branch", "bn2", (self.out,), role="conv_branch")
        return (*parts_of((self.first, self.second)), branch, Part("stream", "output", "", (self.out,)))

    def module(self, arrays: Arrays, name: str, eps: float) -> BasicBlock:
        return BasicBlock(self, arrays, name, eps)


@dataclass(frozen=True)
class CifarResNetConfig(StemmedConfig):
    depth: int
    blocks_per_stage: int
    stage_channels: tuple[int, ...]
    hidden_size: int
    norm_eps: float
    activation: str = "relu"

    @property
    def stem(self) -> Step:
        return Step("stem_in", "stem", ("conv1", "bn1"), (3, self.stage_channels[0]), 3, square(3, 1, 1))

    @property
    def blocks(self) -> tuple[tuple[str, Block], ...]:
        found, channels = [], self.stage_channels[0]
        for stage, out in enumerate(self.stage_channels):
            for index in range(self.blocks_per_stage):
                found.append((f"layer{stage + 1}.{index}", Block(channels, out, 2 if stage and not index else 1)))
                channels = out
        return tuple(found)

    def check(self) -> None:
        convolutions = 2 * self.blocks_per_stage * len(self.stage_channels)
        if self.depth != convolutions + 2:
            raise GraftaxError(
                f"config.json: depth {self.depth} is not that of {len(self.stage_channels)} stages of "
                f"{self.blocks_per_stage} blocks, {convolutions + 2}."
            )
        for below, above in zip(self.stage_channels, self.stage_channels[1:], strict=False):
            if above < below or (above - below) % 2:
                raise GraftaxError(
                    f"config.json: stage_channels {list(self.stage_channels)}: from {below} to {above} channels "
                    "no equal number of zeros can be put on both sides."
                )


class BasicBlock(nnx.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, kind: Block, arrays: Arrays, name: str, eps: float):
        self.name, self.kind = name, kind
        self.first, self.second = (step.module(arrays, name, eps) for step in (kind.first, kind.second))

    def __call__(self, h: jax.Array, view: None, calls: SiteCalls, pooled: bool = False) -> jax.Array:
        y = self.second(jax.nn.relu(self.first(h, calls)), calls)
        shortcut = self.shortcut(h)
        y = calls.branch(f"{self.name}.branch", shortcut, y)
        return calls.stream(f"{self.name}.output", jax.nn.relu(shortcut + y))

    def shortcut(self, h: jax.Array) -> jax.Array:
        """Option A."""
        stride, more = self.kind.stride, (self.kind.out - self.kind.channels) // 2
        return jnp.pad(h[..., ::stride, ::stride, :], [(0, 0)] * (h.ndim - 1) + [(more, more)])


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    channels = tuple(values["stage_channels"])
    return {"stage_channels": channels, "hidden_size": channels[-1]}


FAMILY = Family(
    model_types=("cifar_resnet",),
    summary="ResNet of 32x32 pictures (CIFAR), with option-A shortcuts",
    keys=KEYS,
    parts=stemmed_parts,
    stacks=stacks_of,
    head=TaskHead(features="pooled", hidden="none", modules=("linear",), sites=(POOLED,)),
    config=CifarResNetConfig,
    task="image-classify",
    processor=Pictures,
    module=Stemmed,
    read=read,
)
