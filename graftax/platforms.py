"""For which kind of device programs are being made: "cpu", "cuda", "tpu", or whatever else JAX calls one.

Attention, convolutions and packs are computed in other ways on a CPU than on an accelerator, so what is traced depends on the
device. As a rule that is JAX's default one. A program may also be compiled ahead of time for a device that is not there:

    with compiling_for("tpu"):
        jax.jit(step).lower(*shapes).compile()

The function must not have been traced before for another platform, for JAX keeps what it has traced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import jax
from jax.extend.backend import get_backend

_CHOSEN: ContextVar[str | None] = ContextVar("the platform that programs are compiled for", default=None)


def platform() -> str:
    """The platform of the programs that are being traced."""
    return _CHOSEN.get() or _own()


@contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """In the block, of this thread, programs are traced for that platform."""
    token = _CHOSEN.set(platform)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


@cache
def _own() -> str:
    """That of JAX's default device; of GPUs, which JAX calls so, "cuda" or "rocm"."""
    if (found := jax.default_backend()) != "gpu":
        return found
    return "cuda" if "cuda" in get_backend().platform_version else "rocm"
