"""The post-norm Transformer encoder that BERT, RoBERTa, DistilBERT and ALBERT share (Devlin et al., 2018, arXiv:1810.04805).

    h0 = LN(word + token_type + position)                       ALBERT: then one projection to the hidden size
    a  = LN(h + W_o softmax(q k^T / sqrt(size)) v)              per layer, size being that of an attention head
    h  = LN(a + W_2 gelu(W_1 a))

The forward is pure: frozen parameters, the adapters (`Grafts`) and the inputs are arguments; at each named site it asks the
grafts what happens there. The encoder knows sites and no adapter method. `stack.py` says how the layers are run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..adapters.graft import Grafts, SiteCalls
from ..adapters.sites import Entry, KeyValue, TextPosition, split_attention_heads
from ..shapes import Float, shaped
from .activations import ACTIVATIONS
from .backbone_config import TextConfig, refuse_uneven_attention_heads
from .fused_attention import SameText
from .inputs import Inputs, Outputs, count_within, text_positions
from .layers import Arrays, Embedding, Linear, Norm
from .network import Network, Unrolled
from .ops import attention
from .stack import SequenceStack


@dataclass(frozen=True)
class EncoderConfig(TextConfig):
    """What the forward pass needs to know; each family fills it from its Hugging Face config."""

    vocab_size: int
    hidden_size: int
    num_layers: int  # applications of a layer
    num_heads: int
    intermediate_size: int
    max_positions: int  # rows of the position table; `max_tokens` is what a batch row may use
    activation: str = "gelu"
    type_vocab_size: int = 0  # 0: no token types
    norm_eps: float = 1e-12
    pad_id: int = 0
    positions_from_pad: bool = False  # RoBERTa: positions count the real tokens, starting at pad_id + 1
    embedding_size: int = 0  # 0: hidden_size; ALBERT's factored embeddings are narrower
    groups: int = 0  # 0: every layer has its own weights; ALBERT shares them within a group
    inner: int = 1  # ALBERT: layers per group
    pooler: bool = True  # tanh(W h[0] + b) over the first position

    @property
    def layer_of(self) -> tuple[int, ...]:
        """Which stacked weights each application of a layer uses."""
        if not self.groups:
            return tuple(range(self.num_layers))
        group = [int(i / (self.num_layers / self.groups)) for i in range(self.num_layers)]
        return tuple(g * self.inner + i for g in group for i in range(self.inner))

    @property
    def attention_heads(self) -> tuple[int, ...]:
        return (self.num_heads,)

    @property
    def max_tokens(self) -> int:
        return self.max_positions - (self.pad_id + 1 if self.positions_from_pad else 0)

    def check(self) -> None:
        refuse_uneven_attention_heads(self.hidden_size, self.num_heads)
        super().check()


class View(NamedTuple):
    """Which tokens a layer's queries may attend to, and which of them it computes."""

    mask: jax.Array  # bool [rows, 1 or tokens, tokens]
    row: jax.Array  # int32 [texts]: each text's batch row
    pool: jax.Array  # int32 [texts]: its pooled position there
    packed: bool  # whether a batch row may hold several texts; else text i is batch row i
    text_position: TextPosition  # [rows, tokens]: where each token is in its text; see `SiteCalls.text`
    texts: jax.Array  # int32 [rows, tokens]: as in `SameText`

    def of_application(self, application: Any) -> View:
        """What one application of a layer sees: the same in all."""
        return self


class Layer(nnx.Module):
    """One encoder layer (or all of them, stacked)."""

    def __init__(self, config: EncoderConfig, arrays: Arrays):
        self.heads = config.num_heads
        self.activation = config.activation
        self.query = Linear(arrays, "layers.query")
        self.key = Linear(arrays, "layers.key")
        self.value = Linear(arrays, "layers.value")
        self.attention_out = Linear(arrays, "layers.attention_out")
        self.attention_norm = Norm(arrays, "layers.attention_norm", config.norm_eps)
        self.ffn_in = Linear(arrays, "layers.ffn_in")
        self.ffn_out = Linear(arrays, "layers.ffn_out")
        self.ffn_norm = Norm(arrays, "layers.ffn_norm", config.norm_eps)

    @shaped
    def __call__(
        self, h: Float[Array, "rows tokens hidden"], view: View, calls: SiteCalls, pooled: bool = False
    ) -> Float[Array, "each computed hidden"]:
        """`h [rows, tokens, hidden]` to the same, or to `[texts, 1, hidden]` at the pooled positions."""
        every = calls.over(view.text_position)  # the calls for all tokens; `calls` are those for the computed ones
        x, calls = h, every
        if pooled:
            x, calls = h[view.row, view.pool][:, None], calls.over(view.text_position.of(view.row, view.pool))
        query = split_attention_heads(calls.linear("layers.query", x, self.query), self.heads)
        key = split_attention_heads(every.linear("layers.key", h, self.key), self.heads)
        value = split_attention_heads(every.linear("layers.value", h, self.value), self.heads)
        pairs = every.attention("layers.attention", h, KeyValue(key, value, view.mask, view.texts))
        same_text = None if pooled or pairs.texts is None else SameText(view.texts, pairs.texts)
        if pooled and view.packed:
            pairs = KeyValue(pairs.key[view.row], pairs.value[view.row], pairs.mask[view.row, view.pool][:, None])
        mixed = attention(query, pairs.key, pairs.value, pairs.mask, same_text=same_text)
        mixed = calls.linear("layers.attention_out", mixed, self.attention_out)
        mixed = calls.branch("layers.attention_branch", x, mixed, self.attention_norm)
        x = calls.norm("layers.attention_norm", x + mixed, self.attention_norm)
        wide = ACTIVATIONS[self.activation](calls.linear("layers.ffn_in", x, self.ffn_in))
        narrow = calls.linear("layers.ffn_out", wide, self.ffn_out)
        narrow = calls.branch("layers.ffn_branch", x, narrow, self.ffn_norm)
        return calls.stream("layers.output", calls.norm("layers.ffn_norm", x + narrow, self.ffn_norm))


class Encoder(SequenceStack, Network):
    """Embeddings, stacked layers, optional pooler."""

    def __init__(self, config: EncoderConfig, arrays: Arrays):
        self.config = config
        self.word_embeddings = Embedding(arrays, "word_embeddings")
        self.position_embeddings = Embedding(arrays, "position_embeddings")
        self.token_type_embeddings = Embedding(arrays, "token_type_embeddings") if config.type_vocab_size else None
        self.embedding_norm = Norm(arrays, "embedding_norm", config.norm_eps)
        self.embedding_projection = Linear(arrays, "embedding_projection") if config.embedding_size else None
        self.layers = Layer(config, arrays)
        self.pooler = Linear(arrays, "pooler") if config.pooler else None

    @property
    def shared(self) -> bool:
        return bool(self.config.groups)

    def __call__(
        self,
        inputs: Inputs,
        grafts: Grafts,
        *,
        pooled: bool = False,
        intermediates: bool = False,
        layers: Unrolled | None = None,
    ) -> Outputs:
        """Run the encoder.

        `pooled=True` computes only the pooled position in the last layer. `intermediates=True` returns the embedding output
        and every layer's output (and excludes `pooled`). `layers`, the parameters of each layer by itself, compiles the adapted
        layers one after another instead of as a loop: for training, where a loop must copy what each layer keeps for the
        backward pass into one stacked array and out again; a prediction gains little and would compile longer.
        """
        calls = grafts.outside()
        h, hidden_states, view = self.through(inputs, grafts, calls, pooled, intermediates, layers)
        first = h[:, 0] if pooled else h[view.row, view.pool]
        added = view.mask.shape[-1] - inputs.mask.shape[1]  # tokens that methods put in front of the text
        h = h if pooled else h[:, added:]
        hidden_states = None if hidden_states is None else hidden_states[:, :, added:]
        out = None if self.pooler is None else jnp.tanh(calls.linear("pooler", first[:, None], self.pooler)[:, 0])
        return Outputs(h, first, out, hidden_states)

    def embed(self, inputs: Inputs, calls: SiteCalls) -> tuple[jax.Array, View]:
        from_pad = self.config.positions_from_pad
        counted = (inputs.ids != self.config.pad_id).astype(jnp.int32) if from_pad else jnp.ones_like(inputs.ids)
        count = count_within(counted, inputs.texts)
        positions = count * counted + self.config.pad_id if from_pad else count - 1
        words = calls.embedding("word_embeddings", inputs.ids, self.word_embeddings)
        moved = counted if from_pad else None
        entry = Entry(words, inputs.types, positions, inputs.mask, self.first_position(inputs), moved)
        entry = calls.input("input", inputs.ids, entry)
        assert entry.pool is not None
        view = self.view(inputs, calls, entry.mask, entry.pool)
        h = entry.embeddings
        if self.token_type_embeddings is not None:
            h = h + calls.embedding("token_type_embeddings", entry.types, self.token_type_embeddings)
        h = h + calls.embedding("position_embeddings", entry.positions, self.position_embeddings)
        h = calls.norm("embedding_norm", h, self.embedding_norm)
        if self.embedding_projection is not None:
            h = calls.linear("embedding_projection", h, self.embedding_projection)
        return h, view

    def seen(self, inputs: Inputs, calls: SiteCalls) -> View:
        return self.view(inputs, calls, inputs.mask, self.first_position(inputs))

    @staticmethod
    def first_position(inputs: Inputs) -> jax.Array:
        return jnp.zeros(len(inputs.mask), jnp.int32)

    @staticmethod
    def view(inputs: Inputs, calls: SiteCalls, mask: jax.Array, pool: jax.Array) -> View:
        """`mask` and `pool` as methods have left them: what they put in front of the text is in `mask`, not in `inputs`."""
        rows, tokens = mask.shape
        texts, width = inputs.texts, inputs.mask.shape[1]
        added = ((0, 0), (tokens - width, 0))
        segments = jnp.pad(inputs.mask.astype(jnp.int32) if texts is None else texts.segments, added)
        text_position = calls.text("text", jnp.pad(inputs.ids, added, constant_values=-1), text_positions(segments))
        if texts is None:
            row = jnp.arange(rows, dtype=jnp.int32)
            return View(mask[:, None], row, pool, False, text_position, mask.astype(jnp.int32))
        # padding attends to padding: a softmax over nothing would be no number. What another adapter's prompt has added is
        # empty here, as batch rows of several texts have none
        own = segments[:, :, None] == segments[:, None, :]
        return View(own, texts.first // width, texts.first % width + tokens - width, True, text_position, segments)
