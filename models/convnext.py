"""ConvNeXt, v1 (Liu et al., 2022, arXiv:2201.03545) and v2 (Woo et al., 2023, arXiv:2301.00808): blocks like a Transformer's.

    h = h + gamma W2 gelu(W1 LN(depthwise h))               v1: 7x7 with a kernel for each channel, then by position
    h = h + W2 grn(gelu(W1 LN(depthwise h)))                v2
    grn(y) = w y |y| / mean(|y|) + b + y                    |y|: each channel's length over all positions

Pictures enter in patches; between stages a norm and a convolution halve the map. Heads read the norm of the mean over all
positions. `convnext` and `convnextv2` have the names of transformers' checkpoints, `timm_convnext` timm's (`timm_config.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ..adapters.geometry import Geometry
from ..adapters.graft import SiteCalls
from ..adapters.methods.head import POOLED
from ..errors import GraftaxError
from . import timm_config
from .activations import ACTIVATIONS
from .config_keys import MOST_LAYERS, Key, activation, epsilon, flag, layers, nullable, size, sizes, unread_all, whole_or_pair
from .conv_steps import square
from .family import Family, TaskHead
from .layers import Arrays, Constant, Conv, Linear, Norm
from .parts import Part
from .pictures import Pictures
from .stages import StagedConfig, StagedNetwork, stacks_of, staged_parts

_EPS = 1e-6  # of all norms but the last, and of the mean of lengths
_KERNEL = 7


@dataclass(frozen=True)
class Spelling:
    """What modules are called in a checkpoint."""

    patches: str
    norm: str  # behind the patches
    stage: str
    down: str  # of a norm and a convolution, 0 and 1
    block: str
    depthwise: str
    block_norm: str
    widen: str
    narrow: str
    gamma: str
    grn: str
    last: str
    flat_grn: bool = False  # whether its weights are vectors, or [1, 1, 1, channels]


TRANSFORMERS = Spelling(
    patches="embeddings.patch_embeddings",
    norm="embeddings.layernorm",
    stage="encoder.stages.{}",
    down="downsampling_layer",
    block="layers",
    depthwise="dwconv",
    block_norm="layernorm",
    widen="pwconv1",
    narrow="pwconv2",
    gamma="layer_scale_parameter",
    grn="grn",
    last="layernorm",
)
TIMM = Spelling(
    patches="stem.0",
    norm="stem.1",
    stage="stages.{}",
    down="downsample",
    block="blocks",
    depthwise="conv_dw",
    block_norm="norm",
    widen="mlp.fc1",
    narrow="mlp.fc2",
    gamma="gamma",
    grn="mlp.grn",
    last="head.norm",
    flat_grn=True,
)

_BOTH: Mapping[str, Key] = {
    "num_channels": size(3, "num_channels"),
    "patch_size": whole_or_pair(4),
    "num_stages": layers(4),
    "hidden_sizes": nullable(sizes((96, 192, 384, 768))),
    "depths": nullable(sizes((3, 3, 9, 3), MOST_LAYERS)),
    "hidden_act": activation("gelu"),
    "layer_norm_eps": epsilon(1e-12),
    # its processor's, of training, and of backbones of detectors
    **unread_all(image_size=224, initializer_range=0.02, drop_path_rate=0.0, _out_features=None, _out_indices=None),
}
#: What ConvNextConfig declares; the other class has no gamma.
KEYS: Mapping[str, Key] = {**_BOTH, "layer_scale_init_value": Key(1e-6, lambda v: isinstance(v, int | float), "a number")}
_BESIDE = unread_all(out_features=None, out_indices=None, stage_names=None)


@dataclass(frozen=True)
class Block:
    """A kind of block."""

    stage: int  # no two stages are of one kind, whatever their widths
    out: int
    activation: str
    scaled: bool  # whether there is a gamma
    normed: bool  # whether there is a grn
    spelling: Spelling

    def parts(self) -> tuple[Part, ...]:
        names, dim, wide = self.spelling, self.out, 4 * self.out
        around = square(_KERNEL, 1, _KERNEL // 2, groups=dim)
        grn = (wide,) if names.flat_grn else (1, 1, 1, wide)
        return (
            Part("conv", "depthwise", names.depthwise, (_KERNEL, _KERNEL, 1, dim), role="conv_depthwise", geometry=around),
            Part("norm", "norm", names.block_norm, (dim,), role="conv_norm"),
            Part("linear", "widen", names.widen, (dim, wide), role="conv_in"),
            *(
                [Part("constant", f"grn_{leaf}", f"{names.grn}.{leaf}", grn) for leaf in ("weight", "bias")]
                if self.normed
                else ()
            ),
            Part("linear", "narrow", names.narrow, (wide, dim), role="conv_out"),
            *([Part("constant", "gamma", names.gamma, (dim,))] if self.scaled else ()),
            Part("branch", "branch", names.narrow, (dim,), role="conv_branch"),
            Part("stream", "output", "", (dim,)),
        )

    def module(self, arrays: Arrays, name: str, eps: float) -> ConvNextBlock:
        return ConvNextBlock(self, arrays, name)


@dataclass(frozen=True)
class ConvNextConfig(StagedConfig):
    num_channels: int
    patch: tuple[int, int]
    channels: tuple[int, ...]
    depths: tuple[int, ...]
    activation: str
    scaled: bool
    normed: bool
    hidden_size: int
    norm_eps: float
    num_stages: int
    spelling: Spelling

    @property
    def blocks(self) -> tuple[tuple[str, Block], ...]:
        found = []
        for stage, (depth, out) in enumerate(zip(self.depths, self.channels, strict=True)):
            kind = Block(stage, out, self.activation, self.scaled, self.normed, self.spelling)
            path = f"{self.spelling.stage.format(stage)}.{self.spelling.block}"
            found += [(f"{path}.{index}", kind) for index in range(depth)]
        return tuple(found)

    @property
    def halved(self) -> tuple[int, ...]:
        return tuple(range(1, self.num_stages))

    def check(self) -> None:
        if not self.num_stages == len(self.depths) == len(self.channels):
            raise GraftaxError(
                f"config.json: {len(self.channels)} hidden_sizes and {len(self.depths)} depths of {self.num_stages} stages."
            )


class ConvNextBlock(nnx.Module):
    def __init__(self, kind: Block, arrays: Arrays, name: str):
        self.name, self.kind = name, kind
        self.depthwise = Conv(arrays, f"{name}.depthwise", square(_KERNEL, 1, _KERNEL // 2, groups=kind.out))
        self.norm = Norm(arrays, f"{name}.norm", _EPS)
        self.widen, self.narrow = (Linear(arrays, f"{name}.{layer}") for layer in ("widen", "narrow"))
        if kind.normed:
            self.grn_weight, self.grn_bias = (Constant(arrays, f"{name}.grn_{leaf}") for leaf in ("weight", "bias"))
        if kind.scaled:
            self.gamma = Constant(arrays, f"{name}.gamma")

    def __call__(self, h: jax.Array, view: None, calls: SiteCalls, pooled: bool = False) -> jax.Array:
        y = calls.conv(f"{self.name}.depthwise", h, self.depthwise)
        y = calls.norm(f"{self.name}.norm", y, self.norm)
        y = ACTIVATIONS[self.kind.activation](calls.linear(f"{self.name}.widen", y, self.widen))
        if self.kind.normed:
            y = _grn(y, self.grn_weight.value[...], self.grn_bias.value[...])
        y = calls.linear(f"{self.name}.narrow", y, self.narrow)
        if self.kind.scaled:
            y = y * self.gamma.value[...].astype(y.dtype)
        return calls.stream(f"{self.name}.output", h + calls.branch(f"{self.name}.branch", h, y))


def _grn(y: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    length = jnp.sqrt(jnp.square(y.astype(jnp.float32)).sum((-3, -2), keepdims=True))
    share = (length / (length.mean(-1, keepdims=True) + _EPS)).astype(y.dtype)
    return y * share * weight.reshape(-1) + bias.reshape(-1) + y


class ConvNext(StagedNetwork):
    def __init__(self, config: ConvNextConfig, arrays: Arrays):
        super().__init__(config, arrays)
        self.patches = Conv(arrays, "patches", _patches(config.patch))
        self.patch_norm = Norm(arrays, "patch_norm", _EPS)
        for stage in range(1, config.num_stages):
            setattr(self, f"down{stage}_norm", Norm(arrays, f"down{stage}_norm", _EPS))
            setattr(self, f"down{stage}_conv", Conv(arrays, f"down{stage}_conv", square(2, 2)))
        self.last_norm = Norm(arrays, "last_norm", config.norm_eps)

    def stem(self, pixels: jax.Array, calls: SiteCalls) -> jax.Array:
        return calls.norm("patch_norm", calls.conv("patches", pixels, self.patches), self.patch_norm)

    def enter(self, stack: int, h: Any, calls: SiteCalls) -> jax.Array:
        if not stack:
            return super().enter(stack, h, calls)
        norm, conv = f"down{stack}_norm", f"down{stack}_conv"
        return calls.conv(conv, calls.norm(norm, h, getattr(self, norm)), getattr(self, conv))

    def top(self, gathered: jax.Array, calls: SiteCalls) -> jax.Array:
        return calls.norm("last_norm", gathered, self.last_norm)


def _patches(sides: tuple[int, int]) -> Geometry:
    return Geometry(stride=sides)


def parts(config: ConvNextConfig) -> tuple[Part, ...]:
    names, first, sides = config.spelling, config.channels[0], config.patch
    patches = (*sides, config.num_channels, first)
    between: list[Part] = []
    for stage, (inputs, out) in enumerate(zip(config.channels, config.channels[1:], strict=False), 1):
        path = f"{names.stage.format(stage)}.{names.down}"
        below = config.stages[stage - 1].layers.name
        between += [
            Part("norm", f"down{stage}_norm", f"{path}.0", (inputs,), role="norm_down", above=below),
            Part(
                "conv", f"down{stage}_conv", f"{path}.1", (2, 2, inputs, out), "conv_down", above=below, geometry=square(2, 2)
            ),
        ]
    top = config.stages[-1].layers.name
    return (
        Part("conv", "patches", names.patches, patches, role="conv_stem", geometry=_patches(sides)),
        Part("norm", "patch_norm", names.norm, (first,), role="norm_stem"),
        *staged_parts(config),
        *between,
        Part("norm", "last_norm", names.last, (config.hidden_size,), role="norm_last", above=top),
    )


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """Null stands for what the class has by default."""
    depths, channels = (tuple(values[name] or KEYS[name].default) for name in ("depths", "hidden_sizes"))
    patch = values["patch_size"]
    scaled = values.get("layer_scale_init_value", 0.0) > 0
    sides = (patch, patch) if isinstance(patch, int) else tuple(patch)
    return {
        **{"depths": depths, "channels": channels, "hidden_size": channels[-1], "num_stages": values["num_stages"]},
        **{"patch": sides, "scaled": scaled, "normed": values.get("grn", "layer_scale_init_value" not in values)},
    }


_V1 = Family(
    model_types=("convnext",),
    summary="ConvNeXt",
    task_model="ConvNext",
    prefix="convnext",
    keys=KEYS,
    older=_BESIDE,
    aliases={"num_hidden_layers": "num_stages"},
    defaults={"spelling": TRANSFORMERS},
    parts=parts,
    stacks=stacks_of,
    head=TaskHead(features="pooled", hidden="none", modules=("classifier",), sites=(POOLED,)),
    config=ConvNextConfig,
    task="image-classify",
    processor=Pictures,
    module=ConvNext,
    read=read,
)
_V2 = replace(_V1, model_types=("convnextv2",), summary="ConvNeXt V2", task_model="ConvNextV2", prefix="convnextv2", keys=_BOTH)


def _named(depths: tuple[int, ...], first: int, **more: Any) -> dict[str, Any]:
    """Each stage is twice as wide as the one before."""
    return {"depths": depths, "hidden_sizes": tuple(first << stage for stage in range(4)), **more}


_DEPTHS = {"tiny": (3, 3, 9, 3), "small": (3, 3, 27, 3), "base": (3, 3, 27, 3), "large": (3, 3, 27, 3), "xlarge": (3, 3, 27, 3)}
_WIDTHS = {"tiny": 96, "small": 96, "base": 128, "large": 192, "xlarge": 256}
_LIGHT = {"atto": ((2, 2, 6, 2), 40), "femto": ((2, 2, 6, 2), 48), "pico": ((2, 2, 6, 2), 64), "nano": ((2, 2, 8, 2), 80)}
_HEAVY = {"tiny": ((3, 3, 9, 3), 96), "base": ((3, 3, 27, 3), 128), "large": ((3, 3, 27, 3), 192), "huge": ((3, 3, 27, 3), 352)}
_TIMM = replace(
    _V1,
    model_types=("timm_convnext",),
    summary="ConvNeXt and ConvNeXt V2 with timm's names",
    task_model="",
    prefix="",
    keys={**KEYS, "grn": flag(False), "layer_norm_eps": epsilon(_EPS)},
    older=timm_config.BESIDE,
    architectures={
        **{f"convnext_{name}": _named(_DEPTHS[name], _WIDTHS[name]) for name in _DEPTHS},
        **{
            f"convnextv2_{name}": _named(depths, first, grn=True, layer_scale_init_value=0.0)
            for name, (depths, first) in (_LIGHT | _HEAVY).items()
        },
    },
    head=replace(_V1.head, modules=("head.fc",)),
    defaults={"spelling": TIMM},
)
FAMILIES = (_V1, _V2, _TIMM)
