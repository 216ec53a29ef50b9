"""For which platform a program is being traced: "cpu", "cuda" or "tpu"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_PLATFORM: ContextVar[str | None] = ContextVar("platform", default=None)


def platform() -> str:
    """The platform that `compiling_for` names, or the one that this process computes on."""
    own = _PLATFORM.get() or jax.default_backend()
    return "cuda" if own == "gpu" else own


@contextmanager
def compiling_for(name: str) -> Iterator[None]:
    """Have what is traced within be for another platform than this process computes on."""
    token = _PLATFORM.set(name)
    try:
        yield
    finally:
        _PLATFORM.reset(token)
