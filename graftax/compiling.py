"""Whether XLA is compiling a program at this moment, which takes seconds to minutes and is silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import jax.monitoring

PATIENCE = 1.0  # seconds for which a person need not be told anything
_BEGINS = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # JAX tells the end of each stage; this is the one before
_ENDS = "/jax/core/compile/backend_compile_duration"


class Compiling:
    """Listens to JAX inside its `with` block; calls `long` where a program takes more than a second to compile."""

    def __init__(self, long: Callable[[], None] | None = None):
        self._long = long
        self._since: dict[int, float] = {}  # by thread
        self._timers: dict[int, threading.Timer] = {}

    @property
    def since(self) -> float | None:
        """`time.monotonic()` at which what is being compiled now was begun; None where nothing is."""
        return min(list(self._since.values()), default=None)

    def __enter__(self) -> Compiling:
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def __exit__(self, *_: Any) -> None:
        jax.monitoring.unregister_event_duration_listener(self._hear)
        for thread in list(self._since):
            self._end(thread)

    def _hear(self, event: str, duration_secs: float, **_: Any) -> None:
        thread = threading.get_ident()
        if event == _BEGINS:
            self._end(thread)
            self._since[thread] = time.monotonic()
            if self._long is not None:
                self._timers[thread] = threading.Timer(PATIENCE, self._long)
                self._timers[thread].daemon = True
                self._timers[thread].start()
        elif event == _ENDS:
            self._end(thread)

    def _end(self, thread: int) -> None:
        self._since.pop(thread, None)
        if timer := self._timers.pop(thread, None):
            timer.cancel()
