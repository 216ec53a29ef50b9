"""The compiled programs that write a batch of texts: prompts are read, then tokens are chosen one by one, or beams searched.

What each batch row asks for (its adapter, seed, temperature) is data. Compiled in are the shapes, the `Needs` of the batch
(whether some row draws, cuts what it draws from, penalises), and the rules that all texts of the backbone obey.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..adapters.graft import State
from ..models.backbone import Backbone
from ..models.inputs import Inputs
from .beams import search
from .choice import Needs, Settings, choose
from .restraint import Written, restrained

BURST = 16  # tokens per call of the decoding program


class Adapted(NamedTuple):
    """A backbone, and the adapters of the batch rows of a batch."""

    params: Any
    layers: Any
    state: State
    slots: Any  # int32 [rows], or a `Mix`


class Standing(NamedTuple):
    """How far a batch of texts is written, on the device."""

    logits: jax.Array  # [rows, vocabulary] of the next token
    cache: Any
    written: Written  # prompt and continuation
    done: jax.Array  # bool [rows]
    number: jax.Array  # int32 [rows]: tokens drawn
    most: jax.Array  # int32 [rows]: tokens wanted


#: Within a call of the decoding program: how many tokens are chosen, how far the texts are, and those tokens, [BURST, rows].
_Burst = tuple[jax.Array, Standing, jax.Array]


class Writer:
    """The programs of one backbone. `compilations` counts how often one was traced."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        self.compilations = 0
        self.prefill = jax.jit(self._prefilled, static_argnames="columns")
        self.decode = jax.jit(self._decoded, static_argnames="needs", donate_argnames="standing")
        self.search = jax.jit(self._searched, static_argnames=("needs", "beams", "limit"))

    def _prefilled(self, adapted: Adapted, inputs: Inputs, most: jax.Array, least: jax.Array, columns: int) -> Standing:
        """Texts behind their prompts, or those of an encoder-decoder at their beginning; `columns`: how many the cache has."""
        self.compilations += 1  # runs when the function is traced, not when it is called
        logits, cache = self.backbone.prefill(*adapted[:3], inputs, adapted.slots, columns=columns)
        ids, mask = inputs.ids, inputs.mask
        if self.backbone.family.encodes:
            ids, mask = jnp.full_like(ids[:, :1], self.backbone.config.start_id), jnp.ones_like(mask[:, :1])
        begun = jnp.where(mask, ids, logits.shape[-1])
        begun = jnp.pad(begun, ((0, 0), (0, columns - begun.shape[1])), constant_values=logits.shape[-1])
        written = Written(begun, mask.sum(1, dtype=jnp.int32), jnp.asarray(least))
        return Standing(logits, cache, written, most == 0, jnp.zeros(len(ids), jnp.int32), jnp.asarray(most))

    def _decoded(self, adapted: Adapted, standing: Standing, settings: Settings, needs: Needs) -> tuple[Standing, jax.Array]:
        """The texts with up to `BURST` more tokens each, and these tokens, `[BURST, rows]`; -1 behind a text's end."""
        self.compilations += 1
        drawn = jnp.full((BURST, len(standing.done)), -1, jnp.int32)
        one = partial(self._one_more, adapted, settings, needs)
        _, standing, drawn = jax.lax.while_loop(_goes_on, one, (jnp.int32(0), standing, drawn))
        return standing, drawn

    def _one_more(self, adapted: Adapted, settings: Settings, needs: Needs, burst: _Burst) -> _Burst:
        """One more token of every text that is not done."""
        i, standing, drawn = burst
        logits = restrained(self.backbone.config, standing.logits, standing.written, standing.number)
        seen = standing.written.seen(logits.shape[-1]) if needs.penalises else None
        ids = self._forced(choose(needs, logits, settings, seen, standing.number), standing)
        drawn = drawn.at[i].set(jnp.where(standing.done, -1, ids))
        number = jnp.where(standing.done, standing.number, standing.number + 1)
        done = standing.done | (ids[:, None] == self._ends()).any(1) | (number >= standing.most)
        logits, cache = self._step(adapted, ids, standing.cache)
        return i + 1, Standing(logits, cache, standing.written.add(ids), done, number, standing.most), drawn

    def _forced(self, ids: jax.Array, standing: Standing) -> jax.Array:
        """The tokens chosen, or those that the backbone's config has a text begin and end with."""
        config = self.backbone.config
        for token, there in ((config.first_id, standing.number == 0), (config.last_id, standing.number == standing.most - 1)):
            ids = jnp.where(there, jnp.int32(token), ids) if token >= 0 else ids
        return ids

    def _searched(
        self, adapted: Adapted, standing: Standing, settings: Settings, needs: Needs, beams: int, limit: int
    ) -> jax.Array:
        """The best text of every batch row by beam search, `[rows, limit]`; -1 behind its end."""
        self.compilations += 1
        slots = jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf), beams, axis=0), adapted.slots)
        return search(
            partial(self._step, adapted._replace(slots=slots)),
            partial(self._allowed, jnp.repeat(standing.most, beams)),
            (standing.logits, standing.cache, standing.written),
            standing.most,
            settings,
            self._ends(),
            beams=beams,
            limit=limit,
            penalises=needs.penalises,
        )

    def _allowed(self, most: jax.Array, chances: jax.Array, written: Written, number: jax.Array) -> jax.Array:
        """log p of the tokens that may come next in each lane, behind `number` of the `most` tokens that are wanted."""
        config, token = self.backbone.config, jnp.arange(chances.shape[-1], dtype=jnp.int32)
        chances = restrained(config, chances, written, jnp.full(len(chances), number))
        for only, there in ((config.first_id, number == 0), (config.last_id, (number == most - 1)[:, None])):
            if only >= 0:
                chances = jnp.where(there, jnp.where(token == only, 0.0, -jnp.inf), chances)
        return chances

    def _step(self, adapted: Adapted, ids: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        """Logits of the token behind `ids`, and the cache with these in it."""
        return self.backbone.step(*adapted[:3], ids, cache, adapted.slots)

    def _ends(self) -> jax.Array:
        """The tokens that end a text."""
        return jnp.asarray(self.backbone.config.eos_ids or (-1,), jnp.int32)


def _goes_on(burst: _Burst) -> jax.Array:
    """Whether some text is not done, and the burst has room for another token."""
    i, standing, _ = burst
    return (i < BURST) & ~standing.done.all()
