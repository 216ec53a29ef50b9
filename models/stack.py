"""How a backbone's layers are run: a stack of them, cut where the adapters begin.

Layers are `nnx.Module`s whose parameters carry a leading layer axis, run by `jax.lax.scan`. Three cuts, all static, keep work
from being done in vain:
- layers below the first adapted one run in a scan of their own that is never differentiated;
- when only one position of the output is read (`pooled=True`), the last layer computes only that position;
- ALBERT applies one set of weights many times: the scan runs over *applications*, each naming the layer whose weights it uses.

`remat` says what of an adapted layer is kept for its gradient, and so what is computed a second time: "none" keeps all that the
gradient reads, "products" the results of matrix products, "layers" what enters each layer alone. That is for the
scan: of layers compiled one after another, XLA on a CPU would compute everything again at once, before it is needed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ..adapters.graft import Grafts, SiteCalls
from .inputs import Inputs

_POLICIES: dict[str, Any] = {"products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "layers": None}
REMAT = ("none", *_POLICIES)


class Stack(nnx.Module):
    """A module with `layers` and a `config` that says which of them each application uses (`layer_of`)."""

    config: Any
    layers: Any  # called as layers(h, view, at, pooled); all layers' parameters stacked
    remat: str = "none"

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """What a backbone's module is made of: itself."""
        return (self,)

    @abstractmethod
    def embed(self, inputs: Inputs, at: SiteCalls) -> tuple[jax.Array, Any]:
        """What enters the first layer, and the view of the layers."""

    @abstractmethod
    def seen(self, inputs: Inputs, at: SiteCalls) -> Any:
        """The view of the layers where nothing is put in front of the text."""

    def through(
        self, inputs: Inputs, grafts: Grafts, at: SiteCalls, pooled: bool, intermediates: bool, layers: Sequence[Any] | None
    ) -> tuple[jax.Array, jax.Array | None, Any]:
        """What leaves the last layer, every layer's output with `intermediates`, and the view; from token ids or `hidden`."""
        begin = 0
        if inputs.hidden is None:
            h, view = self.embed(inputs, at)
        else:
            h, view, begin = inputs.hidden, self.seen(inputs, at), len(self.config.layer_of) - grafts.adapted
        h, states = self.run_layers(h, view, grafts, begin=begin, pooled=pooled, intermediates=intermediates, layers=layers)
        return h, states, view

    def frozen(self, inputs: Inputs, adapted: int, *, pooled: bool) -> jax.Array:
        """What enters the first of the last `adapted` layers where nothing acts below them, for `Inputs.hidden`.

        `[rows, tokens, hidden]`; with `adapted` 0 and `pooled` the pooled positions behind the last, `[texts, 1, hidden]`.
        """
        h, view = self.embed(inputs, Grafts.bare())
        if not adapted:
            return self.run_layers(h, view, Grafts({}), pooled=pooled)[0]
        return self.run_layers(h, view, Grafts({}), end=len(self.config.layer_of) - adapted)[0]

    def run_layers(
        self,
        h: jax.Array,
        view: Any,
        grafts: Grafts,
        *,
        begin: int = 0,
        end: int | None = None,
        pooled: bool = False,
        intermediates: bool = False,
        layers: Sequence[Any] | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """From what enters layer `begin` to what leaves the one before `end`; with `pooled` the last at that position alone.

        `view.at(application)` is what an application of a layer sees.
        """
        layer_of = self.config.layer_of[:end]
        shared = bool(self.config.groups)
        adapted = grafts.adapted  # layers that carry adapter state, counted from the output
        first = len(layer_of) - adapted if not shared else (0 if adapted else len(layer_of))
        last = len(layer_of) - 1 if pooled else len(layer_of)
        states = [h[None]] if intermediates else None
        parts = [] if layers is None else grafts.unstacked()

        def stacked(index: Any) -> Any:
            return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), self.layers)

        def slot(index: Any, application: Any) -> Any:
            return index if shared else application - first

        def bare(h: jax.Array, index: Any, application: Any, pooled: bool = False) -> jax.Array:
            return stacked(index)(h, view.at(application), grafts.bare(), pooled)

        def looped(h: jax.Array, index: Any, application: Any, pooled: bool = False) -> jax.Array:
            def layer(h: jax.Array) -> jax.Array:
                state = grafts.layer(slot(index, application))
                return stacked(index)(h, view.at(application), grafts.at(state, application), pooled)

            return (layer if self.remat == "none" else jax.checkpoint(layer, policy=_POLICIES[self.remat]))(h)

        def unrolled(h: jax.Array, index: int, application: int, pooled: bool = False) -> jax.Array:
            assert layers is not None
            layer, state = nnx.merge(nnx.graphdef(self.layers), layers[index]), parts[slot(index, application)]
            return layer(h, view.at(application), grafts.at(state, application), pooled)

        def scan(h: jax.Array, begin: int, end: int, apply: Callable) -> jax.Array:
            if begin >= end:
                return h

            def step(h: jax.Array, at: tuple) -> tuple[jax.Array, jax.Array | None]:
                h = apply(h, *at)
                return h, (h if intermediates else None)

            steps = jnp.asarray(layer_of[begin:end], jnp.int32), jnp.arange(begin, end, dtype=jnp.int32)
            h, ys = jax.lax.scan(step, h, steps)
            if states is not None and ys is not None:
                states.append(ys)
            return h

        h = scan(h, begin, min(first, last), bare)
        if layers is None:
            h = scan(h, first, last, looped)
        else:
            for application in range(first, last):
                h = unrolled(h, layer_of[application], application)
        if pooled and begin <= last:
            apply = bare if first > last else looped if layers is None else unrolled
            h = apply(h, layer_of[-1], last, pooled=True)
        return h, (jnp.concatenate(states) if states is not None else None)
