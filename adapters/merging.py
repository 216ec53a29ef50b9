"""Folding an adapter into the weights it acts on, in float32.

    W' = merge(W, state)        LoRA: W + s A^T B; IA3: W diag(l); BitFit: b + d; full: W + D

Merging is functional: it returns new arrays and leaves the backbone as it was, so there is nothing to undo and merging twice
is merging two adapters. The drift, how far the merged model's outputs are from the unmerged one's, is measured, not assumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import numpy as np

from ..errors import GraftaxError
from ..typed import Location, held
from .adapter import Adapter
from .files import adapter_for
from .fitting import is_finite
from .method import Method
from .methods.head import Head
from .sites import weights_of

if TYPE_CHECKING:
    from ..models.backbone import Backbone


@held
def merged_arrays(backbone: Backbone, adapter: Adapter | Location, *, any_backbone: bool = False) -> dict[str, np.ndarray]:
    """The backbone's arrays by weight name (`Backbone.arrays`), as float32, with the adapter folded in.

    Raises GraftaxError for a method that is no change of the weights (bottleneck adapters, prefixes), for one that changes what
    a language model reads of a table but not what it says with it, for a quantised backbone, for an adapter of another
    backbone (`any_backbone`: do not compare fingerprints), and where a merged weight would not be finite.
    """
    return _folded(backbone, adapter_for(backbone, adapter, any_backbone=any_backbone))


def _folded(backbone: Backbone, adapter: Adapter) -> dict[str, np.ndarray]:
    """As `merged_arrays`, of an adapter that was checked for the backbone."""
    if backbone.quantize:
        raise GraftaxError(
            f"{backbone.name} is held as {backbone.quantize}, rounded: load it without quantize to merge into it."
        )
    tied = backbone.config.tied and not any(isinstance(m, Head) for m in adapter.methods)
    arrays: Mapping[str, np.ndarray] = {name: np.array(a, np.float32) for name, a in backbone.arrays().items()}
    for method in adapter.methods:
        if _is_above(method):
            continue
        if not method.mergeable:
            raise GraftaxError(f"{method.name} cannot be merged into the weights: it is no change of them.")
        for site, (trainable, fixed) in adapter.states[method.key].items():
            words_alone = site.role == "word_embeddings" and (backbone.family.encodes or not method.projects)
            if site.tied or (tied and words_alone):
                raise GraftaxError(
                    f"{method.name} at {site.path} cannot be merged: the same table is used elsewhere, unchanged."
                )
            index = ... if site.layer is None else site.layer
            there = {leaf: f"{site.name}.{leaf}" for leaf in site.arrays if f"{site.name}.{leaf}" in arrays}
            frozen = weights_of(site.kind, {leaf: arrays[name][index] for leaf, name in there.items()}, site.geometry)
            merged = jax.tree.map(np.asarray, method.merge(frozen, {**trainable, **fixed}))
            lost = [leaf for leaf in site.arrays if leaf not in there and np.any(getattr(merged, leaf))]
            if lost:
                raise GraftaxError(f"{method.name} cannot be merged: it adds a {lost[0]} to {site.path}, which has none.")
            for leaf, name in there.items():
                if not is_finite(getattr(merged, leaf)):
                    raise GraftaxError(f"{method.name} at {site.path} cannot be merged: the {leaf} would not be finite.")
                arrays[name][index] = getattr(merged, leaf)
    return dict(arrays)


@held
def merge(backbone: Backbone, adapter: Adapter | Location, *, any_backbone: bool = False) -> tuple[Backbone, Adapter]:
    """A new backbone with the adapter folded in, and what is left of the adapter: its head, what joins a pair, or nothing.

    The adapter may be one in memory, its directory or its Hub id. Both arguments stay as they are; the new weights are float32.
    Raises GraftaxError as `merged_arrays` does.
    """
    adapter = adapter_for(backbone, adapter, any_backbone=any_backbone)
    arrays = _folded(backbone, adapter)
    whole = backbone.with_weights(arrays, f"{backbone.name} with an adapter")
    heads = tuple(m for m in adapter.methods if _is_above(m))
    states = {head.key: adapter.states[head.key] for head in heads}
    return whole, dataclasses.replace(adapter, methods=heads, states=states, fingerprint=whole.fingerprint)


def _is_above(method: Method) -> bool:
    """Whether it acts above all weights, as a head does."""
    return method.acts_on == Head.acts_on
