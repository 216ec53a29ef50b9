"""The pre-norm Transformer decoder that the Llama line, GPT-2 and GPT-NeoX share (Radford et al., 2019; Touvron et al., 2023).

    h0 = word (+ position)                                       Gemma: times sqrt(hidden)
    a  = h + W_o attention(N(h))                                 causal; queries and keys turned by their positions
    h  = a + W_2 (act(W_g N(a)) * W_1 N(a))                      not gated: W_2 act(W_1 N(a))
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
from jax import Array

from ..adapters.graft import Grafts, SiteCalls
from ..adapters.sites import FAR, LM_HEAD, Entry, KeyValue, TextPosition, split_attention_heads
from ..errors import GraftaxError
from ..shapes import Float, shaped
from .activations import ACTIVATIONS
from .backbone_config import TextConfig, refuse_uneven_attention_heads
from .generation import Rules
from .inputs import Inputs, Outputs, count_within, text_positions
from .language_model import LanguageModel
from .layers import Arrays, Embedding, Linear, Norm, RMSNorm
from .network import Unrolled
from .ops import attention
from .rope import Angles, Rope, turn
from .stack import TextStack


@dataclass(frozen=True)
class DecoderConfig(TextConfig):
    """What the forward pass needs to know; each family fills it from its Hugging Face config."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int
    num_kv_heads: int = 0  # 0: num_heads
    head_dim: int = 0  # 0: hidden_size / num_heads
    activation: str = "silu"
    gated: bool = True
    norm: str = "rms"  # or "layer"
    norm_eps: float = 1e-6
    norm_offset: bool = False  # an RMS norm's scale is 1 + its weight
    rope: Rope | None = None  # None: a table of learned positions
    local_rope: Rope | None = None  # of the layers with a window, where it differs
    window: int = 0  # tokens that a windowed layer looks back at, its own included; 0: none has a window
    windowed: tuple[bool, ...] = ()  # by layer; empty: all of them
    qkv_bias: bool = False
    out_bias: bool = False
    ffn_bias: bool = False
    fused: bool = False  # one projection for query, key and value, and one for both of a gated feed-forward's
    interleaved: bool = False  # of which the first makes the three of each attention head in turn
    qk_norm: bool = False  # the query and key of each attention head are normed
    post_norms: bool = False  # and each branch's output
    parallel: bool = False  # the feed-forward reads the layer's input, beside the attention
    query_scale: float = 0.0  # of the scores; 0: 1 / sqrt(head_dim)
    attention_cap: float = 0.0  # c tanh(score / c); 0: none
    logit_cap: float = 0.0
    embedding_scale: float = 1.0
    tied: bool = False
    speaks: bool = True  # whether there is a projection to the vocabulary: classifiers may lack one that is not tied
    pad_id: int = 0
    last_id: int = -1  # what a text that is generated ends with where its length ends it; -1: whatever it may be
    eos_ids: tuple[int, ...] = ()
    rules: Rules = Rules()

    first_id = -1  # no first token is forced

    @property
    def layer_of(self) -> tuple[int, ...]:
        """Which stacked weights each application of a layer uses."""
        return tuple(range(self.num_layers))

    @property
    def projecting_table(self) -> str:
        return "word_embeddings" if self.tied else ""

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def size(self) -> int:
        """Channels of an attention head."""
        return self.head_dim or self.hidden_size // self.num_heads

    def check(self) -> None:
        refuse_uneven_attention_heads(self.hidden_size, self.num_heads, self.head_dim)
        if self.num_heads % self.kv_heads:
            raise GraftaxError(f"config.json: {self.num_heads} heads do not share {self.kv_heads} of keys and values.")
        super().check()

    @property
    def kinds(self) -> tuple[bool, ...]:
        """Whether each layer has a window."""
        return self.windowed or (bool(self.window),) * self.num_layers


class Sight(NamedTuple):
    """What the tokens of one kind of layer look at."""

    mask: jax.Array  # bool [rows, queries, keys]
    angles: Angles | None  # of the queries and the new keys


class View(NamedTuple):
    """What the layers see; with `sight` chosen, what one application of a layer does."""

    sight: Sight  # of layers without a window
    windowed: Sight | None  # of those with one; None: there are none
    kinds: tuple[bool, ...]  # by layer: whether it has a window
    real: jax.Array  # bool [rows, tokens]: no padding; virtual tokens are real
    positions: jax.Array  # int32 [rows, tokens]
    row: jax.Array  # int32 [texts]: each text's batch row
    pool: jax.Array  # int32 [texts]: its last position there
    packed: bool  # whether a batch row may hold several texts; else text i is batch row i
    text_position: TextPosition

    def of_application(self, application: Any) -> View:
        if self.windowed is None or not any(self.kinds):
            return self
        if all(self.kinds):
            return self._replace(sight=self.windowed)
        has = jnp.asarray(self.kinds)[application]
        return self._replace(sight=jax.tree.map(lambda a, b: jnp.where(has, b, a), self.sight, self.windowed))


class Cache(NamedTuple):
    """Keys and values of every layer, in columns that all batch rows fill together. One that is padded masks its column."""

    keys: tuple[jax.Array, ...]  # by layer [rows, kv heads, columns, size]
    values: tuple[jax.Array, ...]
    mask: jax.Array  # bool [rows, columns]: filled
    positions: jax.Array  # int32 [rows, columns]
    column: jax.Array  # int32: the next to be filled
    ends: jax.Array  # int32 [rows]: the next position of each batch row
    called: jax.Array  # bool [rows, ..., 1]: `TextPosition.called` at the prompt's end, which goes for all that follows


class Past(NamedTuple):
    """One layer's keys and values so far, and the column the new ones go to."""

    key: jax.Array
    value: jax.Array
    column: jax.Array


class Layer(nnx.Module):
    """One decoder layer (or all of them, stacked)."""

    def __init__(self, config: DecoderConfig, arrays: Arrays):
        self.config = config
        if config.fused:
            self.qkv = Linear(arrays, "layers.qkv")
        else:
            self.query = Linear(arrays, "layers.query")
            self.key = Linear(arrays, "layers.key")
            self.value = Linear(arrays, "layers.value")
        self.attention_out = Linear(arrays, "layers.attention_out")
        if config.gated and not config.fused:
            self.ffn_gate = Linear(arrays, "layers.ffn_gate")
        self.ffn_in = Linear(arrays, "layers.ffn_in")
        self.ffn_out = Linear(arrays, "layers.ffn_out")
        self.attention_norm = norm_of(config, arrays, "layers.attention_norm")
        self.ffn_norm = norm_of(config, arrays, "layers.ffn_norm")
        if config.qk_norm:
            self.query_norm = norm_of(config, arrays, "layers.query_norm")
            self.key_norm = norm_of(config, arrays, "layers.key_norm")
        if config.post_norms:
            self.attention_post_norm = norm_of(config, arrays, "layers.attention_post_norm")
            self.ffn_post_norm = norm_of(config, arrays, "layers.ffn_post_norm")

    @shaped
    def __call__(
        self, h: Float[Array, "rows tokens hidden"], view: View, calls: SiteCalls, pooled: bool = False
    ) -> Float[Array, "each computed hidden"]:
        """`h [rows, tokens, hidden]` to the same, or to `[texts, 1, hidden]` at the pooled positions."""
        return self.run(h, view, calls, pooled)[0]

    def run(
        self, h: jax.Array, view: View, calls: SiteCalls, pooled: bool = False, past: Past | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """The same, and the layer's keys and values `[rows, kv heads, keys, size]`: of the new tokens, with a past of all."""
        c, every = self.config, calls.over(view.text_position)  # the calls for all tokens; `calls`: for the computed ones
        calls = calls.over(view.text_position.of(view.row, view.pool)) if pooled else every
        x = every.norm("layers.attention_norm", h, self.attention_norm)
        query, key, value = self.project(x, view, every, calls, pooled)
        if past is not None:
            key, value = (
                jax.lax.dynamic_update_slice_in_dim(old, new, past.column, axis=2)
                for old, new in ((past.key, key), (past.value, value))
            )
        kept = (key, value)
        pairs = every.attention("layers.attention", x, KeyValue(key, value, view.sight.mask))
        if pooled:
            h = h[view.row, view.pool][:, None]
            key, value = (pairs.key[view.row], pairs.value[view.row]) if view.packed else (pairs.key, pairs.value)
            pairs = KeyValue(key, value, pairs.mask[view.row, view.pool][:, None])
        mixed = attention(query, pairs.key, pairs.value, pairs.mask, c.query_scale or None, c.attention_cap or None)
        mixed = calls.linear("layers.attention_out", mixed, self.attention_out)
        if c.post_norms:
            mixed = calls.norm("layers.attention_post_norm", mixed, self.attention_post_norm)
        mixed = calls.branch("layers.attention_branch", h, mixed)
        beside = h + mixed
        x = calls.norm("layers.ffn_norm", h if c.parallel else beside, self.ffn_norm)
        narrow = calls.linear("layers.ffn_out", self.widen(x, calls), self.ffn_out)
        if c.post_norms:
            narrow = calls.norm("layers.ffn_post_norm", narrow, self.ffn_post_norm)
        narrow = calls.branch("layers.ffn_branch", beside, narrow)
        return calls.stream("layers.output", beside + narrow), kept

    def project(
        self, x: jax.Array, view: View, every: SiteCalls, calls: SiteCalls, pooled: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries of the computed tokens, keys and values of all, by attention heads, turned by their positions.

        `every` and `calls`: those for all tokens, and for those computed.
        """
        c, angles = self.config, view.sight.angles

        def those(of_tokens: jax.Array) -> jax.Array:
            return of_tokens[view.row, view.pool][:, None] if pooled else of_tokens

        if c.fused:
            sizes = (c.num_heads * c.size, c.kv_heads * c.size)
            both = every.linear("layers.qkv", x, self.qkv)
            if c.interleaved:
                both = both.reshape(*both.shape[:-1], c.num_heads, 3, c.size).swapaxes(-3, -2).reshape(both.shape)
            query, key, value = jnp.split(both, (sizes[0], sizes[0] + sizes[1]), axis=-1)
            query = those(query)
        else:
            query = calls.linear("layers.query", those(x), self.query)
            key, value = every.linear("layers.key", x, self.key), every.linear("layers.value", x, self.value)
        query, key, value = (
            split_attention_heads(y, heads) for y, heads in ((query, c.num_heads), (key, c.kv_heads), (value, c.kv_heads))
        )
        if c.qk_norm:
            query = calls.norm("layers.query_norm", query, self.query_norm)
            key = every.norm("layers.key_norm", key, self.key_norm)
        if angles is not None:
            query, key = turn(query, jax.tree.map(those, angles)), turn(key, angles)
        return query, key, value

    def widen(self, x: jax.Array, calls: SiteCalls) -> jax.Array:
        """The feed-forward's inner channels."""
        c, act = self.config, ACTIVATIONS[self.config.activation]
        wide = calls.linear("layers.ffn_in", x, self.ffn_in)
        if not c.gated:
            return act(wide)
        if c.fused:
            gate, wide = jnp.split(wide, 2, axis=-1)
        else:
            gate = calls.linear("layers.ffn_gate", x, self.ffn_gate)
        return act(gate) * wide


def norm_of(config: DecoderConfig, arrays: Arrays, name: str) -> Norm | RMSNorm:
    if config.norm == "layer":
        return Norm(arrays, name, config.norm_eps)
    return RMSNorm(arrays, name, config.norm_eps, config.norm_offset)


class Decoder(TextStack, LanguageModel):
    """Embeddings, stacked layers, a last norm and the projection to the vocabulary."""

    def __init__(self, config: DecoderConfig, arrays: Arrays):
        self.config = config
        self.word_embeddings = Embedding(arrays, "word_embeddings")
        self.position_embeddings = Embedding(arrays, "position_embeddings") if config.rope is None else None
        self.layers = Layer(config, arrays)
        self.final_norm = norm_of(config, arrays, "final_norm")
        self.own_projection = Linear(arrays, LM_HEAD) if config.speaks and not config.tied else None

    def __call__(
        self,
        inputs: Inputs,
        grafts: Grafts,
        *,
        pooled: bool = False,
        intermediates: bool = False,
        layers: Unrolled | None = None,
    ) -> Outputs:
        """Run the decoder; options as of `Encoder.__call__`. The pooled position is a text's last.

        With `intermediates` the hidden states are those that enter each layer, and at last the normed output, as in
        transformers.
        """
        calls = grafts.outside()
        h, hidden_states, view = self.through(inputs, grafts, calls, pooled, intermediates, layers)
        h = calls.norm("final_norm", h, self.final_norm)
        first = h[:, 0] if pooled else h[view.row, view.pool]
        added = view.real.shape[1] - inputs.mask.shape[1]  # tokens that methods put in front of the text
        if hidden_states is not None:
            hidden_states = jnp.concatenate([hidden_states[:-1], h[None]])[:, :, added:]
        return Outputs(h if pooled else h[:, added:], first, None, hidden_states)

    def embed(self, inputs: Inputs, calls: SiteCalls) -> tuple[jax.Array, View]:
        words = self.words(inputs.ids, calls)
        entry = Entry(words, jnp.zeros_like(inputs.ids), self.positions(inputs), inputs.mask, None)
        entry = calls.input("input", inputs.ids, entry)
        return self.with_positions(entry.embeddings, entry.positions, calls), self.view(
            inputs, calls, entry.mask, entry.positions
        )

    def seen(self, inputs: Inputs, calls: SiteCalls) -> View:
        return self.view(inputs, calls, inputs.mask, self.positions(inputs))

    def words(self, ids: jax.Array, calls: SiteCalls) -> jax.Array:
        words = calls.embedding("word_embeddings", ids, self.word_embeddings)
        return words if self.config.embedding_scale == 1.0 else words * jnp.asarray(self.config.embedding_scale, words.dtype)

    def with_positions(self, h: jax.Array, positions: jax.Array, calls: SiteCalls) -> jax.Array:
        """With the learned positions, where there are any."""
        if self.position_embeddings is None:
            return h
        return h + calls.embedding("position_embeddings", positions, self.position_embeddings)

    @staticmethod
    def positions(inputs: Inputs) -> jax.Array:
        """Real tokens before each; 0 on the left's padding."""
        return jnp.maximum(count_within(inputs.mask.astype(jnp.int32), inputs.texts) - 1, 0)

    def view(self, inputs: Inputs, calls: SiteCalls, mask: jax.Array, positions: jax.Array) -> View:
        """`mask` and `positions` as methods have left them: what they put in front of the text is in them, not in `inputs`."""
        rows, tokens = mask.shape
        texts, width = inputs.texts, inputs.mask.shape[1]
        added = ((0, 0), (tokens - width, 0))
        own = mask[:, None, :] & (positions[:, None, :] <= positions[:, :, None])
        segments = jnp.pad(inputs.mask.astype(jnp.int32) if texts is None else texts.segments, added)
        text_position = calls.text("text", jnp.pad(inputs.ids, added, constant_values=-1), text_positions(segments))
        if texts is None:
            row = jnp.arange(rows, dtype=jnp.int32)
            last = tokens - 1 - jnp.argmax(mask[:, ::-1], axis=1).astype(jnp.int32)
        else:
            own &= segments[:, :, None] == segments[:, None, :]
            row, first = texts.first // width, texts.first % width + tokens - width
            ends = jnp.sum(segments[row] == segments[row, first][:, None], axis=1, dtype=jnp.int32)
            last = jnp.minimum(first + ends - 1, tokens - 1)
        sights = self.sights(own, positions, positions)
        return View(*sights, self.config.kinds, mask, positions, row, last, texts is not None, text_position)

    def sights(self, own: jax.Array, queries: jax.Array, keys: jax.Array) -> tuple[Sight, Sight | None]:
        """With every token of `own` in sight, and with those of the window alone."""
        c = self.config
        full = Sight(own, None if c.rope is None else c.rope.angles(queries))
        if not c.window:
            return full, None
        near = own & (queries[:, :, None] - keys[:, None, :] < c.window)
        return full, Sight(near, full.angles if c.local_rope is None else c.local_rope.angles(queries))

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
        calls, positions = grafts.outside(), cache.ends[:, None]
        put = jax.lax.dynamic_update_slice_in_dim
        mask = put(cache.mask, jnp.ones_like(positions, bool), cache.column, axis=1)
        filled = put(cache.positions, positions, cache.column, axis=1)
        row, last = jnp.arange(len(ids), dtype=jnp.int32), jnp.zeros(len(ids), jnp.int32)
        text_position = TextPosition(positions, jnp.full_like(positions, FAR), cache.called)
        sights = self.sights(mask[:, None], positions, filled)
        view = View(*sights, self.config.kinds, mask, positions, row, last, packed=False, text_position=text_position)
        pasts = [Past(key, value, cache.column) for key, value in zip(cache.keys, cache.values, strict=True)]
        h = self.with_positions(self.words(ids[:, None], calls), positions, calls)
        h, kept = self.one_by_one(h, view, grafts, layers, pasts)
        keys, values = zip(*kept, strict=True)
        cache = Cache(keys, values, mask, filled, cache.column + 1, cache.ends + 1, cache.called)
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
