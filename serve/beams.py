"""Beam search: the likeliest of the texts that begin with the likeliest beginnings (Graves, 2012, arXiv:1211.3711).

    score of a text of n tokens = sum_t log p(token t | those before) / n^length_penalty

At every token the `beams` best unfinished texts of a row are kept, and the `beams` best finished ones. A row ends when its best
unfinished text, as it stands, scores less than its worst finished one, or with `early_stopping` as soon as it has `beams`
finished ones. Rules and defaults are transformers', whose texts these are; each row is searched as if it were alone.

A row's beams are rows of the cache, behind one another: `[rows * beams, ...]`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .choice import Settings, penalised
from .restraint import Written

_NEVER = -1e9  # the score of what is no text


class Beams(NamedTuple):
    """Where the search is."""

    logits: jax.Array  # [rows * beams, vocabulary] of the next token
    cache: Any
    written: Written  # of rows * beams
    texts: jax.Array  # int32 [rows, beams, limit]: those unfinished; -1 behind their ends
    scores: jax.Array  # float32 [rows, beams]: sums of log p
    finished: jax.Array  # int32 [rows, beams, limit]
    finals: jax.Array  # float32 [rows, beams]: their scores
    there: jax.Array  # bool [rows, beams]: whether there is such a text
    stopped: jax.Array  # bool [rows]
    number: jax.Array  # int32: tokens so far


def search(
    step: Callable[[jax.Array, Any], tuple[jax.Array, Any]],
    allowed: Callable[[jax.Array, Written, jax.Array], jax.Array],
    start: tuple[jax.Array, Any, Written],
    most: jax.Array,
    settings: Settings,
    eos: jax.Array,
    *,
    beams: int,
    limit: int,
    penalises: bool,
) -> jax.Array:
    """The best text of every row, int32 `[rows, limit]`; -1 behind its end.

    Args:
        step: from ids `[rows * beams]` and the cache to logits and the cache.
        allowed: log p `[rows * beams, vocabulary]`, what is written and the number of tokens so far, to log p of those that may
            come next.
        start: logits, cache and what is written of every row, behind its prompt.
        most: int32 `[rows]`: tokens wanted.
        limit: of those, at most.
    """
    rows, _ = start[0].shape
    logits, cache, written = jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0) if leaf.ndim else leaf, start)
    empty = jnp.full((rows, beams, limit), -1, jnp.int32)
    scores = jnp.where(jnp.arange(beams) == 0, 0.0, _NEVER)  # of beams that are all one text, one counts
    begin = Beams(
        logits,
        cache,
        written,
        empty,
        jnp.broadcast_to(scores, (rows, beams)),
        empty,
        jnp.full((rows, beams), _NEVER),
        jnp.zeros((rows, beams), bool),
        most == 0,
        jnp.int32(0),
    )
    one = partial(_one_more, step, allowed, most, settings, eos, penalises)
    return jax.lax.while_loop(partial(_goes_on, limit), one, begin).finished[:, 0]


def _goes_on(limit: int, at: Beams) -> jax.Array:
    return (at.number < limit) & ~at.stopped.all()


def _one_more(
    step: Callable[[jax.Array, Any], tuple[jax.Array, Any]],
    allowed: Callable[[jax.Array, Written, jax.Array], jax.Array],
    most: jax.Array,
    settings: Settings,
    eos: jax.Array,
    penalises: bool,
    at: Beams,
) -> Beams:
    """The beams with one more token; the arguments are those of `search`."""
    (rows, beams), vocabulary = at.scores.shape, at.logits.shape[-1]
    kept = max(2, 1 + len(eos)) * beams  # of which at least `beams` go on
    index = jnp.arange(rows, dtype=jnp.int32)[:, None]

    chances = jax.nn.log_softmax(at.logits)
    if penalises:
        chances = penalised(chances, at.written.seen(vocabulary), jnp.repeat(settings.penalty, beams))
    chances = allowed(chances, at.written, at.number).reshape(rows, beams, vocabulary) + at.scores[:, :, None]
    sums, found = jax.lax.top_k(chances.reshape(rows, -1), kept)
    parent, token = found // vocabulary, found % vocabulary
    texts = at.texts[index, parent].at[:, :, at.number].set(token)
    ends = (token[..., None] == eos).any(-1) | (at.number + 1 >= most)[:, None]

    scores, onward = jax.lax.top_k(jnp.where(ends, sums + _NEVER, sums), beams)
    share = 1.0 / (at.number + 1).astype(jnp.float32) ** settings.length_penalty[:, None]
    ended = ends & (jnp.arange(kept) < beams)
    finals = jnp.concatenate([at.finals, jnp.where(ended, sums * share, _NEVER)], axis=1)
    finals, chosen = jax.lax.top_k(finals, beams)
    finished = jnp.concatenate([at.finished, texts], axis=1)[index, chosen]
    there = jnp.concatenate([at.there, ended], axis=1)[index, chosen]
    hopeless = scores[:, :1] * share <= jnp.where(there, finals[:, -1:], _NEVER)
    stopped = at.stopped | hopeless.all(1) | (settings.early_stopping & there.all(1)) | ends.all(1)

    into = (index * beams + parent[index, onward]).reshape(-1)
    ids = token[index, onward].reshape(-1)
    cache = jax.tree.map(lambda leaf: leaf[into] if leaf.ndim else leaf, at.cache)
    written = Written(*(leaf[into] for leaf in at.written)).add(ids)
    logits, cache = step(ids, cache)
    mine = {"texts": texts[index, onward], "scores": scores, "finished": finished, "finals": finals, "there": there}
    moved = {name: _unless(at.stopped, new, getattr(at, name)) for name, new in mine.items()}
    return at._replace(logits=logits, cache=cache, written=written, **moved, stopped=stopped, number=at.number + 1)


def _unless(stopped: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """What is new of the rows that go on, what was of those that have stopped."""
    return jnp.where(stopped.reshape(-1, *(1,) * (new.ndim - 1)), old, new)
