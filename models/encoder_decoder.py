"""The Transformer of two towers that BART, Pegasus and T5 share (Vaswani et al., 2017, arXiv:1706.03762).

    s  = encoder(source)                                         every token in sight of every other
    a  = h + W_o attention(N(h))                                 decoder: causal
    c  = a + W_o' attention(N'(a), s)                            decoder: queries of the target, keys and values of the source
    h  = c + W_2 act(W_1 N''(c))                                 gated: W_2 (act(W_g x) * W_1 x)
    logits = W_lm h + b                                          W_lm is the words' table where it has no weights of its own

That is pre-norm, with a norm behind each tower's last layer; post-norm is h = N(h + attention(h)), and so on. Positions are
those of a table, or an amount added to the scores for each distance between two tokens (T5). Both towers are a `Stack` of one
kind of `Layer`, in the decoder with a second attention; their sites are the same under `encoder.` and `decoder.`. For
generation the decoder's layers keep their keys and values in a `Cache`, and the source's are computed once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..adapters.graft import Grafts, SiteCalls
from ..adapters.sites import FAR, LM_HEAD, Entry, KeyValue, TextPosition, split_attention_heads
from ..errors import GraftaxError
from ..shapes import Float, shaped
from .activations import ACTIVATIONS
from .backbone_config import TextConfig, refuse_uneven_attention_heads
from .generation import Rules
from .inputs import Inputs, Outputs, text_positions
from .language_model import LanguageModel
from .layers import Arrays, Constant, Embedding, Linear, Norm, RMSNorm
from .network import Unrolled
from .ops import attention
from .stack import SequenceStack

UNBOUNDED = 1 << 20  # tokens, where positions are distances


@dataclass(frozen=True)
class EncoderDecoderConfig(TextConfig):
    """What the forward pass needs to know; each family fills it from its Hugging Face config."""

    vocab_size: int
    hidden_size: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    encoder_wide: int  # channels within the feed-forward
    decoder_wide: int
    max_positions: int = 0  # tokens of a text that have a position in the table; 0: there is none
    position_offset: int = 0  # rows of that table before the first position's
    buckets: int = 0  # of distances between tokens, for the amounts added to scores; 0: nothing is added
    far: int = 128  # the distance from which on all are in one bucket
    head_dim: int = 0  # 0: hidden_size / heads
    activation: str = "gelu"
    gated: bool = False
    norm: str = "layer"  # or "rms"
    norm_eps: float = 1e-5
    pre_norm: bool = False
    embedding_norm: bool = False
    query_scale: float = 0.0  # of the scores; 0: 1 / sqrt(head_dim)
    embedding_scale: float = 1.0
    output_scale: float = 1.0  # of what is projected to the vocabulary
    tied: bool = True  # both towers' words have one table
    own_projection: bool = False  # the projection to the vocabulary is not that table
    logits_bias: bool = False
    start_id: int = 0  # what the decoder reads before the first token of the target
    first_id: int = -1  # what every text that is generated begins with, and
    last_id: int = -1  # ends with where its length ends it; -1: whatever it may be
    pad_id: int = 0
    eos_ids: tuple[int, ...] = ()
    rules: Rules = Rules()

    speaks = True

    @property
    def attention_heads(self) -> tuple[int, ...]:
        return self.encoder_heads, self.decoder_heads

    def check(self) -> None:
        for heads in self.attention_heads:
            refuse_uneven_attention_heads(self.hidden_size, heads, self.head_dim)
        super().check()

    @property
    def projecting_table(self) -> str:
        if self.own_projection:
            return ""
        return "encoder.word_embeddings" if self.tied else "decoder.word_embeddings"

    @property
    def num_layers(self) -> int:
        """Of both towers."""
        return self.encoder_layers + self.decoder_layers

    @property
    def num_heads(self) -> int:
        return self.encoder_heads

    @property
    def intermediate_size(self) -> int:
        return max(self.encoder_wide, self.decoder_wide)

    @property
    def max_tokens(self) -> int:
        """Of the source, and of the target."""
        return self.max_positions or UNBOUNDED

    @property
    def encoder(self) -> TowerConfig:
        return TowerConfig(self, "encoder", self.encoder_layers, self.encoder_heads, self.encoder_wide)

    @property
    def decoder(self) -> TowerConfig:
        return TowerConfig(self, "decoder", self.decoder_layers, self.decoder_heads, self.decoder_wide)


@dataclass(frozen=True)
class TowerConfig:
    """One of the two."""

    whole: EncoderDecoderConfig
    name: str  # "encoder" or "decoder"
    num_layers: int
    num_heads: int
    wide: int

    @property
    def decodes(self) -> bool:
        return self.name == "decoder"

    @property
    def layer_of(self) -> tuple[int, ...]:
        """Which stacked weights each application of a layer uses."""
        return tuple(range(self.num_layers))

    @property
    def size(self) -> int:
        """Channels of an attention head."""
        return self.whole.head_dim or self.whole.hidden_size // self.num_heads


class Source(NamedTuple):
    """What a decoder is told of the source."""

    hidden: jax.Array | None  # [rows, tokens, hidden]: what leaves the encoder; None where a cache has its keys and values
    mask: jax.Array  # bool [rows, 1, tokens]
    text_position: TextPosition  # [rows, tokens]


class View(NamedTuple):
    """What a tower's layers see."""

    mask: jax.Array  # bool [rows, 1 or tokens, keys]
    added: jax.Array | None  # [rows, heads, tokens, keys] to the scores
    text_position: TextPosition  # [rows, tokens]
    source: Source | None = None  # of a decoder

    def of_application(self, application: Any) -> View:
        """What one application of a layer sees: the same in all."""
        return self


class Cache(NamedTuple):
    """Keys and values of the decoder's layers: the source's, and those so far in columns that all batch rows fill together."""

    keys: tuple[jax.Array, ...]  # by layer [rows, heads, columns, size]
    values: tuple[jax.Array, ...]
    source_keys: tuple[jax.Array, ...]  # by layer [rows, heads, source tokens, size]
    source_values: tuple[jax.Array, ...]
    source: Source
    column: jax.Array  # int32: the next to be filled


class Past(NamedTuple):
    """One layer's part of a cache."""

    key: jax.Array
    value: jax.Array
    source_key: jax.Array
    source_value: jax.Array
    column: jax.Array


def norm_of(config: EncoderDecoderConfig, arrays: Arrays, name: str) -> Norm | RMSNorm:
    return Norm(arrays, name, config.norm_eps) if config.norm == "layer" else RMSNorm(arrays, name, config.norm_eps)


class Attention(nnx.Module):
    """Queries of one text to the keys and values of it, or of another; `name` is that of its sites within the tower."""

    def __init__(self, config: TowerConfig, arrays: Arrays, name: str):
        self.config, self.name, whole = config, name, f"{config.name}.{name}"
        self.query = Linear(arrays, f"{whole}.query")
        self.key = Linear(arrays, f"{whole}.key")
        self.value = Linear(arrays, f"{whole}.value")
        self.attention_out = Linear(arrays, f"{whole}.attention_out")
        self.attention_norm = norm_of(config.whole, arrays, f"{whole}.attention_norm")

    def pair(self, x: jax.Array, calls: SiteCalls) -> tuple[jax.Array, jax.Array]:
        """Keys and values of `x [rows, keys, hidden]`, `[rows, heads, keys, size]`."""
        made = calls.linear(f"{self.name}.key", x, self.key), calls.linear(f"{self.name}.value", x, self.value)
        return split_attention_heads(made[0], self.config.num_heads), split_attention_heads(made[1], self.config.num_heads)

    def entering(self, h: jax.Array, calls: SiteCalls) -> jax.Array:
        return calls.norm(f"{self.name}.attention_norm", h, self.attention_norm) if self.config.whole.pre_norm else h

    def attend(
        self, h: jax.Array, x: jax.Array, pair: tuple[jax.Array, jax.Array], mask: jax.Array, added: Any, calls: SiteCalls
    ) -> jax.Array:
        """The residual stream behind it, from `h` before it and `x`, what enters it of h."""
        name, scale = self.name, self.config.whole.query_scale or None
        query = split_attention_heads(calls.linear(f"{name}.query", x, self.query), self.config.num_heads)
        pairs = calls.attention(f"{name}.attention", x, KeyValue(*pair, mask))
        if added is not None:  # nothing for the keys that methods put in front
            added = jnp.pad(added, ((0, 0), (0, 0), (0, 0), (pairs.key.shape[-2] - added.shape[-1], 0)))
        mixed = attention(query, pairs.key, pairs.value, pairs.mask, scale, added=added)
        mixed = calls.linear(f"{name}.attention_out", mixed, self.attention_out)
        return joined(self.config.whole, f"{name}.attention", h, mixed, self.attention_norm, calls)


def joined(
    config: EncoderDecoderConfig, name: str, h: jax.Array, made: jax.Array, norm: Norm | RMSNorm, calls: SiteCalls
) -> jax.Array:
    """The residual stream with what a branch has made, in post-norm towers normed."""
    if config.pre_norm:
        return h + calls.branch(f"{name}_branch", h, made, before=norm)
    return calls.norm(f"{name}_norm", h + calls.branch(f"{name}_branch", h, made, norm), norm)


class Layer(Attention):
    """One layer (or all of a tower, stacked): attention, in a decoder `cross` attention to the source, feed-forward."""

    def __init__(self, config: TowerConfig, arrays: Arrays):
        super().__init__(config, arrays, "layers")
        self.cross = Attention(config, arrays, "layers.cross") if config.decodes else None
        self.ffn_gate = Linear(arrays, f"{config.name}.layers.ffn_gate") if config.whole.gated else None
        self.ffn_in = Linear(arrays, f"{config.name}.layers.ffn_in")
        self.ffn_out = Linear(arrays, f"{config.name}.layers.ffn_out")
        self.ffn_norm = norm_of(config.whole, arrays, f"{config.name}.layers.ffn_norm")

    @shaped
    def __call__(
        self, h: Float[Array, "rows tokens hidden"], view: View, calls: SiteCalls, pooled: bool = False
    ) -> Float[Array, "rows tokens hidden"]:
        """`h [rows, tokens, hidden]` to the same; nothing is `pooled` of an encoder-decoder."""
        return self.run(h, view, calls)[0]

    def run(
        self, h: jax.Array, view: View, calls: SiteCalls, past: Past | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """The same, and the layer's keys and values `[rows, heads, keys, size]`: of the new tokens, with a past of all."""
        c, every = self.config.whole, calls
        calls = calls.over(view.text_position)
        x = self.entering(h, calls)
        own = self.pair(x, calls)
        if past is not None:
            put = jax.lax.dynamic_update_slice_in_dim
            own = put(past.key, own[0], past.column, axis=2), put(past.value, own[1], past.column, axis=2)
        h = self.attend(h, x, own, view.mask, view.added, calls)
        if self.cross is not None:
            assert view.source is not None
            pair = self.of_source(view.source, every) if past is None else (past.source_key, past.source_value)
            h = self.cross.attend(h, self.cross.entering(h, calls), pair, view.source.mask, None, calls)
        x = calls.norm("layers.ffn_norm", h, self.ffn_norm) if c.pre_norm else h
        wide = calls.linear("layers.ffn_in", x, self.ffn_in)
        if self.ffn_gate is None:
            wide = ACTIVATIONS[c.activation](wide)
        else:
            wide = ACTIVATIONS[c.activation](calls.linear("layers.ffn_gate", x, self.ffn_gate)) * wide
        narrow = calls.linear("layers.ffn_out", wide, self.ffn_out)
        return calls.stream("layers.output", joined(c, "layers.ffn", h, narrow, self.ffn_norm, calls)), own

    def of_source(self, source: Source, calls: SiteCalls) -> tuple[jax.Array, jax.Array]:
        """Keys and values of the source."""
        assert self.cross is not None
        assert source.hidden is not None
        return self.cross.pair(source.hidden, calls.over(source.text_position))


class Tower(SequenceStack):
    """Embeddings and stacked layers, the encoder's or the decoder's; `words`: the other tower's table, where they are tied."""

    def __init__(self, config: TowerConfig, arrays: Arrays, words: Embedding | None = None):
        self.config, self.name, c = config, f"{config.name}.layers", config.whole
        self.word_embeddings = words or Embedding(arrays, f"{config.name}.word_embeddings")
        self.position_embeddings = Embedding(arrays, f"{config.name}.position_embeddings") if c.max_positions else None
        self.relative_positions = Embedding(arrays, f"{config.name}.relative_positions") if c.buckets else None
        self.embedding_norm = norm_of(c, arrays, f"{config.name}.embedding_norm") if c.embedding_norm else None
        self.layers = Layer(config, arrays)
        self.final_norm = norm_of(c, arrays, f"{config.name}.final_norm") if c.pre_norm else None

    def __call__(
        self,
        inputs: Inputs,
        grafts: Grafts,
        source: Source | None = None,
        intermediates: bool = False,
        layers: Unrolled | None = None,
    ) -> tuple[jax.Array, jax.Array | None, View]:
        """What leaves the tower `[rows, tokens, hidden]`, all hidden states with `intermediates`, and the view.

        The hidden states are those that enter each layer and at last what leaves the tower, as in transformers.
        """
        calls = grafts.outside()
        h, view = self.embed(inputs, calls)
        view = view._replace(source=source)
        alone = None if layers is None else layers[self.name]
        h, hidden_states = self.run_layers(h, view, grafts, intermediates=intermediates, layers=alone)
        h = self.left(h, calls)
        return h, None if hidden_states is None else jnp.concatenate([hidden_states[:-1], h[None]]), view

    def embed(self, inputs: Inputs, calls: SiteCalls) -> tuple[jax.Array, View]:
        positions = jnp.broadcast_to(jnp.arange(inputs.ids.shape[1], dtype=jnp.int32), inputs.ids.shape)
        entry = Entry(self.words(inputs.ids, calls), jnp.zeros_like(inputs.ids), positions, inputs.mask, None)
        if not self.config.decodes:  # what is put in front is put in front of the source
            entry = calls.input("input", inputs.ids, entry)
        mask, positions = entry.mask, entry.positions
        added = ((0, 0), (mask.shape[1] - inputs.mask.shape[1], 0))
        sight = mask[:, None]
        if self.config.decodes:
            sight = sight & (positions[:, None] <= positions[:, :, None])
        view = View(
            sight, self.distances(positions, positions, calls), text_positions(jnp.pad(inputs.mask.astype(jnp.int32), added))
        )
        return self.entered(entry.embeddings, positions, calls), view

    def seen(self, inputs: Inputs, calls: SiteCalls) -> View:
        return self.embed(inputs, calls)[1]

    def words(self, ids: jax.Array, calls: SiteCalls) -> jax.Array:
        words, scale = calls.embedding("word_embeddings", ids, self.word_embeddings), self.config.whole.embedding_scale
        return words if scale == 1.0 else words * jnp.asarray(scale, words.dtype)

    def entered(self, h: jax.Array, positions: jax.Array, calls: SiteCalls) -> jax.Array:
        """What enters the first layer."""
        if self.position_embeddings is not None:
            indices = positions + self.config.whole.position_offset
            h = h + calls.embedding("position_embeddings", indices, self.position_embeddings)
        return h if self.embedding_norm is None else calls.norm("embedding_norm", h, self.embedding_norm)

    def left(self, h: jax.Array, calls: SiteCalls) -> jax.Array:
        return h if self.final_norm is None else calls.norm("final_norm", h, self.final_norm)

    def distances(self, queries: jax.Array, keys: jax.Array, calls: SiteCalls) -> jax.Array | None:
        """What is added to the scores, `[rows, heads, queries, keys]`, from positions `[rows, tokens]`."""
        if self.relative_positions is None:
            return None
        bucket = self.bucket(keys[:, None, :] - queries[:, :, None])
        flat = calls.embedding("relative_positions", bucket.reshape(len(bucket), -1), self.relative_positions)
        return jnp.moveaxis(flat.reshape(*bucket.shape, -1), -1, 1)

    def bucket(self, ahead: jax.Array) -> jax.Array:
        """The bucket of how many tokens a key lies ahead of the query: one for each small distance, then ever wider ones."""
        c, first = self.config.whole, jnp.zeros_like(ahead)
        count = c.buckets
        if self.config.decodes:
            distance = jnp.maximum(-ahead, 0)
        else:
            count //= 2
            first, distance = jnp.where(ahead > 0, count, 0), jnp.abs(ahead)
        exact = count // 2
        share = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / math.log(c.far / exact)
        wide = jnp.minimum(exact + (share * (count - exact)).astype(jnp.int32), count - 1)
        return first + jnp.where(distance < exact, distance, wide)


class EncoderDecoder(LanguageModel):
    """Both towers and the projection to the vocabulary."""

    encodes: ClassVar[bool] = True

    table = "decoder.word_embeddings"

    def __init__(self, config: EncoderDecoderConfig, arrays: Arrays):
        self.config = config
        self.encoder = Tower(config.encoder, arrays)
        words = self.encoder.word_embeddings if config.tied else None
        self.decoder = Tower(config.decoder, arrays, words)
        self.own_projection = Linear(arrays, LM_HEAD) if config.own_projection else None
        self.logits_bias = Constant(arrays, "logits_bias") if config.logits_bias else None

    @property
    def stacks(self) -> tuple[SequenceStack, ...]:
        return self.encoder, self.decoder

    def __call__(
        self,
        inputs: Inputs,
        grafts: Grafts,
        *,
        pooled: bool = False,
        intermediates: bool = False,
        layers: Unrolled | None = None,
    ) -> Outputs:
        """Run both; options as of `Encoder.__call__`. The pooled position is the last of the target."""
        if inputs.target is None:
            raise GraftaxError("an encoder-decoder reads two texts, and there is no target.")
        source, encoder = self.encode(inputs, grafts, intermediates, layers)
        own, target = grafts.within("decoder"), inputs.target
        h, hidden_states, _ = self.decoder(target, own, source, intermediates, layers)
        last = jnp.maximum(target.mask.sum(1, dtype=jnp.int32) - 1, 0)
        return Outputs(h, h[jnp.arange(len(h), dtype=jnp.int32), last], None, hidden_states, encoder)

    def encode(
        self, inputs: Inputs, grafts: Grafts, intermediates: bool = False, layers: Unrolled | None = None
    ) -> tuple[Source, Outputs]:
        """What the decoder is told of the source, and the encoder's outputs."""
        h, hidden_states, view = self.encoder(inputs, grafts.within("encoder"), None, intermediates, layers)
        added = h.shape[1] - inputs.mask.shape[1]  # tokens that methods put in front of the text
        return Source(h, view.mask, view.text_position), Outputs(
            h[:, added:], h[:, added], None, None if hidden_states is None else hidden_states[:, :, added:]
        )

    @property
    def projection(self) -> Linear | Embedding:
        return self.own_projection or self.decoder.word_embeddings

    @property
    def language_head(self) -> tuple[Linear | Embedding, Constant | None]:
        return self.projection, self.logits_bias

    def logits(self, hidden: jax.Array, calls: SiteCalls, language_head: Any = None) -> jax.Array:
        (kernel, bias), scale = language_head or self.language_head, self.config.output_scale
        hidden = hidden if scale == 1.0 else hidden * jnp.asarray(scale, hidden.dtype)
        out = self.projected(hidden, calls, kernel).astype(jnp.float32)
        return out if bias is None else out + bias.value[...].astype(jnp.float32)

    # -- generation -----------------------------------------------------------------------------------------------------

    def prefill(self, inputs: Inputs, grafts: Grafts, layers: Unrolled, columns: int) -> tuple[jax.Array, Cache]:
        """Logits `[rows, vocabulary]` of each target's first token, and a cache for a target of `columns` tokens."""
        own, config = grafts.within("decoder"), self.decoder.config
        if own.whole:
            raise GraftaxError("an adapter that reads a text as a whole, as gates do, cannot be used while the text is made.")
        source, _ = self.encode(inputs, grafts)
        rows = len(inputs.ids)
        pairs = [module.of_source(source, calls) for module, calls in self.one_by_one(own, layers)]
        keys, values = zip(*pairs, strict=True)
        rooms = (jnp.zeros((rows, config.num_heads, columns, config.size), keys[0].dtype),) * config.num_layers
        cache = Cache(rooms, rooms, keys, values, source._replace(hidden=None), jnp.int32(0))
        return self.step(jnp.full(rows, self.config.start_id, jnp.int32), cache, grafts, layers)

    def step(self, ids: jax.Array, cache: Cache, grafts: Grafts, layers: Unrolled) -> tuple[jax.Array, Cache]:
        """Logits `[rows, vocabulary]` behind one more token of each batch row, `ids [rows]`, and the cache with it."""
        own = grafts.within("decoder")
        outside, columns = own.outside(), jnp.arange(cache.keys[0].shape[2], dtype=jnp.int32)
        position = jnp.broadcast_to(cache.column, (len(ids), 1))
        mask = jnp.broadcast_to(columns <= cache.column, (len(ids), 1, len(columns)))
        added = self.decoder.distances(position, jnp.broadcast_to(columns, (len(ids), len(columns))), outside)
        view = View(
            mask, added, TextPosition(position, jnp.full_like(position, FAR), jnp.zeros_like(position, bool)), cache.source
        )
        h = self.decoder.entered(self.decoder.words(ids[:, None], outside), position, outside)
        kept = []
        pasts = zip(cache.keys, cache.values, cache.source_keys, cache.source_values, strict=True)
        for (module, calls), past in zip(self.one_by_one(own, layers), pasts, strict=True):
            h, pair = module.run(h, view, calls, Past(*past, cache.column))
            kept.append(pair)
        keys, values = zip(*kept, strict=True)
        cache = cache._replace(keys=keys, values=values, column=cache.column + 1)
        return self.logits(self.decoder.left(h, outside), grafts.outside())[:, 0], cache

    def one_by_one(self, own: Grafts, layers: Unrolled) -> list[tuple[Layer, SiteCalls]]:
        """The decoder's layers, each with what acts there."""
        stack, graphdef = self.decoder.name, nnx.graphdef(self.decoder.layers)
        first = self.config.decoder_layers - own.adapted(stack)
        return [
            (nnx.merge(graphdef, layer), own.calls(own.layer(stack, index - first) if index >= first else {}, index))
            for index, layer in enumerate(layers[stack])
        ]
