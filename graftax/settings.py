"""Checks of single settings: of the kind that is meant, finite and within what makes sense; else an error in one line."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import GraftaxError

LARGEST = float(np.finfo(np.float32).max)  # of what reaches a compiled program
SMALLEST = float(np.finfo(np.float32).tiny)


def check_whole(name: str, value: Any, least: int, most: int) -> None:
    """A whole number, not a text, a float or a truth value that would pass for one."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise GraftaxError(f"{name} must be a whole number from {least} to {most}; got {_said(value)}.")


def check_number(name: str, value: Any, least: float = 0.0, most: float = LARGEST) -> None:
    """A finite number."""
    _check_kind(name, value)
    if not least <= value <= most:  # NaN is nowhere
        raise GraftaxError(f"{name} must be from {least:g} to {most:g}; got {_said(value)}.")


def check_positive(name: str, value: Any) -> None:
    """A number above zero that is so, and finite, as a 32-bit float."""
    _check_kind(name, value)
    if not SMALLEST <= value <= LARGEST:
        raise GraftaxError(f"{name} must be positive, from {SMALLEST:.1g} to {LARGEST:.1g}; got {_said(value)}.")


def _check_kind(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GraftaxError(f"{name} must be a number; got {_said(value)}.")


def check_flag(name: str, value: Any) -> None:
    """True or False, not a text that would count as True."""
    if not isinstance(value, bool):
        raise GraftaxError(f"{name} must be True or False; got {_said(value)}.")


def _said(value: Any) -> str:
    """A value as it was given, at a length that one can read."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:80]}..."
