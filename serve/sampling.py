"""How the next token is chosen: settings of one row, and the choice for all rows of a batch on the device.

    z' = z / penalty where z > 0, z * penalty elsewhere      of tokens that the row holds (Keskar et al., arXiv:1909.05858)
    p  = softmax(z' / temperature)                           and of p the `top_k` likeliest, the fewest that hold `top_p`
                                                             (Holtzman et al., arXiv:1904.09751), those above `min_p` max p

Names and order are transformers'. Nothing asked for is greedy, whatever `generation_config.json` says of drawing
(`models/generation.py` says what of it is taken). Every row draws from its own seed, so what it says does not depend on its
neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import GraftaxError
from ..models.generation import Rules
from ..typed import Count, Share, ShortSeed, Some, Within, held, settle

_LARGEST = 1e6  # of numbers: beyond, their float32s and what is made of them would end in infinities
Penalty = Annotated[float, Within(1 / _LARGEST, most=_LARGEST)]
Power = Annotated[float, Within(-_LARGEST, most=_LARGEST)]
Probability = Annotated[float, Within(0.0, most=1.0)]
Beams = Annotated[int, Within(1, most=1000)]
_BY_BACKBONE = ("repetition_penalty", "length_penalty", "early_stopping")
_OF_DRAWING, _OF_BEAMS = ("top_k", "top_p", "min_p"), ("length_penalty", "early_stopping")


@dataclass(frozen=True)
class Sampling:
    """How one row's continuation is drawn. None: as the backbone's `generation_config.json` says, else without effect."""

    max_new_tokens: Some = 64  # at most
    temperature: Annotated[float, Within(0.0, most=_LARGEST)] = 0.0  # 0: greedy
    top_k: Count = 0  # draw from this many of the likeliest; 0: from all
    top_p: Share = 1.0  # draw from the fewest tokens that together have this probability
    min_p: Probability = 0.0  # draw from tokens at least this times as likely as the likeliest
    repetition_penalty: Penalty | None = None  # above 1 tokens that are there already become unlikelier
    stop: tuple[str, ...] = ()  # the continuation ends before the first of these
    seed: ShortSeed = 0  # of what is drawn; greedy search and beams draw nothing
    num_beams: Beams = 1  # above 1: beam search (`beams.py`), the same for all rows of a call
    length_penalty: Power | None = None  # of beams: above 0 longer texts score more
    early_stopping: bool | None = None  # of beams: end with the first that are finished

    def __post_init__(self) -> None:
        settle(self)
        if not all(self.stop):
            raise GraftaxError("stop must be a list of texts, and one of them is empty.")
        if self.num_beams > 1 and (self.temperature > 0 or self.stop):
            raise GraftaxError("beam search draws nothing and knows no stop texts: num_beams goes with temperature 0 alone.")

    @held
    def changed(self, changes: Mapping[str, Any]) -> Sampling:
        """A copy with fields changed; an unknown field is an error that lists the fields."""
        unknown = [name for name in changes if name not in self.__dataclass_fields__]
        if unknown:
            raise GraftaxError(f"no such setting: {', '.join(unknown)}; there are {', '.join(self.__dataclass_fields__)}.")
        return replace(self, **changes)

    @property
    def idle(self) -> dict[str, str]:
        """Fields that were set and have no effect, and what they would need."""
        needs = {} if self.temperature > 0 else dict.fromkeys(_OF_DRAWING, "a temperature")
        needs |= {} if self.num_beams > 1 else dict.fromkeys(_OF_BEAMS, "num_beams above 1")
        return {name: need for name, need in needs.items() if getattr(self, name) != getattr(Sampling, name)}

    def under(self, rules: Rules) -> Sampling:
        """With the backbone's own word where this has none."""
        return replace(self, **{name: getattr(rules, name) for name in _BY_BACKBONE if getattr(self, name) is None})


class Settings(NamedTuple):
    """Those of every row, as data."""

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
        """In a batch of `count` rows; those that fill it up are greedy. `rows` are `under` the backbone's rules."""
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


class Kind(NamedTuple):
    """What some row of a batch asks for: the rest is not compiled."""

    draws: bool
    cuts: bool
    penalises: bool

    @classmethod
    def of(cls, rows: Sequence[Sampling]) -> Kind:
        draws = any(s.temperature > 0 for s in rows)
        cuts = any(s.temperature > 0 and (s.top_k or s.top_p < 1.0 or s.min_p > 0.0) for s in rows)
        return cls(draws, cuts, any(s.repetition_penalty != 1.0 for s in rows))


def choose(kind: Kind, logits: jax.Array, settings: Settings, seen: jax.Array | None, number: jax.Array) -> jax.Array:
    """The next token of every row, int32 `[rows]`.

    `logits [rows, vocabulary]` float32; `seen` of that shape: the tokens a row holds, None where none is penalised;
    `number [rows]`: how many it has drawn.
    """
    if seen is not None and kind.penalises:
        logits = penalised(logits, seen, settings.penalty)
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if not kind.draws:
        return likeliest
    scaled = logits / jnp.where(settings.temperature > 0, settings.temperature, 1.0)[:, None]
    if kind.cuts:
        scaled = jnp.where(_kept(scaled, settings), scaled, -jnp.inf)

    def draw(seed: jax.Array, number: jax.Array, row: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), number.astype(jnp.uint32))
        return jax.random.categorical(key, row).astype(jnp.int32)

    drawn = jax.vmap(draw)(settings.seed, number, scaled)
    return jnp.where(settings.temperature > 0, drawn, likeliest)


def penalised(logits: jax.Array, seen: jax.Array, penalty: jax.Array) -> jax.Array:
    """With the tokens that are there already unlikelier; `penalty [rows]`."""
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
