"""One training step, of one adapter; `jit(vmap(...))` over the slots of a pack, or over some after others (`Programs.at_once`).

Everything about an adapter that training reads or changes is in its `Learner`: a pytree, so the learners of a pack are the
same tree with a leading slot axis, and the backbone's parameters are the one shared argument. Freezing is not being
differentiated: the gradient is taken with respect to the trainable leaves alone, and no gradient of a frozen kernel is ever
computed.

Per adapter, never over the pack: the mean of the loss, the gradient clip, the schedule, weight decay, the random stream. A
learner with nothing to do in a step (`live` False) keeps every bit; one whose loss or gradient is not finite stops where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..adapters.adapter import Stacked, join
from ..adapters.graft import State
from ..models.augment import Augment
from ..models.backbone import Backbone
from ..models.inputs import Inputs, positions_of
from ..platforms import platform
from ..tasks.task import Task
from .augmentation import Draws, augmented_inputs, mean_loss
from .frozen_weights import shared_by_all, whole_on_each
from .method_hooks import objective, revised, settled, tied
from .optimizer import optimizer_named, precondition
from .recipe import SCHEDULES, Recipe
from .spreading import Spread

_BUSY = 8192  # positions that keep an accelerator busy: its products have that many rows


class Hyper(NamedTuple):
    """What may differ between adapters of one pack: all of it data."""

    lr: Any  # peak learning rate
    weight_decay: Any
    clip: Any  # of the gradient's global norm; infinite: none
    warmup: Any  # steps of linear rise
    total: Any  # steps until the schedule reaches zero
    schedule: Any  # index in SCHEDULES
    beta: Any  # of preferences (`tasks/preference.py`)
    classes: Any  # real classes of the head
    seed: Any


class Learner(NamedTuple):
    """An adapter in training: what a slot holds of it. The learners of a pack are one such tree with a leading slot axis."""

    trainable: State
    fixed: State  # changed by `Method.revise` alone
    rate: State  # multiple of the learning rate, 0 where a leaf is filling, and
    begins: State  # the step at which a leaf begins to train (`train/optimizer.py`)
    moments: Any  # what the optimizer remembers
    hyper: Hyper
    step: Any  # int32, optimizer steps taken
    loss: Any  # float32, sum of the losses since the epoch began
    failed: Any  # bool: a loss or gradient was not finite


class Batch(NamedTuple):
    """Items for one learner."""

    inputs: Inputs
    labels: Any
    weight: Any  # [items] 1 for an item, 0 for filling
    live: Any  # bool: whether the learner takes a step
    draws: Draws | None = None  # None: nothing is augmented


def start(stacked: Stacked, rates: tuple[State, State], hyper: Hyper, optimizer: str) -> Learner:
    """A learner before its first step, as NumPy arrays."""
    moments = jax.tree.map(np.asarray, optimizer_named(optimizer).init(stacked.trainable))
    return Learner(stacked.trainable, stacked.fixed, *rates, moments, hyper, np.int32(0), np.float32(0), np.bool_(False))


def hyper(recipe: Recipe, total: int, classes: int) -> Hyper:
    """Strongly typed hyperparameters (a Python scalar would be weakly typed and compile again) of a run of `total` steps."""
    return Hyper(
        np.float32(recipe.lr),
        np.float32(recipe.weight_decay),
        np.float32(np.inf if recipe.clip is None else recipe.clip),
        np.float32(round(recipe.warmup * total)),
        np.float32(total),
        np.int32(SCHEDULES.index(recipe.schedule)),
        np.float32(recipe.beta),
        np.int32(classes),
        np.uint32(recipe.seed),
    )


def learning_rate(h: Hyper, step: jax.Array) -> jax.Array:
    """Linear warm-up, then linear or cosine decay to zero, or none."""
    now = step.astype(jnp.float32)
    rise = jnp.minimum(1.0, (now + 1.0) / jnp.maximum(h.warmup, 1.0))
    done = jnp.clip((now - h.warmup) / jnp.maximum(h.total - h.warmup, 1.0), 0.0, 1.0)
    fall = jnp.stack([1.0 - done, 0.5 * (1.0 + jnp.cos(jnp.pi * done)), jnp.ones_like(done)])[h.schedule]
    return h.lr * rise * fall


@dataclass(frozen=True, eq=False)
class Programs:
    """The compiled functions of a run: one backbone, one task, `slots` slots."""

    backbone: Backbone
    task: Task
    slots: int
    dropout: bool = False  # whether any adapter has some: without, no random bits are drawn
    optimizer: str = "adamw"
    preconditioned: bool = False
    augment: Augment | None = None
    devices: int = 1  # the slots are spread over so many; a multiple of them
    fsdp: bool = False  # whether each of these has a part of the frozen weights, and not all

    @classmethod
    def of(cls, backbone: Backbone, task: Task, *settings: Any) -> Programs:
        """The same object for the same arguments, so that a second run in a process compiles nothing anew."""
        key = (cls, task.name, *settings)
        return backbone.programs.setdefault(key, cls(backbone, task, *settings))

    def loss(self, trainable: State, params: Any, layers: Any, learner: Learner, batch: Batch) -> jax.Array:
        """Mean loss of a batch under one adapter."""
        key = None
        if self.dropout:
            # threefry and not the faster rbg: under vmap rbg draws every slot's bits from the first slot's key
            key = jax.random.fold_in(jax.random.key(learner.hyper.seed, impl="threefry2x32"), learner.step.astype(jnp.uint32))
        state, inputs, labels, mixture = join(trainable, learner.fixed), batch.inputs, batch.labels, None
        if self.augment is not None:
            assert batch.draws is not None
            processor, seed = self.backbone.processor, learner.hyper.seed
            masks = labels if self.task.output.moves else None
            varied = augmented_inputs(processor, self.augment, inputs, batch.weight, batch.draws, seed, masks)
            inputs, mixture = varied.inputs, varied.mixture
            labels = labels if varied.masks is None else varied.masks
        outputs = self.task.output.compute(self.backbone, params, state, inputs, labels, key=key, layers=layers)
        loss = mean_loss(self.task, outputs, labels, learner.hyper, batch.weight, mixture)
        return objective(loss, trainable, learner.fixed)

    def gradient_one(self, params: Any, layers: Any, learner: Learner, batch: Batch) -> tuple[jax.Array, State]:
        """Loss and gradient of one adapter."""
        return jax.value_and_grad(self.loss)(learner.trainable, params, layers, learner, batch)

    def update_one(self, learner: Learner, loss: jax.Array, grads: State, live: jax.Array) -> Learner:
        """One step of one adapter; with "adamw" that of Loshchilov & Hutter, arXiv:1711.05101."""
        grads = jax.tree.map(lambda g, rate: jnp.where(rate > 0, g, 0.0), grads, learner.rate)
        grads, once = tied(grads, learner.rate, self.backbone.structure)
        norm = optax.tree.norm(once)
        grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, learner.hyper.clip / jnp.maximum(norm, 1e-12)), grads)
        if self.preconditioned:
            grads = precondition(learner.trainable, grads, self.backbone.structure)
        with jax.numpy_dtype_promotion("standard"):  # optax counts on it, whatever the caller has set
            updates, moments = optimizer_named(self.optimizer).update(grads, learner.moments, learner.trainable)
        lr = learning_rate(learner.hyper, learner.step)

        def moved(p: jax.Array, u: jax.Array, rate: jax.Array, begins: jax.Array) -> jax.Array:
            trains = (rate > 0) & (learner.step >= begins)
            return p + lr * rate * jnp.where(trains, u - learner.hyper.weight_decay * p, 0.0)

        trainable = jax.tree.map(moved, learner.trainable, updates, learner.rate, learner.begins)
        trainable, fixed = revised(trainable, learner.fixed, grads, learner.step)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        after = learner._replace(
            trainable=trainable, fixed=fixed, moments=moments, step=learner.step + 1, loss=learner.loss + loss
        )
        takes = live & finite & ~learner.failed
        kept = jax.tree.map(lambda new, old: jnp.where(takes, new, old), after, learner)
        return kept._replace(failed=learner.failed | (live & ~finite))

    @cached_property
    def gradient(self) -> Any:
        """`gradient(params, layers, pack, batches) -> losses, grads`, compiled per batch shape."""

        def of_all(params: Any, layers: Any, pack: Learner, batches: Batch) -> tuple[jax.Array, State]:
            at_once = self.at_once(batches.inputs)
            return self.over_slots(self.gradient_one, shared=2, at_once=at_once)(params, layers, pack, batches)

        return jax.jit(self.spread.each(of_all, shared=2))

    @cached_property
    def update(self) -> Any:
        """`update(pack, losses, grads, live) -> pack`, compiled once; donates the pack."""
        return jax.jit(self.spread.each(self.over_slots(self.update_one)), donate_argnums=0, out_shardings=self.spread.kept)

    def step(self, params: Any, layers: Any, pack: Learner, batches: Batch) -> Learner:
        """The pack after one step; donates it. Two programs, because the second need not be compiled anew for every shape."""
        return self.update(pack, *self.gradient(params, layers, pack, batches), batches.live)

    def at_once(self, inputs: Inputs) -> int:
        """Of how many slots the gradients are computed at once, whose inputs these are, with a leading slot axis.

        An accelerator is busy with `_BUSY` positions: more of them at once take no less time for each, and memory. On a CPU it
        is one slot where a backbone turns feature maps into feature maps: its caches hold the maps of one slot, not those of
        a pack, and a frozen kernel has enough to multiply in each slot already. `benchmarks/speed/convolution_packs.py` has
        the times. For a Transformer all at once is the faster on a CPU.
        """
        if platform() != "cpu":
            of_one = jax.eval_shape(lambda tree: jax.tree.map(lambda leaf: leaf[0], tree), inputs)
            return min(self.spread.here, max(1, _BUSY // positions_of(of_one)))
        kinds = {site.kind for site in self.backbone.sites}
        return 1 if "conv" in kinds and "attention" not in kinds else self.spread.here

    def over_slots(self, one: Callable, shared: int = 0, at_once: int | None = None) -> Callable:
        """`one` for every slot of a pack, so many `at_once` (None: all); its first `shared` arguments are the same for all."""
        if at_once is not None and at_once < self.spread.here:
            several = None if at_once == 1 else at_once
            return lambda *args: jax.lax.map(lambda own: one(*args[:shared], *own), args[shared:], batch_size=several)
        if self.spread.here > 1:
            return lambda *args: jax.vmap(one, in_axes=tuple(None if i < shared else 0 for i in range(len(args))))(*args)

        # A vmap over one slot would turn every product into a batched one, for nothing.
        def single(*args: Any) -> Any:
            own = jax.tree.map(lambda leaf: leaf[0], args[shared:])
            return jax.tree.map(lambda leaf: leaf[None], one(*args[:shared], *own))

        return single

    @cached_property
    def spread(self) -> Spread:
        """Of the slots over the devices."""
        return Spread(self.slots, self.devices, self.backbone.everywhere)

    @property
    def frozen_weights(self) -> tuple[Any, Any]:
        """The backbone's parameters and what `Backbone.unrolled` has of them, where the slots are (`frozen_weights.py`)."""
        if self.spread.alone:
            return self.backbone.params, self.backbone.unrolled
        key = "frozen weights on devices", self.devices, self.fsdp
        if key not in self.backbone.programs:  # once for all packs
            put = shared_by_all if self.fsdp else whole_on_each
            self.backbone.programs[key] = put(self.backbone, self.spread)
        return self.backbone.programs[key]

    def asked(self, *args: Any) -> tuple[Any, ...]:
        """The arguments of a program that all processes run alike: parameters, and `args` beside them.

        Where devices share the weights all of them have to compute it; else one of each process does.
        """
        if not self.fsdp:
            return self.backbone.params, *args
        return self.frozen_weights[0], *self.spread.everywhere(args)

    def _alike(self, function: Callable) -> Callable:
        return self.spread.alike(function) if self.fsdp else function

    @cached_property
    def predict(self) -> Callable[[Any, Learner, Any, Inputs, Any], jax.Array]:
        """`predict(params, pack, slot, inputs, labels) -> outputs` (`Output.compute`) of one slot, compiled per shape."""

        def outputs(params: Any, pack: Learner, slot: jax.Array, inputs: Inputs, labels: jax.Array) -> jax.Array:
            trainable, fixed = jax.tree.map(lambda leaf: leaf[slot], (pack.trainable, pack.fixed))
            state = join(settled(trainable, fixed), fixed)
            return self.task.output.compute(self.backbone, params, state, inputs, labels)

        return jax.jit(self._alike(outputs), out_shardings=self.spread.kept)

    @cached_property
    def measured(self) -> Callable[[Learner, Any, Any, Any, Any], jax.Array]:
        """`measured(pack, slot, outputs, labels, weight) -> loss`, the mean of a batch that `predict` has answered."""

        def mean(pack: Learner, slot: jax.Array, outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
            return self.task.loss(outputs, labels, jax.tree.map(lambda leaf: leaf[slot], pack.hyper), weight)

        return jax.jit(mean, out_shardings=self.spread.kept)

    @cached_property
    def frozen(self) -> Callable[..., jax.Array]:
        """`frozen(params, inputs, cut=) -> hidden`, what enters the first adapted layer (`Backbone.frozen`)."""
        frozen = partial(self.backbone.frozen, pooled=not self.task.output.by_position)
        return jax.jit(self._alike(frozen), static_argnames="cut", out_shardings=self.spread.kept)

    @cached_property
    def put(self) -> Callable[[Any, Any, Any], Any]:
        """`put(pack, slot, one) -> pack` with one slot's leaves replaced; donates the pack."""
        return jax.jit(self.spread.with_slot, donate_argnums=0, out_shardings=self.spread.kept)
