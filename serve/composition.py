"""Compositions: several resident adapters for one row (the algebra of Pfeiffer et al., 2020, arXiv:2007.07779).

    "a"                                        one adapter
    Average("a", "b", weights=(0.7, 0.3))      at every site y + sum_k w_k (y_k - y): the mean of what each makes of it
    Stack("a", "b")                            b acts on the site as a has changed it
    Split("a", "b", at=(16,))                  a on the first 16 tokens, b on the others, at every site
    Parallel("a", "b")                         the row is answered once by each

y is what a site gives without the adapters, y_k with the k-th. Where adapters change kernels, an average is exactly the merged
sum of their changes (`adapters/combining.py: linear`), without making it; weights may be negative and need not sum to one.

What a row asks for is data. Its plan has *stages*, and each stage has *terms*, which are adapters with weights: a stage
averages its terms, and acts on what the stages before it have made of a site. For instance, `Stack("a", Average("b", "c"))` has
two stages, the first of the term (a, 1.0) and the second of the terms (b, 0.5) and (c, 0.5). Only the number of stages, and
that of terms rounded up to a power of two, is compiled in. A `Stack` may hold an `Average` or a `Split`. An `Average` or a
`Split` of a `Stack` has no such form, and is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..adapters.graft import SINGLE, Mix
from ..counted import counted
from ..errors import GraftaxError
from ..typed import Some, checked
from .handles import Handle

if TYPE_CHECKING:
    from ..adapters.adapter import Adapter

MOST_TERMS = 4  # adapters in an `Average` or a `Split`
MOST_STAGES = 4  # parts of a `Stack`


class Term(NamedTuple):
    """One adapter's part in a stage."""

    name: Any  # what the adapter is called, or its `Handle`, as always in the engine
    weight: float
    begin: int = 0  # the first token that it acts on; token 0 of a text is [CLS]
    end: int | None = None  # the first token behind those; None: it acts on all that follow

    @property
    def alone(self) -> bool:
        """Whether it is all of the adapter, on every token."""
        return self[1:] == (1.0, 0, None)


Stage = tuple[Term, ...]
Plan = tuple[Stage, ...]  # the first stage is the innermost; none: the backbone alone


@dataclass(frozen=True, init=False)
class Composition(ABC):
    """Several adapters, by name, for one row; parts may be compositions. What cannot be computed is refused when it is made."""

    parts: tuple[str | Handle | Composition, ...]  # adapters by name or handle, or compositions of them

    def __init__(self, *parts: str | Handle | Composition):
        if not parts:
            raise GraftaxError(f"{type(self).__name__} of no adapters.")
        for part in parts:
            if not isinstance(part, str | Handle | Composition):
                raise GraftaxError(f"{type(self).__name__}: {part!r} is neither an adapter's name nor a composition.")
        object.__setattr__(self, "parts", parts)

    @abstractmethod
    def plan(self) -> Plan:
        """Its stages, the first the innermost."""

    def _terms(self) -> list[Stage]:
        """Each part as one stage."""
        plans = [plan_of(part) for part in self.parts]
        if any(len(plan) > 1 for plan in plans):
            raise GraftaxError(f"{self}: {type(self).__name__} takes no Stack. A Stack may hold it instead.")
        return [plan[0] for plan in plans]

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self.parts))})"


@dataclass(frozen=True, init=False)
class Average(Composition):
    """The weighted mean of what adapters make of every site; equal weights unless given."""

    weights: tuple[float, ...]  # one for each part

    def __init__(self, *parts: str | Handle | Composition, weights: Iterable[float] | None = None):
        super().__init__(*parts)
        given = (1.0 / len(parts),) * len(parts) if weights is None else weights
        given = checked(given, Sequence[float], "the weights of an Average")
        if len(given) != len(parts):
            raise GraftaxError(f"Average of {counted(len(parts), 'adapter')} needs as many numbers as weights, got {given}.")
        object.__setattr__(self, "weights", given)
        plan_of(self)

    def plan(self) -> Plan:
        weighted = zip(self.weights, self._terms(), strict=True)
        return (tuple(term._replace(weight=weight * term.weight) for weight, stage in weighted for term in stage),)

    def __str__(self) -> str:
        return f"Average({', '.join(f'{p}: {w:g}' for p, w in zip(self.parts, self.weights, strict=True))})"


@dataclass(frozen=True, init=False)
class Stack(Composition):
    """Adapters one upon another, at every site; the first is innermost."""

    def __init__(self, *parts: str | Handle | Composition):
        super().__init__(*parts)
        plan_of(self)

    def plan(self) -> Plan:
        return tuple(stage for part in self.parts for stage in plan_of(part))


@dataclass(frozen=True, init=False)
class Split(Composition):
    """Adapters side by side along the tokens: part i acts from token `at[i - 1]` up to token `at[i]`."""

    at: tuple[int, ...]  # the first tokens of the parts after the first

    def __init__(self, *parts: str | Handle | Composition, at: Iterable[int]):
        super().__init__(*parts)
        cuts = checked(at, Sequence[Some], "the first tokens (at) of a Split")
        if len(cuts) != len(parts) - 1 or list(cuts) != sorted({*cuts}):
            raise GraftaxError(
                f"Split of {counted(len(parts), 'adapter')} needs {counted(len(parts) - 1, 'rising token number')}, got {cuts}."
            )
        object.__setattr__(self, "at", cuts)
        plan_of(self)

    def plan(self) -> Plan:
        spans = zip((0, *self.at), (*self.at, None), self._terms(), strict=True)
        return (tuple(_within(term, begin, end) for begin, end, stage in spans for term in stage),)


@dataclass(frozen=True, init=False)
class Parallel(Composition):
    """One row answered several times, once by each part."""

    def __init__(self, *parts: str | Handle | Composition):
        super().__init__(*parts)
        for part in parts:
            plan_of(part)

    def plan(self) -> Plan:
        raise GraftaxError(f"{self}: Parallel answers a row several times, so no other composition can hold it.")


def plan_of(what: str | Handle | Composition | None) -> Plan:
    """The stages of an adapter or composition; none for None."""
    if what is None:
        return ()
    plan = what.plan() if isinstance(what, Composition) else ((Term(what, 1.0),),)
    if len(plan) > MOST_STAGES or any(len(stage) > MOST_TERMS for stage in plan):
        raise GraftaxError(f"{what}: at most {MOST_TERMS} adapters in an average or split, and {MOST_STAGES} parts in a stack.")
    return plan


def from_json(value: Any) -> str | Composition | None:
    """A composition as JSON says it: a name or null, {"a": 0.7, "b": 0.3} for an `Average`, ["a", "b"] for a `Stack`."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return Stack(*(part for part in map(from_json, value) if part is not None))
    if isinstance(value, dict) and all(isinstance(weight, int | float) for weight in value.values()):
        return Average(*value, weights=value.values())
    raise GraftaxError(f"{value!r} is no adapter: a name, an object of names and weights, or a list of these.")


def _within(term: Term, begin: int, end: int | None) -> Term:
    """A term on those of its tokens alone that lie from `begin` up to `end`."""
    ends = [e for e in (term.end, end) if e is not None]
    return term._replace(begin=max(begin, term.begin), end=min(ends) if ends else None)


def refuse_tokens(what: Any, plan: Plan, name: Any, adapter: Adapter) -> None:
    """An error where the adapter that a row's plan calls so adds tokens, and would have to be averaged or split."""
    if all(stage == (Term(name, 1.0),) for stage in plan if any(term.name == name for term in stage)):
        return
    for method_key, states in adapter.states.items():
        if any(site.kind in SINGLE for site in states):
            method = method_key.partition(":")[0]
            raise GraftaxError(f"{what}: {name} ({method}) adds tokens, and those cannot be averaged or split.")


def laid(
    plans: Sequence[Plan], answering: Sequence[Any], slot: Callable[[Any], int], rows: int, tokens: int
) -> np.ndarray | Mix:
    """What `Backbone.forward` takes as `slots` for a batch of `rows` batch rows; those behind the plans use no adapter.

    `answering`: the adapter whose head answers each; `tokens`: positions of a batch row.
    """
    slots = np.zeros(rows, np.int32)
    if all(not plan or (len(plan) == len(plan[0]) == 1 and plan[0][0].alone) for plan in plans):
        slots[: len(plans)] = [slot(plan[0][0].name if plan else None) for plan in plans]
        return slots
    slots[: len(answering)] = [slot(name) for name in answering]
    stages = max(len(plan) for plan in plans)
    most = max(len(stage) for plan in plans for stage in plan)
    terms = 1 << (most - 1).bit_length()
    used, shares = np.zeros((rows, stages, terms), np.int32), np.zeros((rows, stages, terms, tokens), np.float32)
    for batch_row, plan in enumerate(plans):
        for s, stage in enumerate(plan):
            for k, term in enumerate(stage):
                used[batch_row, s, k] = slot(term.name)
                shares[batch_row, s, k, term.begin : term.end] = term.weight
    split = any(term.begin or term.end is not None for plan in plans for stage in plan for term in stage)
    return Mix(used, shares if split else shares[..., 0], slots)
