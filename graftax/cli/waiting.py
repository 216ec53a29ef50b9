"""A word on a terminal for what takes longer than a second, so that nobody wonders whether a command hangs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

_PATIENCE = 1.0  # seconds


@contextmanager
def waiting(compiles: bool) -> Iterator[None]:
    """Say on standard error, if that is a terminal, that a command loads and (`compiles`) that it compiles a program."""
    if not sys.stderr.isatty():
        yield
        return
    loading = threading.Timer(_PATIENCE, partial(_say, "loading"))
    loading.daemon = True
    loading.start()
    from ..compiling import Compiling  # imports JAX, which is the first of what takes long

    with Compiling(long=partial(_say, "compiling")) if compiles else nullcontext():
        yield
    loading.cancel()


def _say(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)
