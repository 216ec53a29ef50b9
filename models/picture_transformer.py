"""Transformers that read a picture as patches (Dosovitskiy et al., 2020, arXiv:2010.11929): ViT and those that came of it.

    h = [class token; patches W + b] + positions            one class token, perhaps others, then a patch for each p x p pixels
    h = a layer of h, and so on                             `pre_norm.py`, every token in sight of all
    features = N(h) [0]                                     or the mean over the patches, or both behind one another

What the families differ in is in `PictureTransformerConfig`. Methods that put tokens in front of a text put them in front of
the class token here, which is pooled wherever it is: at the `input` site positions have been added, so a prompt has none.

Pictures of another size than the checkpoint was trained on have another grid of patches, for which its trained positions are
resampled (`resampling.py`); relative positions are for one grid alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..adapters.geometry import Geometry
from ..adapters.graft import Grafts, SiteCalls
from ..adapters.sites import Entry
from ..adapters.structure import Cut
from ..errors import GraftaxError
from ..shapes import Float, shaped
from . import grids
from .attention_pooling import AttentionPooling
from .backbone_config import MOST_MAPS, Config
from .config_keys import pair
from .family import TaskHead
from .inputs import ImageInputs, Outputs, text_positions
from .layers import Arrays, Constant, Conv, Linear, Norm
from .network import Network, Unrolled
from .parts import Layers, Part
from .pre_norm import Layer, LayerConfig, Pairs, Sight, View, parts_of
from .resampling import resampled
from .rope import Angles
from .stack import SequenceStack

#: Names of the tokens in front of the patches, in their order: what a checkpoint calls each, and whether it has a position.
LEADING = {"class_token": True, "distillation_token": True, "register_tokens": False}

#: The head of every family's task model.
HEAD = TaskHead(features="pooled", hidden="none", modules=("classifier",), sites=("head.pooled",))


@dataclass(frozen=True, kw_only=True)
class PictureTransformerConfig(LayerConfig, Config):
    image_size: tuple[int, int]  # height and width of the pictures that its positions are for
    patch_size: tuple[int, int]
    num_channels: int
    activation: str = "gelu"
    gated: bool = False
    norm: str = "layer"
    class_token: bool = True  # whether there is a token that no patch is behind
    distilled: bool = False  # whether there is a token that has learnt from another network, behind the class token
    registers: int = 0  # tokens without a position, behind these
    positions: bool = True  # whether there is a table of positions
    patches_alone: bool = False  # whether it has those of patches alone
    antialias: bool = False  # how it is resampled
    patch_bias: bool = True
    embedding_norm: bool = False  # whether what enters the first layer is normed
    final_norm: bool = True
    pooling: str = "first"  # of what leaves the network: "first", "mean" over the patches, or "both"
    pooled_norm: bool = False
    vector: str = ""  # of what a tower makes a picture's vector: "first", the class token, or "attention"; "": it is no tower
    projection: int = 0  # numbers in that vector, which a projection makes; 0: there is no projection
    rope_theta: float = 0.0  # of rotary positions of the patches; 0: there are none
    shared_distances: bool = False  # whether a table of relative positions is there for all layers

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches, in a picture of `image_size`."""
        (height, width), (down, across) = self.image_size, self.patch_size
        return height // down, width // across

    @property
    def leading(self) -> dict[str, int]:
        """How many tokens there are of each name in front of the patches, in their order."""
        counts = {"class_token": int(self.class_token), "distillation_token": int(self.distilled)}
        counts["register_tokens"] = self.registers
        return {name: count for name, count in counts.items() if count}

    @property
    def placed(self) -> int:
        """Tokens in front of the patches that have positions."""
        return 0 if self.patches_alone else sum(count for name, count in self.leading.items() if LEADING[name])

    @property
    def ways_apart(self) -> int:
        """Rows in a table of relative positions: those of patches, from the class token, to it and of its own."""
        return grids.ways_apart(*self.grid) + 3

    @property
    def features(self) -> int:
        return 2 * self.hidden_size if self.pooling == "both" else self.hidden_size

    @property
    def maps(self) -> tuple[int, ...]:
        return (self.hidden_size,) * min(MOST_MAPS, self.num_layers)

    @property
    def vector_size(self) -> int:
        return (self.projection or self.hidden_size) if self.vector else 0

    def check(self) -> None:
        self.refuse_heads()
        if min(self.grid) < 1:
            raise GraftaxError(
                f"config.json: pictures of {self.image_size[0]} x {self.image_size[1]} pixels have no patch of "
                f"{self.patch_size[0]} x {self.patch_size[1]}."
            )
        if self.rope_theta and self.size % 4:
            raise GraftaxError(
                f"config.json: rotary positions turn four channels at a time, and attention heads have {self.size}."
            )
        super().check()


class PictureTransformer(SequenceStack, Network):
    """Patches, stacked layers, and what is made of the last one's tokens."""

    def __init__(self, config: PictureTransformerConfig, arrays: Arrays):
        self.config = config
        self.patch_embedding = Conv(arrays, "patch_embedding", Geometry(stride=config.patch_size))
        for name in config.leading:
            setattr(self, name, Constant(arrays, name))
        self.position_embeddings = Constant(arrays, "position_embeddings") if config.positions else None
        self.distances = Constant(arrays, "distances") if config.shared_distances else None
        self.embedding_norm = Norm(arrays, "embedding_norm", config.norm_eps) if config.embedding_norm else None
        self.layers = Layer(config, arrays)
        self.final_norm = Norm(arrays, "final_norm", config.norm_eps) if config.final_norm else None
        self.pooled_norm = Norm(arrays, "pooled_norm", config.norm_eps) if config.pooled_norm else None
        self.vector_norm = Norm(arrays, "vector_norm", config.norm_eps) if config.vector == "first" else None
        self.pooling = AttentionPooling(config, arrays) if config.vector == "attention" else None
        self.projection = Linear(arrays, "projection") if config.projection else None

    def __call__(
        self,
        inputs: ImageInputs,
        grafts: Grafts,
        *,
        pooled: bool = False,
        intermediates: bool = False,
        layers: Unrolled | None = None,
        maps: int = 0,
    ) -> Outputs:
        """Options as of `Encoder.__call__`; `maps`: how many of the last feature maps are asked for, not `pooled` then."""
        pooled = pooled and self._first_alone
        calls = grafts.outside()
        h, hidden_states, view = self.through(inputs, grafts, calls, pooled, intermediates or maps > 1, layers)
        h = self._normed(h, calls)
        first = h[:, 0] if pooled else h[view.row, view.pool]
        added = 0 if inputs.hidden is not None else view.real.shape[1] - self._tokens(inputs)
        if not pooled:
            h = h[:, added:]
        features = first if self._first_alone else self._pool(first, h)
        if self.pooled_norm is not None:
            features = calls.norm("pooled_norm", features[:, None], self.pooled_norm)[:, 0]
        states = hidden_states[:, :, added:] if hidden_states is not None and intermediates else None
        before = [] if hidden_states is None or maps < 2 else [self._normed(one, calls) for one in hidden_states[-maps:-1]]
        found = tuple(self._map(one, inputs) for one in (*before, h)) if maps else ()
        return Outputs(h, first, features, states, vector=self._vector(first, h, calls), maps=found)

    def _normed(self, h: jax.Array, calls: SiteCalls) -> jax.Array:
        return h if self.final_norm is None else calls.norm("final_norm", h, self.final_norm)

    def _map(self, h: jax.Array, inputs: ImageInputs) -> jax.Array:
        """The patches, which are the last of the tokens `[rows, tokens, hidden]`, where they lie in the picture."""
        high, wide = self._grid_of_pixels(inputs) if inputs.pixels is not None else self._square(inputs.hidden.shape[1])
        return h[:, h.shape[1] - high * wide :].reshape(h.shape[0], high, wide, h.shape[2])

    def _square(self, tokens: int) -> tuple[int, int]:
        """The grid of a picture of which the number of tokens alone is known: that of the config, or as high as wide."""
        grid, patches = self._grid_of(tokens), tokens - sum(self.config.leading.values())
        if grid is None or math.prod(grid) != patches:
            raise GraftaxError(f"{patches} patches of a picture: how many rows they are in is not known; train without a cut.")
        return grid

    @property
    def _first_alone(self) -> bool:
        """Whether heads read the class token alone."""
        return self.config.pooling == "first"

    def _pool(self, first: jax.Array, h: jax.Array) -> jax.Array:
        """What heads read of the class token and of all tokens."""
        mean = h[:, sum(self.config.leading.values()) :].mean(1)
        return mean if self.config.pooling == "mean" else jnp.concatenate([first, mean], axis=-1)

    def _vector(self, first: jax.Array, h: jax.Array, calls: SiteCalls) -> jax.Array | None:
        """What a tower says of each picture, `[rows, size]`; None where it is no tower."""
        if self.vector_norm is not None:
            x = calls.norm("vector_norm", first[:, None], self.vector_norm)
        elif self.pooling is not None:
            x = self.pooling(h, calls)
        else:
            return None
        return (x if self.projection is None else calls.linear("projection", x, self.projection))[:, 0]

    def frozen(self, inputs: ImageInputs, cut: Cut, *, pooled: bool) -> jax.Array:
        return super().frozen(inputs, cut, pooled=pooled and self._first_alone)

    def embed(self, inputs: ImageInputs, calls: SiteCalls) -> tuple[jax.Array, View]:
        pixels = inputs.pixels.astype(self.patch_embedding.kernel.dtype)
        patches = calls.conv("patch_embedding", pixels, self.patch_embedding)
        h, grid = self.with_leading(patches), (patches.shape[1], patches.shape[2])
        index = jnp.broadcast_to(jnp.arange(h.shape[1], dtype=jnp.int32), h.shape[:2])
        entry = Entry(h, jnp.zeros_like(index), index, jnp.ones_like(index, bool), None)
        entry = calls.input("input", index, entry)
        x = entry.embeddings
        if self.embedding_norm is not None:
            x = calls.norm("embedding_norm", x, self.embedding_norm)
        return x, self.view(entry.mask, h.shape[1], grid)

    @shaped
    def with_leading(self, patches: Float[Array, "rows high wide hidden"]) -> Float[Array, "rows tokens hidden"]:
        """All tokens of pictures, with their positions."""
        rows, high, wide, hidden = patches.shape
        h = patches.reshape(rows, high * wide, hidden)
        placed = self.config.placed
        table = None if self.position_embeddings is None else self.position_embeddings.value[...].reshape(-1, hidden)
        if table is not None:
            there = table[placed:].reshape(*self.config.grid, hidden)
            h = h + resampled(there, (high, wide), antialias=self.config.antialias).reshape(high * wide, hidden)
        if not self.config.leading:
            return h
        tokens = jnp.concatenate([getattr(self, name).value[...].reshape(-1, hidden) for name in self.config.leading])
        if table is not None:
            tokens = tokens.at[:placed].add(table[:placed])
        return jnp.concatenate([jnp.broadcast_to(tokens, (rows, *tokens.shape)), h], axis=1)

    def seen(self, inputs: ImageInputs, calls: SiteCalls) -> View:
        rows, tokens = inputs.hidden.shape[:2]
        return self.view(jnp.ones((rows, tokens), bool), tokens, self._grid_of(tokens))

    def _grid_of(self, tokens: int) -> tuple[int, int] | None:
        """The grid of a picture's patches, of which the number of tokens is known; None where no patches are among them."""
        patches = tokens - sum(self.config.leading.values())
        side = math.isqrt(max(patches, 0))
        if patches <= 0 or math.prod(self.config.grid) == patches:
            return self.config.grid if patches > 0 else None
        return side, side

    def _tokens(self, inputs: ImageInputs) -> int:
        """How many tokens a picture has."""
        return sum(self.config.leading.values()) + math.prod(self._grid_of_pixels(inputs))

    def _grid_of_pixels(self, inputs: ImageInputs) -> tuple[int, int]:
        (high, wide), (down, across) = inputs.pixels.shape[1:3], self.config.patch_size
        return high // down, wide // across

    def view(self, mask: jax.Array, tokens: int, grid: tuple[int, int] | None) -> View:
        """Where `mask [rows, all]` is of all tokens, the last `tokens` of which are the picture's own."""
        c, (rows, every) = self.config, mask.shape
        added = every - tokens
        own = jnp.broadcast_to(jnp.arange(every, dtype=jnp.int32) >= added, mask.shape)
        positions = jnp.maximum(jnp.cumsum(own, axis=1, dtype=jnp.int32) - 1, 0)
        sight = Sight(
            jnp.broadcast_to(mask[:, None], (rows, every, every)), self.angles(rows, every, grid), self.pairs(added, grid)
        )
        row, pool = jnp.arange(rows, dtype=jnp.int32), jnp.full(rows, added, jnp.int32)
        kinds = (False,) * c.num_layers
        texts = mask.astype(jnp.int32)  # a picture is one
        return View(sight, None, kinds, mask, positions, row, pool, False, text_positions(own.astype(jnp.int32)), grid, texts)

    def angles(self, rows: int, tokens: int, grid: tuple[int, int] | None) -> Angles | None:
        """By which queries and keys are turned: patches, the last of the tokens, and none before them."""
        if grid is None or not self.config.rope_theta:
            return None
        turned = grids.angles(*grid, self.config.size, self.config.rope_theta)
        turned = np.pad(turned, ((tokens - len(turned), 0), (0, 0)))
        cos, sin = (jnp.broadcast_to(jnp.asarray(angle), (rows, *angle.shape)) for angle in (np.cos(turned), np.sin(turned)))
        return cos, sin

    def pairs(self, added: int, grid: tuple[int, int] | None) -> Pairs | None:
        """How the picture's own tokens lie to one another; nothing is known of the `added` ones before them."""
        c = self.config
        if grid is None or not (c.distances or c.shared_distances):
            return None
        if grid != c.grid:
            raise GraftaxError(f"relative positions of {_said(c.grid)} patches: pictures of {_said(grid)} do not fit them.")
        count = grids.ways_apart(*grid)
        index = np.pad(grids.apart(*grid), ((1, 0), (1, 0)))
        index[0], index[:, 0], index[0, 0] = count, count + 1, count + 2  # from the class token, to it, and its own
        table = self.distances.value[...] if self.distances is not None else None
        return Pairs(jnp.asarray(np.pad(index, ((added, 0), (added, 0)), constant_values=-1)), table)


def _said(grid: tuple[int, int]) -> str:
    return f"{grid[0]} x {grid[1]}"


def read_sides(values: Mapping[str, Any]) -> dict[str, Any]:
    """`Family.read`, of the sizes of pictures and patches."""
    return {name: pair(values[name]) for name in ("image_size", "patch_size")}


def stacks(path: str) -> Any:
    """`Family.stacks` of a family whose layers have paths such as "encoder.layer.{}"."""
    return lambda c: (Layers("layers", c.num_layers, path.format, c.hidden_size),)


def embedding_parts(c: PictureTransformerConfig, paths: dict[str, str]) -> tuple[Part, ...]:
    """Patches, the tokens in front of them and positions; `paths` maps our names to theirs within "embeddings"."""
    d = c.hidden_size
    kernel = (*c.patch_size, c.num_channels, d)
    patches = Part("conv", "patch_embedding", paths["patch_embedding"], kernel, geometry=Geometry(stride=c.patch_size))
    parts = [Part("input", "input", "embeddings", (d,)), patches]
    parts += [Part("constant", name, paths[name], (1, count, d)) for name, count in c.leading.items()]
    if c.positions:
        parts.append(
            Part("constant", "position_embeddings", paths["position_embeddings"], (1, c.placed + math.prod(c.grid), d))
        )
    if c.shared_distances:
        parts.append(Part("constant", "distances", paths["distances"], (c.ways_apart, c.num_heads)))
    return tuple(parts)


def layer_parts(c: PictureTransformerConfig, names: Mapping[str, str]) -> tuple[Part, ...]:
    """The parts of a layer that `names` maps to their paths within it."""
    return parts_of(c, names, {"distances": (c.ways_apart, c.num_heads)})


def final_norm_part(path: str, hidden: int) -> Part:
    return Part("norm", "final_norm", path, (hidden,), above="layers")
