"""What a call says beside its result: its notes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from graftax.notes import GraftaxNote


def noted(call: Callable[[], Any]) -> list[str]:
    """The notes of a call, each as often as it is said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GraftaxNote)
        call()
    return [str(one.message) for one in caught if issubclass(one.category, GraftaxNote)]
