"""The post-norm Transformer encoder that BERT, RoBERTa, DistilBERT and ALBERT share (Devlin et al., 2018, arXiv:1810.04805).

    h0 = LN(word + token_type + position)                       ALBERT: then one projection to the hidden size
    a  = LN(h + W_o softmax(q k^T / sqrt(head)) v)              per layer
    h  = LN(a + W_2 gelu(W_1 a))

Layers are `nnx.Module`s whose parameters carry a leading layer axis, run by `jax.lax.scan`. The forward is pure: frozen
parameters, the adapters (`Grafts`) and the inputs are arguments; at each named site it asks the grafts what happens there.
The encoder knows sites and no adapter method.

Three cuts, all static, keep work from being done in vain:
- layers below the first adapted one run in a scan of their own that is never differentiated;
- when only one position of the output is read (`pooled=True`), the last layer computes only that position;
- ALBERT applies one set of weights many times: the scan runs over *applications*, each naming the layer whose weights it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ..adapters.graft import Grafts, SiteCalls
from ..adapters.sites import FAR, Entry, KeyValue, LinearWeights, NormWeights, Place, TableWeights
from .ops import attention, gelu, gelu_tanh, layer_norm

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": jax.nn.relu,
}

Arrays = dict[str, jax.Array]


@dataclass(frozen=True)
class EncoderConfig:
    """What the forward pass needs to know; each family fills it from its Hugging Face config."""

    vocab_size: int
    hidden_size: int
    num_layers: int  # applications of a layer
    num_heads: int
    intermediate_size: int
    max_positions: int  # rows of the position table; `max_tokens` is what a row of text may use
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
    def stacked(self) -> int:
        """Number of layers that have weights of their own."""
        return self.groups * self.inner if self.groups else self.num_layers

    @property
    def max_tokens(self) -> int:
        return self.max_positions - (self.pad_id + 1 if self.positions_from_pad else 0)


class Texts(NamedTuple):
    """Where several texts lie in one row, behind one another; each attends to its own tokens only."""

    segments: Any  # int32 [rows, tokens]: the text's number, from 1; 0 on padding
    first: Any  # int32 [texts]: where each text begins in the rows laid end to end


class Inputs(NamedTuple):
    """A batch of token ids, each `[rows, tokens]`, as NumPy arrays outside a traced function."""

    ids: Any  # int32
    mask: Any  # bool, True on real tokens
    types: Any  # int32
    texts: Texts | None = None  # None: a row is a text
    hidden: Any = None  # what enters the first adapted layer (`Encoder.frozen`), where that is known; else computed from ids


class View(NamedTuple):
    """Which tokens a layer's queries may attend to, and which of them it computes."""

    mask: jax.Array  # bool [rows, 1 or tokens, tokens]
    row: jax.Array  # int32 [texts]: each text's row
    pool: jax.Array  # int32 [texts]: its pooled position in that row
    packed: bool  # whether rows hold several texts; else text i is row i
    place: Place  # [rows, tokens]: where each token is in its text


class Outputs(NamedTuple):
    hidden: jax.Array  # [rows, tokens, hidden], of the inputs' tokens; [texts, 1, hidden] where only the pooled was asked for
    first: jax.Array  # [texts, hidden]: the pooled position as it leaves the last layer
    pooled: jax.Array | None  # [texts, hidden]: tanh(W first + b), where the backbone has a pooler
    layers: jax.Array | None  # [layers + 1, rows, tokens, hidden] with `intermediates=True`


def places(segments: jax.Array) -> Place:
    """Where tokens are in their texts; `segments` as in `Texts`."""
    edge = segments[:, 1:] != segments[:, :-1]
    always = jnp.ones_like(edge, shape=(len(segments), 1))
    index, last = jnp.arange(segments.shape[1], dtype=jnp.int32), segments.shape[1] - 1
    begin = jax.lax.cummax(jnp.where(jnp.concatenate([always, edge], axis=1), index, 0), axis=1)
    end = jax.lax.cummin(jnp.where(jnp.concatenate([edge, always], axis=1), index, last), axis=1, reverse=True)
    return Place(*(jnp.where(segments > 0, distance, FAR) for distance in (index - begin, end - index)))


class Linear(nnx.Module):
    """`x @ kernel + bias`; kernel `[in, out]`. Rows and tokens are one axis in the product, for the reason `ops` gives."""

    def __init__(self, arrays: Arrays, name: str):
        self.kernel = nnx.Param(arrays[f"{name}.kernel"])
        self.bias = nnx.Param(arrays[f"{name}.bias"])

    def weights(self) -> LinearWeights:
        return LinearWeights(self.kernel[...], self.bias[...])

    def compute(self, weights: LinearWeights, x: jax.Array) -> jax.Array:
        flat = x.reshape(-1, x.shape[-1]) @ weights.kernel + weights.bias
        return flat.reshape(*x.shape[:-1], -1)


class Norm(nnx.Module):
    """Layer norm; scale and bias `[dim]`."""

    def __init__(self, arrays: Arrays, name: str, eps: float):
        self.scale = nnx.Param(arrays[f"{name}.scale"])
        self.bias = nnx.Param(arrays[f"{name}.bias"])
        self.eps = eps

    def weights(self) -> NormWeights:
        return NormWeights(self.scale[...], self.bias[...])

    def compute(self, weights: NormWeights, x: jax.Array) -> jax.Array:
        return layer_norm(x, weights.scale, weights.bias, self.eps)


class Embedding(nnx.Module):
    """Rows of `table [rows, dim]`; an index out of range reads the last row."""

    def __init__(self, arrays: Arrays, name: str):
        self.table = nnx.Param(arrays[f"{name}.table"])

    def weights(self) -> TableWeights:
        return TableWeights(self.table[...])

    def compute(self, weights: TableWeights, x: jax.Array) -> jax.Array:
        return jnp.take(weights.table, x, axis=0, mode="clip")


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

    def __call__(self, h: jax.Array, view: View, at: SiteCalls, pooled: bool = False) -> jax.Array:
        """`h [rows, tokens, hidden]` to the same, or to `[texts, 1, hidden]` at the pooled positions."""
        x, place = h, view.place
        if pooled:
            x, place = jax.tree.map(lambda of_tokens: of_tokens[view.row, view.pool][:, None], (x, place))
        query = at.linear("layers.query", x, self.query)
        pairs = KeyValue(at.linear("layers.key", h, self.key), at.linear("layers.value", h, self.value), view.mask)
        pairs = at.attention("layers.attention", h, pairs)
        if pooled and view.packed:
            pairs = KeyValue(pairs.key[view.row], pairs.value[view.row], pairs.mask[view.row, view.pool][:, None])
        mixed = attention(query, pairs.key, pairs.value, pairs.mask, self.heads)
        mixed = at.linear("layers.attention_out", mixed, self.attention_out)
        mixed = at.branch("layers.attention_branch", x, mixed, self.attention_norm)
        x = at.norm("layers.attention_norm", x + mixed, self.attention_norm, place)
        wide = ACTIVATIONS[self.activation](at.linear("layers.ffn_in", x, self.ffn_in))
        narrow = at.linear("layers.ffn_out", wide, self.ffn_out)
        narrow = at.branch("layers.ffn_branch", x, narrow, self.ffn_norm)
        return at.norm("layers.ffn_norm", x + narrow, self.ffn_norm, place)


class Encoder(nnx.Module):
    """Embeddings, stacked layers, optional pooler."""

    def __init__(self, config: EncoderConfig, arrays: Arrays):
        self.config = config
        self.word = Embedding(arrays, "word_embeddings")
        self.position = Embedding(arrays, "position_embeddings")
        self.token_type = Embedding(arrays, "token_type_embeddings") if config.type_vocab_size else None
        self.norm = Norm(arrays, "embedding_norm", config.norm_eps)
        self.project = Linear(arrays, "embedding_projection") if config.embedding_size else None
        self.layers = Layer(config, arrays)
        self.pooler = Linear(arrays, "pooler") if config.pooler else None

    def __call__(
        self,
        inputs: Inputs,
        grafts: Grafts,
        *,
        pooled: bool = False,
        intermediates: bool = False,
        layers: Sequence[Any] | None = None,
    ) -> Outputs:
        """Run the encoder.

        `pooled=True` computes only the pooled position in the last layer. `intermediates=True` returns the embedding output
        and every layer's output (and excludes `pooled`). `layers`, the parameters of each layer by itself, compiles the adapted
        layers one after another instead of as a loop: for training, where a loop must copy what each layer keeps for the
        backward pass into one stacked array and out again; a prediction gains little and would compile longer.
        """
        at, begin = grafts.outside(), 0
        if inputs.hidden is None:
            h, view = self.embed(inputs, at)
        else:
            h, begin = inputs.hidden, len(self.config.layer_of) - grafts.adapted
            view = self.view(inputs, inputs.mask, self.first_position(inputs))
        h, states = self.run_layers(h, view, grafts, begin=begin, pooled=pooled, intermediates=intermediates, layers=layers)
        first = h[:, 0] if pooled else h[view.row, view.pool]
        added = view.mask.shape[-1] - inputs.mask.shape[1]  # tokens that methods put in front of the text
        h = h if pooled else h[:, added:]
        states = None if states is None else states[:, :, added:]
        out = None if self.pooler is None else jnp.tanh(at.linear("pooler", first[:, None], self.pooler)[:, 0])
        return Outputs(h, first, out, states)

    def frozen(self, inputs: Inputs, adapted: int, *, pooled: bool) -> jax.Array:
        """What enters the first of the last `adapted` layers where nothing acts below them: `Inputs.hidden` for `__call__`.

        `[rows, tokens, hidden]`; with `adapted` 0 and `pooled` the pooled positions behind the last, `[texts, 1, hidden]`.
        """
        h, view = self.embed(inputs, Grafts.bare())
        if not adapted:
            return self.run_layers(h, view, Grafts({}), pooled=pooled)[0]
        return self.run_layers(h, view, Grafts({}), end=len(self.config.layer_of) - adapted)[0]

    def embed(self, inputs: Inputs, at: SiteCalls) -> tuple[jax.Array, View]:
        from_pad = self.config.positions_from_pad
        counted = (inputs.ids != self.config.pad_id).astype(jnp.int32) if from_pad else jnp.ones_like(inputs.ids)
        count = jnp.cumsum(counted, axis=1)
        if inputs.texts is not None:  # begin anew with every text
            s = inputs.texts.segments
            begins = jnp.concatenate([jnp.ones_like(s[:, :1]), (s[:, 1:] != s[:, :-1]).astype(jnp.int32)], axis=1)
            count = count - jax.lax.cummax((count - counted) * begins, axis=1)
        positions = count * counted + self.config.pad_id if from_pad else count - 1
        words = at.embedding("word_embeddings", inputs.ids, self.word)
        entry = Entry(words, inputs.types, positions, inputs.mask, self.first_position(inputs))
        entry = at.input("input", inputs.ids, entry)
        view = self.view(inputs, entry.mask, entry.pool)
        h = entry.embeddings
        if self.token_type is not None:
            h = h + at.embedding("token_type_embeddings", entry.types, self.token_type)
        h = h + at.embedding("position_embeddings", entry.positions, self.position)
        h = at.norm("embedding_norm", h, self.norm, view.place)
        if self.project is not None:
            h = at.linear("embedding_projection", h, self.project)
        return h, view

    @staticmethod
    def first_position(inputs: Inputs) -> jax.Array:
        return jnp.zeros(len(inputs.mask), jnp.int32)

    @staticmethod
    def view(inputs: Inputs, mask: jax.Array, pool: jax.Array) -> View:
        """`mask` and `pool` as methods have left them: what they put in front of the text is in `mask`, not in `inputs`."""
        rows, tokens = mask.shape
        texts, width = inputs.texts, inputs.mask.shape[1]
        added = ((0, 0), (tokens - width, 0))
        segments = jnp.pad(inputs.mask.astype(jnp.int32) if texts is None else texts.segments, added)
        place = places(segments)
        if texts is None:
            return View(mask[:, None], jnp.arange(rows, dtype=jnp.int32), pool, packed=False, place=place)
        # padding attends to padding: a softmax over nothing would be no number. What another adapter's prompt has added is
        # empty here, as rows of several texts have none
        own = segments[:, :, None] == segments[:, None, :]
        return View(own, texts.first // width, texts.first % width + tokens - width, packed=True, place=place)

    def run_layers(
        self,
        h: jax.Array,
        view: View,
        grafts: Grafts,
        *,
        begin: int = 0,
        end: int | None = None,
        pooled: bool = False,
        intermediates: bool = False,
        layers: Sequence[Any] | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """From what enters layer `begin` to what leaves the one before `end`; with `pooled` the last at that position alone."""
        layer_of = self.config.layer_of[:end]
        shared = bool(self.config.groups)
        adapted = grafts.adapted  # layers that carry adapter state, counted from the output
        first = len(layer_of) - adapted if not shared else (0 if adapted else len(layer_of))
        last = len(layer_of) - 1 if pooled else len(layer_of)
        states = [h[None]] if intermediates else None
        parts = [] if layers is None else grafts.unstacked()

        def stacked(index: Any) -> Layer:
            return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), self.layers)

        def slot(index: Any, application: Any) -> Any:
            return index if shared else application - first

        def bare(h: jax.Array, index: Any, application: Any, pooled: bool = False) -> jax.Array:
            return stacked(index)(h, view, grafts.bare(), pooled)

        def looped(h: jax.Array, index: Any, application: Any, pooled: bool = False) -> jax.Array:
            state = grafts.layer(slot(index, application))
            return stacked(index)(h, view, grafts.at(state, application), pooled)

        def unrolled(h: jax.Array, index: int, application: int, pooled: bool = False) -> jax.Array:
            assert layers is not None
            layer, state = nnx.merge(nnx.graphdef(self.layers), layers[index]), parts[slot(index, application)]
            return layer(h, view, grafts.at(state, application), pooled)

        def scan(h: jax.Array, begin: int, end: int, apply: Callable) -> jax.Array:
            if begin >= end:
                return h

            def step(h: jax.Array, at: tuple) -> tuple[jax.Array, jax.Array | None]:
                h = apply(h, *at)
                return h, (h if intermediates else None)

            steps = jnp.asarray(layer_of[begin:end], jnp.int32), jnp.arange(begin, end, dtype=jnp.int32)
            h, ys = jax.lax.scan(step, h, steps)
            if states is not None and ys is not None:
                states.append(ys)
            return h

        h = scan(h, begin, min(first, last), bare)
        if layers is None:
            h = scan(h, first, last, looped)
        else:
            for application in range(first, last):
                h = unrolled(h, layer_of[application], application)
        if pooled and begin <= last:
            apply = bare if first > last else looped if layers is None else unrolled
            h = apply(h, layer_of[-1], last, pooled=True)
        return h, (jnp.concatenate(states) if states is not None else None)
