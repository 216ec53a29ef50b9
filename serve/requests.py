"""What is asked of a predictor or generator, checked by type before anything is computed: rows, and the adapter of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import GraftaxError
from .composition import Composition


def listed(values: Any, what: str = "rows") -> list[Any]:
    """The rows of a call. A single text is refused: its letters would be the rows."""
    if isinstance(values, str | bytes | Mapping):
        raise GraftaxError(f"{what} must be a list, got a single {type(values).__name__}; for one text give a list of it.")
    try:
        return list(values)
    except TypeError:
        raise GraftaxError(f"{what} must be a list, got {type(values).__name__}.") from None


def named(adapters: Any, count: int) -> list[str | Composition | None]:
    """The adapter of each row, of one for all or one for each."""
    if adapters is None or isinstance(adapters, str | Composition):
        return [adapters] * count
    each = listed(adapters, "adapters")
    for i, what in enumerate(each):
        if what is not None and not isinstance(what, str | Composition):
            raise GraftaxError(f"row {i + 1}: its adapter is {type(what).__name__}; give a name, a composition or None.")
    if len(each) != count:
        raise GraftaxError(f"{count} rows but {len(each)} adapters.")
    return each
