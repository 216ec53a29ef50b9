"""One method in the words of AdapterHub's `adapters`: its settings, and its leaves as tensors under that library's keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ....errors import GraftaxError
from ...method import Leaves, Method, Targets
from ...methods.bottleneck import ACTIVATIONS
from ...sites import Site
from ..peft.shared_keys import targets_of

Tensors = Mapping[str, np.ndarray]
#: Activations here -> there; there silu has a second name.
THEIR_ACTIVATIONS = {name: name for name in ACTIVATIONS} | {"leaky_relu": "leakyrelu", "silu": "swish"}
OUR_ACTIVATIONS = {there: here for here, there in THEIR_ACTIVATIONS.items()} | {"silu": "silu"}


@dataclass(frozen=True)
class Context:
    """Where an adapter is: the sites there are, and what its keys are made of."""

    sites: Sequence[Site]
    prefix: str  # the encoder's module: "bert"
    name: str  # the adapter's
    where: str  # for errors: what is read, or written

    def refuse(self, problem: str) -> GraftaxError:
        return GraftaxError(f"{self.where}: {problem}.")

    def chosen(self, roles: Iterable[str], left_out: Any, kind: str) -> list[Site]:
        """The sites of some roles in all layers but those left out."""
        wanted, layers = set(roles), set(left_out or ())
        found = [s for s in self.sites if s.kind == kind and s.role in wanted and s.layer not in layers]
        if not found:
            raise self.refuse("acts nowhere")
        return found

    def targets(self, method: Method, chosen: Sequence[Site]) -> Targets:
        """`targets` that mean these sites: None where they are the method's default."""
        if {s.path for s in method.select(self.sites)} == {s.path for s in chosen}:
            return None
        return tuple(targets_of(None, chosen, self.sites))

    def spread(self, chosen: Sequence[Site]) -> tuple[set[str], list[int]]:
        """The roles and left-out layers that mean these sites."""
        layers = {s.layer for s in self.sites if s.layer is not None}
        roles = {layer: {s.role for s in chosen if s.layer == layer} for layer in layers}
        (found, *others) = {frozenset(names) for names in roles.values() if names} or {frozenset()}
        if others or any(s.layer is None for s in chosen):
            raise self.refuse("the method must act at the same places in every layer that it acts in")
        return set(found), sorted(layer for layer in layers if layer is not None and not roles[layer])


@dataclass(frozen=True)
class Dialect(ABC):
    """One method in that library's words: the settings, and the leaves at its sites as tensors under its keys."""

    there: ClassVar[str]  # the method's name in that library

    method: Any
    context: Context

    @abstractmethod
    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        """The settings; an error where the library has none for it."""

    @abstractmethod
    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]: ...

    @abstractmethod
    def restore(self, like: Mapping[Site, Leaves], tensors: Tensors) -> dict[Site, Leaves]: ...

    def simplified(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A file's tensors, brought to the form that `export` has."""
        return tensors


class ModuleDialect(Dialect):
    """The dialect of a method each of whose tensors belongs to one site, and has its key under that site's module."""

    part: ClassVar[str]  # what stands between the module and the adapter's name

    def stem(self, site: Site) -> str:
        return f"{site.path}.{self.part}.{self.context.name}"

    @abstractmethod
    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]: ...

    @abstractmethod
    def leaves(self, site: Site, tensors: Tensors) -> Leaves: ...

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        return {
            f"{self.stem(site)}.{suffix}": np.asarray(tensor, order="C")
            for site, leaves in states.items()
            for suffix, tensor in self.tensors(site, leaves).items()
        }

    def restore(self, like: Mapping[Site, Leaves], tensors: Tensors) -> dict[Site, Leaves]:
        return {
            site: self.leaves(site, {suffix: tensors[f"{self.stem(site)}.{suffix}"] for suffix in self.tensors(site, leaves)})
            for site, leaves in like.items()
        }


def our_activation(name: str, context: Context) -> str:
    """What an activation is called here."""
    if name.lower() not in OUR_ACTIVATIONS:
        raise context.refuse(f"non_linearity={name.lower()!r} is none of {', '.join(OUR_ACTIVATIONS)}")
    return OUR_ACTIVATIONS[name.lower()]
