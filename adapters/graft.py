"""How an adapter acts in a forward pass: the object a backbone asks at every site.

An adapter's arrays come to a forward pass as a tree, its *state*:

    state[site name][method key][leaf name]        leaves of a site in a stack of layers have a leading layer axis

The state of a LoRA of rank 4 on the queries of two layers of width 32, with a linear head for three classes:

    {"layers.query": {"lora": {"a": [2, 4, 32], "b": [2, 4, 32], "scale": [2], "dropout": [2]}},
     "head.pooled": {"head:none": {"kernel": [3, 32], "bias": [3], "dropout": []}}}

A backbone is given it as `Grafts`, takes the `SiteCalls` of each layer from them, and asks those wherever a method may act.
With the frozen module `self.query`,

    calls.linear("layers.query", x, self.query)

is what that module makes of x, changed by the methods that the state holds under that name; without any it is that alone.

The same code runs in three modes:

- *Plain*: one adapter for the whole batch. The leaf "a" comes to the methods of a layer as `[4, 32]`.
- *Packed*: plain, under a `vmap` over adapters (`train/step.py`), of which nothing here knows.
- *Mixed rows*: every batch row may use another adapter. The leaves have an axis of slots behind that of layers, "a" in a bank
  of eight is `[2, 8, 4, 32]`, and `slots [rows]` says which slot each batch row uses. With slots [5, 0, 5] a layer's "a" is
  gathered as `[3, 4, 32]`, and the methods are called once for each batch row, under `vmap`.

The gather is of whole leaves, never a product with ones and zeros (a NaN in a slot that no batch row uses must not cross), and
takes layer and slot at once (a slice of the layer would copy the whole bank). Frozen weights stay outside that `vmap`, so their
matrix product is one product for the whole batch. Where a batch row uses several adapters (`Mix`), a method is called once for
each, and what they make of the site is averaged; see `serve/composition.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from ..platforms import platform
from ..shapes import AnyArray, Float, Int, shaped
from .method import Leaves, Method
from .methods.method_registry import method_of
from .products import in_dtype
from .sites import Branch, Entry, KeyValue, NormBeside, TextPosition
from .structure import NO_SITES, Cut, Structure

State = dict[str, dict[str, Leaves]]


@runtime_checkable
class Module(Protocol):
    """A frozen module at a site: its weights, and what it computes with them (or with merged ones)."""

    def weights(self) -> Any: ...

    def compute(self, weights: Any, x: jax.Array) -> jax.Array: ...


@runtime_checkable
class LinearModule(Module, Protocol):
    """A frozen linear layer. Called, it computes with its weights as they are held, which may be in fewer bits than floats."""

    def __call__(self, x: jax.Array) -> jax.Array: ...


class Mix(NamedTuple):
    """The adapters of every batch row, where one may use several: stages, one behind another, each a weighted mean of terms.

    A batch row that asks for the mean of the adapters in slots 2 and 3, and behind that for the one in slot 5, has
    slots [[2, 3], [5, 0]] and weights [[0.5, 0.5], [1.0, 0.0]].
    """

    slots: Any  # int32 [rows, stages, terms]
    weights: Any  # float32 [rows, stages, terms], or [rows, stages, terms, tokens] where they differ by token
    heads: Any  # int32 [rows]: the slot whose head answers


_NARROW = {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16)}

#: Kinds of site whose output is no sum: of an average, the first term alone acts there.
SINGLE = ("attention", "input")


@dataclass(frozen=True)
class SiteCalls:
    """What the adapters do at the sites of one layer, or at those outside the layers.

    There is a method for each kind of site. It is given the site's name and what the table in `sites.py` calls x, and returns
    what the backbone goes on with.
    """

    state: State  # of this layer: its leaves have no layer axis
    tower: str = ""  # of an encoder-decoder the one that asks, by the names that its sites have within it
    mixed: bool = False  # whether leaves have a leading axis of batch rows; with `shares` those of batch rows, stages and terms
    key: jax.Array | None = None  # a PRNG key, in training with dropout
    shares: jax.Array | None = None  # `Mix.weights`, where a batch row may use several adapters
    exact: bool = False  # as of `Grafts`
    #: of the tokens that the layer is given, for methods that ask (`Method.reads_positions`); with `shares` by adapter too
    text_position: TextPosition | None = None

    def over(self, text_position: TextPosition) -> SiteCalls:
        """The same for tokens that lie so in their texts: arrays of `[rows, tokens]`, or what `text` gives."""
        if self.shares is not None:
            lead = self.shares.shape[:3]
            spread = (array if array.ndim > 2 else array[:, None, None] for array in text_position)
            text_position = TextPosition(*(jnp.broadcast_to(array, (*lead, array.shape[-1])) for array in spread))
        return replace(self, text_position=text_position)

    def held(self, name: str) -> dict[str, Leaves]:
        """What acts at a site: the leaves of each method there, by the method's key."""
        return self.state.get(f"{self.tower}.{name}" if self.tower else name, {})

    @shaped
    def linear(self, name: str, x: Float[AnyArray, "*lead inputs"], module: LinearModule) -> Float[Array, "*lead outputs"]:
        """What a linear layer makes of x."""
        own = module.weights()  # as floats, for methods that read or change them

        def compute(weights: Any, x: jax.Array) -> jax.Array:
            return module(x) if weights is own else module.compute(weights, x)

        return self._site("linear", name, own, compute, x)

    @shaped
    def conv(
        self, name: str, x: Float[AnyArray, "*lead height width inputs"], module: Module
    ) -> Float[Array, "*lead high wide outputs"]:
        """What a convolution makes of a feature map."""
        return self._site("conv", name, module.weights(), module.compute, x)

    @shaped
    def norm(self, name: str, x: Float[AnyArray, "*lead dim"], module: Module) -> Float[Array, "*lead dim"]:
        """What a norm makes of x."""
        return self._site("norm", name, module.weights(), module.compute, x)

    @shaped
    def embedding(self, name: str, ids: Int[AnyArray, "*lead"], module: Module) -> Float[Array, "*lead dim"]:
        """The vectors that a table has for ids."""
        return self._site("embedding", name, module.weights(), module.compute, ids)

    def projects(self, name: str) -> bool:
        """Whether a method acts where the table of this `embedding` site projects to the vocabulary."""
        return any(method_of(key).projects for key in self.held(name))

    @shaped
    def projection(
        self, name: str, x: Float[AnyArray, "*lead dim"], y: Float[Array, "*lead vocabulary"], module: Module
    ) -> Float[Array, "*lead vocabulary"]:
        """Logits that the table of an `embedding` site makes of hidden states x, where it projects to the vocabulary too."""
        return self._site("projection", name, module.weights(), _given, x, y) if self.projects(name) else y

    @shaped
    def branch(
        self,
        name: str,
        x: Float[AnyArray, "*lead dim"],
        y: Float[Array, "*lead dim"],
        norm: Module | None = None,
        *,
        before: Module | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Float[Array, "*lead dim"]:
        """What a residual branch adds to the stream x, of what it has made, y.

        `norm`: the module behind their sum, if any; `before`: the one through which the branch has read x; `grid`: of
        a picture's patches, which are the last of the tokens.
        """
        return self._site("branch", name, Branch(_beside(norm), _beside(before), grid), _given, x, y)

    @shaped
    def stream(self, name: str, h: Float[Array, "*lead dim"]) -> Float[Array, "*lead dim"]:
        """What leaves a layer."""
        return self._site("stream", name, None, _given, h)

    @shaped
    def attention(self, name: str, x: Float[AnyArray, "*lead dim"], y: KeyValue) -> KeyValue:
        """What the queries of a layer attend to."""
        return self._site("attention", name, None, _given, x, y)

    @shaped
    def input(self, name: str, ids: Int[AnyArray, "*lead tokens"], y: Entry) -> Entry:
        """What enters the first layer."""
        return self._site("input", name, None, _given, ids, y)

    @shaped
    def text(self, name: str, ids: Int[AnyArray, "*lead tokens"], y: TextPosition) -> TextPosition:
        """What the layers know of where tokens are in their texts, arrays of `[rows, tokens]`.

        With `shares` it is what each adapter of a batch row makes of that: `[rows, stages, terms, tokens]`.
        """
        return self._site("text", name, None, _given, ids, y)

    @shaped
    def head(self, name: str, features: Float[Array, "*lead dim"]) -> Float[Array, "*lead classes"] | None:
        """Logits, or None where no adapter has a head of this name."""
        return self._site("head", name, None, _given, features, None) if self.held(name) else None

    def head_of_maps(self, name: str, maps: tuple[jax.Array, ...]) -> jax.Array | None:
        """The same of several feature maps `[rows, height, width, channels]`: logits at the size of the largest."""
        return self._site("head", name, None, _given, maps, None) if self.held(name) else None

    def _site(self, kind: str, name: str, frozen: Any, compute: Callable, *args: Any) -> Any:
        """The site's output: what `compute(frozen, *args)` becomes through the methods held there, in the mode at hand."""
        states, site = self.held(name), _SiteCall(kind, name, frozen, compute, self.key, self.exact)
        if not (states and self.mixed):
            return site.alone(states, self.text_position, *args)
        if self.shares is None or kind == "head":
            return jax.vmap(site.alone)(states, self.text_position, *args)
        if kind == "text":  # what one adapter makes of it is none of the others' business
            each = jax.vmap(jax.vmap(site.alone, (0, None, None, None)), (0, None, None, None))
            return jax.vmap(each)(states, self.text_position, *args)
        return jax.vmap(site.staged)(states, self.text_position, self.shares, *args)


@dataclass(frozen=True)
class _SiteCall:
    """One site in a forward pass: what `compute(frozen, *args)` becomes there, for the whole batch or for one batch row.

    Adapters are applied around one another. What each is applied to is a function `inner` of weights and arguments: of the
    first the frozen module's `compute`, of the adapters of a later stage the site as the stage before has changed it.
    """

    kind: str
    name: str
    frozen: Any  # the weights there
    compute: Callable
    key: jax.Array | None
    exact: bool

    def alone(self, states: dict[str, Leaves], text_position: TextPosition | None, *args: Any) -> Any:
        """The site with one adapter, whose methods these are."""
        return self._changed(states, text_position, self.compute, self.frozen, *args)

    def staged(self, states: dict[str, Leaves], text_positions: TextPosition | None, shares: jax.Array, *args: Any) -> Any:
        """The site with the adapters of a `Mix`: the leaves have axes of stages and terms, as `shares` has."""
        site = self.compute
        for stage in range(len(shares)):
            terms, here = jax.tree.map(lambda leaf, stage=stage: leaf[stage], (states, text_positions))
            if self.kind in SINGLE:
                first, text_position = jax.tree.map(lambda leaf: leaf[0], (terms, here))
                site = partial(self._changed, first, text_position, site)
            else:
                site = partial(self._averaged, terms, here, shares[stage], site)
        return site(self.frozen, *args)

    def _changed(
        self, states: dict[str, Leaves], text_position: TextPosition | None, inner: Callable, weights: Any, x: Any, *rest: Any
    ) -> Any:
        """What `inner(weights, x, *rest)` becomes through the methods of one adapter, in the order of their keys.

        First each may change the weights or what enters, then `inner` computes, then each may change what leaves.
        """
        methods, entering = [(method_of(key), states[key]) for key in sorted(states)], x
        for method, state in methods:
            if self.kind in method.through_weights:
                weights = _in_float32(method.merge, weights, state, like=weights)
            else:
                entering = _in_float32(method.pre, state, entering, like=entering)
        y = inner(weights, entering, *rest)
        for method, state in methods:
            if self.kind not in method.through_weights:
                if method.reads_positions and text_position is not None:
                    state = {**state, **text_position._asdict()}
                act = method.project if self.kind == "projection" else method.apply
                with in_dtype(None if self.exact else _of_products(y)):
                    y = _in_float32(act, state, x, y, self.frozen, self._key(method), like=y)
        return y

    def _averaged(
        self,
        states: dict[str, Leaves],
        text_positions: TextPosition | None,
        shares: jax.Array,
        inner: Callable,
        weights: Any,
        *args: Any,
    ) -> Any:
        """What `inner(weights, *args)`, y, becomes with the mean of several adapters that make y_k of it.

        That is y + sum_k share_k (y_k - y).
        """
        y = inner(weights, *args)
        each = jax.vmap(lambda state, text_position: self._changed(state, text_position, inner, weights, *args))(
            states, text_positions
        )
        return y + jnp.sum(_by_token(shares, y) * (each - y), axis=0).astype(y.dtype)

    def _key(self, method: Method) -> jax.Array | None:
        return None if self.key is None else jax.random.fold_in(self.key, zlib.crc32(f"{self.name}/{method.key}".encode()))


@dataclass(frozen=True)
class Grafts:
    """What a forward pass knows of adapters: of one, of one of a pack, or of a bank."""

    state: State  # as the module's docstring has it
    structure: Structure = NO_SITES  # of the backbone whose sites the state names
    slots: AnyArray | Mix | None = None  # of a bank: the slot that each batch row uses, int32 [rows], or a `Mix`
    key: jax.Array | None = None  # a PRNG key, in training with dropout
    tower: str = ""  # of an encoder-decoder: the one whose part this is (`within`)
    exact: bool = False  # whether methods' products are of float32 on every device (`products.py`)

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
        """Whether the adapters of a batch row differ by token. All of its tokens must be computed then."""
        return isinstance(self.slots, Mix) and self.slots.weights.ndim == 4

    @property
    def whole(self) -> bool:
        """Whether a method reads whole texts. The last layer must compute all of their tokens then."""
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
        """The state of every adapted layer by itself, for training; of a bank that of every batch row.

        Leaves are split and not indexed, because the derivative of a split is one concatenation, and that of a bank's gathered
        at once one sum into its slots.
        """
        leaves, treedef = jax.tree.flatten(self._of(stack))
        if self.slots is not None:
            leaves = [leaf[:, self._used()] for leaf in leaves]
        split = [[jnp.squeeze(part, 0) for part in jax.lax.split(leaf, [1] * self.adapted(stack))] for leaf in leaves]
        return [jax.tree.unflatten(treedef, parts) for parts in zip(*split, strict=True)]

    def layer(self, stack: str, index: jax.Array | int) -> State:
        """The state of one adapted layer, counted from the first; of a bank that of every batch row."""
        which = index if self.slots is None else (index, self._used())
        return jax.tree.map(lambda leaf: leaf[which], self._of(stack))

    def calls(self, state: State, application: jax.Array | int) -> SiteCalls:
        """The calls of one application of a layer, whose state this is."""
        key = None if self.key is None else jax.random.fold_in(self.key, jnp.asarray(application, jnp.uint32))
        return self._calls(state, key)

    def outside(self) -> SiteCalls:
        """The calls of the sites outside the layers."""
        state = {name: states for name, states in self._here().items() if not self.structure.stacked(name)}
        if self.slots is not None:
            state = {
                name: jax.tree.map(lambda leaf, used=self._used(name): leaf[used], states) for name, states in state.items()
            }
        return self._calls(state, self.key)

    def _used(self, name: str | None = None) -> Any:
        """The slots that the batch rows use at a site: of a `Mix` those of all terms, but at a head the one that answers."""
        if not isinstance(self.slots, Mix):
            return self.slots
        return self.slots.heads if name is not None and self.structure.named[name].kind == "head" else self.slots.slots

    def _calls(self, state: State, key: jax.Array | None) -> SiteCalls:
        shares = self.slots.weights if isinstance(self.slots, Mix) else None
        return SiteCalls(state, self.tower, self.slots is not None, key, shares, self.exact)

    @staticmethod
    def bare() -> SiteCalls:
        """The calls where no adapter acts."""
        return SiteCalls({})


def prepared(state: State, frozen: dict[str, Any], structure: Structure) -> State:
    """What a bank holds of an adapter: its leaves as `Method.prepare` makes them with the frozen weights at each site."""
    return {
        name: {
            method_key: _prepared_at(leaves, method_of(method_key), frozen[name], structure.stacked(name))
            for method_key, leaves in methods.items()
        }
        for name, methods in state.items()
    }


def _prepared_at(leaves: Leaves, method: Method, weights: Any, stacked: bool) -> Leaves:
    """The same at one site, or at those of all layers of a stack that share a name."""
    if not stacked:
        return _in_float32(method.prepare, leaves, weights)
    depth = len(jax.tree.leaves(leaves)[0])
    last = jax.tree.map(lambda leaf: leaf[-depth:], weights)  # of the layers that carry state
    return jax.vmap(partial(_in_float32, method.prepare))(leaves, last)


def _beside(norm: Module | None) -> NormBeside:
    return NormBeside(None, _given) if norm is None else NormBeside(norm.weights(), norm.compute)


def _given(_: Any, *made: Any) -> Any:
    """The output of a site without weights: what the backbone made there, the last of the arguments."""
    return made[-1]


def _by_token(shares: jax.Array, y: jax.Array) -> jax.Array:
    """`shares`, `[terms]` or `[terms, tokens]`, with axes of one behind so that they multiply `[terms, *y.shape]`.

    Where they are by token, y is `[tokens, dim]`. It may have more tokens than `shares`, those that methods put in front: they
    have the share of the text's first. It may have fewer, where the pooled position alone is computed: that is the text's
    first.
    """
    if shares.ndim == 1:
        return shares.reshape(-1, *(1,) * y.ndim)
    tokens, there = shares.shape[1], y.shape[-2]
    spread = shares[:, :there] if there < tokens else jnp.pad(shares, ((0, 0), (there - tokens, 0)), mode="edge")
    return spread[..., None]


def _of_products(y: Any) -> Any:
    """The dtype that methods' products have beside what a backbone has made, y; None: that of their factors."""
    made = {leaf.dtype for leaf in jax.tree.leaves(y)} & _NARROW
    return made.pop() if made and platform() != "cpu" else None


def _in_float32(function: Callable, *args: Any, like: Any = None) -> Any:
    """What a method makes of float32 arguments, whatever the dtype of the backbone; the result has the dtypes of `like`."""
    if not any(leaf.dtype in _NARROW for leaf in jax.tree.leaves(args)):
        return function(*args)

    out = function(*jax.tree.map(lambda leaf: _cast(leaf, jnp.float32), args))
    return out if like is None else jax.tree.map(lambda leaf, ref: _cast(leaf, ref.dtype), out, like)


def _cast(leaf: jax.Array, dtype: Any) -> jax.Array:
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
