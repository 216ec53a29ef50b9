"""The pre-norm Transformer layer, of decoders (`decoder.py`) and of pictures (`picture_transformer.py`).

    a = h + W_o attention(N(h))                                  queries and keys perhaps turned by their positions
    h = a + W_2 (act(W_g N(a)) * W_1 N(a))                       not gated: W_2 act(W_1 N(a))

`LayerConfig` holds what such layers differ in; which tokens see which is in the `View` that they are given. A layer keeps what
it made of keys and values for whoever writes a text token by token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..adapters.graft import SiteCalls
from ..adapters.sites import KeyValue, TextPosition, split_attention_heads
from ..errors import GraftaxError
from ..shapes import Float, shaped
from .activations import ACTIVATIONS
from .backbone_config import refuse_uneven_attention_heads
from .fused_attention import SameText
from .layers import Arrays, Constant, LayerScale, Linear, Norm, RMSNorm
from .ops import attention
from .parts import Part, in_stack
from .rope import Angles, turn


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """What a layer's forward pass needs to know."""

    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    num_kv_heads: int = 0  # 0: num_heads
    head_dim: int = 0  # 0: hidden_size / num_heads
    activation: str = "silu"
    gated: bool = True
    norm: str = "rms"  # or "layer"
    norm_eps: float = 1e-6
    norm_offset: bool = False  # an RMS norm's scale is 1 + its weight
    fused: bool = False  # one projection for query, key and value
    interleaved: bool = False  # which makes the three of each attention head in turn
    fused_gate: bool = False  # one projection for both of a gated feed-forward's
    qk_norm: bool = False  # the query and key of each attention head are normed
    post_norms: bool = False  # and each branch's output
    layer_scale: bool = False  # each channel of a branch's output is multiplied by a number of its own
    distances: bool = False  # what is added to a score is in a table of the layer's (`Pairs`)
    parallel: bool = False  # the feed-forward reads the layer's input, beside the attention
    query_scale: float = 0.0  # of the scores; 0: 1 / sqrt(head_dim)
    attention_cap: float = 0.0  # c tanh(score / c); 0: none
    unbiased: tuple[str, ...] = ()  # linear layers without a bias, by their names here (`parts_of`)

    @property
    def layer_of(self) -> tuple[int, ...]:
        """Which stacked weights each application of a layer uses."""
        return tuple(range(self.num_layers))

    @property
    def attention_heads(self) -> tuple[int, ...]:
        return (self.num_heads,)

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def size(self) -> int:
        """Channels of an attention head."""
        return self.head_dim or self.hidden_size // self.num_heads

    def refuse_heads(self) -> None:
        """An error where the attention heads do not fit the channels, or the keys'."""
        refuse_uneven_attention_heads(self.hidden_size, self.num_heads, self.head_dim)
        if self.num_heads % self.kv_heads:
            raise GraftaxError(f"config.json: {self.num_heads} heads do not share {self.kv_heads} of keys and values.")


class Pairs(NamedTuple):
    """What is added to the score of a pair of tokens: a row of a table `[rows, heads]`, a number for each attention head."""

    which: jax.Array  # int32 [tokens, tokens]: the row of a query and a key; below 0: nothing is added
    table: jax.Array | None  # of all layers, to which that of a layer (`LayerConfig.distances`) is added; None: that alone


class Sight(NamedTuple):
    """What the tokens of one kind of layer look at."""

    mask: jax.Array  # bool [rows, queries, keys]
    angles: Angles | None  # of the queries and the new keys
    pairs: Pairs | None = None  # what is added to scores


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
    grid: tuple[int, int] | None = None  # height and width of a picture's patches, which are the last of the tokens
    texts: jax.Array | None = None  # int32 [rows, tokens]: as in `SameText`; None where a cache has what is seen
    causal: bool = False
    window: int | None = 0  # of the application's sight, as in `SameText`

    def of_application(self, application: Any) -> View:
        """What an application of a layer sees: in a loop over layers of both kinds a choice that the loop makes."""
        if self.windowed is None or not any(self.kinds):
            return self._replace(window=0)
        if all(self.kinds):
            return self._replace(sight=self.windowed)
        if isinstance(application, int):
            return self._replace(sight=self.windowed) if self.kinds[application] else self._replace(window=0)
        has = jnp.asarray(self.kinds)[application]
        sight = jax.tree.map(lambda a, b: jnp.where(has, b, a), self.sight, self.windowed)
        return self._replace(sight=sight, window=None)


class Past(NamedTuple):
    """One layer's keys and values so far, and the column the new ones go to."""

    key: jax.Array
    value: jax.Array
    column: jax.Array


class Layer(nnx.Module):
    """One layer (or all of them, stacked)."""

    def __init__(self, config: LayerConfig, arrays: Arrays):
        self.config = config
        if config.fused:
            self.qkv = Linear(arrays, "layers.qkv")
        else:
            self.query = Linear(arrays, "layers.query")
            self.key = Linear(arrays, "layers.key")
            self.value = Linear(arrays, "layers.value")
        self.attention_out = Linear(arrays, "layers.attention_out")
        if config.gated and not config.fused_gate:
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
        if config.layer_scale:
            self.attention_scale = LayerScale(arrays, "layers.attention_scale")
            self.ffn_scale = LayerScale(arrays, "layers.ffn_scale")
        if config.distances:
            self.distances = Constant(arrays, "layers.distances")

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
        pairs = every.attention("layers.attention", x, KeyValue(key, value, view.sight.mask, view.texts))
        same_text = None
        if view.texts is not None and pairs.texts is not None:
            same_text = SameText(view.texts, pairs.texts, view.causal, view.window)
        if pooled:
            h = h[view.row, view.pool][:, None]
            key, value = (pairs.key[view.row], pairs.value[view.row]) if view.packed else (pairs.key, pairs.value)
            pairs, same_text = KeyValue(key, value, pairs.mask[view.row, view.pool][:, None]), None
        added, scale, cap = self.added(view, pairs.key.shape[-2], pooled), c.query_scale or None, c.attention_cap or None
        mixed = attention(query, pairs.key, pairs.value, pairs.mask, scale, cap, added, same_text)
        mixed = calls.linear("layers.attention_out", mixed, self.attention_out)
        if c.post_norms:
            mixed = calls.norm("layers.attention_post_norm", mixed, self.attention_post_norm)
        if c.layer_scale:
            mixed = self.attention_scale(mixed)
        mixed = calls.branch("layers.attention_branch", h, mixed, before=self.attention_norm, grid=view.grid)
        beside = h + mixed
        x = calls.norm("layers.ffn_norm", h if c.parallel else beside, self.ffn_norm)
        narrow = calls.linear("layers.ffn_out", self.widen(x, calls), self.ffn_out)
        if c.post_norms:
            narrow = calls.norm("layers.ffn_post_norm", narrow, self.ffn_post_norm)
        if c.layer_scale:
            narrow = self.ffn_scale(narrow)
        narrow = calls.branch("layers.ffn_branch", beside, narrow, before=self.ffn_norm, grid=view.grid)
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

    def added(self, view: View, keys: int, pooled: bool) -> jax.Array | None:
        """What is added to the scores of so many keys, `[texts or 1, heads, queries, keys]`; None: nothing is.

        For the keys that methods put in front that is nothing.
        """
        if view.sight.pairs is None:
            return None
        which, table = view.sight.pairs
        if self.config.distances:
            table = self.distances.value[...] + (0 if table is None else table)
        assert table is not None
        which = which[view.pool][:, None] if pooled else which[None]
        found = jnp.where(which[..., None] < 0, jnp.zeros((), table.dtype), table[which])
        return jnp.pad(jnp.moveaxis(found, -1, 1), ((0, 0), (0, 0), (0, 0), (keys - found.shape[2], 0)))

    def widen(self, x: jax.Array, calls: SiteCalls) -> jax.Array:
        """The feed-forward's inner channels."""
        c, act = self.config, ACTIVATIONS[self.config.activation]
        wide = calls.linear("layers.ffn_in", x, self.ffn_in)
        if not c.gated:
            return act(wide)
        if c.fused_gate:
            gate, wide = jnp.split(wide, 2, axis=-1)
        else:
            gate = calls.linear("layers.ffn_gate", x, self.ffn_gate)
        return act(gate) * wide


def norm_of(config: LayerConfig, arrays: Arrays, name: str) -> Norm | RMSNorm:
    if config.norm == "layer":
        return Norm(arrays, name, config.norm_eps)
    return RMSNorm(arrays, name, config.norm_eps, config.norm_offset)


def parts_of(c: LayerConfig, names: Mapping[str, str], constants: Mapping[str, tuple[int, ...]]) -> tuple[Part, ...]:
    """The parts of a layer that `names` maps to their paths within it; `constants`: shapes of those at which no method acts."""
    d, wide, inner = c.hidden_size, c.intermediate_size, c.num_heads * c.size
    linear = {
        **dict.fromkeys(("query", "key", "value"), (d, inner)),
        "qkv": (d, 3 * inner),
        "attention_out": (inner, d),
        "ffn_gate": (d, wide),
        "ffn_in": (d, 2 * wide if c.fused_gate else wide),
        "ffn_out": (wide, d),
    }
    kinds = {"attention": "attention", "output": "stream", "attention_norm": "norm", "ffn_norm": "norm"}
    kinds |= {"attention_scale": "layer_scale", "ffn_scale": "layer_scale"}
    parts = []
    for name, path in names.items():
        if name in constants:
            parts.append(Part("constant", name, path, constants[name]))
        elif name in linear:
            parts.append(Part("linear", name, path, linear[name], bias=name not in c.unbiased))
        else:
            parts.append(Part(kinds.get(name, "branch"), name, path, (inner if name == "attention" else d,)))
    return in_stack("layers", parts)
