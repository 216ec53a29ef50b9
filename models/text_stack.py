"""A text's tokens in a stack of pre-norm layers: of decoders (`decoder.py`), and of a tower whose vectors are compared.

h0 = word (+ position)                                       Gemma: times sqrt(hidden)
h  = a layer of h, and so on                                 `pre_norm.py`; each token sees those before it, or all
hidden = N(h)
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ..adapters.graft import Grafts, SiteCalls
from ..adapters.sites import Entry
from .backbone_config import TextConfig
from .inputs import Inputs, Outputs, count_within, text_positions
from .layers import Arrays, Embedding
from .network import Network, Unrolled
from .pre_norm import Layer, LayerConfig, Sight, View, norm_of
from .rope import Rope
from .stack import SequenceStack


@dataclass(frozen=True, kw_only=True)
class TextStackConfig(LayerConfig, TextConfig):
    vocab_size: int
    max_positions: int
    causal: bool = True  # whether a token sees those before it alone
    rope: Rope | None = None  # None: a table of learned positions
    local_rope: Rope | None = None  # of the layers with a window, where it differs
    window: int = 0  # tokens that a windowed layer looks back at, its own included; 0: none has a window
    windowed: tuple[bool, ...] = ()  # by layer; empty: all of them
    embedding_scale: float = 1.0
    pad_id: int = 0
    eos_ids: tuple[int, ...] = ()

    def check(self) -> None:
        self.refuse_heads()
        super().check()

    @property
    def kinds(self) -> tuple[bool, ...]:
        """Whether each layer has a window."""
        return self.windowed or (bool(self.window),) * self.num_layers


class TextStack(SequenceStack, Network):
    """Embeddings, stacked layers and a last norm."""

    def __init__(self, config: TextStackConfig, arrays: Arrays):
        self.config = config
        self.word_embeddings = Embedding(arrays, "word_embeddings")
        self.position_embeddings = Embedding(arrays, "position_embeddings") if config.rope is None else None
        self.layers = Layer(config, arrays)
        self.final_norm = norm_of(config, arrays, "final_norm")

    def __call__(
        self,
        inputs: Inputs,
        grafts: Grafts,
        *,
        pooled: bool = False,
        intermediates: bool = False,
        layers: Unrolled | None = None,
    ) -> Outputs:
        """Run it; options as of `Encoder.__call__`. The pooled position is a text's last.

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
        own = jnp.broadcast_to(mask[:, None, :], (rows, tokens, tokens))
        if self.config.causal:
            own &= positions[:, None, :] <= positions[:, :, None]
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
        c, packed = self.config, texts is not None
        numbers = segments if packed else mask.astype(jnp.int32)
        view = View(*sights, c.kinds, mask, positions, row, last, packed, text_position)
        return view._replace(texts=numbers, causal=c.causal, window=c.window)

    def sights(self, own: jax.Array, queries: jax.Array, keys: jax.Array) -> tuple[Sight, Sight | None]:
        """With every token of `own` in sight, and with those of the window alone."""
        c = self.config
        full = Sight(own, None if c.rope is None else c.rope.angles(queries))
        if not c.window:
            return full, None
        near = own & (queries[:, :, None] - keys[:, None, :] < c.window)
        return full, Sight(near, full.angles if c.local_rope is None else c.local_rope.angles(queries))
