"""The compiled programs that write a batch of texts: its prompts are read, then tokens are drawn, or beams searched.

What the rows ask for (adapters, seeds, temperatures) is data. What is compiled in: the shapes, `Kind` (whether some row draws,
cuts what it draws from, penalises), and the rules that all texts of the backbone obey.
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
from .choice import Kind, Settings, choose
from .restraint import Written, restrained

BURST = 16  # tokens per call of the decoding program


class Adapted(NamedTuple):
    """The backbone, and the adapters of a batch's rows."""

    params: Any
    layers: Any
    state: State
    slots: Any  # int32 [rows], or a `Mix`


class Standing(NamedTuple):
    """Where a batch stands, on the device."""

    logits: jax.Array  # [rows, vocabulary] of the next token
    cache: Any
    written: Written  # prompt and continuation
    done: jax.Array  # bool [rows]
    number: jax.Array  # int32 [rows]: tokens drawn
    most: jax.Array  # int32 [rows]: tokens wanted


_Burst = tuple[jax.Array, Standing, jax.Array]  # tokens drawn, where the rows are, and those tokens: [BURST, rows]


class Writer:
    """The programs over one backbone. `compilations` counts how often one was traced."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        self.compilations = 0
        self.prefill = jax.jit(self._prefilled, static_argnames="columns")
        self.decode = jax.jit(self._decoded, static_argnames="kind", donate_argnames="rows")
        self.search = jax.jit(self._searched, static_argnames=("kind", "beams", "limit"))

    def _prefilled(self, adapted: Adapted, inputs: Inputs, most: jax.Array, least: jax.Array, columns: int) -> Standing:
        """The rows behind their prompts, of an encoder-decoder at the begin of its answers; `columns`: of the cache."""
        self.compilations += 1  # runs when the function is traced, not when it is called
        logits, cache = self.backbone.prefill(*adapted[:3], inputs, adapted.slots, columns=columns)
        ids, mask = inputs.ids, inputs.mask
        if self.backbone.family.encodes:
            ids, mask = jnp.full_like(ids[:, :1], self.backbone.config.start_id), jnp.ones_like(mask[:, :1])
        begun = jnp.where(mask, ids, logits.shape[-1])
        begun = jnp.pad(begun, ((0, 0), (0, columns - begun.shape[1])), constant_values=logits.shape[-1])
        written = Written(begun, mask.sum(1, dtype=jnp.int32), jnp.asarray(least))
        return Standing(logits, cache, written, most == 0, jnp.zeros(len(ids), jnp.int32), jnp.asarray(most))

    def _decoded(self, adapted: Adapted, rows: Standing, settings: Settings, kind: Kind) -> tuple[Standing, jax.Array]:
        """Up to `BURST` more tokens of every row, `[BURST, rows]`; -1 behind a row's end."""
        self.compilations += 1
        drawn = jnp.full((BURST, len(rows.done)), -1, jnp.int32)
        one = partial(self._one_more, adapted, settings, kind)
        _, rows, drawn = jax.lax.while_loop(_goes_on, one, (jnp.int32(0), rows, drawn))
        return rows, drawn

    def _one_more(self, adapted: Adapted, settings: Settings, kind: Kind, burst: _Burst) -> _Burst:
        """A token of every row that is not done."""
        i, at, drawn = burst
        logits = restrained(self.backbone.config, at.logits, at.written, at.number)
        seen = at.written.seen(logits.shape[-1]) if kind.penalises else None
        ids = self._forced(choose(kind, logits, settings, seen, at.number), at)
        drawn = drawn.at[i].set(jnp.where(at.done, -1, ids))
        number = jnp.where(at.done, at.number, at.number + 1)
        done = at.done | (ids[:, None] == self._ends()).any(1) | (number >= at.most)
        logits, cache = self._step(adapted, ids, at.cache)
        return i + 1, Standing(logits, cache, at.written.add(ids), done, number, at.most), drawn

    def _forced(self, ids: jax.Array, at: Standing) -> jax.Array:
        """The tokens chosen, or those that the backbone's config has a text begin and end with."""
        config = self.backbone.config
        for token, there in ((config.first_id, at.number == 0), (config.last_id, at.number == at.most - 1)):
            ids = jnp.where(there, jnp.int32(token), ids) if token >= 0 else ids
        return ids

    def _searched(self, adapted: Adapted, rows: Standing, settings: Settings, kind: Kind, beams: int, limit: int) -> jax.Array:
        """The best continuation of every row, `[rows, limit]`; -1 behind its end."""
        self.compilations += 1
        slots = jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf), beams, axis=0), adapted.slots)
        return search(
            partial(self._step, adapted._replace(slots=slots)),
            partial(self._allowed, jnp.repeat(rows.most, beams)),
            (rows.logits, rows.cache, rows.written),
            rows.most,
            settings,
            self._ends(),
            beams=beams,
            limit=limit,
            penalises=kind.penalises,
        )

    def _allowed(self, most: jax.Array, chances: jax.Array, written: Written, number: jax.Array) -> jax.Array:
        """log p of the tokens that may come next in each beam, behind `number` tokens of the `most` that are wanted."""
        config, token = self.backbone.config, jnp.arange(chances.shape[-1], dtype=jnp.int32)
        chances = restrained(config, chances, written, jnp.full(len(chances), number))
        for only, there in ((config.first_id, number == 0), (config.last_id, (number == most - 1)[:, None])):
            if only >= 0:
                chances = jnp.where(there, jnp.where(token == only, 0.0, -jnp.inf), chances)
        return chances

    def _step(self, adapted: Adapted, ids: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        return self.backbone.step(*adapted[:3], ids, cache, adapted.slots)

    def _ends(self) -> jax.Array:
        """The tokens that end a text."""
        return jnp.asarray(self.backbone.config.eos_ids or (-1,), jnp.int32)


def _goes_on(burst: _Burst) -> jax.Array:
    i, at, _ = burst
    return (i < BURST) & ~at.done.all()
