"""How likely each token's successor was, without the logits of all tokens at once.

    likelihood(t) = z[target] - log sum exp z,    z = W h_t          W [hidden, vocabulary]

A vocabulary of 150,000 and 4,096 tokens would be 2.5 GB of logits, and as much again for their gradient. So the tokens are
taken in chunks, of which one's logits are held at a time. The gradient that reaches h_t is known as soon as its logits are,
    d likelihood / d h_t = W (onehot(target) - softmax z),
and is kept in their place: the backward pass multiplies it by a number per token, and no product with W is computed twice
(Hsu et al., 2024, arXiv:2410.10989, take the gradient in the forward pass too). That is for a frozen projection. Where an
adapter acts on it, its chunks are computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ..platforms import platform
from ..shapes import AnyArray, Float, Int, shaped

_NUMBERS, _NUMBERS_ELSEWHERE = 1 << 24, 1 << 26  # logits held at a time, on a CPU and on an accelerator

Project = Callable[[Any, jax.Array], jax.Array]  # weights, hidden [rows, tokens, d] -> logits [rows, tokens, vocabulary]


def chunks_of_logits(rows: int, tokens: int, vocabulary: int) -> tuple[int, int]:
    """In how many chunks the tokens of so many rows are taken, and of how many tokens: alike, so that little is padding.

    Each chunk reads all of W. A CPU's caches hold little, and larger chunks leave them; an accelerator multiplies hundreds of
    tokens by what it has read.
    """
    numbers = _NUMBERS if platform() == "cpu" else _NUMBERS_ELSEWHERE
    chunks = -(-tokens // max(1, min(tokens, numbers // (rows * vocabulary))))
    return chunks, -(-tokens // chunks)


@shaped
def likelihood(
    project: Project,
    weights: Any,
    hidden: Float[Array, "rows tokens dim"],
    targets: Int[AnyArray, "rows tokens"],
    frozen: bool,
) -> tuple[Float[Array, "rows tokens"], Float[Array, "rows tokens"]]:
    """Log-likelihood of the targets and whether each was the likeliest token, both float32.

    `frozen`: nothing acts on the projection but its weights, which may be differentiated all the same.
    """
    rows, tokens, _ = hidden.shape
    vocabulary = jax.eval_shape(project, weights, hidden).shape[-1]
    chunks, chunk = chunks_of_logits(rows, tokens, vocabulary)
    room = ((0, 0), (0, chunks * chunk - tokens))

    def cut(of_tokens: AnyArray) -> jax.Array:
        """`[rows, tokens, ...]` to `[chunks, rows, chunk, ...]`."""
        padded = jnp.pad(of_tokens, room + ((0, 0),) * (of_tokens.ndim - 2))
        return jnp.moveaxis(padded.reshape(rows, chunks, chunk, *of_tokens.shape[2:]), 1, 0)

    def whole(of_chunks: jax.Array) -> jax.Array:
        joined = jnp.moveaxis(of_chunks, 0, 1)
        return joined.reshape(rows, chunks * chunk, *joined.shape[3:])[:, :tokens]

    pieces = cut(hidden), cut(targets)
    if frozen:
        found = _kept(project, weights, *pieces)
    else:
        again = jax.checkpoint(partial(_likelihood, project, weights))
        found = jax.lax.map(lambda piece: again(*piece), pieces)
    return whole(found[0]), whole(found[1])


def _likelihood(project: Project, weights: Any, hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = project(weights, hidden).astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    hit = jnp.argmax(logits, axis=-1) == targets
    return chosen - jax.nn.logsumexp(logits, axis=-1), hit.astype(jnp.float32)


# The loop is within the function whose derivative is written by hand. If it were around it, JAX would take out of the loop what
# is the same in every turn: where the table of the words projects, that table turned around, a copy of the largest weight.


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kept(project: Project, weights: Any, hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`_likelihood` of chunks, one after another: `hidden [chunks, rows, chunk, d]`, `targets [chunks, rows, chunk]`."""
    return jax.lax.map(lambda piece: _likelihood(project, weights, *piece), (hidden, targets))


def _kept_forward(project: Project, weights: Any, hidden: jax.Array, targets: jax.Array) -> tuple[Any, Any]:
    *found, slope = jax.lax.map(lambda piece: _with_slope(project, weights, *piece), (hidden, targets))
    return tuple(found), (weights, hidden, targets, slope)


def _with_slope(
    project: Project, weights: Any, hidden: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of a chunk, besides, the gradient of each token's likelihood by its hidden state."""
    logits, back = jax.vjp(partial(project, weights), hidden)
    wide = logits.astype(jnp.float32)
    top = jnp.max(wide, axis=-1, keepdims=True)
    raised = jnp.exp(wide - top)
    total = jnp.sum(raised, axis=-1, keepdims=True)
    chosen = jnp.take_along_axis(wide, targets[..., None], axis=-1)[..., 0]
    hit = jnp.argmax(wide, axis=-1) == targets
    onehot = jnp.arange(wide.shape[-1], dtype=targets.dtype) == targets[..., None]
    (slope,) = back((onehot.astype(jnp.float32) - raised / total).astype(logits.dtype))
    return chosen - (jnp.log(total) + top)[..., 0], hit.astype(jnp.float32), slope


def _kept_backward(project: Project, kept: Any, cotangents: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array, None]:
    weights, hidden, targets, slope = kept
    pull = cotangents[0]

    def likelihoods(weights: Any) -> jax.Array:
        again = jax.checkpoint(partial(_likelihood, project, weights))
        return jax.lax.map(lambda piece: again(*piece)[0], (hidden, targets))

    # that of the weights is computed anew, and dropped by XLA where nobody asks for it
    _, back = jax.vjp(likelihoods, weights)
    return back(pull)[0], (slope * pull[..., None]).astype(hidden.dtype), None


_kept.defvjp(_kept_forward, _kept_backward)
