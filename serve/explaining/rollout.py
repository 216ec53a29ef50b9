"""Attention rollout (Abnar & Zuidema, 2020, arXiv:2005.00928): through which patches attention leads to what a head reads.

    A_l = 1/2 P_l + 1/2 I,    rollout = A_L A_(L-1) ... A_1          P_l [tokens, tokens]: layer l's attention, the heads' mean

The half of I stands for the residual connection. The row of the token that the head reads (the class token, the mean of all
patches, or the mean of both, as the backbone pools) says how much each patch has in it; it is the same for every label. What
tokens attend to that is not of the picture, an adapter's prompt or prefix, is left out, and each row of P is made to add up to
1 again.

P is seen by lenses (`adapters/methods/lenses.py`), of as many queries at a time as an attention head has channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...adapters.graft import State
from ...adapters.methods.head import VECTOR
from ...adapters.methods.lenses import Attended, Seed
from ...models.backbone import Backbone
from .attribution import Attributed, Way
from .picture_tokens import grid_of, has_tokens
from .question import Question


@dataclass(frozen=True)
class Rollout(Way):
    name = "rollout"
    said = "how much of each patch attention has led to what the head reads, whatever the label"
    of_label = False

    def unfit(self, backbone: Backbone) -> str | None:
        if backbone.family.processor.kind != "image":
            return "is for pictures; texts have integrated-gradients"
        if not has_tokens(backbone):
            return "follows attention from token to token, and here there are feature maps or windows of them; use grad-cam"
        return None

    def attribute(
        self, question: Question, params: Any, state: State, inputs: Any, blank: Any, labels: jax.Array
    ) -> Attributed:
        backbone, (rows, height, width) = question.backbone, inputs.pixels.shape[:3]
        high, wide = grid_of(backbone, height, width)
        rolled = rollout(attention_of(backbone, params, state, inputs))
        patches = rolled[:, -high * wide :, -high * wide :].mean(1)
        first = rolled[:, 0, -high * wide :]
        config = backbone.config
        pooling = config.vector if VECTOR in state and config.vector else config.pooling
        read = {"first": first, "both": (first + patches) / 2}.get(pooling, patches)
        resized = jax.image.resize(read.reshape(rows, high, wide), (rows, height, width), "linear", antialias=False)
        return Attributed(resized)


def attention_of(backbone: Backbone, params: Any, state: State, inputs: Any) -> jax.Array:
    """The attention among a picture's own tokens in each layer, the mean of its heads: `[layers, rows, queries, keys]`."""
    places = {site.role: site for site in backbone.sites if site.role in ("attention", "attention_out")}
    attends, mixes = places["attention"], places["attention_out"]
    layers, size = backbone.structure.stacks[attends.stack], backbone.config.size
    shape = jax.eval_shape(backbone.encode, params, state, inputs).hidden.shape
    rows, tokens = shape[0], shape[1]

    def seen_from(first: jax.Array) -> jax.Array:
        fixed = {"first": first, "size": jnp.int32(size), "tokens": jnp.int32(tokens)}
        seed = jax.tree.map(lambda number: jnp.broadcast_to(number, (layers,)), fixed)

        def anything(seen: jax.Array) -> jax.Array:
            looking = {
                attends.name: {**state.get(attends.name, {}), Attended().key: {"seen": seen}},
                mixes.name: {**state.get(mixes.name, {}), Seed().key: seed},
            }
            return backbone.encode(params, {**state, **looking}, inputs).hidden.astype(jnp.float32).sum()

        return jax.grad(anything)(jnp.zeros((layers, rows, tokens, size), jnp.float32))

    found = jax.lax.map(seen_from, jnp.arange(0, tokens, size, dtype=jnp.int32))  # [times, layers, rows, keys, size]
    by_query = jnp.moveaxis(found, (0, 4), (2, 3)).reshape(layers, rows, -1, tokens)[:, :, :tokens]
    return by_query / by_query.sum(-1, keepdims=True)


def rollout(attention: jax.Array) -> jax.Array:
    """`[layers, rows, tokens, tokens]` to what all layers together lead where, `[rows, tokens, tokens]`."""
    layers = attention / 2 + jnp.eye(attention.shape[-1], dtype=attention.dtype) / 2
    rolled = layers[0]
    for layer in layers[1:]:
        rolled = layer @ rolled
    return rolled
