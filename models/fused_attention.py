"""Attention on accelerators, by kernels that never hold all scores (FlashAttention, Dao et al., 2022, arXiv:2205.14135).

    softmax(scale q k^T) v,     of [queries, keys] scores a block at a time, in the chip's own memory

Eight adapters in training with four batch rows of 1,024 tokens and 32 attention heads have 4 GB of scores in float32 in every
layer. What the kernels keep for the way back are their inputs and a number for each query. They are:

- on NVIDIA's GPUs cuDNN's, of `jax.nn.dot_product_attention`. What a query may not see is added to its scores as a large
  negative number, from a mask that all attention heads share. Later keys than a query are not even computed where `causal`.
- on TPUs Splash, which comes with JAX. It holds no mask: it is told which text each token belongs to (`SameText`).

Several adapters: under `vmap` over the slots of a pack cuDNN's kernel is called once, with the slots' rows as further rows;
Splash brings its own.

Not everything has such a kernel: on NVIDIA's GPUs float32, capped scores (Gemma 2) and attention heads of more than 128
channels, anywhere scores to which something is added (T5, BEiT, Swin). That is said once, and computed as on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..notes import note
from ..platforms import platform
from ..shapes import AnyArray
from .tensor_parallel import over_heads

_BLOCK = 128  # Splash takes whole blocks of queries and of keys
_MOST_CHANNELS = 128  # of an attention head, with cuDNN


class SameText(NamedTuple):
    """What a mask says, in the words of a kernel that holds none: a query sees the keys of its own text.

    Of a causal text of three tokens behind one token of padding, `queries` and `keys` are [0, 1, 1, 1].
    """

    queries: AnyArray  # int32 [rows, queries]: the number of each query's text; 0 of padding, which sees padding
    keys: AnyArray  # int32 [rows, keys]: likewise. There may be more of them than queries: those are in front
    causal: bool = False  # whether a query sees no key behind it
    window: int | None = 0  # of causal texts: keys that a query sees at most, its own included; 0: all; None: it depends


def fused_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AnyArray,
    scale: float,
    cap: float | None,
    same_text: SameText | None,
    added: bool,
) -> jax.Array | None:
    """`[rows, heads, queries, size]` as `ops.attention` has it before heads are joined; None where no kernel computes it.

    `added`: whether something is added to the scores. The other arguments are those of `ops.attention`.
    """
    here = platform()
    if here not in ("cuda", "tpu") or query.shape[2] == 1:  # the scores of a single query are no longer than the keys
        return None
    if added:
        return _not_fused("something is added to its scores")
    if here == "tpu":
        if same_text is None or same_text.window is None:
            return _not_fused("what its tokens see is known by a mask alone")
        if same_text.window and key.shape[2] > query.shape[2]:
            return _not_fused("a method has put keys in front, which are seen from beyond its window")
        return _splash_over_heads(query * jnp.asarray(scale, query.dtype), key, value, same_text, cap)
    if query.dtype not in (jnp.bfloat16, jnp.float16):
        return _not_fused(f"it is computed in {query.dtype}, and cuDNN's takes bfloat16 and float16")
    if query.shape[-1] > _MOST_CHANNELS or query.shape[-1] % 8:
        most = f"a multiple of 8 up to {_MOST_CHANNELS}"
        return _not_fused(f"its heads have {query.shape[-1]} channels, and cuDNN's have {most}")
    if cap is not None:
        return _not_fused("its scores are capped")
    causal = same_text is not None and same_text.causal and query.shape[2] == key.shape[2]
    return cudnn(query, key, value, mask, scale, causal)


@cache
def _not_fused(why: str) -> None:
    note(f"attention holds the scores of all queries and keys in memory: {why}.")


# -- NVIDIA -------------------------------------------------------------------------------------------------------------------


def cudnn(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: AnyArray, scale: float, causal: bool, by: str = "cudnn"
) -> jax.Array:
    """softmax(scale q k^T) v by cuDNN, over the keys that `mask` allows; `by`: the implementation, of JAX's.

    With `causal` the mask allows no later key, and such are left out.
    """
    rows, _, queries, _ = query.shape
    seen = jnp.broadcast_to(mask, (rows, queries, mask.shape[-1]))
    more_queries, more_keys = queries % 2, key.shape[2] % 2  # the gradient takes even numbers of both
    seen = jnp.pad(seen, ((0, 0), (0, more_queries), (0, more_keys)))
    attend = _by_jax(scale, causal, by)
    return attend(_longer(query, more_queries), _longer(key, more_keys), _longer(value, more_keys), seen)[:, :, :queries]


def _longer(x: jax.Array, by: int) -> jax.Array:
    """With so many more tokens, of zeros, behind `[rows, heads, tokens, size]`."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, by), (0, 0))) if by else x


@cache
def _by_jax(scale: float, causal: bool, by: str) -> Callable[..., jax.Array]:
    """`attend(query, key, value, seen)` with these settings, by `jax.nn.dot_product_attention`.

    The forward pass is computed as the one in the gradient is, though nothing but its output is kept: XLA then finds that both
    are the same call, and makes one.
    """

    def plain(seen: jax.Array) -> Callable[..., jax.Array]:
        def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
            q, k, v = (x.swapaxes(1, 2) for x in (query, key, value))
            settings: Any = {"scale": scale, "is_causal": causal, "implementation": by}
            with jax.numpy_dtype_promotion("standard"):  # it counts on it
                return jax.nn.dot_product_attention(q, k, v, mask=seen[:, None], **settings).swapaxes(1, 2)

        return attend

    forward = _rows_of_all_slots(lambda q, k, v, seen: jax.vjp(plain(seen), q, k, v)[0])
    backward = _rows_of_all_slots(lambda q, k, v, seen, pull: jax.vjp(plain(seen), q, k, v)[1](pull))

    @jax.custom_vjp
    def attend(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array) -> jax.Array:
        return forward(query, key, value, seen)

    def kept(*args: jax.Array) -> tuple[jax.Array, Any]:
        return forward(*args), args

    def back(args: Any, pull: jax.Array) -> tuple[jax.Array | None, ...]:
        return *backward(*args, pull), None

    attend.defvjp(kept, back)
    return attend


def _rows_of_all_slots(function: Callable) -> Callable:
    """`function` of arrays `[rows, ...]` which under `vmap` is called once, with the rows of all slots behind one another."""
    once = jax.custom_batching.custom_vmap(function)

    @once.def_vmap
    def slots_as_rows(slots: int, has_slots: list[bool], *args: jax.Array) -> tuple[Any, Any]:
        every = (x if has else jnp.broadcast_to(x, (slots, *x.shape)) for x, has in zip(args, has_slots, strict=True))
        made = once(*(x.reshape(-1, *x.shape[2:]) for x in every))
        return jax.tree.map(lambda y: y.reshape(slots, -1, *y.shape[1:]), made), jax.tree.map(lambda _: True, made)

    return once


# -- TPUs ---------------------------------------------------------------------------------------------------------------------


def _splash_over_heads(query: jax.Array, key: jax.Array, value: jax.Array, same_text: SameText, cap: float | None) -> jax.Array:
    """The same on each of the devices that share a backbone's weights, of its own attention heads."""

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, of_queries: jax.Array, of_keys: jax.Array) -> jax.Array:
        return splash(q, k, v, same_text._replace(queries=of_queries, keys=of_keys), cap)

    return over_heads(attend, query, key, value, same_text.queries, same_text.keys)


def splash(
    query: jax.Array, key: jax.Array, value: jax.Array, same_text: SameText, cap: float | None, interpret: bool = False
) -> jax.Array:
    """softmax(q k^T) v by Splash over the keys of each query's text; `interpret`: step by step on whatever device there is."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    queries, keys = query.shape[2], key.shape[2]
    more_queries, more_keys = -queries % _BLOCK, -keys % _BLOCK
    shape, offset = (queries + more_queries, keys + more_keys), keys - queries  # keys in front move the diagonal
    if same_text.causal and same_text.window:
        one: Any = masks.LocalMask(shape, (same_text.window - 1, 0), offset)
    else:
        one = masks.CausalMask(shape, offset) if same_text.causal else masks.FullMask(shape)
    attend = kernels.make_splash_mha(
        masks.MultiHeadMask([one] * query.shape[1]),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=cap,
        interpret=interpret,
    )

    def of_row(q: jax.Array, k: jax.Array, v: jax.Array, of_queries: jax.Array, of_keys: jax.Array) -> jax.Array:
        with jax.numpy_dtype_promotion("standard"):  # it counts on it
            return attend(q, k, v, segment_ids=kernels.SegmentIds(of_queries, of_keys))

    # what is added behind is a text of its own, -1, so that no query is left without a key
    of_queries = jnp.pad(same_text.queries, ((0, 0), (0, more_queries)), constant_values=-1)
    of_keys = jnp.pad(same_text.keys, ((0, 0), (0, more_keys)), constant_values=-1)
    longer = _longer(query, more_queries), _longer(key, more_keys), _longer(value, more_keys)
    return jax.vmap(of_row)(*longer, of_queries, of_keys)[:, :, :queries]
