"""The property that every reader has: a right result, or one line that a person can read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graftax.errors import GraftaxError


def refused(call: Callable[[], Any]) -> str | None:
    """The line with which a call refuses what it was given; None where it gave a result. Any other exception is a failure."""
    try:
        call()
    except GraftaxError as error:
        line = str(error)
        assert line, "an error without a word"
        assert line.isprintable(), f"not one printable line: {line!r}"
        assert len(line) < 2500, f"a line of {len(line)} characters"
        return line
    return None
