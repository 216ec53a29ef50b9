"""How likely each token of a text was, and which would have been the likeliest.

    log p = log softmax(z)      z [rows, vocabulary]: the logits that the backbone gives under the text's adapters

That is the model's own distribution, before the rules of the backbone, penalties, temperature and cuts, as at OpenAI and in
vLLM. So the token that was drawn need not be among the likeliest. To sort a large vocabulary at every token costs more than all
else that is done to choose one, on a GPU above all; so every program can, and does where somebody in its batch asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..shapes import Float, Int, shaped

MOST_TOLD = 20  # of the likeliest tokens
_LEAST = -9999.0  # what vLLM says in place of what is no number: JSON has none for it


class Chance(NamedTuple):
    """A token's log p, and those of the likeliest in its place, the likeliest first."""

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]


class Chances(NamedTuple):
    """Of tokens, on the device: those of batch rows, or with an axis before it, of several steps."""

    own: Array  # float32 [rows]
    likeliest: Array  # int32 [rows, told]
    theirs: Array  # float32 [rows, told]

    @classmethod
    def room(cls, steps: int, rows: int, vocabulary: int) -> Chances:
        """For so many steps."""
        shape = (steps, rows, min(MOST_TOLD, vocabulary))
        return cls(jnp.zeros(shape[:2], jnp.float32), jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32))

    def at(self, step: jax.Array, new: Chances) -> Chances:
        """The same with those of a step in their place."""
        return Chances(*(into.at[step].set(one) for into, one in zip(self, new, strict=True)))

    def of(self, row: int, tokens: list[int], most: int) -> Iterator[Chance]:
        """Those of a row's tokens, of which step i has made number i, with `most` of the likeliest each."""
        own, likeliest, theirs = (np.asarray(leaf)[:, row] for leaf in self)
        for step, token in enumerate(tokens):
            several = zip(likeliest[step, :most].tolist(), map(_told, theirs[step, :most]), strict=True)
            yield Chance(token, _told(own[step]), tuple(several))


#: The tokens of a call of the decoding program, int32 `[steps, rows]`, -1 behind a text's end; and their chances.
Drawn = tuple[Array, Chances | None]


@shaped
def chances_of(logits: Float[Array, "rows vocabulary"], ids: Int[Array, " rows"]) -> Chances:
    """Those of the tokens that were chosen."""
    whole = jax.nn.logsumexp(logits, axis=-1)
    theirs, likeliest = jax.lax.top_k(logits, min(MOST_TOLD, logits.shape[-1]))
    own = jnp.take_along_axis(logits, ids[:, None], axis=-1)[:, 0]
    return Chances(own - whole, likeliest.astype(jnp.int32), theirs - whole[:, None])


def _told(number: np.float32) -> float:
    """A number as short as a float32 can be said."""
    return float(str(number)) if isfinite(number) else _LEAST
