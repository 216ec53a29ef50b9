"""What a user should know and need not act on: one line, a Python warning of a kind of its own.

The command line prints it as a line on stderr (`graftax/__main__.py`); in Python the filters of `warnings` apply.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .errors import in_a_line


class GraftaxNote(UserWarning):
    """Something was ignored, or is not as the user may think, and the result is right all the same."""


_NAMES: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("paths, and what people call them", default=())
_HEARD: ContextVar[list[str] | None] = ContextVar("where notes are put that somebody hears", default=None)


def note(text: str) -> None:
    for path, name in _NAMES.get():
        text = text.replace(path, name)
    if (heard_by := _HEARD.get()) is not None:
        heard_by.append(in_a_line(text))
    else:
        warnings.warn(GraftaxNote(in_a_line(text)), stacklevel=3)


@contextmanager
def heard() -> Iterator[list[str]]:
    """The notes of what this thread does in the block, for whoever tells them to somebody: then they are no warnings."""
    notes: list[str] = []
    token = _HEARD.set(notes)
    try:
        yield notes
    finally:
        _HEARD.reset(token)


@contextmanager
def named_in_notes(path: Path, name: str) -> Iterator[None]:
    """Notes while the block runs name what lies at a path as people know it, and not the path."""
    token = _NAMES.set((*_NAMES.get(), (str(path), name)))
    try:
        yield
    finally:
        _NAMES.reset(token)


@contextmanager
def silenced() -> Iterator[None]:
    """No notes while the block runs: of what is done many times over with the same data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraftaxNote)
        yield


def print_notes() -> None:
    """Show notes as lines on stderr from now on, and other warnings as before."""
    shown = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, GraftaxNote):
            print(f"graftax: {message}", file=sys.stderr)
        else:
            shown(message, category, *where, **more)

    warnings.showwarning = show
