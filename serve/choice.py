"""How the next token is chosen, for all batch rows at once on the device; what each asks for is its `Sampling`.

    z' = z / penalty where z > 0, z * penalty elsewhere      of tokens that the text holds (Keskar et al., arXiv:1909.05858)
    p  = softmax(z' / temperature)                           and of p the `top_k` likeliest, the fewest that hold `top_p`
                                                             (Holtzman et al., arXiv:1904.09751), those above `min_p` max p

Every batch row draws from its own seed, so what it says does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..models.generation import Rules
from ..shapes import AnyArray, Bool, Float, Int, shaped
from .sampling import Sampling


class Settings(NamedTuple):
    """The settings of every batch row, as arrays `[rows]`, so that no program depends on their values."""

    temperature: Any
    top_k: Any
    top_p: Any
    min_p: Any
    penalty: Any
    seed: Any
    length_penalty: Any
    early_stopping: Any

    @classmethod
    def of(cls, rows: Sequence[Sampling], count: int) -> Settings:
        """Those of a batch of `count` batch rows, of which the ones behind `rows` fill it up and are greedy.

        `rows`: what each asks for, `under` the backbone's rules.
        """
        filled = [*rows, *[Sampling().under(Rules())] * (count - len(rows))]
        return cls(
            np.array([s.temperature for s in filled], np.float32),
            np.array([s.top_k for s in filled], np.int32),
            np.array([s.top_p for s in filled], np.float32),
            np.array([s.min_p for s in filled], np.float32),
            np.array([s.repetition_penalty for s in filled], np.float32),
            np.array([s.seed for s in filled], np.uint32),
            np.array([s.length_penalty for s in filled], np.float32),
            np.array([s.early_stopping for s in filled], bool),
        )


class Needs(NamedTuple):
    """What some row of a batch asks for. A program takes these steps alone, so that greedy rows cost no sorting."""

    draws: Any  # bool: a token at random, by its probability
    cuts: Any  # bool: what is drawn from: top_k, top_p or min_p
    penalises: Any  # bool: tokens that are there already

    @classmethod
    def of(cls, rows: Sequence[Sampling]) -> Needs:
        draws = any(s.temperature > 0 for s in rows)
        cuts = any(s.temperature > 0 and (s.top_k or s.top_p < 1.0 or s.min_p > 0.0) for s in rows)
        return cls(draws, cuts, any(s.repetition_penalty != 1.0 for s in rows))


@shaped
def choose(
    needs: Needs,
    logits: Float[Array, "rows vocabulary"],
    settings: Settings,
    seen: Bool[Array, "rows vocabulary"] | None,
    number: Int[Array, " rows"],
) -> Int[Array, " rows"]:
    """The next token of every batch row.

    `seen`: which tokens its text holds, None where none is penalised; `number`: how many tokens it has drawn.
    """
    if seen is not None:
        logits = jax.lax.cond(needs.penalises, penalised, _as_they_are, logits, seen, settings.penalty)
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    drawn = jax.lax.cond(needs.draws, partial(_drawn, needs), lambda *_: likeliest, logits, settings, number)
    return jnp.where(settings.temperature > 0, drawn, likeliest)


def _as_they_are(logits: jax.Array, *_: Any) -> jax.Array:
    return logits


def _drawn(needs: Needs, logits: jax.Array, settings: Settings, number: jax.Array) -> jax.Array:
    """A token of every batch row at random; of a greedy one any."""
    scaled = logits / jnp.where(settings.temperature > 0, settings.temperature, 1.0)[:, None]
    scaled = jax.lax.cond(needs.cuts, _cut, _as_they_are, scaled, settings)

    def draw(seed: jax.Array, number: jax.Array, own: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), number.astype(jnp.uint32))
        return jax.random.categorical(key, own).astype(jnp.int32)

    return jax.vmap(draw)(settings.seed, number, scaled)


def _cut(logits: jax.Array, settings: Settings) -> jax.Array:
    """Logits with -inf for tokens that may not be drawn."""
    return jnp.where(_kept(logits, settings), logits, -jnp.inf)


@shaped
def penalised(
    logits: Float[Array, "rows vocabulary"], seen: Bool[Array, "rows vocabulary"], penalty: Float[AnyArray, " rows"]
) -> Float[Array, "rows vocabulary"]:
    """Logits of which the tokens that are there already are made unlikelier."""
    penalty = penalty[:, None]
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def _kept(logits: jax.Array, settings: Settings) -> jax.Array:
    """Which tokens may be drawn: those no less likely than the last one that each rule keeps."""
    ranked = jnp.sort(logits, axis=-1, descending=True)
    rank = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    within = (settings.top_k[:, None] == 0) | (rank < settings.top_k[:, None])
    chances = jax.nn.softmax(jnp.where(within, ranked, -jnp.inf), axis=-1)
    within &= jnp.cumsum(chances, axis=-1) - chances < settings.top_p[:, None]
    within &= chances >= settings.min_p[:, None] * chances[:, :1]
    last = jnp.sum(within, axis=-1, dtype=jnp.int32) - 1
    return logits >= jnp.take_along_axis(ranked, last[:, None], axis=-1)
