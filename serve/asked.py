"""What is asked of a predictor or generator: rows, and the adapter of each, checked by type before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..adapters.adapter import Adapter
from ..counted import counted
from ..errors import GraftaxError
from .composition import Composition, Plan, Term, plan_of, refuse_tokens
from .handles import Handle
from .residents import Residents

What = str | Handle | Composition | None  # what a row asks for; None is no adapter


def listed(values: Any, what: str = "rows") -> list[Any]:
    """The rows of a call. A single text is refused: its letters would be the rows."""
    if isinstance(values, str | bytes | Mapping):
        raise GraftaxError(f"{what} must be a list, got a single {type(values).__name__}; for one text give a list of it.")
    try:
        return list(values)
    except TypeError:
        raise GraftaxError(f"{what} must be a list, got {type(values).__name__}.") from None


def named(adapters: Any, count: int) -> list[What]:
    """The adapter of each row, of one for all or one for each."""
    if adapters is None or isinstance(adapters, str | Handle | Composition):
        return [adapters] * count
    each = listed(adapters, "adapters")
    for i, what in enumerate(each):
        if what is not None and not isinstance(what, str | Handle | Composition):
            raise GraftaxError(f"row {i + 1}: its adapter is {type(what).__name__}; give a name, a composition or None.")
    if len(each) != count:
        raise GraftaxError(f"{counted(count, 'row')} but {counted(len(each), 'adapter')}.")
    return each


def resolved(what: What, residents: Residents) -> tuple[Plan, dict[Handle, Adapter]]:
    """The plan of an adapter or composition, in which each adapter is a handle; and these adapters, for which is waited.

    Raises GraftaxError for a name that means nothing, an adapter that cannot be read, more of them than there are slots, and
    for an average or split of one that adds tokens.
    """
    plan = ((Term(what, 1.0),),) if isinstance(what, Handle) else plan_of(what)
    names = [term.name for stage in plan for term in stage]
    handles = {name: name if isinstance(name, Handle) else residents.resolve(name) for name in names}
    residents.refuse_too_many(handles.values(), what)
    adapters = {}
    for name, handle in handles.items():
        adapters[handle] = residents.adapter(handle)
        refuse_tokens(what, plan, name, adapters[handle])
    return tuple(tuple(term._replace(name=handles[term.name]) for term in stage) for stage in plan), adapters
