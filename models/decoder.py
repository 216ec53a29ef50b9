"""The pre-norm Transformer decoder that the Llama line, GPT-2 and GPT-NeoX share (Radford et al., 2019; Touvron et al., 2023).

    h0 = word (+ position)                                       Gemma: times sqrt(hidden)
    h  = a layer of h, and so on                                 `pre_norm.py`, under a causal mask
    logits = W_lm N(h)                                           W_lm is the word embeddings' table where they are tied

`DecoderConfig` holds what the families differ in. The forward is pure and knows sites and no adapter method; `stack.py` says
how the layers are run. For generation (`prefill`, `step`) every layer keeps its keys and values in a `Cache` of fixed size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ..adapters.graft import Grafts, SiteCalls
from ..adapters.sites import FAR, LM_HEAD, TextPosition
from ..errors import GraftaxError
from .generation import Rules
from .inputs import Inputs
from .language_model import LanguageModel
from .layers import Arrays, Embedding, Linear
from .network import Unrolled
from .pre_norm import Past, View
from .text_stack import TextStack, TextStackConfig


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(TextStackConfig):
    """What the forward pass needs to know; each family fills it from its Hugging Face config."""

    qkv_bias: bool = False
    out_bias: bool = False
    ffn_bias: bool = False
    logit_cap: float = 0.0
    tied: bool = False
    speaks: bool = True  # whether there is a projection to the vocabulary: classifiers may lack one that is not tied
    last_id: int = -1  # what a text that is generated ends with where its length ends it; -1: whatever it may be
    rules: Rules = Rules()

    first_id = -1  # no first token is forced

    @property
    def projecting_table(self) -> str:
        return "word_embeddings" if self.tied else ""


class Cache(NamedTuple):
    """Keys and values of every layer, in columns that all batch rows fill together. One that is padded masks its column."""

    keys: tuple[jax.Array, ...]  # by layer [rows, kv heads, columns, size]
    values: tuple[jax.Array, ...]
    mask: jax.Array  # bool [rows, columns]: filled
    positions: jax.Array  # int32 [rows, columns]
    column: jax.Array  # int32: the next to be filled
    ends: jax.Array  # int32 [rows]: the next position of each batch row
    called: jax.Array  # bool [rows, ..., 1]: `TextPosition.called` at the prompt's end, which goes for all that follows


class Decoder(TextStack, LanguageModel):
    """Embeddings, stacked layers, a last norm and the projection to the vocabulary."""

    def __init__(self, config: DecoderConfig, arrays: Arrays):
        super().__init__(config, arrays)
        self.own_projection = Linear(arrays, LM_HEAD) if config.speaks and not config.tied else None

    @property
    def projection(self) -> Linear | Embedding:
        return self.own_projection or self.word_embeddings

    @property
    def language_head(self) -> Linear | Embedding:
        return self.projection

    def logits(self, hidden: jax.Array, calls: SiteCalls, language_head: Any = None) -> jax.Array:
        out, cap = self.projected(hidden, calls, language_head or self.language_head).astype(jnp.float32), self.config.logit_cap
        return cap * jnp.tanh(out / cap) if cap else out

    # -- generation -----------------------------------------------------------------------------------------------------

    def prefill(self, inputs: Inputs, grafts: Grafts, layers: Unrolled, columns: int) -> tuple[jax.Array, Cache]:
        """Logits `[rows, vocabulary]` behind each batch row's last token, and a cache.

        The cache has room for `columns` tokens and what methods add.
        """
        if grafts.whole:
            raise GraftaxError("an adapter that reads a text as a whole, as gates do, cannot be used while the text is made.")
        calls = grafts.outside()
        h, view = self.embed(inputs, calls)
        used, width = view.real.shape[1], inputs.mask.shape[1]
        h, kept = self.one_by_one(h, view, grafts, layers, pooled=True)

        def with_room(array: jax.Array, axis: int) -> jax.Array:
            return jnp.pad(array, [(0, columns - width if i == axis else 0) for i in range(array.ndim)])

        keys, values = (tuple(with_room(of_layer, 2) for of_layer in each) for each in zip(*kept, strict=True))
        ends = jnp.max(jnp.where(view.real, view.positions, -1), axis=1) + 1
        called = view.text_position.of(view.row, view.pool).called
        cache = Cache(keys, values, with_room(view.real, 1), with_room(view.positions, 1), jnp.int32(used), ends, called)
        return self.logits(calls.norm("final_norm", h, self.final_norm), calls)[:, 0], cache

    def step(self, ids: jax.Array, cache: Cache, grafts: Grafts, layers: Unrolled) -> tuple[jax.Array, Cache]:
        """Logits `[rows, vocabulary]` behind one more token of each batch row, `ids [rows]`, and the cache with it."""
        return self.extend(ids[:, None], jnp.ones((len(ids), 1), bool), cache, grafts, layers)

    def extend(
        self, ids: jax.Array, real: jax.Array, cache: Cache, grafts: Grafts, layers: Unrolled
    ) -> tuple[jax.Array, Cache]:
        """Logits `[rows, vocabulary]` behind further tokens of each batch row, and the cache with them.

        `ids [rows, new]`; `real` bool `[rows, new]`: batch row i has further real tokens, one at least, and padding behind
        them. The new tokens take the cache's next columns, padding too, which nothing attends to.
        """
        calls, (rows, new) = grafts.outside(), ids.shape
        positions = cache.ends[:, None] + jnp.arange(new, dtype=jnp.int32)
        put = jax.lax.dynamic_update_slice_in_dim
        mask = put(cache.mask, real, cache.column, axis=1)
        filled = put(cache.positions, positions, cache.column, axis=1)
        own = mask[:, None, :] & (filled[:, None, :] <= positions[:, :, None])
        count = real.sum(1, dtype=jnp.int32)
        called = jnp.broadcast_to(cache.called, (*cache.called.shape[:-1], new))
        text_position = TextPosition(positions, jnp.full_like(positions, FAR), called)
        sights, row = self.sights(own, positions, filled), jnp.arange(rows, dtype=jnp.int32)
        view = View(*sights, self.config.kinds, mask, positions, row, count - 1, packed=False, text_position=text_position)
        pasts = [Past(key, value, cache.column) for key, value in zip(cache.keys, cache.values, strict=True)]
        h = self.with_positions(self.words(ids, calls), positions, calls)
        h, kept = self.one_by_one(h, view, grafts, layers, pasts, pooled=new > 1)
        keys, values = zip(*kept, strict=True)
        cache = Cache(keys, values, mask, filled, cache.column + new, cache.ends + count, cache.called)
        return self.logits(calls.norm("final_norm", h, self.final_norm), calls)[:, 0], cache

    def one_by_one(
        self,
        h: jax.Array,
        view: View,
        grafts: Grafts,
        layers: Unrolled,
        pasts: Sequence[Past] | None = None,
        pooled: bool = False,
    ) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]:
        """What leaves the last layer, with `pooled` at the texts' ends alone, and each layer's keys and values."""
        kept, first, alone = [], self.config.num_layers - grafts.adapted(self.name), layers[self.name]
        for index, layer in enumerate(alone):
            module = nnx.merge(nnx.graphdef(self.layers), layer)
            calls = grafts.calls(grafts.layer(self.name, index - first) if index >= first else {}, index)
            ends_alone = pooled and index == len(alone) - 1
            h, pair = module.run(h, view.of_application(index), calls, ends_alone, pasts[index] if pasts else None)
            kept.append(pair)
        return h, kept
