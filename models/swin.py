"""Swin (Liu et al., 2021, arXiv:2103.14030): attention within windows of a feature map, which shrinks from stage to stage.

    a = h + windows(W_o attention(N(h)))            within windows of w x w positions, moved by w / 2 in every other layer
    h = a + W_2 act(W_1 N(a))
    h = W N(four neighbours)                        between two stages: a position for each 2 x 2, of twice the channels
    features = mean N(h)

To a score a number is added for each way in which two positions of a window lie to one another (`grids.py`). A map that windows
do not divide is padded with zeros, which are seen. Where windows are moved they reach around the map's edge, and positions that
were not neighbours do not see each other.

A stage is a stack, and what passes through it a feature map `[rows, height, width, channels]`. There is no class token, and no
`input` site, for windows have no place for tokens in front of others; prefixes are keys and values of every window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..adapters.geometry import Geometry
from ..adapters.graft import Grafts, SiteCalls
from ..adapters.sites import KeyValue, split_attention_heads
from ..errors import GraftaxError
from ..shapes import Float, shaped
from . import grids, vit
from .activations import ACTIVATIONS
from .backbone_config import MOST_MAPS, Config, refuse_uneven_attention_heads
from .config_keys import activation, epsilon, flag, number, sides, size, sizes, unread_all
from .family import Family
from .inputs import Outputs
from .layers import Arrays, Constant, Conv, Linear, Norm
from .network import Unrolled
from .ops import attention
from .parts import Layers, Part, in_stack
from .picture_transformer import HEAD, read_sides
from .pictures import Pictures
from .resampling import resampled
from .stack import Chain, Stack

_EPS = 1e-5  # of the norms outside the layers, whatever the config says

LAYER = {
    "attention_norm": "layernorm_before",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "distances": "attention.self.relative_position_bias_table",
    "attention": "attention.self",
    "attention_out": "attention.output.dense",
    "attention_branch": "attention.output",
    "ffn_norm": "layernorm_after",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_branch": "output",
    "output": "",
}
#: What is called otherwise since transformers 5.
MODULES = (
    ("attention.self.query", "attention.q_proj"),
    ("attention.self.key", "attention.k_proj"),
    ("attention.self.value", "attention.v_proj"),
    *vit.MODULES[4:],
)

#: What SwinConfig declares.
KEYS = {
    "image_size": sides(224),
    "patch_size": sides(4),
    "num_channels": size(3, "num_channels"),
    "embed_dim": size(96, "width"),
    "depths": sizes((2, 2, 6, 2)),
    "num_heads": sizes((3, 6, 12, 24)),
    "window_size": size(7, "window_size", most=1 << 8),
    "mlp_ratio": number(4.0, "mlp_ratio"),
    "qkv_bias": flag(True, "qkv_bias"),
    "hidden_act": activation("gelu"),
    "use_absolute_embeddings": flag(False, "positions"),
    "layer_norm_eps": epsilon(1e-5),
    # of training, of a decoder of masked patches, and of what else the checkpoint is for
    **unread_all(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, drop_path_rate=0.1, initializer_range=0.02),
    **unread_all(encoder_stride=32, _out_features=None, _out_indices=None),
}
#: And what is written beside, which follows from these.
OLDER = unread_all(hidden_size=None, num_layers=None, path_norm=None, out_features=None, out_indices=None, stage_names=None)


@dataclass(frozen=True, kw_only=True)
class SwinConfig(Config):
    hidden_size: int  # channels of the last stage
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    num_channels: int
    width: int  # channels of the first stage; each has twice as many as the one before
    depths: tuple[int, ...]  # layers of each stage
    heads: tuple[int, ...]  # attention heads of each stage's layers
    window_size: int
    mlp_ratio: float
    qkv_bias: bool
    activation: str
    positions: bool  # whether patches have trained positions
    norm_eps: float

    @property
    def attention_heads(self) -> tuple[int, ...]:
        return self.heads

    def channels(self, stage: int) -> int:
        return self.width << stage

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in a picture of `image_size`."""
        (height, width), (down, across) = self.image_size, self.patch_size
        return height // down, width // across

    @property
    def maps(self) -> tuple[int, ...]:
        return tuple(map(self.channels, range(len(self.depths))))[-MOST_MAPS:]

    def check(self) -> None:
        if len(self.depths) != len(self.heads):
            raise GraftaxError(f"config.json: depths of {len(self.depths)} stages, and num_heads of {len(self.heads)}.")
        for stage, heads in enumerate(self.heads):
            refuse_uneven_attention_heads(self.channels(stage), heads)
        super().check()


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    depths = tuple(values["depths"])
    last = values["embed_dim"] << (len(depths) - 1)
    return {**read_sides(values), "depths": depths, "heads": tuple(values["num_heads"]), "hidden_size": last}


class Moved:
    """How far the windows of a layer are moved: by half their size in every other one."""

    def __init__(self, window: int):
        self.by = window // 2

    def of_application(self, application: Any) -> Any:
        return application % 2 * self.by


class SwinLayer(nnx.Module):
    """One layer (or all of a stage, stacked)."""

    def __init__(self, config: SwinConfig, stage: int, arrays: Arrays):
        self.name, self.heads, self.window = f"stage{stage}.layers", config.heads[stage], config.window_size
        self.activation = config.activation
        self.attention_norm = Norm(arrays, f"{self.name}.attention_norm", config.norm_eps)
        self.query = Linear(arrays, f"{self.name}.query")
        self.key = Linear(arrays, f"{self.name}.key")
        self.value = Linear(arrays, f"{self.name}.value")
        self.distances = Constant(arrays, f"{self.name}.distances")
        self.attention_out = Linear(arrays, f"{self.name}.attention_out")
        self.ffn_norm = Norm(arrays, f"{self.name}.ffn_norm", config.norm_eps)
        self.ffn_in = Linear(arrays, f"{self.name}.ffn_in")
        self.ffn_out = Linear(arrays, f"{self.name}.ffn_out")

    @shaped
    def __call__(
        self, h: Float[Array, "rows high wide hidden"], moved: Any, calls: SiteCalls, pooled: bool = False
    ) -> Float[Array, "rows high wide hidden"]:
        """`moved`: how far the windows are moved, where there is more than one."""
        high, wide = h.shape[1:3]
        if min(high, wide) < self.window:
            raise GraftaxError(f"a feature map of {high} x {wide} positions has no window of {self.window} x {self.window}.")
        if min(high, wide) == self.window:
            moved = 0
        x = calls.norm(f"{self.name}.attention_norm", h, self.attention_norm)
        x = jnp.pad(x, ((0, 0), (0, -high % self.window), (0, -wide % self.window), (0, 0)))
        mixed = self.attend(jnp.roll(x, (-moved, -moved), (1, 2)), moved, calls)
        mixed = jnp.roll(mixed, (moved, moved), (1, 2))[:, :high, :wide]
        h = h + calls.branch(f"{self.name}.attention_branch", h, mixed, before=self.attention_norm)
        x = calls.norm(f"{self.name}.ffn_norm", h, self.ffn_norm)
        x = ACTIVATIONS[self.activation](calls.linear(f"{self.name}.ffn_in", x, self.ffn_in))
        x = calls.linear(f"{self.name}.ffn_out", x, self.ffn_out)
        return calls.stream(f"{self.name}.output", h + calls.branch(f"{self.name}.ffn_branch", h, x, before=self.ffn_norm))

    def attend(self, x: jax.Array, moved: Any, calls: SiteCalls) -> jax.Array:
        """What the windows of a feature map make of it."""
        rows, high, wide, _ = x.shape
        x = in_windows(x, self.window)  # [rows, windows, positions, hidden]
        query, key, value = (
            split_attention_heads(calls.linear(f"{self.name}.{name}", x, module), self.heads)
            for name, module in (("query", self.query), ("key", self.key), ("value", self.value))
        )
        mask = jnp.broadcast_to(together(high, wide, self.window, moved), (rows, *x.shape[1:3], x.shape[2]))
        pairs = calls.attention(f"{self.name}.attention", x, KeyValue(key, value, mask))
        added = jnp.moveaxis(self.distances.value[...][grids.apart(self.window, self.window)], -1, 0)
        added = jnp.pad(added, ((0, 0), (0, 0), (pairs.key.shape[-2] - added.shape[-1], 0)))  # nothing for what is in front
        query, key, value, mask = (y.reshape(-1, *y.shape[2:]) for y in (query, *pairs[:3]))
        mixed = attention(query, key, value, mask, added=added[None])
        mixed = calls.linear(f"{self.name}.attention_out", mixed.reshape(*x.shape[:3], -1), self.attention_out)
        return out_of_windows(mixed, (high, wide), self.window)


def in_windows(x: Any, window: int) -> Any:
    """`[rows, height, width, ...]` as `[rows, windows, positions, ...]`."""
    rows, high, wide, *rest = x.shape
    x = x.reshape(rows, high // window, window, wide // window, window, *rest)
    return x.swapaxes(2, 3).reshape(rows, -1, window * window, *rest)


def out_of_windows(x: jax.Array, size: tuple[int, int], window: int) -> jax.Array:
    """Inverse of `in_windows`, for a feature map of that height and width."""
    (high, wide), rows, rest = size, len(x), x.shape[3:]
    x = x.reshape(rows, high // window, wide // window, window, window, *rest)
    return x.swapaxes(2, 3).reshape(rows, high, wide, *rest)


def together(high: int, wide: int, window: int, moved: Any) -> jax.Array:
    """Which positions of a window see each other, bool `[1, windows, positions, positions]`.

    Where windows are moved those at the edge have what comes from the other side: along each axis there are the positions
    before the last window, those of the last window that are its own, and those that come from the other side.
    """

    def part(size: int) -> jax.Array:
        index = jnp.arange(size, dtype=jnp.int32)
        return (index >= size - window).astype(jnp.int32) + (index >= size - moved).astype(jnp.int32)

    region = in_windows((3 * part(high)[:, None] + part(wide))[None], window)
    return region[..., :, None] == region[..., None, :]


class Merging(nnx.Module):
    """Between two stages: a position for each 2 x 2."""

    def __init__(self, arrays: Arrays, name: str):
        self.name = name
        self.norm = Norm(arrays, f"{name}.norm", _EPS)
        self.reduction = Linear(arrays, f"{name}.reduction")

    def __call__(self, h: jax.Array, calls: SiteCalls) -> jax.Array:
        h = jnp.pad(h, ((0, 0), (0, h.shape[1] % 2), (0, h.shape[2] % 2), (0, 0)))
        four = jnp.concatenate([h[:, row::2, column::2] for column in range(2) for row in range(2)], axis=-1)
        return calls.linear(f"{self.name}.reduction", calls.norm(f"{self.name}.norm", four, self.norm), self.reduction)


class Swin(Chain):
    """Patches, stages with mergings between them, and the mean over all positions."""

    def __init__(self, config: SwinConfig, arrays: Arrays):
        self.config, self.stages = config, len(config.depths)
        self.patch_embedding = Conv(arrays, "patch_embedding", Geometry(stride=config.patch_size))
        self.embedding_norm = Norm(arrays, "embedding_norm", _EPS)
        self.position_embeddings = Constant(arrays, "position_embeddings") if config.positions else None
        for stage, depth in enumerate(config.depths):
            setattr(self, f"stage{stage}", Stack(f"stage{stage}.layers", SwinLayer(config, stage, arrays), depth))
            if stage:
                setattr(self, f"merging{stage}", Merging(arrays, f"merging{stage}"))
        self.final_norm = Norm(arrays, "final_norm", config.norm_eps)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        return tuple(getattr(self, f"stage{stage}") for stage in range(self.stages))

    def seen(self) -> Moved:
        return Moved(self.config.window_size)

    def enter(self, stack: int, h: Any, calls: SiteCalls) -> jax.Array:
        if stack:
            merged: jax.Array = getattr(self, f"merging{stack}")(h, calls)
            return merged
        down, across = self.config.patch_size
        pixels = h.pixels.astype(self.patch_embedding.kernel.dtype)
        pixels = jnp.pad(pixels, ((0, 0), (0, -pixels.shape[1] % down), (0, -pixels.shape[2] % across), (0, 0)))
        x = calls.conv("patch_embedding", pixels, self.patch_embedding)
        x = calls.norm("embedding_norm", x, self.embedding_norm)
        if self.position_embeddings is not None:
            table = self.position_embeddings.value[...].reshape(*self.config.grid, -1)
            x = x + resampled(table, (x.shape[1], x.shape[2]))
        return x

    def __call__(
        self, inputs: Any, grafts: Grafts, *, pooled: bool = False, layers: Unrolled | None = None, maps: int = 0
    ) -> Outputs:
        before = [stack.name for stack in self.stacks[:-1]][self.stages - maps :] if maps else []
        h, found = self.through(inputs, grafts, layers, before)
        h = grafts.outside().norm("final_norm", h, self.final_norm)
        features = h.mean((-3, -2))
        return Outputs(h, features, features, maps=(*found, h) if maps else ())


def stacks(c: SwinConfig) -> tuple[Layers, ...]:
    return tuple(
        Layers(f"stage{stage}.layers", depth, f"encoder.layers.{stage}.blocks.{{}}".format, c.channels(stage))
        for stage, depth in enumerate(c.depths)
    )


def parts(c: SwinConfig) -> tuple[Part, ...]:
    d, kernel = c.width, (*c.patch_size, c.num_channels, c.width)
    patches = Part(
        "conv", "patch_embedding", "embeddings.patch_embeddings.projection", kernel, geometry=Geometry(stride=c.patch_size)
    )
    found = [patches, Part("norm", "embedding_norm", "embeddings.norm", (d,))]
    if c.positions:
        shape = (1, math.prod(c.grid), d)
        found.append(Part("constant", "position_embeddings", "embeddings.position_embeddings", shape))
    for stage in range(len(c.depths)):
        if stage:
            below, narrow = f"stage{stage - 1}.layers", c.channels(stage - 1)
            path, name = f"encoder.layers.{stage - 1}.downsample", f"merging{stage}"
            found.append(Part("norm", f"{name}.norm", f"{path}.norm", (4 * narrow,), role="merging_norm", above=below))
            found.append(
                Part(
                    "linear",
                    f"{name}.reduction",
                    f"{path}.reduction",
                    (4 * narrow, 2 * narrow),
                    role="merging",
                    above=below,
                    bias=False,
                )
            )
        found += in_stack(f"stage{stage}.layers", _layer_parts(c, stage))
    last = f"stage{len(c.depths) - 1}.layers"
    return (*found, Part("norm", "final_norm", "layernorm", (c.hidden_size,), above=last))


def _layer_parts(c: SwinConfig, stage: int) -> Iterator[Part]:
    d = c.channels(stage)
    wide = int(c.mlp_ratio * d)
    linear = {**dict.fromkeys(("query", "key", "value", "attention_out"), (d, d)), "ffn_in": (d, wide), "ffn_out": (wide, d)}
    kinds = {"attention": "attention", "attention_norm": "norm", "ffn_norm": "norm", "output": "stream"}
    for name, path in LAYER.items():
        if name == "distances":
            yield Part("constant", name, path, (grids.ways_apart(c.window_size, c.window_size), c.heads[stage]))
        elif name in linear:
            yield Part("linear", name, path, linear[name], bias=c.qkv_bias or name not in ("query", "key", "value"))
        else:
            yield Part(kinds.get(name, "branch"), name, path, (d,))


FAMILY = Family(
    model_types=("swin",),
    summary="Swin: attention within windows, in stages",
    task_model="Swin",
    prefix="swin",
    keys=KEYS,
    older=OLDER,
    aliases={"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"},
    stacks=stacks,
    parts=parts,
    read=read,
    head=HEAD,
    config=SwinConfig,
    module=Swin,
    modules=MODULES,
    task="image-classify",
    processor=Pictures,
    past_key_values=False,
)
