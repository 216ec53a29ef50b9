"""How a backbone's layers are run: in stacks, cut where the adapters begin.

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
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from ..adapters.graft import Grafts, SiteCalls, State
from ..adapters.structure import Cut
from .by_layer import held_by_layer, layer_of
from .inputs import Inputs
from .network import Network, Unrolled

_POLICIES: dict[str, Any] = {"products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "layers": None}
REMAT = ("none", *_POLICIES)


class Stack(nnx.Module):
    """Layers of one kind, run one after another.

    `layers` is called as `layers(h, view, calls, pooled)` with the parameters of one layer; here it holds those of all. `name`
    is where the backbone's module has it, "layers" or "encoder.layers", and what the names of its sites begin with.
    """

    layers: Any
    name: str = "layers"
    remat: str = "none"

    def __init__(self, name: str, layers: nnx.Module, count: int):
        self.name, self.layers, self.count = name, layers, count

    @property
    def layer_of(self) -> tuple[int, ...]:
        """Which stacked weights each application of a layer uses."""
        return tuple(range(self.count))

    @property
    def shared(self) -> bool:
        """Whether layers are applied several times."""
        return False

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

        `view.of_application(application)` is what an application of a layer sees.
        """
        layer_of = self.layer_of[:end]
        adapted = grafts.adapted(self.name)  # layers that carry adapter state, counted from the output
        first = len(layer_of) - adapted
        if self.shared:  # shared layers are applied all along
            first = 0 if adapted else len(layer_of)
        last = len(layer_of) - 1 if pooled else len(layer_of)
        run = _Pass(self, view, grafts, layer_of, first, layers, [] if layers is None else grafts.unstacked(self.name))
        states = [h[None]] if intermediates else None
        h = run.scanned(run.bare, h, begin, min(first, last), states)
        if layers is None:
            h = run.scanned(run.looped, h, first, last, states)
        else:
            for application in range(first, last):
                h = run.unrolled(h, layer_of[application], application)
        if pooled and begin <= last:
            apply = run.bare if first > last else run.looped if layers is None else run.unrolled
            h = apply(h, layer_of[-1], last, pooled=True)
        return h, (jnp.concatenate(states) if states is not None else None)


class TextStack(Stack):
    """A network of one stack, or a tower of an encoder-decoder: with what makes the stack's input of token ids."""

    keeps_frozen: ClassVar[bool] = True

    config: Any

    @property
    def stacks(self) -> tuple[Stack, ...]:
        return (self,)

    @property
    def layer_of(self) -> tuple[int, ...]:
        """As the config says."""
        return self.config.layer_of

    @abstractmethod
    def embed(self, inputs: Inputs, calls: SiteCalls) -> tuple[jax.Array, Any]:
        """What enters the first layer, and the view of the layers."""

    @abstractmethod
    def seen(self, inputs: Inputs, calls: SiteCalls) -> Any:
        """The view of the layers where nothing is put in front of the text."""

    def through(
        self, inputs: Inputs, grafts: Grafts, calls: SiteCalls, pooled: bool, intermediates: bool, layers: Unrolled | None
    ) -> tuple[jax.Array, jax.Array | None, Any]:
        """What leaves the last layer, every layer's output with `intermediates`, and the view; from token ids or `hidden`."""
        begin = 0
        if inputs.hidden is None:
            h, view = self.embed(inputs, calls)
        else:
            h, view, begin = inputs.hidden, self.seen(inputs, calls), self._application(grafts.cut)
        alone = None if layers is None else layers[self.name]
        h, states = self.run_layers(h, view, grafts, begin=begin, pooled=pooled, intermediates=intermediates, layers=alone)
        return h, states, view

    def frozen(self, inputs: Inputs, cut: Cut, *, pooled: bool) -> jax.Array:
        """What enters the layer at a cut, `[rows, tokens, hidden]`.

        Where all layers are frozen and with `pooled`, what leaves the last at the pooled positions, `[texts, 1, hidden]`.
        """
        h, view = self.embed(inputs, Grafts.bare())
        end = self._application(cut)
        if end == len(self.layer_of):
            return self.run_layers(h, view, Grafts({}), pooled=pooled)[0]
        return self.run_layers(h, view, Grafts({}), end=end)[0]

    def _application(self, cut: Cut) -> int:
        """How many applications of layers lie below a cut; of shared layers all or none."""
        if self.shared:
            return len(self.layer_of) if cut.layer else 0
        return cut.layer


class Seen:
    """What the layers see of a stack in which each sees what enters it and nothing else."""

    def of_application(self, application: Any) -> None:
        return None


class Chain(Network):
    """Stacks one behind another, with what lies below and between them."""

    keeps_frozen = True

    @abstractmethod
    def enter(self, stack: int, h: Any, calls: SiteCalls) -> jax.Array:
        """What enters a stack: the first from the inputs, another from what leaves the one before it."""

    def through(self, inputs: Inputs, grafts: Grafts, layers: Unrolled | None) -> jax.Array:
        """What leaves the last stack: from the inputs, or from what is known to enter the layer at the adapter's cut."""
        calls, cut = grafts.outside(), None if inputs.hidden is None else grafts.cut
        h: Any = inputs if cut is None else inputs.hidden
        for index, stack in enumerate(self.stacks):
            if cut is not None and cut.stack != stack.name:  # all of it is known
                continue
            begin = cut.layer if cut is not None else 0
            h = self.enter(index, h, calls) if cut is None else h
            alone = None if layers is None else layers[stack.name]
            h, cut = stack.run_layers(h, Seen(), grafts, begin=begin, layers=alone)[0], None
        return h

    def frozen(self, inputs: Inputs, cut: Cut, *, pooled: bool) -> jax.Array:
        h: Any = inputs
        for index, stack in enumerate(self.stacks):
            h = self.enter(index, h, Grafts.bare())
            if stack.name == cut.stack:
                return stack.run_layers(h, Seen(), Grafts({}), end=cut.layer)[0]
            h = stack.run_layers(h, Seen(), Grafts({}))[0]
        return h


@dataclass(frozen=True)
class _Pass:
    """One pass through a stack: how its layers are applied, each to what the one before has made."""

    stack: Stack
    view: Any
    grafts: Grafts
    layer_of: Sequence[int]  # which layer's weights an application uses
    first: int  # application that carries adapter state
    layers: Sequence[Any] | None  # weights of the layers as arguments of their own, where they are not taken from the stack
    parts: Sequence[State]  # likewise the state of the adapted layers

    def bare(self, h: jax.Array, index: Any, application: Any, pooled: bool = False) -> jax.Array:
        """A layer without adapters."""
        return self._stacked(index)(h, self.view.of_application(application), self.grafts.bare(), pooled)

    def looped(self, h: jax.Array, index: Any, application: Any, pooled: bool = False) -> jax.Array:
        """A layer with adapters, of the stack."""
        apply, remat = partial(self._adapted, index, application, pooled), self.stack.remat
        return (apply if remat == "none" else jax.checkpoint(apply, policy=_POLICIES[remat]))(h)

    def unrolled(self, h: jax.Array, index: int, application: int, pooled: bool = False) -> jax.Array:
        """A layer with adapters, with weights and state of its own."""
        assert self.layers is not None
        layer = nnx.merge(nnx.graphdef(self.stack.layers), self.layers[index])
        state = self.parts[self._adapted_index(index, application)]
        return layer(h, self.view.of_application(application), self.grafts.calls(state, application), pooled)

    def scanned(self, apply: Callable, h: jax.Array, begin: int, end: int, states: list[jax.Array] | None) -> jax.Array:
        """Applications from `begin` to the one before `end`, in a loop; adds what each makes to `states`.

        Where the weights are held layer by layer there is no array to loop over, and they are compiled one after another.
        """
        if begin >= end:
            return h
        alone = len(self.stack.layer_of) == 1  # a layer that may make something of another shape, which no loop can
        if alone or held_by_layer(self.stack.layers):
            for application in range(begin, end):
                h = apply(h, self.layer_of[application], application)
                if states is not None:
                    states.append(h[None])
            return h

        def step(h: jax.Array, indices: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array | None]:
            h = apply(h, *indices)
            return h, (None if states is None else h)

        steps = jnp.asarray(self.layer_of[begin:end], jnp.int32), jnp.arange(begin, end, dtype=jnp.int32)
        h, made = jax.lax.scan(step, h, steps)
        if states is not None and made is not None:
            states.append(made)
        return h

    def _adapted(self, index: Any, application: Any, pooled: bool, h: jax.Array) -> jax.Array:
        state = self.grafts.layer(self.stack.name, self._adapted_index(index, application))
        return self._stacked(index)(h, self.view.of_application(application), self.grafts.calls(state, application), pooled)

    def _stacked(self, index: Any) -> Any:
        """A layer of the stack."""
        return layer_of(self.stack.layers, index)

    def _adapted_index(self, index: Any, application: Any) -> Any:
        """Which of the adapted layers an application is, counted from the first that carries state."""
        return index if self.stack.shared else application - self.first
