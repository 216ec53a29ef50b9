"""What a backbone is given, by kind of input, and what it gives back."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ..adapters.sites import FAR, TextPosition
from ..shapes import AnyArray, Float, Int, shaped


class Texts(NamedTuple):
    """Where several texts lie in one batch row, behind one another; each attends to its own tokens only.

    A text of two tokens and one of three in a first batch row of six, and one of four in a second, are
    segments [[1, 1, 2, 2, 2, 0], [3, 3, 3, 3, 0, 0]] and first [0, 2, 6].
    """

    segments: Any  # int32 [rows, tokens]: the text's number, from 1; 0 on padding
    first: Any  # int32 [texts]: where each text begins, in the batch rows laid end to end


class TextInputs(NamedTuple):
    """A batch of token ids, each `[rows, tokens]`, as NumPy arrays outside a traced function."""

    ids: Any  # int32
    mask: Any  # bool, True on real tokens
    types: Any  # int32
    texts: Texts | None = None  # None: every batch row is one text
    hidden: Any = None  # what enters the first adapted layer (`Network.frozen`), where that is known; else computed from ids
    target: TextInputs | None = None  # what the decoder of an encoder-decoder reads; the rest is its encoder's


#: A batch of any kind: what a family's processor lays and its module reads.
Inputs = Any


class ImageInputs(NamedTuple):
    """A batch of pictures, as their processor has prepared them."""

    pixels: Any  # float32 [items, height, width, channels]; None where `hidden` is known
    hidden: Any = None  # what enters the first part with an adapter, `[items, ...]`, where that is known


class Outputs(NamedTuple):
    """What a backbone gives back; of items that are no texts, `rows` and `texts` are the items, and there may be no tokens."""

    hidden: Float[Array, "rows tokens hidden"]  # of the inputs' tokens; [texts, 1, hidden] where only the pooled was asked for
    first: Float[Array, "texts hidden"]  # the pooled position as it leaves the last layer; of other items what is said of each
    pooled: Float[Array, "texts hidden"] | None = None  # tanh(W first + b), where the backbone has a pooler
    layers: Float[Array, "states rows tokens hidden"] | None = None  # all hidden states, with `intermediates=True`
    encoder: Outputs | None = None  # of an encoder-decoder, whose other fields are its decoder's
    vector: Float[Array, "texts size"] | None = None  # of a tower: what it says of an item, to be compared with the other's


@shaped
def text_positions(segments: Int[AnyArray, "rows tokens"]) -> TextPosition:
    """Where tokens are in their texts; `segments` as in `Texts`."""
    edge = segments[:, 1:] != segments[:, :-1]
    always = jnp.ones_like(edge, shape=(len(segments), 1))
    index, last = jnp.arange(segments.shape[1], dtype=jnp.int32), segments.shape[1] - 1
    begin = jax.lax.cummax(jnp.where(jnp.concatenate([always, edge], axis=1), index, 0), axis=1)
    end = jax.lax.cummin(jnp.where(jnp.concatenate([edge, always], axis=1), index, last), axis=1, reverse=True)
    before, behind = (jnp.where(segments > 0, distance, FAR) for distance in (index - begin, end - index))
    return TextPosition(before, behind, jnp.zeros_like(segments, bool))


@shaped
def count_within(counted: Int[AnyArray, "rows tokens"], texts: Texts | None) -> Int[Array, "rows tokens"]:
    """Running count of `counted`, each token's own included, begun anew with every text."""
    count = jnp.cumsum(counted, axis=1)
    if texts is None:
        return count
    s = texts.segments
    begins = jnp.concatenate([jnp.ones_like(s[:, :1]), (s[:, 1:] != s[:, :-1]).astype(jnp.int32)], axis=1)
    return count - jax.lax.cummax((count - counted) * begins, axis=1)
