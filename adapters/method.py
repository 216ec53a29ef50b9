"""What an adapter method is: a frozen config and pure functions of arrays, written for one site at a time.

A method says at which sites it acts (`select`), what it holds there (`init`, `identity`), and what it does: `pre` changes
what enters a site, `apply` changes what leaves it, `merge` folds it into the site's weights, `prepare` computes ahead what they
need. Stacking over layers, packs of adapters, banks, mixed batches, padding, files and merging are done around it, by code that
knows no method.

State at a site is two dicts of float32 arrays, the *trainable* leaves and the *fixed* ones (scales, buffers). Everything the
compiled program depends on is in the arrays' shapes, the method's name and its `traced` fields; anything else in the config
(targets, alpha, dropout) becomes data, so adapters that differ in it share one program.

docs/adding_a_method.md walks through a new one.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import jax
import numpy as np

from .. import typed
from ..errors import GraftaxError
from .patterns import matches
from .sites import Site

if TYPE_CHECKING:
    from .methods.starts import TrainingData

_ZERO = bytes(4)  # float32's
BUCKET = "#"  # between a key and the bucket behind it
QUERY_VALUE = ("query", "value", "qkv")  # where most methods act by default; qkv: one projection for query, key and value
CONVOLUTIONS = ("conv_in", "conv_out")  # likewise, in a convolutional block: what enters its inner channels, what leaves them
Leaves = dict[str, Any]  # leaf name -> array
Targets = str | tuple[str, ...] | None
AtSites = Mapping[str, Leaves]  # of one method: leaves by the name of the site, those of its layers stacked
States = dict[Site, tuple[Leaves, Leaves]]  # of one method: trainable and fixed leaves at every site
Begun = tuple["Method", States]
Keys = Callable[[Site], jax.Array]  # the PRNG key of a site


@dataclasses.dataclass(frozen=True)
class Method(typed.Settled, ABC):
    """Base of all methods; see the module docstring for the contract."""

    name: ClassVar[str]
    summary: ClassVar[str]
    count: ClassVar[str]  # trainable parameters at a site, in words of its in, out or d
    acts_on: ClassVar[tuple[str, ...]]  # kinds of site
    roles: ClassVar[tuple[str, ...] | None] = (
        None  # where without `targets`, by `Site.role`, the same for every family; None: all
    )
    padded: ClassVar[dict[str, int]] = {}  # leaf -> the axis along which zeros may be added without changing the result
    axes: ClassVar[dict[str, tuple[str, ...]]] = {}  # leaf -> what its axes are called where they are the kernel's: "in", "out"
    shared: ClassVar[tuple[str, ...]] = ()  # trainable leaves that are one for all sites where they have one shape
    fast: ClassVar[tuple[str, ...]] = ()  # leaves that LoRA+ (the recipe's `lora_plus`) speeds up
    traced: ClassVar[tuple[str, ...]] = ()  # config fields the compiled program depends on
    through_weights: ClassVar[tuple[str, ...]] = ()  # kinds of site where the method acts by `merge`, not `pre` and `apply`
    mergeable: ClassVar[bool] = False
    adds_tokens: ClassVar[bool] = False  # puts tokens in front of a text, which then needs a batch row of its own
    virtual: ClassVar[bool] = False  # its virtual tokens are one tensor in files, of one name: an adapter may hold one such
    reads_positions: ClassVar[bool] = False  # within the layers `apply` finds the leaves of a `TextPosition` in its state
    projects: ClassVar[bool] = False  # where an embedding's table projects to the vocabulary too, `project` changes the logits
    whole_text: ClassVar[bool] = False  # reads all tokens of a text at once, which then needs a batch row of its own
    scheduled: ClassVar[bool] = False  # trains by a schedule over all steps, whose number must be known before the first
    fresh_within: ClassVar[float | None] = 0.0  # of the base: 0 is bitwise; None: a fresh adapter changes the result
    tolerance: ClassVar[float] = 1e-5  # float32: how far two programs for one result may lie apart; looser needs a reason here

    targets: Targets = None  # regex over the whole module path, or tuple of suffixes, as in PEFT; None: `default_roles`

    def __post_init__(self) -> None:
        """Every field is held to its annotation; a method that has rules beside those checks them behind this."""
        typed.settle(self, self.name)

    # -- where it acts ------------------------------------------------------------------------------------------------

    def default_roles(self) -> tuple[str, ...] | None:
        """`roles`, unless the config chooses."""
        return self.roles

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        """The sites of a backbone at which it may act in this config, of which `targets` or the roles choose."""
        return [site for site in sites if site.kind in self.acts_on]

    def select(self, sites: Sequence[Site]) -> list[Site]:
        """Those, of all sites of a backbone, that it acts on; an error that lists the sites there are when there is none."""
        candidates = self.candidates(sites)
        if self.targets is not None:
            chosen = [s for s in candidates if matches(self.targets, *s.paths)]
        elif (roles := self.default_roles()) is not None:
            chosen = [s for s in candidates if s.role in roles]
        else:
            chosen = [s for s in candidates if not s.tied]  # what there is counts once
        if not chosen:
            self._no_site(candidates, sites)
        return chosen

    def _no_site(self, candidates: list[Site], sites: Sequence[Site]) -> NoReturn:
        if not candidates:
            kinds = ", ".join(sorted({s.kind for s in sites}))
            raise GraftaxError(f"{self.name} acts on sites of kind {' or '.join(self.acts_on)}; this backbone has {kinds}.")
        there = ", ".join(dict.fromkeys(s.within for s in candidates))
        wanted = self.targets if self.targets is not None else self.default_roles()
        raise GraftaxError(f"{self.name}: target {wanted!r} matches no site. Sites there are: {there}.")

    # -- what it holds ------------------------------------------------------------------------------------------------

    def size(self, site: Site) -> int:
        """Length of the padded axis (the rank, say) at this site; 0 where nothing is padded."""
        return 0

    def rank(self, site: Site) -> int:
        """How many vectors of a site's width it holds there: LoRA's rank, a width, a number of tokens; 0: a few at most."""
        return self.size(site)

    def init(self, key: jax.Array, site: Site) -> Leaves:
        """Trainable leaves at the start of training, at identity unless the method says otherwise, and `buffers` it draws."""
        return self.blank(site)

    def begin(self, sites: Sequence[Site], key: Keys, data: TrainingData | None = None) -> Begun:
        """The method that trains, itself unless its start needs another, and its leaves at every site before the first step.

        `data`: what is known of the rows to be trained on, for starts that follow from them; None outside training.
        """
        states: States = {}
        for site in self.select(sites):
            own = jax.tree.map(np.asarray, self.init(key(site), site))
            drawn = {name: own.pop(name) for name in self.buffers(site) if name in own}
            states[site] = (own, self.fixed(site) | drawn)
        return self, states

    def finished(self, states: States) -> Begun:
        """What is saved of a method that has trained: itself, unless `begin` made it for training alone."""
        return self, states

    def half(self, states: States) -> Begun:
        """What it is at one tower of a pair by itself, whose sites and leaves these are."""
        return self, states

    def fixed(self, site: Site) -> Leaves:
        """Leaves that are not trained: a scale, a mask. They follow from the config, so files do not hold them."""
        return self.identity(site, self.size(site))[1]

    @abstractmethod
    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        """Leaves that change nothing: what an empty slot, or a layer this adapter leaves alone, holds.

        Every leaf the method may hold at this site, also those that `init` leaves out in this config.
        """

    def trainable(self, site: Site) -> tuple[str, ...]:
        """Names of the trainable leaves at this site, in this config."""
        return tuple(self.identity(site, self.size(site))[0])

    def blank(self, site: Site) -> Leaves:
        """Trainable leaves at identity, with this config's names and shapes."""
        identity = self.identity(site, self.size(site))[0]
        return {name: identity[name] for name in self.trainable(site)}

    def held(self, site: Site) -> Leaves:
        """What a file must hold of a site, at identity: the trainable leaves and the buffers."""
        trainable, fixed = self.identity(site, self.size(site))
        return {name: trainable[name] for name in self.trainable(site)} | {name: fixed[name] for name in self.buffers(site)}

    def buffers(self, site: Site) -> tuple[str, ...]:
        """Names of the fixed leaves that files hold, because they do not follow from the config: drawn, or chosen from data."""
        return ()

    # -- what some methods have as fields; others answer with what changes nothing --------------------------------------

    @property
    def dropout(self) -> float:
        """Share of what it computes with that is dropped in training."""
        return 0.0

    @property
    def start(self) -> str:
        """How its leaves start, where there is a choice (`adapters/methods/starts.py`)."""
        return "default"

    @property
    def trained(self) -> tuple[Any, ...]:
        """The trained adapters that it holds, as a fusion does."""
        return ()

    @property
    def virtual_tokens(self) -> int:
        """Positions it takes from the text: a prefix's, a prompt's."""
        return 0

    @property
    def vector_size(self) -> int:
        """Numbers in a vector that it makes of an item, to be compared with others; 0: it makes none."""
        return 0

    # -- what it does -------------------------------------------------------------------------------------------------

    def pre(self, state: Leaves, x: jax.Array) -> jax.Array:
        """What a `linear` or `conv` site computes with in place of its input x."""
        return x

    def apply(self, state: Leaves, x: Any, y: Any, frozen: Any, key: jax.Array | None) -> Any:
        """The site's output y, changed. `key` is given in training only, for dropout."""
        return y

    def project(self, state: Leaves, x: Any, y: Any, frozen: Any, key: jax.Array | None) -> Any:
        """Logits y `[..., T, vocabulary]` that an `embedding` site's table makes of hidden states x, changed (`projects`)."""
        return y

    def merge(self, frozen: Any, state: Leaves) -> Any:
        """The site's weights with the method folded in."""
        raise GraftaxError(f"{self.name} cannot be merged into the weights: it is no change of them.")

    def prepare(self, state: Leaves, frozen: Any) -> Leaves:
        """Leaves to serve with: what every batch row would compute again, computed once when an adapter joins a bank.

        `pre`, `apply` and `merge` take these leaves as well; they may look which are there.
        """
        return state

    # -- what it does in training alone -------------------------------------------------------------------------------

    def precondition(self, leaves: Leaves, grads: Leaves) -> Leaves:
        """Gradients of the trainable leaves at one site, preconditioned, where the recipe asks for it."""
        return grads

    def objective(self, loss: jax.Array, trainable: AtSites, fixed: AtSites) -> jax.Array:
        """What is minimised: the task's loss, and what the method adds to it. Leaves of layers have a leading layer axis."""
        return loss

    def revise(self, trainable: AtSites, fixed: AtSites, grads: AtSites, step: jax.Array) -> tuple[AtSites, AtSites]:
        """The leaves of all sites after the optimizer's step, number `step` from 0; the one place where fixed leaves change."""
        return trainable, fixed

    def settled(self, trainable: Leaves, fixed: Leaves) -> Leaves:
        """What of an adapter in training answers, and is saved: its trainable leaves, and fixed ones that `revise` changed."""
        return trainable

    # -- identity of the compiled program -----------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """Name in adapter trees: adapters whose keys agree can share a pack, a bank and a program.

        In a layout whose buckets lie apart (`adapter.py`) a bucket stands behind it: `lora#64`.
        """
        return ":".join([self.name, *(str(getattr(self, field)) for field in self.traced)])

    @classmethod
    def from_key(cls, key: str) -> Self:
        """A config with the traced fields (str, int or bool) of a key: enough for `pre`, `apply`, `merge` and `identity`."""
        _, *values = key.split(":")
        kinds = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        read: dict[Any, Any] = {str: str, int: int, bool: lambda value: value == "True"}
        return cls(**{name: read[kinds[name]](value) for name, value in zip(cls.traced, values, strict=True)})


def zeros(*shape: int) -> np.ndarray:
    """Zeros to be read: one number that stands for all, so that a size costs no memory until it is found to be true."""
    return np.ndarray(shape, np.float32, _ZERO, strides=(0,) * len(shape))


def scalar(value: float) -> np.ndarray:
    """A strongly typed float32 scalar: a Python float would be weakly typed and compile again."""
    return np.asarray(value, np.float32)


def padded(array: Any, shape: tuple[int, ...]) -> np.ndarray:
    """An array in a larger shape, with zeros behind it on every axis."""
    array = np.asarray(array)
    if array.shape == shape:
        return array
    return np.pad(array, [(0, room - n) for n, room in zip(array.shape, shape, strict=True)])
