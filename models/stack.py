"""How a backbone's layers are run: in stacks, cut where the adapters begin.

A stack is layers of one kind, run one after another. It is one `nnx.Module` whose parameters carry a leading layer axis: a
kernel of twelve layers of width 32 is `[12, 32, 32]`, and a layer is that module with the parameters at one index.

An *application* is one run of a layer. Most backbones apply layer i once, as application i. ALBERT applies a layer many times:
`layer_of` (0, 0, 0, 1, 1, 1) is two layers and six applications.

Which applications carry an adapter's state, and which tokens are read of the last, is known when a program is compiled, so that
nothing is computed in vain. With adapters in the last four of twelve layers, and heads that read the pooled position alone,

    0 to 7      run without adapters, and are never differentiated
    8 to 10     run with what adapters change there
    11          likewise, and computes the pooled position alone

Applications with adapters are run in one of two ways. In a *loop* (`jax.lax.scan`) each takes its layer's weights from the
stack. *Unrolled* they are compiled one after another, with the weights and the state of each as arguments of their own;
training does that where layers are few (`Encoder.__call__` says why).

`remat` says what of an application in the loop is kept for its gradient, and so what is computed a second time: "none" keeps
all that the gradient reads, "products" the results of matrix products, "layers" what enters each layer alone. Unrolled it is
"none": XLA on a CPU would compute everything again at once, before it is needed. Weights of which each device holds a part
(`sharded.py`) are gathered a second time in any case.
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
from .sharded import is_split, keep_but_gathered, whole

_POLICIES: dict[str, Any] = {"products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "layers": None}
REMAT = ("none", *_POLICIES)


class Stack(nnx.Module):
    """Layers of one kind, run one after another.

    A layer is a function `layer(h, view, calls, pooled)`: what enters it, what it sees beside that (masks, positions), what
    adapters do at its sites, and whether the pooled position alone is wanted.
    """

    layers: Any  # that function as a module, with the parameters of all layers
    name: str = "layers"  # where the backbone's module has it, "layers" or "encoder.layers"; the names of its sites begin so
    remat: str = "none"

    def __init__(self, name: str, layers: nnx.Module, count: int):
        self.name, self.layers, self.count = name, layers, count

    @property
    def layer_of(self) -> tuple[int, ...]:
        """Which layer's weights each application uses."""
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
        """What leaves the application before `end` (None: the last), from `h`, which enters application `begin`.

        Args:
            view: `view.of_application(i)` is what application i sees.
            pooled: compute the pooled position alone in the last application.
            intermediates: return `h` and what leaves each application too, along a leading axis.
            layers: the weights of each layer, to run the applications with adapters unrolled.
        """
        layer_of = self.layer_of[:end]
        adapted = grafts.adapted(self.name)  # that many of the last layers carry state
        first = len(layer_of) - adapted
        if self.shared:  # shared layers are applied all along
            first = 0 if adapted else len(layer_of)
        last = len(layer_of) - 1 if pooled else len(layer_of)
        run = _Pass(self, view, grafts, layer_of, first, layers, [] if layers is None else grafts.unstacked(self.name))
        hidden_states = [h[None]] if intermediates else None
        h = run.scanned(run.bare, h, begin, min(first, last), hidden_states)
        if layers is None:
            h = run.scanned(run.looped, h, first, last, hidden_states)
        else:
            for application in range(first, last):
                h = run.unrolled(h, layer_of[application], application)
                if hidden_states is not None:
                    hidden_states.append(h[None])
        if pooled and begin <= last:
            apply = run.bare if first > last else run.looped if layers is None else run.unrolled
            h = apply(h, layer_of[-1], last, pooled=True)
        return h, (jnp.concatenate(hidden_states) if hidden_states is not None else None)


class SequenceStack(Stack):
    """A network of one stack, or a tower of an encoder-decoder: with what makes the stack's input of tokens or patches."""

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
        """What enters the first layer, and the layers' view."""

    @abstractmethod
    def seen(self, inputs: Inputs, calls: SiteCalls) -> Any:
        """The layers' view alone, where no method puts anything in front of the tokens."""

    def through(
        self, inputs: Inputs, grafts: Grafts, calls: SiteCalls, pooled: bool, intermediates: bool, layers: Unrolled | None
    ) -> tuple[jax.Array, jax.Array | None, Any]:
        """What leaves the last layer, of `inputs` or of `inputs.hidden`; hidden states, with `intermediates`; and the view."""
        begin = 0
        if inputs.hidden is None:
            h, view = self.embed(inputs, calls)
        else:
            h, view, begin = inputs.hidden, self.seen(inputs, calls), self._application(grafts.cut)
        own = None if layers is None else layers[self.name]
        h, hidden_states = self.run_layers(h, view, grafts, begin=begin, pooled=pooled, intermediates=intermediates, layers=own)
        return h, hidden_states, view

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
    """The view of layers that see what enters them and nothing else."""

    def of_application(self, application: Any) -> None:
        return None


class Chain(Network):
    """Stacks one behind another, with what lies below and between them."""

    keeps_frozen = True

    @abstractmethod
    def enter(self, stack: int, h: Any, calls: SiteCalls) -> jax.Array:
        """What enters a stack, whose number this is: the first from the inputs, others from what leaves the stack before."""

    def seen(self) -> Any:
        """What the layers see beside what enters them."""
        return Seen()

    def through(
        self, inputs: Inputs, grafts: Grafts, layers: Unrolled | None, kept: Sequence[str] = ()
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """What leaves the last stack, and what leaves those that are to be `kept`, which are in their order.

        From the inputs, or from what is known to enter the layer at the adapter's cut; then nothing is known of stacks before.
        """
        calls, cut = grafts.outside(), None if inputs.hidden is None else grafts.cut
        h: Any = inputs if cut is None else inputs.hidden
        found = []
        for index, stack in enumerate(self.stacks):
            if cut is not None and cut.stack != stack.name:  # what leaves this stack is known, too
                continue
            begin = cut.layer if cut is not None else 0
            h = self.enter(index, h, calls) if cut is None else h
            own = None if layers is None else layers[stack.name]
            h, cut = stack.run_layers(h, self.seen(), grafts, begin=begin, layers=own)[0], None
            if stack.name in kept:
                found.append(h)
        return h, tuple(found)

    def frozen(self, inputs: Inputs, cut: Cut, *, pooled: bool) -> jax.Array:
        h: Any = inputs
        for index, stack in enumerate(self.stacks):
            h = self.enter(index, h, Grafts.bare())
            if stack.name == cut.stack:
                return stack.run_layers(h, self.seen(), Grafts({}), end=cut.layer)[0]
            h = stack.run_layers(h, self.seen(), Grafts({}))[0]
        return h


@dataclass(frozen=True)
class _Pass:
    """One pass through a stack.

    An application is made by `bare`, `looped` or `unrolled`. They are called alike: with what enters it, the index of the layer
    whose weights it uses, its own number, and whether the pooled position alone is wanted.
    """

    stack: Stack
    view: Any
    grafts: Grafts
    layer_of: Sequence[int]  # which layer's weights each application uses
    first: int  # the first application that carries an adapter's state
    layers: Sequence[Any] | None  # the weights of each layer, where applications are unrolled
    states: Sequence[State]  # likewise the state of each adapted layer

    def bare(self, h: jax.Array, index: Any, application: Any, pooled: bool = False) -> jax.Array:
        """An application without adapters."""
        return self._stacked(index, h)(h, self.view.of_application(application), self.grafts.bare(), pooled)

    def looped(self, h: jax.Array, index: Any, application: Any, pooled: bool = False) -> jax.Array:
        """An application with adapters, whose weights are taken from the stack."""
        apply, remat = partial(self._adapted, index, application, pooled), self.stack.remat
        return (apply if remat == "none" else jax.checkpoint(apply, policy=_POLICIES[remat]))(h)

    def unrolled(self, h: jax.Array, index: int, application: int, pooled: bool = False) -> jax.Array:
        """An application with adapters, whose weights and state are arguments of their own."""
        assert self.layers is not None
        weights, state = self.layers[index], self.states[self._adapted_index(index, application)]

        def apply(h: jax.Array) -> jax.Array:
            layer = nnx.merge(nnx.graphdef(self.stack.layers), whole(weights, h))
            return layer(h, self.view.of_application(application), self.grafts.calls(state, application), pooled)

        return (jax.checkpoint(apply, policy=keep_but_gathered) if is_split(weights) else apply)(h)

    def scanned(self, apply: Callable, h: jax.Array, begin: int, end: int, hidden_states: list[jax.Array] | None) -> jax.Array:
        """What leaves the application before `end`, from `h`, which enters application `begin`; `apply` is `bare` or `looped`.

        What leaves each is added to `hidden_states`. Where the weights are held layer by layer there is no array to loop over,
        and the applications are compiled one after another.
        """
        if begin >= end:
            return h
        only_one = len(self.stack.layer_of) == 1  # it may make something of another shape, which no loop can
        if only_one or held_by_layer(self.stack.layers):
            for application in range(begin, end):
                h = apply(h, self.layer_of[application], application)
                if hidden_states is not None:
                    hidden_states.append(h[None])
            return h

        def step(h: jax.Array, indices: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array | None]:
            h = apply(h, *indices)
            return h, (None if hidden_states is None else h)

        steps = jnp.asarray(self.layer_of[begin:end], jnp.int32), jnp.arange(begin, end, dtype=jnp.int32)
        h, made = jax.lax.scan(step, h, steps)
        if hidden_states is not None and made is not None:
            hidden_states.append(made)
        return h

    def _adapted(self, index: Any, application: Any, pooled: bool, h: jax.Array) -> jax.Array:
        state = self.grafts.layer(self.stack.name, self._adapted_index(index, application))
        layer = self._stacked(index, h)
        return layer(h, self.view.of_application(application), self.grafts.calls(state, application), pooled)

    def _stacked(self, index: Any, h: jax.Array) -> Any:
        """The layer that h enters, with its weights taken from the stack, and whole."""
        return whole(layer_of(self.stack.layers, index), h)

    def _adapted_index(self, index: Any, application: Any) -> Any:
        """Which of the adapted layers' states an application uses."""
        return index if self.stack.shared else application - self.first
