"""Lanes: the room on the device in which texts are written side by side, each of its own length.

    lane 0   a a a a a . . . . .        a prompt, and what was written behind it; the other columns are free
    lane 1   b b b . . . . . . .
    lane 2   c c c c c c c . . .

The programs of a backbone write a *batch*, whose texts all take the same next column of the cache. Texts in lanes do not: one
begins when another has ended, so each has a next column of its own. A call of a program takes the lanes that it needs as a
batch (`taken`), in which new tokens take the columns behind the longest text. At its end it puts these columns back behind each
lane's own text (`put_back`). Four new tokens of lanes 0 and 1 are

    taken    a a a a a . . . .    written    a a a a a n n n n    put back    a a a a a n n n n .
             b b b . . . . . .               b b b . . n n n n                b b b n n n n . . .

To take them copies their texts, once for the many tokens of a call; what is put back is small. The rows beyond the texts take
the last lane, the *spare* one, whose content nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from ..models.decoder import Cache
from .restraint import Written
from .standing import Standing

_CACHE: dict[str, Any] = {"keys": 2, "values": 2, "mask": 1, "positions": 1, "column": 0, "ends": 0, "called": 0}
_WRITTEN: dict[str, Any] = {"ids": 1, "length": 0, "least": 0}
#: Which axis of an array has the columns; 0: it has none, but one entry for each text.
_COLUMNS = Standing(0, Cache(**_CACHE), Written(**_WRITTEN), 0, 0, 0)

#: A `Standing` whose rows are lanes, and the spare one behind them; its `cache.column` is int32 [lanes + 1].
Lanes = Standing


def empty(batch: Standing, lanes: int, columns: int, where: Callable[[Sequence[int]], NamedSharding | None]) -> Lanes:
    """Room for so many texts, each of at most so many columns.

    `batch`: the shapes of one, as `jax.eval_shape` gives them; `where` says where an array of some shape is.
    """

    def room(axis: int, leaf: Any) -> jax.Array:
        behind = list(leaf.shape[1:])
        if axis:
            behind[axis - 1] = columns
        shape = lanes + 1, *behind
        return jnp.zeros(shape, leaf.dtype, device=where(shape))

    made = _each(room, batch)
    return made._replace(done=jnp.ones_like(made.done))


def grown(room: Lanes, lanes: int, columns: int) -> Lanes:
    """The same texts with room for so many, each of so many columns; it has no more of either."""
    now = room.cache.mask.shape

    def grow(axis: int, leaf: jax.Array) -> jax.Array:
        more = [(0, lanes + 1 - now[0]), *[(0, 0)] * (leaf.ndim - 1)]
        if axis:
            more[axis] = (0, columns - now[1])
        return jnp.pad(leaf, more)

    made = _each(grow, room)
    return made._replace(done=made.done.at[now[0] :].set(True))


def placed(lanes: Lanes, which: jax.Array, batch: Standing, filled: jax.Array) -> Lanes:
    """The lanes with a batch's texts in those of numbers `which`, int32 `[rows]`, in place of what was there.

    `filled` int32 `[rows]`: how many columns each text takes, from the first of the batch on.
    """

    def place(axis: int, leaf: jax.Array, own: jax.Array) -> jax.Array:
        width = min(own.shape[axis], leaf.shape[axis])  # what lies beyond the room is padding
        own = jax.lax.slice_in_dim(own, 0, width, axis=axis) if axis else own
        if axis < 2:  # an entry for each text, or one for each column, of which those behind the text are cleared
            own = jnp.pad(own, ((0, 0), (0, leaf.shape[1] - width))) if axis else own
            return leaf.at[which].set(own)
        return leaf.at[which, :, :width].set(own)

    return _each(place, lanes, batch._replace(cache=batch.cache._replace(column=filled)))


def taken(lanes: Lanes, which: jax.Array, columns: int, first: jax.Array) -> Standing:
    """The texts in lanes of numbers `which [rows]` as a batch of so many columns, of which number `first` is the next for all.

    None of these texts has as many as `first` columns. What others have left behind them is zero: attention weighs it with
    nothing, and nothing times what is no number would be none either.
    """

    def take(axis: int, leaf: jax.Array) -> jax.Array:
        if axis == 0:
            return leaf[which]
        own = leaf[which, :columns] if axis == 1 else leaf[which, :, :columns]
        return jnp.pad(own, [(0, columns - size if i == axis else 0) for i, size in enumerate(own.shape)])

    batch = _each(take, lanes)
    cache = batch.cache
    own = cache.mask[:, None, :, None]
    keys, values = (tuple(jnp.where(own, leaf, 0) for leaf in leaves) for leaves in (cache.keys, cache.values))
    return batch._replace(cache=cache._replace(keys=keys, values=values, column=first))


def put_back(lanes: Lanes, which: jax.Array, first: jax.Array, new: int, batch: Standing) -> Lanes:
    """The lanes with what was written in a batch that `taken` made of them: in `new` columns, from number `first` on."""
    real = jax.lax.dynamic_slice_in_dim(batch.cache.mask, first, new, axis=1)  # bool [rows, new]: no padding
    into = lanes.cache.column[which][:, None] + jnp.arange(new, dtype=jnp.int32)  # int32 [rows, new]

    def put(axis: int, leaf: jax.Array, own: jax.Array) -> jax.Array:
        if axis == 0:
            return leaf.at[which].set(own)
        written = jax.lax.dynamic_slice_in_dim(own, first, new, axis)
        if axis == 1:
            return leaf.at[which[:, None], into].set(written, mode="drop")
        return leaf.at[which[:, None], :, into].set(written.swapaxes(1, 2), mode="drop")

    column = lanes.cache.column[which] + real.sum(1, dtype=jnp.int32)
    put_all = _each(put, lanes, batch._replace(cache=batch.cache._replace(column=column)))
    ids = batch.written.ids[:, : lanes.written.ids.shape[1]]  # a text's ids lie behind one another in a batch, too
    written = put_all.written._replace(ids=lanes.written.ids.at[which, : ids.shape[1]].set(ids))
    return put_all._replace(written=written)


def taken_over(lanes: Lanes, source: Any, target: Any, tokens: Any, virtual: Any, most: Any, least: Any) -> Lanes:
    """The lanes with the beginning of lane `source`'s text as that of a new one in lane `target`, which may be the same.

    All are numbers, int32. `tokens`: how many of the text's own, behind `virtual` ones; `most` and `least`: as of `Standing`.
    Nothing is known of the token behind them: another is to be read first.
    """
    columns = jnp.arange(lanes.cache.mask.shape[1], dtype=jnp.int32)
    made = _each(lambda _, leaf: leaf.at[target].set(leaf[source]), lanes)
    mask = lanes.cache.mask[source] & (columns < virtual + tokens)
    cache = made.cache._replace(
        mask=made.cache.mask.at[target].set(mask),
        column=made.cache.column.at[target].set(virtual + tokens),
        ends=made.cache.ends.at[target].set(jnp.max(jnp.where(mask, lanes.cache.positions[source], -1)) + 1),
    )
    written = made.written._replace(
        length=made.written.length.at[target].set(tokens), least=made.written.least.at[target].set(least)
    )
    return made._replace(
        cache=cache,
        written=written,
        done=made.done.at[target].set(False),
        number=made.number.at[target].set(0),
        most=made.most.at[target].set(most),
    )


def _each(function: Callable[..., jax.Array], *standings: Standing) -> Standing:
    """What `function(axis, *leaves)` makes of every array, whose columns lie along that axis."""
    return jax.tree.map(lambda axis, *own: jax.tree.map(partial(function, axis), *own), _COLUMNS, *standings)
