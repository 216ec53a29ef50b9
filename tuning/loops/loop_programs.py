"""The compiled programs of loops: what `Loops` has the device do.

    take      the leaves of the loops that calls are of, out of their slots: leaves `[calls, ...]`
    gradient  a piece of the calls' data: log-likelihoods, and the calls' gradients so far with those of the piece
    forward   the same without gradients
    commit    the gradients of whole calls added to those of their loops, but for calls in which something is not finite
    step      Adam, for several loops
    put, get  a loop written into its slot, and read there

In `gradient` every batch row uses the leaves of its call, and the frozen weights are shared by all: the forward pass is that of
a bank (*mixed rows*, `adapters/graft.py`), whose axis of slots is that of the calls. What methods make of their leaves alone
(`Method.prepare`) is made once a call. The gradient is taken with respect to the trainable leaves of the calls, so that of a
batch row is summed into its call's, and none of a frozen weight is computed. A number that is not finite stays in the batch
rows, and so in the calls, that it belongs to.

Only `gradient` and `forward` are large, and they know nothing of how many slots there are: the others are compiled anew
where these grow, in a fraction of the time.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...adapters.adapter import join
from ...adapters.graft import State, prepared
from ...models.backbone import Backbone
from ...models.inputs import TextInputs
from ...train.method_hooks import tied
from .room import Room
from .token_losses import LossInputs, loss_and_slope


class Taken(NamedTuple):
    """The loops of some calls: trees whose leaves are `[calls, ...]`."""

    trainable: State
    fixed: State


class Summed(NamedTuple):
    """What pieces have added up for calls."""

    gradient: State  # [calls, ...]
    loss: Any  # float32 [calls]


class PieceInputs(NamedTuple):
    """A piece of the data of some calls, laid in batch rows."""

    inputs: TextInputs
    calls: Any  # int32 [rows]: the call of each batch row
    targets: Any  # int32 [rows, tokens]
    counts: Any  # bool [rows, tokens]: where there is a token of a datum
    losses: LossInputs


class Adam(NamedTuple):
    """What a step is told of a loop; of several, arrays float32 `[loops]`."""

    learning_rate: Any
    beta1: Any
    beta2: Any
    eps: Any
    weight_decay: Any
    clip: Any  # infinite: none
    steps: Any  # those before this one


class LoopPrograms:
    """The programs of one backbone. `compilations` counts how often one was traced."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        self.compilations = 0
        jit = partial(jax.jit, out_shardings=backbone.everywhere)  # what one leaves is where the next finds it
        self.take = jit(self._taken)
        self.gradient = jit(self._gradient, donate_argnames="summed")
        self.forward = jit(self._forward)
        self.commit = jit(self._committed, donate_argnames="gradient")
        self.step = jit(self._stepped, donate_argnames="room")
        self.put = jit(self._put, donate_argnames="room")
        self.get = jit(self._got)

    @classmethod
    def of(cls, backbone: Backbone) -> LoopPrograms:
        """The same object for one backbone, so that what one `Loops` has compiled the next does not compile anew."""
        return backbone.programs.setdefault(cls, cls(backbone))

    def _taken(self, trainable: State, fixed: State, slots: jax.Array) -> tuple[Taken, Summed]:
        """The loops in the slots of calls, and sums that are zero."""
        self.compilations += 1  # runs when the function is traced, not when it is called
        taken = Taken(*jax.tree.map(lambda leaf: leaf[slots], (trainable, fixed)))
        zero = jax.tree.map(jnp.zeros_like, taken.trainable)
        return taken, Summed(zero, jnp.zeros(slots.shape, jnp.float32))

    def _likelihood(self, params: Any, layers: Any, piece: PieceInputs, fixed: State, trainable: State) -> jax.Array:
        """How likely the targets are, `[rows, tokens]`."""
        backbone = self.backbone
        frozen = {name: backbone.frozen_at(params, name) for name in trainable}
        ready = jax.vmap(lambda state: prepared(state, frozen, backbone.structure))(join(trainable, fixed))
        bank = {
            name: jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), tree) if backbone.structure.stacked(name) else tree
            for name, tree in ready.items()
        }
        return backbone.likelihood(params, bank, piece.inputs, piece.targets, piece.calls, layers=layers)[0]

    def _gradient(self, params: Any, layers: Any, taken: Taken, piece: PieceInputs, summed: Summed) -> tuple[Summed, jax.Array]:
        """The sums with those of a piece, and the log-likelihoods of its targets."""
        self.compilations += 1
        found, pull = jax.vjp(partial(self._likelihood, params, layers, piece, taken.fixed), taken.trainable)
        loss, slope = self._losses(found, piece)
        (own,) = pull(slope)
        return Summed(jax.tree.map(jnp.add, summed.gradient, own), summed.loss.at[piece.calls].add(loss)), found

    def _forward(
        self, params: Any, layers: Any, taken: Taken, piece: PieceInputs, losses: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The losses of calls with those of a piece, and the log-likelihoods of its targets."""
        self.compilations += 1
        found = self._likelihood(params, layers, piece, taken.fixed, taken.trainable)
        return losses.at[piece.calls].add(self._losses(found, piece)[0]), found

    @staticmethod
    def _losses(found: jax.Array, piece: PieceInputs) -> tuple[jax.Array, jax.Array]:
        """The loss of each batch row, and its derivatives by the log-likelihoods."""
        loss, slope = loss_and_slope(found, piece.losses)
        return jnp.where(piece.counts, loss, 0.0).sum(1), jnp.where(piece.counts, slope, 0.0)

    def _committed(self, gradient: State, rate: State, slots: jax.Array, summed: Summed) -> tuple[State, jax.Array]:
        """The gradients of loops with those of calls, and which calls are finite, bool `[calls]`; the others add nothing."""
        self.compilations += 1
        own = jax.tree.map(lambda leaf, rate: jnp.where(rate[slots] > 0, leaf, 0.0), summed.gradient, rate)
        finite = _finite(own) & jnp.isfinite(summed.loss)
        there = _where(finite, slots, rate)
        return jax.tree.map(lambda leaf, more: leaf.at[there].add(more, mode="drop"), gradient, own), finite

    def _stepped(self, room: Room, slots: jax.Array, adam: Adam) -> tuple[Room, jax.Array, jax.Array]:
        """The loops after a step of those in `slots`, the norms of their gradients, and which have moved.

        A loop whose step would make something that is not finite does not move; the gradient is zero behind it all the same.
        """
        self.compilations += 1
        before = jax.tree.map(lambda leaf: leaf[slots], room._replace(fixed={}))
        (trainable, first, second), norms = jax.vmap(self._stepped_one)(before, adam)
        finite = _finite(trainable) & jnp.isfinite(norms)
        there = _where(finite, slots, room.rate)

        def written(tree: State, new: State) -> State:
            return jax.tree.map(lambda leaf, own: leaf.at[there].set(own, mode="drop"), tree, new)

        after = room._replace(
            trainable=written(room.trainable, trainable),
            first=written(room.first, first),
            second=written(room.second, second),
            gradient=jax.tree.map(lambda leaf: leaf.at[slots].set(0.0), room.gradient),
        )
        return after, norms, finite

    def _stepped_one(self, one: Room, adam: Adam) -> tuple[tuple[State, State, State], jax.Array]:
        """Adam for one loop (Kingma & Ba, 2015, arXiv:1412.6980), whose weight decay is decoupled (arXiv:1711.05101)."""
        gradient, once = tied(one.gradient, one.rate, self.backbone.structure)
        norm = optax.tree.norm(once)
        shrunk = jnp.minimum(1.0, adam.clip / jnp.maximum(norm, 1e-12))
        gradient = jax.tree.map(lambda g: g * shrunk, gradient)
        first = jax.tree.map(lambda m, g: adam.beta1 * m + (1.0 - adam.beta1) * g, one.first, gradient)
        second = jax.tree.map(lambda v, g: adam.beta2 * v + (1.0 - adam.beta2) * g * g, one.second, gradient)
        count = adam.steps + 1.0
        unbiased1, unbiased2 = 1.0 - adam.beta1**count, 1.0 - adam.beta2**count

        def moved(p: jax.Array, rate: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
            along = (m / unbiased1) / (jnp.sqrt(v / unbiased2) + adam.eps)
            return jnp.where(rate > 0, p - adam.learning_rate * (along + adam.weight_decay * p), p)

        return (jax.tree.map(moved, one.trainable, one.rate, first, second), first, second), norm

    def _put(self, room: Room, slot: jax.Array, one: Room) -> Room:
        self.compilations += 1
        return jax.tree.map(lambda leaf, own: leaf.at[slot].set(own), room, one)

    def _got(self, room: Room, slot: jax.Array) -> Room:
        self.compilations += 1
        return jax.tree.map(lambda leaf: leaf[slot], room)


def _finite(tree: Any) -> jax.Array:
    """By index on the leading axis, whether all numbers are finite: bool `[leading]`."""
    each = [jnp.isfinite(leaf).reshape(len(leaf), -1).all(1) for leaf in jax.tree.leaves(tree)]
    return jnp.stack(each).all(0)


def _where(taken: jax.Array, slots: jax.Array, room: State) -> jax.Array:
    """The slots that are taken; of the others one beyond the last, where nothing is written."""
    return jnp.where(taken, slots, len(jax.tree.leaves(room)[0]))
