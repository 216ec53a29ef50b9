"""Ctrl-C and SIGTERM: a run is asked to stop by the first, and ended by the second.

The first is remembered, and the run stops when its step is done and its state saved. In Python the second does what the process
does without us: it raises KeyboardInterrupt as soon as the main thread is back in Python.

On the command line a thread of its own hears the signals (`heard_at_once`), for the main thread may be in XLA for a minute,
where Python keeps them waiting. The second signal ends the process where it stands. To unwind would not be at once, for that
waits for what orbax writes in other threads; nor would it be safe: an exception that a handler raises in a callback of XLA's is
swallowed, and an interpreter that is taken down while such threads run may end in a segmentation fault. Nothing is lost by it,
for whatever is on the disk is whole (`graftax/disk.py`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from .exit_codes import INTERRUPTED

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a run was asked to stop."""

    def __init__(self, heard: Callable[[], None] = lambda: None):
        self.asked, self._heard = False, heard

    def ask(self) -> None:
        self.asked = True
        self._heard()


class _Ear:
    """Who hears signals on the command line: a run, if one goes on."""

    listening = False
    run: Stop | None = None


@contextmanager
def remembered(heard: Callable[[], None]) -> Iterator[Stop]:
    """Remember the first signal, and call `heard`; the second finds what there was before. Only a main thread hears any."""
    stop = Stop(heard)
    if _Ear.listening:
        _Ear.run = stop
        try:
            yield stop
        finally:
            _Ear.run = None
        return
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def remember(number: int, frame: Any) -> None:
        _restore(before)
        stop.ask()

    before = {number: signal.signal(number, remember) for number in STOPPING}
    try:
        yield stop
    finally:
        _restore(before)


@contextmanager
def heard_at_once() -> Iterator[None]:
    """In a command: signals go to the run that goes on, and where there is none, or it was asked already, end the process."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    earlier = signal.set_wakeup_fd(write)  # Python's own handler writes there, whatever the main thread does
    before = {number: signal.signal(number, lambda *_: None) for number in STOPPING}
    _Ear.listening = True
    threading.Thread(target=_listen, args=(read,), daemon=True).start()
    try:
        yield
    finally:
        _Ear.listening = False
        _restore(before)
        signal.set_wakeup_fd(earlier)
        os.close(write)  # which ends the thread


def _listen(pipe: int) -> None:
    while number := os.read(pipe, 1):
        if number[0] not in STOPPING:
            continue
        if (run := _Ear.run) is not None and not run.asked:
            run.ask()
        else:
            leave("graftax: interrupted")
    os.close(pipe)


def leave_where_swallowed() -> None:
    """End this process where Python finds a KeyboardInterrupt that it cannot raise, and would go on.

    JAX has a callback in Python's garbage collector: what a signal raises in there is printed and forgotten.
    """
    otherwise = sys.unraisablehook

    def leave_or_print(found: sys.UnraisableHookArgs) -> None:
        if issubclass(found.exc_type, KeyboardInterrupt):
            leave("graftax: interrupted")
        otherwise(found)

    sys.unraisablehook = leave_or_print


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def leave(line: str, code: int = INTERRUPTED) -> NoReturn:
    """End this process, as interrupted, without unwinding and with a last line; what was printed is printed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or interrupted while it wrote
            stream.flush()
    shown = "\x1b[?25h\n" if os.isatty(2) else ""  # bars hide the cursor, and stand on the last line
    os.write(2, f"{shown}{line}\n".encode(errors="backslashreplace"))
    os._exit(code)
