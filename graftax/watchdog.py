"""A process that runs a command as its child, and ends it where it does nothing any more.

A training that hangs cannot find out by itself: its main thread is in a driver, or in a program on the device that waits for
another device, and signals and exceptions do not get there. So somebody outside has to. The child tells with every step that
it lives (`beat`), by a byte through a pair of sockets; where none came for so long, it is killed. And what a child's end means
is told in one exit code (`exit_codes.py`): that nothing was done for so long; that others are gone, where JAX has aborted it;
else its own, and 128 + n where signal n has ended it.

The sockets are a leash, too: a child whose watchdog was killed ends at once.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from .exit_codes import AGAIN, STALLED
from .signals import remembered

_SOCKET = "GRAFTAX_WATCHED"  # in the environment of a child: the number of its socket
_GLANCE = 0.5  # seconds at most until an end is noticed

_leash: socket.socket | None = None  # of a child that has taken it up


def is_watched() -> bool:
    """Whether this process is the child of a watchdog."""
    return _SOCKET in os.environ or _leash is not None


def hold_on() -> None:
    """In a child: end it with its watchdog, and let `beat` be heard."""
    global _leash
    _leash = socket.socket(fileno=int(os.environ.pop(_SOCKET)))
    _leash.setblocking(True)
    threading.Thread(target=_follow, args=(_leash,), daemon=True).start()


def _follow(leash: socket.socket) -> None:
    with suppress(OSError):
        leash.recv(1)  # nothing is ever sent: it returns when there is no watchdog any more
    os._exit(128 + signal.SIGTERM)


def beat() -> None:
    """Something was done. Who watches, if anybody does, goes on waiting."""
    if _leash is not None:
        with suppress(OSError):  # full: then there is enough to be heard
            _leash.send(b".", socket.MSG_DONTWAIT)


def watch(command: Sequence[str], stall_after: float | None, *, among_others: bool) -> int:
    """Run a command to its end, which gets SIGTERM when this process gets a signal; returns the exit code.

    Args:
        stall_after: seconds without a beat after which the child is killed, those until its first one too; None: never.
        among_others: whether the child joins other processes, so that JAX aborts it when one of them is gone.
    """
    mine, its = socket.socketpair()
    environment = {**os.environ, _SOCKET: str(its.fileno())}
    # a session of its own: Ctrl-C on a terminal comes here alone, and is passed on like any other
    child = subprocess.Popen(command, env=environment, pass_fds=(its.fileno(),), start_new_session=True)
    its.close()
    mine.settimeout(_GLANCE)
    with remembered(lambda: child.send_signal(signal.SIGTERM)):
        heard = time.monotonic()
        while child.poll() is None:
            try:
                if mine.recv(4096):
                    heard = time.monotonic()
                else:
                    child.wait()  # it has let go of the leash: it ends
            except TimeoutError:
                pass
            if stall_after is not None and time.monotonic() - heard > stall_after:
                child.kill()
                child.wait()
                print(f"graftax: nothing was done for {stall_after:g} seconds, the process was killed.", file=sys.stderr)
                return STALLED
    mine.close()
    code = child.returncode
    if code >= 0:
        return code
    if among_others and code == -signal.SIGABRT:
        again = "start all of them again, to go on from the newest state that was saved"
        print(f"graftax: other processes of this run are gone, as is said above; {again}.", file=sys.stderr)
        return AGAIN
    print(f"graftax: the process was ended by {signal.Signals(-code).name}.", file=sys.stderr)
    return 128 - code
