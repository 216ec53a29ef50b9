"""Optimizers by optax's names, and how fast each leaf of an adapter learns.

The learning rate, its schedule and weight decay are data of each adapter (`train/step.py`), so an optimizer is asked for its
update at rate 1 and without decay; one whose update is not proportional to its rate cannot be used so, and is refused.

Every leaf has a *rate*, a multiple of the adapter's learning rate, and a step at which it *begins* to train:

- LoRA+ (Hayou et al., 2024, arXiv:2402.12354): B learns `lora_plus` times faster than A.
- Discriminative rates (Howard & Ruder, 2018, arXiv:1801.06146): a layer d below the head learns `layer_decay`^d times as fast.
- Gradual unfreezing (ibid.): a layer d below the head begins after d `unfreeze` epochs. Its moments are kept from the start,
  so that Adam's bias correction, which counts all steps, is right when it begins.

L2-SP (Li et al., 2018, arXiv:1802.01483) is weight decay of the method `full`, which trains the change of the weights.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

from ..adapters.adapter import Stacked
from ..adapters.graft import State
from ..adapters.methods.method_registry import method_of
from ..adapters.sites import Site
from ..adapters.structure import Structure
from ..errors import GraftaxError

if TYPE_CHECKING:
    from .recipe import Recipe


_NEVER = np.iinfo(np.int32).max  # a step that no run takes


@functools.cache
def optimizer_named(name: str) -> optax.GradientTransformation:
    """optax's optimizer of that name, at learning rate 1 and without weight decay."""
    make: Any = getattr(optax, name, None) if name.isidentifier() and not name.startswith("_") else None
    try:
        taken = inspect.signature(make).parameters
        optimizer = make(learning_rate=1.0, **({"weight_decay": 0.0} if "weight_decay" in taken else {}))
        one = jax.ShapeDtypeStruct((2, 2), np.float32)
        with jax.numpy_dtype_promotion("standard"):  # optax counts on it, whatever the caller has set
            jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), one)
    except Exception as error:  # whatever it is, optax has no optimizer of this name that takes a gradient and nothing else
        raise GraftaxError(
            f"optimizer {name!r}: optax has none of that name that needs the gradient alone; there are adamw, lion, sgd, ..."
        ) from error
    return optimizer


def rates(recipe: Recipe, stacked: Stacked, sites: Sequence[Site], epoch: int) -> tuple[State, State]:
    """The rate and the first step of every leaf, in arrays like the mask of `stacked`. The rate of filling is 0.

    `epoch`: how many steps an epoch has.
    """
    rate: State = {}
    begins: State = {}
    structure = Structure.of(sites)
    for name, keys in stacked.mask.items():
        rate[name], begins[name] = {}, {}
        for key, masks in keys.items():
            shared = method_of(key).shared  # what belongs to all layers is as fast as the head, and trains from the start
            below = {leaf: np.zeros_like(m) if leaf in shared else _below(structure, name, m) for leaf, m in masks.items()}
            rate[name][key] = {leaf: mask * _speed(recipe, key, leaf, below[leaf]) for leaf, mask in masks.items()}
            begins[name][key] = {leaf: _first_step(recipe, epoch, depth) for leaf, depth in below.items()}
    return rate, begins


def _below(structure: Structure, name: str, mask: Any) -> np.ndarray:
    """How many layers below the head a leaf is: one number, or one for each layer that has a site of that name."""
    site = structure.named[name]
    if site.stack:
        later = structure.layers_behind(site.stack)
        return np.arange(later + len(mask), later, -1, dtype=np.float32).reshape(mask.shape)
    return np.full_like(mask, structure.layers_behind(site.above) if site.above else 1 + structure.layers)


def _speed(recipe: Recipe, key: str, leaf: str, below: np.ndarray) -> np.ndarray:
    """The rate of a leaf of the method with a key, so many layers below the head."""
    ratio = recipe.lora_plus if leaf in method_of(key).fast else 1.0
    return np.asarray(recipe.layer_decay**below * ratio, np.float32)


def _first_step(recipe: Recipe, epoch: int, below: np.ndarray) -> np.ndarray:
    """The step at which a leaf so many layers below the head begins to train."""
    return np.minimum(np.ceil(recipe.unfreeze * epoch * below.astype(np.float64)), _NEVER).astype(np.int32)


def check_rates(recipe: Recipe, sites: Sequence[Site]) -> None:
    """An error where the fastest leaf's learning rate would be no finite 32-bit float."""
    layers = 1 + Structure.of(sites).layers
    with np.errstate(over="ignore"):
        fastest = np.float32(recipe.lr * recipe.lora_plus * np.float64(recipe.layer_decay) ** layers)
    if not np.isfinite(fastest):
        raise GraftaxError(
            f"lr {recipe.lr:g}, lora_plus {recipe.lora_plus:g} and layer_decay {recipe.layer_decay:g} over {layers} layers "
            "multiply to no finite learning rate."
        )


def precondition(trainable: State, grads: State, structure: Structure) -> State:
    """The gradients as each method preconditions its own (`Method.precondition`), layer by layer."""

    def at(name: str, key: str) -> Any:
        if not trainable[name][key]:
            return {}
        method = method_of(key)
        each = jax.vmap(method.precondition) if structure.stacked(name) else method.precondition
        return each(trainable[name][key], grads[name][key])

    return {name: {key: at(name, key) for key in keys} for name, keys in trainable.items()}
