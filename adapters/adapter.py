"""An adapter at its true size, and the layout that lets several of them share one compiled program.

An `Adapter` is what a file holds: for every method and site the leaves at their own rank, width or number of labels, as
NumPy arrays. To run, it is *stacked* into a `Layout`: layers become a leading axis, sizes are padded to the layout's, and
sites it does not touch hold the identity. Adapters stacked into one layout have trees of one structure and shape, so a pack,
a bank or a swap is only another argument. `unstack` goes back, exactly.

An example: a LoRA of rank 3 at `query` of both layers of a backbone of width 32, one of rank 7 at `query` of the last. As files
they hold A of `[3, 32]` twice and of `[7, 32]` once. Their common layout has one space, of size 7 at `layers.query`, and
depth 2. Stacked into it, each is a tree with A of `[2, 7, 32]`: of the first adapter four rows of each layer are filling, of
the second the whole lower layer; a mask says so, and filling is never trained. In packs and banks the size would be 8.

In such a layout every adapter computes as much as the largest would. So its buckets may lie *apart*: one of rank 64 beside
these would have spaces of its own, under the key `lora#64`, in which the others hold the identity. A batch in which nobody has
such a rank is then computed without them (`Layout.within`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from ..errors import GraftaxError
from ..notes import note
from ..shown import Shown
from ..store.manifest import DataFacts
from ..typed import Seed, checked, settle
from .graft import State
from .method import BUCKET, Leaves, Method, States, padded
from .methods.method_registry import method_of
from .sites import Site
from .structure import Cut, Structure

if TYPE_CHECKING:
    from .methods.starts import TrainingData

SiteStates = dict[str, States]  # key of a method -> site -> (trainable leaves, fixed leaves)
_TOGETHER = ("attention", "input", "text", "head")  # kinds of site where a size is seen from outside: buckets never lie apart


@dataclass(frozen=True, repr=False)
class Adapter(Shown):
    """One adapter: its methods, their arrays at true size, and what is known about it.

    A LoRA of rank 3 at the queries of a backbone of two layers, with a head for two classes, has `methods` of two and in
    `states`

        "lora"         two sites, each with trainable "a" and "b" of [3, width] and fixed "scale" and "dropout"
        "head:none"    one site, with trainable "kernel" [2, width] and "bias" [2] and fixed "dropout"
    """

    methods: tuple[Method, ...]  # its head among them, where it has one
    states: SiteStates  # the arrays, by the keys of the methods
    task: str = "classify"  # what it was trained on, as `train_many` names it
    labels: tuple[str, ...] = ()  # empty: the adapter has no head, or names none (`LABEL_0`, ...)
    fingerprint: str | None = None  # of the backbone it was trained on; None: not recorded (PEFT's files)
    metrics: dict[str, float] = field(default_factory=dict)  # of its training
    recipe: dict[str, Any] = field(default_factory=dict)  # fields of the `Recipe`, and the method
    data: DataFacts | None = None  # that it was trained on
    parents: tuple[str, ...] = ()  # sha256 of the weights' files of the adapters that it was made from
    source: str | None = None  # sha256 of the weights' file that it was read from

    def __post_init__(self) -> None:
        """Held to its kinds, but for the arrays, which are looked at where they meet a backbone (`fitting.py`)."""
        settle(self, "an adapter")

    @classmethod
    def create(
        cls,
        methods: Sequence[Method],
        sites: Sequence[Site],
        seed: int = 0,
        training: TrainingData | None = None,
        before: Adapter | None = None,
        **known: Any,
    ) -> Adapter:
        """A fresh adapter. What a method draws at a site depends on the seed and the site alone.

        `training`: what is known of the rows to be trained on, for starts that follow from them (`Method.begin`'s `data`);
        `before`: an adapter whose methods stand behind the others as they are, not fresh; `known`: the other fields.
        """
        methods, sites = checked(methods, Sequence[Method], "methods"), checked(sites, Sequence[Site], "sites")
        seed = checked(seed, Seed, "seed")
        kept = before.methods if before else ()
        keys = [method.key for method in (*methods, *kept)]
        if len(set(keys)) < len(keys):
            raise GraftaxError(f"an adapter may hold a method once: {', '.join(keys)}.")
        virtual = [method.name for method in (*methods, *kept) if method.virtual]
        if len(virtual) > 1:  # their files hold one tensor under one name, as PEFT's do
            raise GraftaxError(f"an adapter may hold one method with virtual tokens: {', '.join(virtual)}.")
        if virtual and len({site.tower for site in sites if site.kind == "input"}) > 1:
            raise GraftaxError(f"{virtual[0]}: the two towers of a pair would need virtual tokens each: train one by itself.")

        def random_key(name: str, site: Site) -> jax.Array:
            return jax.random.fold_in(jax.random.key(seed), zlib.crc32(f"{name}/{site.name}/{site.path}".encode()))

        begun = [method.begin(sites, partial(random_key, method.name), training) for method in methods]
        for method, states in begun:
            _say_what_is_larger(method, states)
        begun += [(method, before.states[method.key]) for method in before.methods] if before else []
        return cls(tuple(method for method, _ in begun), {method.key: states for method, states in begun}, **known)

    def finished(self) -> Adapter:
        """What is saved of one that has been trained, where a method trains as another (`Method.finished`)."""
        made = [method.finished(self.states[method.key]) for method in self.methods]
        if all(new is old and states is self.states[old.key] for (new, states), old in zip(made, self.methods, strict=True)):
            return self
        return replace(self, methods=tuple(method for method, _ in made), states={method.key: own for method, own in made})

    def held(self, method: Method) -> dict[Site, Leaves]:
        """What a file holds of one of its methods, by site: the trainable leaves, and the buffers (`Method.buffers`)."""
        states = self.states[method.key].items()
        return {site: own | {name: fixed[name] for name in method.buffers(site)} for site, (own, fixed) in states}

    def facts(self) -> dict[str, Any]:
        body = "+".join(method.name for method in self.methods)
        known = {"labels": self.labels, "metrics": self.metrics, "fingerprint": (self.fingerprint or "")[:12]}
        return {"method": body, "task": self.task, "parameters": self.parameters} | {k: v for k, v in known.items() if v}

    @property
    def parameters(self) -> int:
        """Number of trainable parameters, the head's included; what several sites share counts once."""
        count = 0
        for method in self.methods:
            every = [pair for trainable, _ in self.states[method.key].values() for pair in trainable.items()]
            count += sum(leaf.size for name, leaf in every if name not in method.shared)
            count += sum(math.prod(shape) for _, shape in {(name, leaf.shape) for name, leaf in every if name in method.shared})
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        parts = (own for states in self.states.values() for both in states.values() for own in both)
        return sum(leaf.nbytes for own in parts for leaf in own.values())

    def refuse_other_sites(self, sites: Sequence[Site]) -> None:
        """A GraftaxError where it holds something at a site that is none of these."""
        there = frozenset(sites)
        other = next((site for states in self.states.values() for site in states if site not in there), None)
        if other is not None:
            where = other.path or other.name
            own = next((site for site in sites if (site.path or site.name) == where), None)
            found = f"here that is {own.kind} {own.shape}" if own else "there is none of that name here"
            raise GraftaxError(f"the adapter is another backbone's: it acts on {where}, {other.kind} {other.shape}; {found}.")

    def method(self, name: str) -> Method | None:
        """Its method of that name, if it has one."""
        return next((m for m in self.methods if m.name == name), None)


def _say_what_is_larger(method: Method, states: States) -> None:
    """A note where a convolution has fewer numbers than are trained there: a depthwise one has few."""
    found = []
    for site, (trainable, _) in states.items():
        trained, held = sum(leaf.size for leaf in trainable.values()), math.prod(site.shape) + site.biased * site.shape[-1]
        if site.kind == "conv" and trained > held:
            found.append(f"at {site.path} {trained:,} numbers are trained, and the layer has {held:,}")
    if found:
        more = f" (and so at {len(found) - 1} more)" if len(found) > 1 else ""
        note(f"{method.name}: {found[0]}{more}; training it whole would be smaller.")


class Stacked(NamedTuple):
    """An adapter in a layout: three trees of one structure, of NumPy arrays."""

    trainable: State
    fixed: State
    mask: State  # by trainable leaf, with axes of one: 1 where it is the adapter's own, 0 where it is filling; [layers, 1, 1]

    @property
    def state(self) -> State:
        """All leaves, as a forward pass reads them."""
        return join(self.trainable, self.fixed)


def join(trainable: State, fixed: State) -> State:
    """Trainable and fixed leaves in one tree."""
    return {
        name: {method_key: leaves | fixed[name][method_key] for method_key, leaves in methods.items()}
        for name, methods in trainable.items()
    }


@dataclass(frozen=True)
class Space:
    """The room of one method at the sites of one name: what any adapter of the layout holds there is filled up to that."""

    name: str  # of the sites
    method_key: str
    size: int  # of the padded axis (`Method.size`)
    trainable: tuple[str, ...]  # names of leaves
    fixed: tuple[str, ...]
    bucket: int = 0  # where buckets lie apart, the one whose this is; 0 where they do not

    @property
    def tree_key(self) -> str:
        """The key of its leaves in a tree."""
        return f"{self.method_key}{BUCKET}{self.bucket}" if self.bucket else self.method_key


@dataclass(frozen=True, repr=False)
class Layout(Shown):
    """The common shape of adapters that share a program; hashable, equal layouts mean equal programs."""

    spaces: tuple[Space, ...] = ()  # the room of each method at the sites of each name
    depths: tuple[tuple[str, int], ...] = ()  # of each stack, how many of its last layers carry state
    apart: bool = False  # whether each bucket has spaces of its own

    def facts(self) -> dict[str, Any]:
        return {
            "methods": sorted({space.method_key for space in self.spaces}),
            "spaces": len(self.spaces),
            "depths": dict(self.depths),
        }

    @classmethod
    def of(cls, adapters: Iterable[Adapter], sites: Sequence[Site], grow: Layout | None = None, bucket: bool = False) -> Layout:
        """The smallest layout that holds the adapters (and `grow`, whose buckets may lie apart).

        `bucket` rounds sizes up to powers of two from 8.
        """
        apart = grow is not None and grow.apart
        found = {(space.name, space.method_key, space.bucket): space for space in grow.spaces} if grow else {}
        structure = Structure.of(sites)
        layers = structure.stacks
        depths = dict.fromkeys(layers, 0) | (dict(grow.depths) if grow else {})
        for adapter in adapters:
            adapter.refuse_other_sites(sites)
            for method in adapter.methods:
                sizes = _sizes(method, adapter, bucket or apart)
                for site, (trainable, fixed) in adapter.states[method.key].items():
                    size = sizes[site.name]
                    where = (site.name, method.key, size if apart and site.kind not in _TOGETHER else 0)
                    old = found.get(where, Space(site.name, method.key, 0, (), ()))
                    fits = size <= old.size and trainable.keys() <= {*old.trainable} and fixed.keys() <= {*old.fixed}
                    if where not in found or not fits:
                        found[where] = Space(
                            site.name,
                            method.key,
                            max(size, old.size),
                            tuple(sorted({*trainable, *old.trainable})),
                            tuple(sorted({*fixed, *old.fixed})),
                            where[-1],
                        )
                    if site.layer is not None:
                        deep = layers[site.stack] - (0 if site.shared else site.layer)
                        depths[site.stack] = max(depths[site.stack], deep)
                    elif not site.above:
                        # what changes below the layers is felt in all of them; within a tower, in all of that one
                        felt = {stack for stack, tower in structure.towers.items() if site.tower in ("", tower)}
                        depths |= {stack: layers[stack] for stack in felt}
        return cls(tuple(found[k] for k in sorted(found)), tuple(depths.items()), apart)

    def cut(self, structure: Structure) -> Cut:
        """Where what an adapter of this layout can change begins."""
        return structure.cut(dict(self.depths), [space.name for space in self.spaces])

    def _first(self, sites: Sequence[Site]) -> dict[str, int]:
        """The first layer of each stack that carries state."""
        return {stack: layers - dict(self.depths).get(stack, 0) for stack, layers in Structure.of(sites).stacks.items()}

    def stack(self, adapter: Adapter | None, sites: Sequence[Site]) -> Stacked:
        """The adapter in this layout, as NumPy arrays; of None one that changes nothing."""
        first = self._first(sites)
        methods = {method.key: method for method in adapter.methods} if adapter else {}
        sizes = {key: _sizes(method, adapter, True) for key, method in methods.items()} if adapter and self.apart else {}
        trees = Stacked({}, {}, {})
        for space in self.spaces:
            method = methods.get(space.method_key) or method_of(space.method_key)
            own = adapter.states[space.method_key] if adapter and space.method_key in methods else {}
            if space.bucket and own and sizes[space.method_key].get(space.name) != space.bucket:
                own = {}
            here = [s for s in sites if s.name == space.name and (s.layer is None or s.layer >= first[s.stack])]
            filled = [_fill(method, site, space, own.get(site)) for site in here]
            layered = here[0].layer is not None
            trainable, fixed = (
                {leaf: np.stack([part[leaf] for part in parts]) if layered else parts[0][leaf] for leaf in parts[0]}
                for parts in zip(*filled, strict=True)
            )
            mask = {}
            for leaf, array in trainable.items():
                held = [site in own and leaf in own[site][0] for site in here]
                mask[leaf] = np.array(held, np.float32).reshape((len(here) if layered else 1,) + (1,) * (array.ndim - 1))
            for tree, leaves in zip(trees, (trainable, fixed, mask), strict=True):
                tree.setdefault(space.name, {})[space.tree_key] = leaves
        return trees

    def largest(self, adapter: Adapter) -> int:
        """Where buckets lie apart, the largest in which an adapter has something; 0 where it has nothing in any."""
        own = {(name, method.key, size) for method in adapter.methods for name, size in _sizes(method, adapter, True).items()}
        return max((s.bucket for s in self.spaces if (s.name, s.method_key, s.bucket) in own), default=0)

    @property
    def buckets(self) -> tuple[int, ...]:
        """Where buckets lie apart, those there are, the smallest first."""
        return tuple(sorted({space.bucket for space in self.spaces if space.bucket}))

    def within(self, state: State, most: int) -> State:
        """A tree in this layout without the leaves of buckets above `most`."""
        kept: State = {}
        for space in self.spaces:
            if space.bucket <= most:
                kept.setdefault(space.name, {})[space.tree_key] = state[space.name][space.tree_key]
        return kept

    def unstack(self, adapter: Adapter, state: State, sites: Sequence[Site]) -> SiteStates:
        """The states of `adapter` with leaves from a tree in this layout, cut back to true size.

        Leaves that the tree has not stay what they are in the adapter.
        """
        first = self._first(sites)

        def cut(array: Any, site: Site, like: np.ndarray) -> np.ndarray:
            mine = np.asarray(array if site.layer is None else array[site.layer - first[site.stack]])
            return np.asarray(mine[tuple(slice(0, n) for n in like.shape)], order="C")

        states: SiteStates = {}
        for method in adapter.methods:
            states[method.key] = {}
            for site, parts in adapter.states[method.key].items():
                tree = state[site.name][method.key]
                own, fixed = ({n: cut(tree[n], site, like) if n in tree else like for n, like in p.items()} for p in parts)
                states[method.key][site] = (own, fixed)
        return states


def _sizes(method: Method, adapter: Adapter, bucket: bool) -> dict[str, int]:
    """The size of a method by the name of sites, the largest of theirs; `bucket` rounds it up to a power of two from 8."""
    sizes: dict[str, int] = {}
    for site in adapter.states[method.key]:
        sizes[site.name] = max(sizes.get(site.name, 0), method.size(site))
    return {name: max(8, 1 << (size - 1).bit_length()) if bucket and size else size for name, size in sizes.items()}


def _fill(method: Method, site: Site, space: Space, own: tuple[Leaves, Leaves] | None) -> tuple[Leaves, Leaves]:
    """One site's leaves at a space's size, trainable and fixed; what the adapter does not hold is at identity."""
    if own and method.size(site) == space.size and own[0].keys() == {*space.trainable} and own[1].keys() == {*space.fixed}:
        return own
    blank = method.identity(site, space.size)
    trainable, fixed = (
        {leaf: padded(mine[leaf], like[leaf].shape) if leaf in mine else np.asarray(like[leaf]) for leaf in names}
        for mine, like, names in zip(own or ({}, {}), blank, (space.trainable, space.fixed), strict=True)
    )
    return trainable, fixed
