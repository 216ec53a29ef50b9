"""How likely each token of a text was that is only read, and which would have been the likeliest in its place.

    log p(t + 1) = log softmax(W h_t) [token t + 1]      h [tokens, hidden], of one pass over the text

That is what `chances.py` says of tokens that are written. The logits of a few positions are there at a time: those of all, of a
vocabulary of 150,000 and 4,096 positions, would be 2.5 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..models.cross_entropy import chunks_of_logits
from ..shapes import AnyArray, Float, Int, shaped
from .chances import MOST_TOLD


@shaped
def text_chances(
    project: Callable[[jax.Array], jax.Array], hidden: Float[Array, "rows tokens dim"], ids: Int[AnyArray, "rows tokens"]
) -> Float[Array, "rows tokens numbers"]:
    """Of every position: log p of the token behind it, log p of the likeliest there, and their ids, all as float32.

    An id is exact so: no vocabulary has 2^24 tokens. `project`: hidden states to logits.
    """
    rows, tokens, _ = hidden.shape
    vocabulary = jax.eval_shape(project, hidden).shape[-1]
    chunks, chunk = chunks_of_logits(rows, tokens, vocabulary)
    behind = jnp.pad(jnp.asarray(ids)[:, 1:], ((0, 0), (0, chunks * chunk - tokens + 1)))
    hidden = jnp.pad(hidden, ((0, 0), (0, chunks * chunk - tokens), (0, 0)))

    def told(number: jax.Array) -> jax.Array:
        logits = project(jax.lax.dynamic_slice_in_dim(hidden, number * chunk, chunk, axis=1))
        own = jax.lax.dynamic_slice_in_dim(behind, number * chunk, chunk, axis=1)[..., None]
        whole = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        theirs, likeliest = jax.lax.top_k(logits, min(MOST_TOLD, vocabulary))
        own = jnp.take_along_axis(logits, own, axis=-1)
        return jnp.concatenate([own - whole, theirs - whole, likeliest.astype(jnp.float32)], axis=-1)

    found = jax.lax.map(told, jnp.arange(chunks, dtype=jnp.int32))
    return jnp.moveaxis(found, 0, 1).reshape(rows, chunks * chunk, -1)[:, :tokens]


def likeliest_of(told: np.ndarray, most: int) -> Iterator[list[tuple[int, float]]]:
    """Of each position so many of the likeliest tokens, with log p, from what `text_chances` says of a text."""
    count = told.shape[-1] // 2
    for row in told:
        logprobs, ids = row[1 : 1 + count], row[1 + count :]
        yield [(int(token), float(logprob)) for token, logprob in zip(ids[:most], logprobs[:most], strict=True)]
