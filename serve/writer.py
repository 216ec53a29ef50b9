"""The compiled programs that write texts: prompts are read, then tokens are chosen one by one, or beams searched.

A batch of texts begins by `prefill`. `decode` writes some more of each, again and again, `extend` reads further tokens of their
prompts, and `search` writes them to their ends. Texts that come and go are in lanes (`lanes.py`): for each call those that it
is about are taken out as a batch (`take`), and what is new of them is put back (`place` for those that begin, else `put_back`);
`take_over` has a text begin as another did. These programs are small, and they alone depend on how much room there is.

What each batch row asks for (its adapter, seed, temperature) is data, and so are the `Needs` of the batch (whether some row
draws, cuts what it draws from, penalises), and whether some row is told the chances of its tokens. Compiled in are the shapes,
and the rules that all texts of the backbone obey.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from ..adapters.graft import State
from ..models.backbone import Backbone
from ..models.inputs import Inputs
from ..models.tensor_parallel import of_texts
from .beams import search
from .chances import Chances, Drawn, chances_of
from .choice import Needs, Settings, choose
from .lanes import Lanes, grown, placed, put_back, taken, taken_over
from .restraint import Written, among, restrained
from .soundness import NO_NUMBER
from .standing import Standing

Tree = TypeVar("Tree")
BURST = 16  # tokens per call of the decoding program


class Adapted(NamedTuple):
    """A backbone, and the adapters of the batch rows of a batch."""

    params: Any
    layers: Any
    state: State
    slots: Any  # int32 [rows], or a `Mix`


#: Within a call of the decoding program: how many tokens are chosen of each text, how far the texts are, and those tokens.
_Burst = tuple[jax.Array, Standing, tuple[jax.Array, Chances]]


class Writer:
    """The programs of one backbone. `compilations` counts how often one was traced."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        self.compilations = 0
        self.prefill = self._program(self._prefilled, static_argnames="columns")
        self.extend = self._program(self._extended, donate_argnames="standing")
        self.decode = self._program(self._decoded, donate_argnames="standing")
        self.follow = self._program(self._followed, donate_argnames="standing")
        self.search = self._program(self._searched, static_argnames=("beams", "limit"))
        self.place = self._program(self._placed, donate_argnames="room")
        self.take = self._program(self._taken, static_argnames="columns")
        self.put_back = self._program(self._put_back, static_argnames="new", donate_argnames="room")
        self.take_over = self._program(self._took_over, donate_argnames="room")
        self.grow = self._program(self._grown, static_argnames=("lanes", "columns"))

    def _program(self, function: Callable, **known: Any) -> Any:
        """A function compiled; what it returns is where the next program wants it, if devices share the weights."""
        if self.backbone.mesh is None:
            return jax.jit(function, **known)

        @wraps(function)
        def settled(*args: Any, **named: Any) -> Any:
            made = function(*args, **named)
            return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, self.where(leaf.shape)), made)

        return jax.jit(settled, **known)

    def where(self, shape: Sequence[int]) -> NamedSharding | None:
        """Where an array of texts is (`tensor_parallel.py`); None: where all arrays are."""
        return None if self.backbone.mesh is None else of_texts(self.backbone.mesh, shape)

    def shapes_there(self, texts: Tree) -> Tree:
        """As `shapes_of`, of arrays of texts or of shapes that say nothing of where those are."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.where(leaf.shape)), texts)

    def _prefilled(self, adapted: Adapted, inputs: Inputs, most: jax.Array, least: jax.Array, columns: int) -> Standing:
        """Texts behind their prompts, or those of an encoder-decoder at their beginning; `columns`: how many the cache has."""
        self.compilations += 1  # runs when the function is traced, not when it is called
        logits, cache = self.backbone.prefill(*adapted[:3], inputs, adapted.slots, columns=columns)
        ids, mask = inputs.ids, inputs.mask
        if self.backbone.family.encodes:
            ids, mask = jnp.full_like(ids[:, :1], self.backbone.config.start_id), jnp.ones_like(mask[:, :1])
        begun = jnp.pad(ids, ((0, 0), (0, columns - ids.shape[1])))
        written = Written(begun, mask.sum(1, dtype=jnp.int32), jnp.asarray(least))
        return Standing(logits, cache, written, most == 0, jnp.zeros(len(ids), jnp.int32), jnp.asarray(most))

    def _decoded(
        self, adapted: Adapted, standing: Standing, settings: Settings, tells: jax.Array, needs: Needs
    ) -> tuple[Standing, Drawn]:
        """The texts with up to `BURST` more tokens each, and these tokens; `tells`, bool: whether with their chances."""
        self.compilations += 1
        one = partial(self._one_more, adapted, settings, tells, needs, None)
        _, standing, drawn = jax.lax.while_loop(_goes_on, one, _begun(standing, BURST))
        return standing, drawn

    def _followed(
        self, adapted: Adapted, standing: Standing, settings: Settings, tells: jax.Array, allowed: jax.Array, needs: Needs
    ) -> tuple[Standing, Drawn]:
        """As `decode`, with one more token each, which is one of those allowed; bits as of `restraint.among`."""
        self.compilations += 1
        _, standing, drawn = self._one_more(adapted, settings, tells, needs, allowed, _begun(standing, 1))
        return standing, drawn

    def _extended(self, adapted: Adapted, standing: Standing, ids: jax.Array, real: jax.Array) -> Standing:
        """The texts with further tokens of their prompts, `ids [rows, new]`, of which the first are `real`."""
        self.compilations += 1
        logits, cache = self.backbone.extend(*adapted[:3], ids, real, standing.cache, adapted.slots)
        return standing._replace(logits=logits, cache=cache, written=standing.written.add_all(ids, real))

    def shapes(self, adapted: Adapted, inputs: Inputs) -> Standing:
        """Those of a batch that `prefill` would make of inputs, with no column to spare."""
        counted, least = self.compilations, np.zeros(len(inputs.ids), np.int32)
        try:
            return jax.eval_shape(partial(self._prefilled, columns=inputs.ids.shape[1]), adapted, inputs, least, least)
        finally:
            self.compilations = counted  # nothing was compiled

    # -- in lanes ---------------------------------------------------------------------------------------------------------

    def _placed(self, room: Lanes, which: jax.Array, batch: Standing, padding: jax.Array) -> Lanes:
        """As `lanes.placed`, of texts with so many columns of padding behind them, int32 `[rows]`."""
        self.compilations += 1
        return placed(room, which, batch, batch.cache.column - padding)

    def _taken(self, room: Lanes, which: jax.Array, first: jax.Array, columns: int) -> Standing:
        """As `lanes.taken`."""
        self.compilations += 1
        return taken(room, which, columns, first)

    def _put_back(self, room: Lanes, which: jax.Array, first: jax.Array, batch: Standing, new: int) -> Lanes:
        """As `lanes.put_back`."""
        self.compilations += 1
        return put_back(room, which, first, new, batch)

    def _took_over(self, room: Lanes, *which: jax.Array) -> Lanes:
        """As `lanes.taken_over`."""
        self.compilations += 1
        return taken_over(room, *which)

    def _grown(self, room: Lanes, lanes: int, columns: int) -> Lanes:
        """As `lanes.grown`."""
        self.compilations += 1
        return grown(room, lanes, columns)

    # -- token by token ---------------------------------------------------------------------------------------------------

    def _one_more(
        self,
        adapted: Adapted,
        settings: Settings,
        tells: jax.Array,
        needs: Needs,
        allowed: jax.Array | None,
        burst: _Burst,
    ) -> _Burst:
        """One more token of every text that is not done; of those allowed, where they are said."""
        i, standing, (drawn, chances) = burst
        logits = restrained(self.backbone.config, standing.logits, standing.written, standing.number)
        logits = logits if allowed is None else jnp.where(among(allowed, logits.shape[-1]), logits, -jnp.inf)
        none = partial(jnp.zeros_like, logits, bool)
        seen = jax.lax.cond(needs.penalises, partial(standing.written.seen, logits.shape[-1]), none)
        ids = self._forced(choose(needs, logits, settings, seen, standing.number), standing)
        broken = ~jnp.isfinite(standing.logits).all(-1)
        drawn = drawn.at[i].set(jnp.where(standing.done, -1, jnp.where(broken, NO_NUMBER, ids)))
        chances = jax.lax.cond(tells, lambda: chances.at(i, chances_of(standing.logits, ids)), lambda: chances)
        number = jnp.where(standing.done, standing.number, standing.number + 1)
        done = standing.done | broken | (ids[:, None] == self._ends()).any(1) | (number >= standing.most)
        logits, cache = self._stepped(~done.all(), adapted, ids, standing)
        standing = Standing(logits, cache, standing.written.add(ids), done, number, standing.most)
        return i + 1, standing, (drawn, chances)

    def _stepped(self, wanted: jax.Array, adapted: Adapted, ids: jax.Array, standing: Standing) -> tuple[jax.Array, Any]:
        """As `_step`, where it is wanted: behind the last token of all texts nothing comes.

        It is a loop of at most one turn because XLA writes into the cache that a loop carries. Of one that a `cond` chooses, it
        makes a copy, which took an eighth of the time of a step (135 M Llama, 32 rows).
        """
        _, logits, cache = jax.lax.while_loop(
            lambda carry: carry[0],
            lambda carry: (jnp.bool_(False), *self._step(adapted, ids, carry[2])),
            (wanted, standing.logits, standing.cache),
        )
        return logits, cache

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


def _begun(standing: Standing, steps: int) -> _Burst:
    """No token of each text so far, and room for some."""
    rows, vocabulary = standing.logits.shape
    return jnp.int32(0), standing, (jnp.full((steps, rows), -1, jnp.int32), Chances.room(steps, rows, vocabulary))


def _goes_on(burst: _Burst) -> jax.Array:
    """Whether some text is not done, and the burst has room for another token."""
    i, standing, _ = burst
    return (i < BURST) & ~standing.done.all()


def shapes_of(tree: Tree) -> Tree:
    """A tree with the shape of each array in its place, with which a program can be compiled as with the array."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=_over_devices(leaf)), tree)


def _over_devices(leaf: Any) -> NamedSharding | None:
    """Where an array is that several devices have."""
    sharding = getattr(leaf, "sharding", None)
    return sharding if isinstance(sharding, NamedSharding) else None
