"""Beam search: the likeliest of the texts that begin with the likeliest beginnings (Graves, 2012, arXiv:1211.3711).

    score of a text of n tokens = sum_t log p(token t | those before) / n^length_penalty

For every prompt of a batch, the `beams` best unfinished texts are kept, and the `beams` best finished ones. With each step the
unfinished ones grow by a token. For instance, with two beams and a vocabulary of x, y and the end:

    unfinished            a -1.0     b -1.5                                      sums of log p
    with one token more   ax -1.7    a(end) -1.9    by -2.1    bx -2.7    ay -3.4    b(end) -3.4
    unfinished then       ax -1.7    by -2.1                                     the best two without an end
    finished then         a(end) -1.9 / 2^length_penalty                         of the best two of all, those with an end

The search for a prompt stops when its best unfinished text, as it stands, scores less than its worst finished one; with
`early_stopping` as soon as there are `beams` finished ones. Rules and defaults are those of transformers, and what is found
for a prompt does not depend on the others.

A prompt has a batch row, an index along the axis `rows`. Each of its beams has a *lane*: a batch row of its own in the cache.
The lanes of a prompt lie behind one another, so an array over lanes is `[rows * beams, ...]`, and lane `row * beams + beam` is
a beam's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ..shapes import Bool, Float, Int, shaped
from .choice import Settings, penalised
from .restraint import Written

_NEVER = -1e9  # the score where there is no text

#: From the newest token of every lane and the cache, to logits `[lanes, vocabulary]` of the next token, and the cache.
Step = Callable[[Array, Any], tuple[Array, Any]]
#: From log p `[lanes, vocabulary]`, what is written and the number of tokens so far, to log p of the tokens that may come next.
Allowed = Callable[[Array, Written, Array], Array]


class Beams(NamedTuple):
    """How far a search is."""

    logits: Float[Array, "lanes vocabulary"]  # of the next token
    cache: Any  # of all lanes
    written: Written  # by lane
    texts: Int[Array, "rows beams limit"]  # the unfinished texts, -1 behind their ends
    scores: Float[Array, "rows beams"]  # their sums of log p
    finished: Int[Array, "rows beams limit"]  # the finished texts, the best first
    finals: Float[Array, "rows beams"]  # their scores
    there: Bool[Array, "rows beams"]  # whether there is such a finished text yet
    stopped: Bool[Array, " rows"]
    number: Int[Array, ""]  # tokens so far, of every unfinished text


@shaped
def search(
    step: Step,
    allowed: Allowed,
    start: tuple[Float[Array, "rows vocabulary"], Any, Written],
    most: Int[Array, " rows"],
    settings: Settings,
    eos: Int[Array, " ends"],
    *,
    beams: int,
    limit: int,
    penalises: Any,
) -> Int[Array, "rows {limit}"]:
    """The best text for every prompt, -1 behind its end.

    Args:
        step: runs the backbone by one token; see `Step`.
        allowed: forbids tokens; see `Allowed`.
        start: logits, cache and what is written, of every batch row behind its prompt.
        most: how many tokens each is to have.
        settings: of every batch row.
        eos: the tokens that end a text.
        beams: how many, for every prompt.
        limit: the largest of `most`, known when this is compiled.
        penalises: bool, whether some prompt asks to make tokens unlikelier that are there already.
    """
    rows, _ = start[0].shape
    logits, cache, written = jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0) if leaf.ndim else leaf, start)
    empty = jnp.full((rows, beams, limit), -1, jnp.int32)
    scores = jnp.where(jnp.arange(beams) == 0, 0.0, _NEVER)  # at first all beams are one text, of which one counts
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


def _goes_on(limit: int, so_far: Beams) -> Bool[Array, ""]:
    """Whether some search has not stopped, and there is room for another token."""
    return (so_far.number < limit) & ~so_far.stopped.all()


@shaped
def _one_more(
    step: Step,
    allowed: Allowed,
    most: Int[Array, " rows"],
    settings: Settings,
    eos: Int[Array, " ends"],
    penalises: Any,
    so_far: Beams,
) -> Beams:
    """The beams with one more token; the arguments are those of `search`."""
    (rows, beams), vocabulary = so_far.scores.shape, so_far.logits.shape[-1]
    kept = max(2, 1 + len(eos)) * beams  # so many sums are looked at: even if all ends are among them, `beams` go on
    index = jnp.arange(rows, dtype=jnp.int32)[:, None]

    # the best sums of log p, [rows, kept], the beam that each comes from, its token, and whether its text ends with it
    chances = jax.nn.log_softmax(so_far.logits)
    penalty = jnp.repeat(settings.penalty, beams)
    chances = jax.lax.cond(penalises, lambda: penalised(chances, so_far.written.seen(vocabulary), penalty), lambda: chances)
    chances = allowed(chances, so_far.written, so_far.number).reshape(rows, beams, vocabulary) + so_far.scores[:, :, None]
    sums, found = jax.lax.top_k(chances.reshape(rows, -1), kept)
    parent, token = found // vocabulary, found % vocabulary
    texts = so_far.texts[index, parent].at[:, :, so_far.number].set(token)
    ends = (token[..., None] == eos).any(-1) | (so_far.number + 1 >= most)[:, None]

    # those that go on, [rows, beams], and the finished texts with the new ones among them; of these the best are kept
    scores, onward = jax.lax.top_k(jnp.where(ends, sums + _NEVER, sums), beams)
    share = 1.0 / (so_far.number + 1).astype(jnp.float32) ** settings.length_penalty[:, None]
    ended = ends & (jnp.arange(kept) < beams)
    finals = jnp.concatenate([so_far.finals, jnp.where(ended, sums * share, _NEVER)], axis=1)
    finals, chosen = jax.lax.top_k(finals, beams)
    finished = jnp.concatenate([so_far.finished, texts], axis=1)[index, chosen]
    there = jnp.concatenate([so_far.there, ended], axis=1)[index, chosen]
    hopeless = scores[:, :1] * share <= jnp.where(there, finals[:, -1:], _NEVER)
    stopped = so_far.stopped | hopeless.all(1) | (settings.early_stopping & there.all(1)) | ends.all(1)

    # every lane takes over what the lane of the beam that it goes on from has written, and its cache
    lanes = (index * beams + parent[index, onward]).reshape(-1)
    ids = token[index, onward].reshape(-1)
    cache = jax.tree.map(lambda leaf: leaf[lanes] if leaf.ndim else leaf, so_far.cache)
    written = Written(*(leaf[lanes] for leaf in so_far.written)).add(ids)
    logits, cache = step(ids, cache)
    mine = {"texts": texts[index, onward], "scores": scores, "finished": finished, "finals": finals, "there": there}
    moved = {name: _unless(so_far.stopped, new, getattr(so_far, name)) for name, new in mine.items()}
    return so_far._replace(logits=logits, cache=cache, written=written, **moved, stopped=stopped, number=so_far.number + 1)


@shaped
def _unless(stopped: Bool[Array, " rows"], new: Array, old: Array) -> Array:
    """The new values where the search goes on, and the old ones where it has stopped; `[rows, ...]` both."""
    return jnp.where(stopped.reshape(-1, *(1,) * (new.ndim - 1)), old, new)
