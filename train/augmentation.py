"""Items as they are trained on: augmented within the compiled step, each by a random key of its own.

The key of an item follows from the job's seed, the epoch and the item's number in the job's data, and from nothing else: an
item is augmented alike wherever it lies in its batch, in whichever slot of a pack, before an interruption or after it, and
otherwise in every epoch. What is done is its processor's (`Processor.augmented`). Where that makes one item of two, the loss is
that of both labels, by the shares that they have in it (Zhang et al., arXiv:1710.09412).

Nothing of this is in the program of a job without augmentation, and validation and answers have none.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..models.augment import Augment
from ..models.inputs import Inputs
from ..models.processor import Processor
from ..tasks.task import Settings, Task, mean_of

_STREAM = (1 << 32) - 1  # of the seed: steps, of which each has a stream for dropout, are never so many


class Draws(NamedTuple):
    """What the keys of a batch's items follow from, beside the seed."""

    epoch: Any  # uint32, epochs that are done
    items: Any  # uint32 [items], the number of each in the job's data


class Mixture(NamedTuple):
    """What items are made of that are made of two."""

    share: jax.Array  # [items] of itself
    partners: jax.Array  # [items] the other


class Varied(NamedTuple):
    """A batch as it is trained on."""

    inputs: Inputs
    mixture: Mixture | None  # None: each is made of itself alone
    masks: Any = None  # what is said of its pixels, where labels are masks or boxes


def augmented_inputs(
    processor: Processor,
    policy: Augment,
    inputs: Inputs,
    weight: jax.Array,
    draws: Draws,
    seed: jax.Array,
    masks: Any = None,
) -> Varied:
    """A batch's inputs, augmented.

    Partners are the first and the last, the second and the last but one, and so on: who is together in a batch is random.
    """
    stream = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), jnp.uint32(_STREAM))
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(stream, draws.epoch)))(draws.items)
    index, count = jnp.arange(len(weight)), jnp.sum(weight > 0)
    partners = jnp.where(index < count, count - 1 - index, index)
    changed = processor.augmented(policy, inputs, keys, partners, masks)
    return Varied(changed.inputs, Mixture(changed.share, partners) if policy.mixes else None, changed.masks)


def mean_loss(
    task: Task, outputs: jax.Array, labels: jax.Array, settings: Settings, weight: jax.Array, mixture: Mixture | None
) -> jax.Array:
    """The mean loss of a batch whose items may be made of two."""
    if mixture is None:
        return task.loss(outputs, labels, settings, weight)

    def of_one(output: jax.Array, label: jax.Array) -> jax.Array:
        return task.loss(output[None], label[None], settings, jnp.ones(1, jnp.float32))

    own, other = (jax.vmap(of_one)(outputs, of_each) for of_each in (labels, labels[mixture.partners]))
    return mean_of(mixture.share * own + (1.0 - mixture.share) * other, weight)
