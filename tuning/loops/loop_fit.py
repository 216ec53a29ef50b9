"""Which adapters can be trained call by call.

The loss of a call is a sum over tokens, and a step is Adam's. Where a method adds to the loss, or changes leaves behind a step,
or drops something at random, or is saved as another than it trained as, or has a schedule, neither knows of it: such methods
are refused. So is what is to be restored into a loop of other methods or sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...adapters.adapter import Adapter
from ...adapters.method import Method
from ...errors import GraftaxError
from .room import trainable_of

#: What a method may do in training beside its forward pass, by the name of what does it.
_BESIDE = {"objective": "adds to the loss", "revise": "changes itself behind a step", "finished": "is saved as another"}


def refuse_untrainable(methods: Sequence[Method]) -> None:
    """A GraftaxError where methods do something in training that a loop does not."""
    for method in methods:
        kind = type(method)
        if method.dropout:
            raise GraftaxError(f"{method.name}: dropout {method.dropout:g}: the calls of a loop drop nothing; it must be 0.")
        if "head" in kind.acts_on:
            raise GraftaxError(f"{method.name}: a loop says tokens, and its adapter has no head.")
        if kind.scheduled:
            raise GraftaxError(f"{method.name}: its schedule needs the number of all steps, which nobody knows of a loop.")
        for hook, does in _BESIDE.items():
            if getattr(kind, hook) is not getattr(Method, hook):
                raise GraftaxError(f"{method.name}: it {does} in training, and cannot be trained call by call.")


def refuse_other_adapter(name: str, own: Adapter, given: Adapter) -> None:
    """A GraftaxError unless an adapter has the methods, sites and sizes of a loop's own, and is set as that is."""
    mine, theirs = (sorted(method.key for method in adapter.methods) for adapter in (own, given))
    if mine != theirs:
        raise GraftaxError(f"{name}: an adapter of {', '.join(theirs)}, and the loop has {', '.join(mine)}.")
    refuse_other_leaves(name, "an adapter", trainable_of(own), trainable_of(given))
    for method in own.methods:
        for site, (_, fixed) in own.states[method.key].items():
            other = given.states[method.key][site][1]
            for leaf in fixed.keys() - {*method.buffers(site)}:
                if leaf not in other or not np.array_equal(fixed[leaf], other[leaf]):
                    raise GraftaxError(f"{name}: an adapter that is set otherwise: {leaf} of {method.name} at {site.path}.")


def refuse_other_leaves(name: str, what: str, own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """A GraftaxError unless both have the same leaves, of the same shapes."""
    for leaf in sorted(own.keys() | given.keys()):
        here, there = (np.shape(tree[leaf]) if leaf in tree else "none" for tree in (own, given))
        if here != there:
            raise GraftaxError(f"{name}: {what} of another loop: {leaf} is {there} there, and {here} here.")
