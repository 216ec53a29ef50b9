"""Random adapters on backbones of pictures, and that they answer alike whichever way they are run."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np

from graftax import Adapter, merge
from graftax.adapters.adapter import Layout
from graftax.adapters.method import Method
from graftax.adapters.methods.head import POOLED
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs


def adapter_on(backbone: Backbone, method: Method | None, seed: int = 0) -> Adapter:
    """A random one, with a head."""
    methods = (backbone.head(3),) if method is None else (method, backbone.head(3))
    made = Adapter.create(methods, backbone.sites, seed, labels=("a", "b", "c"), fingerprint=backbone.fingerprint)
    random = np.random.default_rng(seed)
    for states in made.states.values():
        for trainable, _ in states.values():
            for name, leaf in trainable.items():
                trainable[name] = leaf + 0.1 * random.standard_normal(np.shape(leaf)).astype(np.float32)
    return made


@cache
def forward(backbone: Backbone) -> Any:
    return jax.jit(lambda *args, **options: backbone.forward(*args, **options).pooled)


def said(backbone: Backbone, state: Any, inputs: ImageInputs, **options: Any) -> np.ndarray:
    """The logits of a state's three labels."""
    return np.asarray(forward(backbone)(backbone.params, state, inputs, **options))[:, :3]


def banked(backbone: Backbone, states: list[Any]) -> Any:
    """Several states in one, a slot each: behind the layers' axis where there is one."""
    return {
        name: jax.tree.map(lambda *leaves, axis=int(backbone.structure.stacked(name)): np.stack(leaves, axis), *at)
        for name, at in ((name, [state[name] for state in states]) for name in states[0])
    }


def assert_it_answers_alike(backbone: Backbone, method: Method, inputs: ImageInputs) -> tuple[Adapter, np.ndarray]:
    """Merged as unmerged, unrolled as in loops, and in a batch with another; returns it, and what it says."""
    adapter, other = (adapter_on(backbone, method, seed) for seed in (0, 1))
    layout = Layout.of([adapter], backbone.sites, bucket=True)
    state, another = (layout.stack(one, backbone.sites).state for one in (adapter, other))
    found = said(backbone, state, inputs)
    assert np.abs(found - said(backbone, {POOLED: state[POOLED]}, inputs)).max() > 1e-3
    np.testing.assert_allclose(said(backbone, state, inputs, layers=backbone.layers), found, atol=1e-4)
    mixed = said(backbone, banked(backbone, [state, another]), inputs, slots=np.array([1, 0], np.int32))
    np.testing.assert_allclose(mixed, [said(backbone, another, inputs)[0], found[1]], atol=1e-4)
    if method.mergeable:
        whole, head = merge(backbone, adapter)
        np.testing.assert_allclose(said(whole, layout.stack(head, whole.sites).state, inputs), found, atol=1e-4)
    return adapter, found
