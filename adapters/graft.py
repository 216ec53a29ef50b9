"""How an adapter acts in a forward pass: the object a backbone asks at every site.

    state[site name][method key][leaf]      leaves of a site in a stack of layers have a leading layer axis

The state of a LoRA of rank 4 on the queries of two layers of width 32, with a linear head for three classes:

    {"layers.query": {"lora": {"a": [2, 4, 32], "b": [2, 4, 32], "scale": [2], "dropout": [2]}},
     "head.pooled": {"head:none": {"kernel": [3, 32], "bias": [3], "dropout": []}}}

The same code runs in three modes. *Plain*: one adapter for the whole batch. *Packed*: plain, under `vmap` over adapters.
*Mixed rows*: the leaves carry a slot axis after the layer axis, `slots [rows]` names the slot of every row, and each site
gathers its rows' leaves and calls the methods once per row under `vmap`. The gather is per sequence, never one-hot (a NaN in an
unused slot must not cross), and takes layer and slot at once (a slice of the layer would copy the whole bank). Frozen weights
stay outside that `vmap`, so their matrix product is one product for the whole batch. Where a row uses several adapters
(`Mix`), a method is called once for each, and what they make of the site is averaged; see `serve/composition.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ..shapes import AnyArray
from .method import Leaves, Method
from .methods.registry import method_of
from .sites import Entry, KeyValue, NextNorm, Place
from .structure import NO_SITES, Cut, Structure

State = dict[str, dict[str, Leaves]]


class Module(Protocol):
    """A frozen module at a site: its weights, and what it computes with them (or with merged ones)."""

    def weights(self) -> Any: ...

    def compute(self, weights: Any, x: jax.Array) -> jax.Array: ...


class Mix(NamedTuple):
    """The adapters of every row, where a row may use several: stages, each a weighted mean of terms."""

    slots: Any  # int32 [rows, stages, terms]
    weights: Any  # float32 [rows, stages, terms], or [rows, stages, terms, tokens] where they differ by token
    heads: Any  # int32 [rows]: the slot whose head answers


#: Kinds of site whose output is no sum: of an average, the first term alone acts there.
SINGLE = ("attention", "input")


@dataclass(frozen=True)
class SiteCalls:
    """What the adapters do at the sites of one layer (or outside the layers).

    `tower`: of an encoder-decoder the one that asks, by the names that its sites have within it.
    `mixed`: leaves have a leading rows axis; with `weights` (`Mix.weights`) axes of rows, stages and terms.
    `place`: where the tokens are that a layer is given, for methods that are `placed`; with `weights` by adapter too.
    """

    state: State
    tower: str = ""
    mixed: bool = False
    key: jax.Array | None = None
    weights: jax.Array | None = None
    place: Place | None = None

    def over(self, place: Place) -> SiteCalls:
        """The same for the tokens at these places, `[rows, tokens]` or as `text` gives them."""
        if self.weights is not None:
            lead = self.weights.shape[:3]
            spread = (array if array.ndim > 2 else array[:, None, None] for array in place)
            place = Place(*(jnp.broadcast_to(array, (*lead, array.shape[-1])) for array in spread))
        return replace(self, place=place)

    def held(self, name: str) -> dict[str, Leaves]:
        """What acts at a site, by method key."""
        return self.state.get(f"{self.tower}.{name}" if self.tower else name, {})

    def linear(self, name: str, x: jax.Array, module: Module) -> jax.Array:
        return self._site("linear", name, module.weights(), module.compute, x)

    def conv(self, name: str, x: jax.Array, module: Module) -> jax.Array:
        return self._site("conv", name, module.weights(), module.compute, x)

    def norm(self, name: str, x: jax.Array, module: Module) -> jax.Array:
        return self._site("norm", name, module.weights(), module.compute, x)

    def embedding(self, name: str, ids: jax.Array, module: Module) -> jax.Array:
        return self._site("embedding", name, module.weights(), module.compute, ids)

    def projects(self, name: str) -> bool:
        """Whether a method acts where the table of this `embedding` site projects to the vocabulary."""
        return any(method_of(key).projects for key in self.held(name))

    def projection(self, name: str, x: jax.Array, y: jax.Array, module: Module) -> jax.Array:
        """Logits that the table of an `embedding` site makes of hidden states x, where it projects to the vocabulary too."""
        return self._site("projection", name, module.weights(), _given, x, y) if self.projects(name) else y

    def branch(self, name: str, x: jax.Array, y: jax.Array, norm: Module | None = None) -> jax.Array:
        """`norm`: where one is behind the residual sum."""
        frozen = NextNorm(None, _given) if norm is None else NextNorm(norm.weights(), norm.compute)
        return self._site("branch", name, frozen, _given, x, y)

    def stream(self, name: str, h: jax.Array) -> jax.Array:
        return self._site("stream", name, None, _given, h)

    def attention(self, name: str, x: jax.Array, y: KeyValue) -> KeyValue:
        return self._site("attention", name, None, _given, x, y)

    def input(self, name: str, ids: jax.Array, y: Entry) -> Entry:
        return self._site("input", name, None, _given, ids, y)

    def text(self, name: str, ids: jax.Array, y: Place) -> Place:
        """With `weights` what each of a row's adapters makes of it: `[rows, stages, terms, tokens]`."""
        return self._site("text", name, None, _given, ids, y)

    def head(self, name: str, features: jax.Array) -> jax.Array | None:
        """Logits, or None where no adapter has a head of this name."""
        return self._site("head", name, None, _given, features, None) if self.held(name) else None

    def _site(self, kind: str, name: str, frozen: Any, compute: Callable, *args: Any) -> Any:
        """The site's output: what `compute(frozen, *args)` becomes through the methods held there."""
        states, site = self.held(name), _SiteCall(kind, name, frozen, compute, self.key)
        if not (states and self.mixed):
            return site.alone(states, self.place, *args)
        if self.weights is None or kind == "head":
            return jax.vmap(site.alone)(states, self.place, *args)
        if kind == "text":  # what one adapter makes of it is none of the others' business
            each = jax.vmap(jax.vmap(site.alone, (0, None, None, None)), (0, None, None, None))
            return jax.vmap(each)(states, self.place, *args)
        return jax.vmap(site.staged)(states, self.place, self.weights, *args)


@dataclass(frozen=True)
class _SiteCall:
    """One site in a forward pass: what `compute(frozen, *args)` becomes there, for the whole batch or for a row.

    A step of that is called with its `inner`, the site as it is without the step: the frozen module, or the stage before.
    """

    kind: str
    name: str
    frozen: Any
    compute: Callable
    key: jax.Array | None

    def alone(self, states: dict[str, Leaves], place: Place | None, *args: Any) -> Any:
        """With one adapter."""
        return self._changed(states, place, self.compute, self.frozen, *args)

    def staged(self, states: dict[str, Leaves], places: Place | None, shares: jax.Array, *args: Any) -> Any:
        """With the adapters of a `Mix`: leaves have axes of stages and terms, as `shares`."""
        site = self.compute
        for stage in range(len(shares)):
            terms, here = jax.tree.map(lambda leaf, at=stage: leaf[at], (states, places))
            if self.kind in SINGLE:
                first, place = jax.tree.map(lambda leaf: leaf[0], (terms, here))
                site = partial(self._changed, first, place, site)
            else:
                site = partial(self._averaged, terms, here, shares[stage], site)
        return site(self.frozen, *args)

    def _changed(
        self, states: dict[str, Leaves], place: Place | None, inner: Callable, weights: Any, x: Any, *rest: Any
    ) -> Any:
        """`inner(weights, x, *rest)` through the methods of one adapter, in the order of their keys."""
        methods, entering = [(method_of(key), states[key]) for key in sorted(states)], x
        for method, state in methods:
            if self.kind in method.through_weights:
                weights = _in_float32(method.merge, weights, state, like=weights)
            else:
                entering = _in_float32(method.pre, state, entering, like=entering)
        y = inner(weights, entering, *rest)
        for method, state in methods:
            if self.kind not in method.through_weights:
                if method.placed and place is not None:
                    state = {**state, **place._asdict()}
                act = method.project if self.kind == "projection" else method.apply
                y = _in_float32(act, state, x, y, self.frozen, self._key(method), like=y)
        return y

    def _averaged(
        self, states: dict[str, Leaves], places: Place | None, shares: jax.Array, inner: Callable, weights: Any, *args: Any
    ) -> Any:
        """`inner(weights, *args)` with the mean of several adapters: y + sum_k share_k (y_k - y)."""
        y = inner(weights, *args)
        each = jax.vmap(lambda state, place: self._changed(state, place, inner, weights, *args))(states, places)
        return y + jnp.sum(_by_token(shares, y) * (each - y), axis=0).astype(y.dtype)

    def _key(self, method: Method) -> jax.Array | None:
        return None if self.key is None else jax.random.fold_in(self.key, zlib.crc32(f"{self.name}/{method.key}".encode()))


@dataclass(frozen=True)
class Grafts:
    """An adapter, a pack's member or a bank, as a forward pass sees it.

    `state` as above, of a backbone of that `structure`; `slots` for a bank: the slot of every row `[rows]`, or a `Mix`; `key`
    a PRNG key in training with dropout; `tower`: of an encoder-decoder the one whose part this is (`within`).
    """

    state: State
    structure: Structure = NO_SITES
    slots: AnyArray | Mix | None = None
    key: jax.Array | None = None
    tower: str = ""

    def within(self, tower: str) -> Grafts:
        """What acts in one tower of an encoder-decoder, which asks by the names that its sites have within it."""
        key = None if self.key is None else jax.random.fold_in(self.key, zlib.crc32(f"{tower}.".encode()))
        return replace(self, key=key, tower=tower)

    def adapted(self, stack: str) -> int:
        """How many layers of a stack carry state, the last ones. Static, so that those below are never differentiated."""
        leaves = jax.tree.leaves(self._of(stack))
        return leaves[0].shape[0] if leaves else 0

    @property
    def cut(self) -> Cut:
        """Where what the adapter can change begins."""
        return self.structure.cut({stack: self.adapted(stack) for stack in self.structure.stacks}, [*self.state])

    @property
    def by_token(self) -> bool:
        """Whether the adapters of a row differ by token, which then all must be computed."""
        return isinstance(self.slots, Mix) and self.slots.weights.ndim == 4

    @property
    def whole(self) -> bool:
        """Whether a method reads whole texts, all of whose tokens the last layer must compute."""
        layered = (states for name, states in self._here().items() if self.structure.stacked(name))
        return self.by_token or any(method_of(key).whole_text for states in layered for key in states)

    def _here(self) -> State:
        """What acts in this tower, or anywhere."""
        named = self.structure.named
        return {name: states for name, states in self.state.items() if self.tower in ("", named[name].tower)}

    def _of(self, stack: str) -> State:
        """What acts in a stack of layers."""
        return {name: states for name, states in self.state.items() if self.structure.named[name].stack == stack}

    def unstacked(self, stack: str) -> list[State]:
        """State of every adapted layer, for training; not of a bank. A split's derivative is one concatenation."""
        leaves, treedef = jax.tree.flatten(self._of(stack))
        split = [[jnp.squeeze(part, 0) for part in jax.lax.split(leaf, [1] * self.adapted(stack))] for leaf in leaves]
        return [jax.tree.unflatten(treedef, parts) for parts in zip(*split, strict=True)]

    def layer(self, stack: str, index: jax.Array | int) -> State:
        """State of one adapted layer, of a bank that of every row."""
        at = index if self.slots is None else (index, self._used())
        return jax.tree.map(lambda leaf: leaf[at], self._of(stack))

    def calls(self, state: State, application: jax.Array | int) -> SiteCalls:
        """The calls of one application of a layer."""
        return self._calls(
            state, None if self.key is None else jax.random.fold_in(self.key, jnp.asarray(application, jnp.uint32))
        )

    def outside(self) -> SiteCalls:
        """The calls outside the layers."""
        state = {name: states for name, states in self._here().items() if not self.structure.stacked(name)}
        if self.slots is not None:
            state = {name: jax.tree.map(lambda leaf, at=self._used(name): leaf[at], states) for name, states in state.items()}
        return self._calls(state, self.key)

    def _used(self, name: str | None = None) -> Any:
        """The slots that the rows use at a site; a head is one adapter's."""
        if not isinstance(self.slots, Mix):
            return self.slots
        return self.slots.heads if name is not None and self.structure.named[name].kind == "head" else self.slots.slots

    def _calls(self, state: State, key: jax.Array | None) -> SiteCalls:
        weights = self.slots.weights if isinstance(self.slots, Mix) else None
        return SiteCalls(state, self.tower, self.slots is not None, key, weights)

    @staticmethod
    def bare() -> SiteCalls:
        return SiteCalls({})


def prepared(state: State, frozen: dict[str, Any], structure: Structure) -> State:
    """What a bank holds of an adapter: its leaves as `Method.prepare` makes them, from the weights at each site."""

    def at(name: str, key: str, leaves: Leaves) -> Leaves:
        prepare, weights = method_of(key).prepare, frozen[name]
        if not structure.stacked(name):
            return _in_float32(prepare, leaves, weights)
        depth = len(jax.tree.leaves(leaves)[0])
        last = jax.tree.map(lambda leaf: leaf[-depth:], weights)  # of the layers that carry state
        return jax.vmap(lambda *args: _in_float32(prepare, *args))(leaves, last)

    return {name: {key: at(name, key, leaves) for key, leaves in keys.items()} for name, keys in state.items()}


def _given(_: Any, *made: Any) -> Any:
    """The output of a site without weights: what the backbone made there, the last of the arguments."""
    return made[-1]


def _by_token(shares: jax.Array, y: jax.Array) -> jax.Array:
    """`shares [terms]` or `[terms, tokens]` to multiply `[terms, *y.shape]`; by token y is `[tokens, dim]`.

    Tokens that methods put in front go with the text's first; where the pooled position alone is computed, it is that too.
    """
    if shares.ndim == 1:
        return shares.reshape(-1, *(1,) * y.ndim)
    tokens, there = shares.shape[1], y.shape[-2]
    spread = shares[:, :there] if there < tokens else jnp.pad(shares, ((0, 0), (there - tokens, 0)), mode="edge")
    return spread[..., None]


def _in_float32(function: Callable, *args: Any, like: Any = None) -> Any:
    """Call a method with float32 arguments over a backbone of any dtype; the result has the dtype of `like`."""
    if not any(leaf.dtype in (jnp.bfloat16, jnp.float16) for leaf in jax.tree.leaves(args)):
        return function(*args)

    out = function(*jax.tree.map(lambda leaf: _cast(leaf, jnp.float32), args))
    return out if like is None else jax.tree.map(lambda leaf, ref: _cast(leaf, ref.dtype), out, like)


def _cast(leaf: jax.Array, dtype: Any) -> jax.Array:
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
