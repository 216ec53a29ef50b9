"""The tokens that may come next, by the rules that a backbone's texts obey (`models/generation.py: Rules`).

Some are never written, or not first; none that ends a text comes before its least length; and where no run of n tokens may be
there twice, none comes that would make a second one of the last n - 1 (Paulus et al., 2017, arXiv:1705.04304). Rules are the
same for all texts of a backbone, so they are part of the program.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ..models.generation import Rules
from ..shapes import AnyArray, Bool, Float, Int, shaped


class Written(NamedTuple):
    """What the texts of a batch hold, their prompts included where these are of the same text; a batch row for each."""

    ids: jax.Array  # int32 [rows, columns]; what stands behind a text's end is no part of it
    length: jax.Array  # int32 [rows]: tokens of each text
    least: jax.Array  # int32 [rows]: tokens that each must have before one may end it

    def add(self, ids: jax.Array) -> Written:
        """The same with one more token of each text."""
        return self.add_all(ids[:, None], jnp.ones((len(ids), 1), bool))

    def seen(self, vocabulary: int) -> jax.Array:
        """Whether a text holds a token, `[rows, vocabulary]`."""
        rows, columns = (jnp.arange(size, dtype=jnp.int32) for size in self.ids.shape)
        ids = jnp.where(columns < self.length[:, None], self.ids, vocabulary)
        return jnp.zeros((len(self.ids), vocabulary), bool).at[rows[:, None], ids].set(True, mode="drop")

    def add_all(self, ids: jax.Array, real: jax.Array) -> Written:
        """The same with further tokens of each text, `ids [rows, new]`, of which the first are `real`."""
        rows, behind = (jnp.arange(size, dtype=jnp.int32) for size in ids.shape)
        return self._replace(
            ids=self.ids.at[rows[:, None], self.length[:, None] + behind].set(ids, mode="drop"),
            length=self.length + real.sum(1, dtype=jnp.int32),
        )


@shaped
def restrained(
    config: Any, logits: Float[Array, "rows vocabulary"], written: Written, number: Int[Array, " rows"]
) -> Float[Array, "rows vocabulary"]:
    """Logits (or log p) with -inf for tokens that may not come next; `number`: generated so far."""
    rules: Rules = config.rules
    vocabulary, token = logits.shape[-1], jnp.arange(logits.shape[-1], dtype=jnp.int32)

    def forbid(ids: tuple[int, ...], where: jax.Array) -> jax.Array:
        among = (token[:, None] == jnp.asarray(ids, jnp.int32)).any(-1)
        return jnp.where(where[:, None] & among, -jnp.inf, logits)

    if rules.suppressed:
        logits = forbid(rules.suppressed, number >= 0)
    if rules.first_suppressed:  # behind a token that begins every text, the first is the second
        logits = forbid(rules.first_suppressed, number == (1 if config.first_id >= 0 else 0))
    if config.eos_ids and (rules.min_length or rules.min_new_tokens):
        logits = forbid(config.eos_ids, written.length < written.least)
    if rules.no_repeat:
        logits = jnp.where(_repeating(written, rules.no_repeat, vocabulary), -jnp.inf, logits)
    return logits


@shaped
def among(bits: Int[AnyArray, "rows words"], vocabulary: int) -> Bool[Array, "rows {vocabulary}"]:
    """Which tokens have their bit: token i's is number i % 32, from the lowest on, of word i // 32, int32."""
    token = jnp.arange(vocabulary, dtype=jnp.int32)
    return ((jnp.asarray(bits)[:, token // 32] >> (token % 32)) & 1).astype(bool)


def words_for(vocabulary: int) -> int:
    """How many int32 hold a bit for each token."""
    return -(-vocabulary // 32)


def _repeating(written: Written, size: int, vocabulary: int) -> jax.Array:
    """Which tokens would end a run of `size` tokens that is there already, `[rows, vocabulary]`."""
    ids, count = written.ids, written.length
    runs = max(0, ids.shape[1] - size + 1)
    last = jnp.take_along_axis(ids, jnp.maximum(count[:, None] - (size - 1) + jnp.arange(size - 1), 0), axis=1)
    # [rows, runs]: whether the run that begins there has the last tokens, and one more
    same = jnp.arange(runs) + size <= count[:, None]
    for offset in range(size - 1):
        same &= ids[:, offset : offset + runs] == last[:, offset : offset + 1]
    ends = jnp.where(same, ids[:, size - 1 : size - 1 + runs], vocabulary)
    rows = jnp.arange(len(ids), dtype=jnp.int32)[:, None]
    return jnp.zeros((len(ids), vocabulary), bool).at[rows, ends].set(True, mode="drop")
