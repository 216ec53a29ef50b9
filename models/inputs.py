"""What a backbone is given, by kind of input, and what it gives back."""

from __future__ import annotations

import math
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


class PairInputs(NamedTuple):
    """A batch of items of two towers, a picture and a text each; of items that are asked one of both."""

    image: ImageInputs | None  # None: no item has a picture, and nothing is computed of any
    text: TextInputs | None  # likewise
    of_text: Any = None  # bool [items], where each item is one of both: whether it is a text
    hidden: Any = None  # float32 [items, size]: the features of the towers that are frozen, where these are known (`pairs.py`)


class Compared(NamedTuple):
    """What a pair of towers gives back: vectors of length 1, float32, and how their products become logits."""

    image: Float[Array, "items size"] | None  # of each item's picture
    text: Float[Array, "items size"] | None
    scale: Float[Array, " items"]  # logit = scale * (image . text) + bias
    bias: Float[Array, " items"]

    @property
    def together(self) -> Float[Array, "items 2 more"]:
        """Two vectors of each item: the inner product of its picture's and any item's text is their logit."""
        assert self.image is not None
        assert self.text is not None
        image = jnp.concatenate([self.scale[:, None] * self.image, self.bias[:, None]], axis=-1)
        text = jnp.concatenate([self.text, jnp.ones_like(self.bias)[:, None]], axis=-1)
        return jnp.stack([image, text], axis=1)


class Outputs(NamedTuple):
    """What a backbone gives back; of items that are no texts, `rows` and `texts` are the items, and there may be no tokens."""

    hidden: Float[Array, "rows tokens hidden"]  # of the inputs' tokens; [texts, 1, hidden] where only the pooled was asked for
    first: Float[Array, "texts hidden"]  # the pooled position as it leaves the last layer; of other items what is said of each
    pooled: Float[Array, "texts hidden"] | None = None  # tanh(W first + b), where the backbone has a pooler
    layers: Float[Array, "states rows tokens hidden"] | None = None  # all hidden states, with `intermediates=True`
    encoder: Outputs | None = None  # of an encoder-decoder, whose other fields are its decoder's
    vector: Float[Array, "texts size"] | None = None  # of a tower: what it says of an item, to be compared with the other's
    #: the last of a picture's feature maps (`Config.maps`), as many as were asked for, `[rows, height, width, channels]` each
    maps: tuple[Any, ...] = ()


_PATCH = 16 * 16  # pixels that count as a position


def positions_of(inputs: Inputs) -> int:
    """About how many positions inputs have in all, padding too.

    Of texts they are tokens, of pictures squares of 16 by 16 pixels; of other kinds each item is one.
    """
    if isinstance(inputs, PairInputs) and inputs.hidden is None:
        return sum(positions_of(each) for each in (inputs.image, inputs.text) if each is not None)
    if isinstance(inputs, ImageInputs) and inputs.hidden is None:
        return -(-math.prod(inputs.pixels.shape[:-1]) // _PATCH)
    if isinstance(inputs, TextInputs) and inputs.hidden is None:
        return math.prod(inputs.ids.shape) + (0 if inputs.target is None else positions_of(inputs.target))
    if isinstance(inputs, PairInputs | ImageInputs | TextInputs):
        return math.prod(inputs.hidden.shape[:-1])
    return len(jax.tree.leaves(inputs)[0])


def features_of(outputs: Outputs) -> jax.Array:
    """What says an item in one vector, float32: a tower's own, or what a head reads."""
    for features in (outputs.vector, outputs.pooled):
        if features is not None:
            return jnp.asarray(features, jnp.float32)
    return jnp.asarray(outputs.first, jnp.float32)


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
