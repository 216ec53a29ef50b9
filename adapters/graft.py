"""How an adapter acts in a forward pass: the object a backbone asks at every site.

    state[site name][method key][leaf]      leaves of a stacked site have a leading layer axis

The same code runs in three modes. *Plain*: one adapter for the whole batch. *Packed*: plain, under `vmap` over adapters.
*Mixed rows*: the leaves carry a slot axis after the layer axis, `slots [rows]` names the slot of every row, and each site
gathers its rows' leaves and calls the methods once per row under `vmap`. The gather is per sequence, never one-hot (a NaN in an
unused slot must not cross), and takes layer and slot at once (a slice of the layer would copy the whole bank). Frozen weights
stay outside that `vmap`, so their matrix product is one product for the whole batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from .method import Leaves, Method
from .registry import method_of
from .sites import Entry, KeyValue, NextNorm

State = dict[str, dict[str, Leaves]]
STACK = "layers."


class Module(Protocol):
    """A frozen module at a site: its weights, and what it computes with them (or with merged ones)."""

    def weights(self) -> Any: ...

    def compute(self, weights: Any, x: jax.Array) -> jax.Array: ...


@dataclass(frozen=True)
class SiteCalls:
    """What the adapters do at the sites of one layer (or outside the layers); `mixed`: leaves have a leading rows axis."""

    state: State
    mixed: bool = False
    key: jax.Array | None = None

    def linear(self, name: str, x: jax.Array, module: Module) -> jax.Array:
        return self._weighted("linear", name, x, module)

    def norm(self, name: str, x: jax.Array, module: Module) -> jax.Array:
        return self._weighted("norm", name, x, module)

    def embedding(self, name: str, ids: jax.Array, module: Module) -> jax.Array:
        return self._weighted("embedding", name, ids, module)

    def branch(self, name: str, x: jax.Array, y: jax.Array, norm: Module) -> jax.Array:
        return self._weightless(name, x, y, NextNorm(norm.weights(), norm.compute))

    def attention(self, name: str, x: jax.Array, y: KeyValue) -> KeyValue:
        return self._weightless(name, x, y)

    def input(self, name: str, ids: jax.Array, y: Entry) -> Entry:
        return self._weightless(name, ids, y)

    def head(self, name: str, features: jax.Array) -> jax.Array | None:
        """Logits, or None where no adapter has a head of this name."""
        return self._weightless(name, features, None) if name in self.state else None

    def _weighted(self, kind: str, name: str, x: jax.Array, module: Module) -> jax.Array:
        frozen = module.weights()

        def site(states: dict[str, Leaves], x: jax.Array) -> jax.Array:
            weights, entering = frozen, x
            for method, state in _resolve(states):
                if kind in method.through_weights:
                    weights = _in_float32(method.merge, weights, state, like=weights)
                entering = _in_float32(method.pre, state, entering, like=entering)
            y = module.compute(weights, entering)
            for method, state in _resolve(states):
                if kind not in method.through_weights:
                    y = _in_float32(method.apply, state, x, y, frozen, self._key(name, method), like=y)
            return y

        return self._run(name, site, x)

    def _weightless(self, name: str, x: jax.Array, y: Any, frozen: Any = None) -> Any:
        def site(states: dict[str, Leaves], x: jax.Array, y: Any) -> Any:
            for method, state in _resolve(states):
                y = _in_float32(method.apply, state, x, y, frozen, self._key(name, method), like=y)
            return y

        return self._run(name, site, x, y)

    def _run(self, name: str, site: Callable, *args: Any) -> Any:
        states = self.state.get(name, {})
        return jax.vmap(site)(states, *args) if states and self.mixed else site(states, *args)

    def _key(self, name: str, method: Method) -> jax.Array | None:
        return None if self.key is None else jax.random.fold_in(self.key, zlib.crc32(f"{name}/{method.key}".encode()))


@dataclass(frozen=True)
class Grafts:
    """An adapter, a pack's member or a bank, as a forward pass sees it.

    `state` as above; `slots [rows]` for a bank; `key` a PRNG key in training with dropout, else None.
    """

    state: State
    slots: jax.Array | None = None
    key: jax.Array | None = None

    @property
    def adapted(self) -> int:
        """How many layers carry state: the last ones. Static, so the frozen ones below are never differentiated."""
        leaves = jax.tree.leaves(self._stacked())
        return leaves[0].shape[0] if leaves else 0

    def _stacked(self) -> State:
        return {name: states for name, states in self.state.items() if name.startswith(STACK)}

    @property
    def mixed(self) -> bool:
        return self.slots is not None

    def unstacked(self) -> list[State]:
        """State of every adapted layer, for training; not of a bank. A split's derivative is one concatenation."""
        leaves, treedef = jax.tree.flatten(self._stacked())
        split = [[jnp.squeeze(part, 0) for part in jax.lax.split(leaf, [1] * self.adapted)] for leaf in leaves]
        return [jax.tree.unflatten(treedef, parts) for parts in zip(*split, strict=True)]

    def layer(self, index: jax.Array | int) -> State:
        """State of one adapted layer, of a bank that of every row."""
        at = (index, self.slots) if self.mixed else index
        return jax.tree.map(lambda leaf: leaf[at], self._stacked())

    def at(self, state: State, application: jax.Array | int) -> SiteCalls:
        key = None if self.key is None else jax.random.fold_in(self.key, jnp.asarray(application, jnp.uint32))
        return SiteCalls(state, self.mixed, key)

    def outside(self) -> SiteCalls:
        state = {name: states for name, states in self.state.items() if not name.startswith(STACK)}
        if self.mixed:
            state = jax.tree.map(lambda leaf: leaf[self.slots], state)
        return SiteCalls(state, self.mixed, self.key)

    @staticmethod
    def bare() -> SiteCalls:
        return SiteCalls({})


def _resolve(states: dict[str, Leaves]) -> list[tuple[Method, Leaves]]:
    return [(method_of(key), states[key]) for key in sorted(states)]


def _in_float32(function: Callable, *args: Any, like: Any = None) -> Any:
    """Call a method with float32 arguments over a backbone of any dtype; the result has the dtype of `like`."""
    if not any(leaf.dtype in (jnp.bfloat16, jnp.float16) for leaf in jax.tree.leaves(args)):
        return function(*args)

    def cast(leaf: jax.Array, dtype: Any) -> jax.Array:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    out = function(*jax.tree.map(lambda leaf: cast(leaf, jnp.float32), args))
    return out if like is None else jax.tree.map(lambda leaf, ref: cast(leaf, ref.dtype), out, like)
