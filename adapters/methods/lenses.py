"""Lenses: methods that change nothing, through which explanations look (`serve/explaining/`).

What an explanation needs of the middle of a network (the vectors that a table gave, a feature map with its derivative, how a
layer attends) a forward pass does not return, and a backbone has no hooks. As of an `Observer`, the "gradient" of a lens's
leaves is what it has seen: what is at the site passes through a function whose derivative is written by hand. So lenses work
wherever methods do, in loops over layers too, beside any adapter, on any backbone. Their leaves are made for each batch, and
never saved.

Their names begin with a sign: "!" is before all letters and "~" behind them, for methods at a site act in the order of their
keys, and a lens must stand next to what it looks at.

| lens       | at               | leaves, and what their gradient is                                                           |
|------------|------------------|----------------------------------------------------------------------------------------------|
| `Shift`    | `embedding`      | `seen [rows, tokens, d]`: the vectors; `shift`, added to them: the derivative by them        |
| `ClassMap` | `stream`, `norm` | `map [rows, H, W]`: Grad-CAM's map, resized to that; `positions []`: how many it had         |
| `Attended` | `attention`      | `seen [rows, tokens, size]`: how `size` queries attend to the last `tokens` keys             |
| `Seed`     | `linear`         | none: it says at which queries `Attended` looks                                              |

No site shows the weights P of attention themselves, but with mixed = P v the backward pass computes dv = P^T d mixed. Where
`mixed` enters the layer's next product, `Seed` puts in place of its true derivative, in channel c of every attention head, a 1
at query `first` + c and 0 elsewhere; so dv[k, c], which `Attended` sees, is P[first + c, k]. One backward pass shows as many
queries as an attention head has channels, of all layers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..method import Leaves, Method
from ..sites import KeyValue, Site


class _Lens(Method):
    """Base of the lenses: nobody chooses one, and a layout holds none."""

    count: ClassVar[str] = "none"

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {}, {}


@dataclass(frozen=True)
class Shift(_Lens):
    """Sees the vectors that leave a table, and moves them: y + shift."""

    name: ClassVar[str] = "~shift"
    summary: ClassVar[str] = "moves the vectors of a table, for explanations"
    acts_on: ClassVar[tuple[str, ...]] = ("embedding",)

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        return _noted(state["seen"], y) + state["shift"]


@jax.custom_vjp
def _noted(seen: jax.Array, y: jax.Array) -> jax.Array:
    return y


_noted.defvjp(lambda seen, y: (y, y), lambda y, dy: (y, dy))


@dataclass(frozen=True)
class ClassMap(_Lens):
    """Sees relu(sum_c w_c A_c) of a feature map A `[rows, h, w, channels]`, w_c being the mean of dA_c over its positions.

    That is Grad-CAM's map (Selvaraju et al., 2016, arXiv:1610.02391). Of tokens, the last `high * wide` are a map's positions.
    """

    name: ClassVar[str] = "~class_map"
    summary: ClassVar[str] = "sees which positions of a feature map speak for an answer"
    acts_on: ClassVar[tuple[str, ...]] = ("stream", "norm")
    traced: ClassVar[tuple[str, ...]] = ("high", "wide")

    high: int = 0  # rows and columns of patches, where tokens are seen; 0: it is a map that is seen
    wide: int = 0

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        return _mapped(self.high, self.wide, state, y)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mapped(high: int, wide: int, state: Leaves, y: jax.Array) -> jax.Array:
    return y


def _mapped_forward(high: int, wide: int, state: Leaves, y: jax.Array) -> tuple[jax.Array, Any]:
    return y, (state, y)


def _mapped_backward(high: int, wide: int, kept: Any, dy: jax.Array) -> tuple[Leaves, jax.Array]:
    state, y = kept

    def as_map(tokens: jax.Array) -> jax.Array:
        if not high:
            return tokens
        return tokens[..., -high * wide :, :].reshape(*tokens.shape[:-2], high, wide, tokens.shape[-1])

    features, weights = as_map(y), as_map(dy).mean((-3, -2), keepdims=True)
    found = jax.nn.relu((weights * features).sum(-1))
    resized = jax.image.resize(found, state["map"].shape, "linear", antialias=False)
    count = jnp.full_like(state["positions"], found.shape[-2] * found.shape[-1])
    return {"map": resized, "positions": count}, dy


_mapped.defvjp(_mapped_forward, _mapped_backward)


@dataclass(frozen=True)
class Attended(_Lens):
    """Sees what some queries of a layer attend to."""

    name: ClassVar[str] = "~attended"
    summary: ClassVar[str] = "sees what a layer's queries attend to"
    acts_on: ClassVar[tuple[str, ...]] = ("attention",)

    def apply(self, state: Leaves, x: Any, y: KeyValue, frozen: Any, key: jax.Array | None) -> KeyValue:
        return y._replace(value=_weighed(state["seen"], y.value))


@jax.custom_vjp
def _weighed(seen: jax.Array, value: jax.Array) -> jax.Array:
    return value


def _weighed_backward(seen: jax.Array, dv: jax.Array) -> tuple[jax.Array, jax.Array]:
    return dv.sum(-3)[..., -seen.shape[-2] :, :], dv


_weighed.defvjp(lambda seen, value: (value, seen), _weighed_backward)


@dataclass(frozen=True)
class Seed(_Lens):
    """Puts ones in place of the derivative of what a layer's attention has mixed."""

    name: ClassVar[str] = "!seed"
    summary: ClassVar[str] = "says which queries are looked at"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)

    def pre(self, state: Leaves, x: jax.Array) -> jax.Array:
        return _seeded(state["first"], state["size"], state["tokens"], x)


@jax.custom_vjp
def _seeded(first: jax.Array, size: jax.Array, tokens: jax.Array, x: jax.Array) -> jax.Array:
    """`first`: of the queries looked at, counted within the last `tokens`; `size`: channels of an attention head."""
    return x


def _seeded_forward(first: jax.Array, size: jax.Array, tokens: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
    return x, (first, size, tokens)


def _seeded_backward(kept: Any, dx: jax.Array) -> tuple[None, None, None, jax.Array]:
    first, size, tokens = kept
    query = jnp.arange(dx.shape[-2], dtype=jnp.int32)[:, None] - (dx.shape[-2] - tokens)
    channel = jnp.arange(dx.shape[-1], dtype=jnp.int32) % size
    return None, None, None, jnp.broadcast_to(query == first + channel, dx.shape).astype(dx.dtype)


_seeded.defvjp(_seeded_forward, _seeded_backward)
