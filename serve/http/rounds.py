"""The engine's rounds, in a thread of their own for as long as there is something to do.

    told = rounds.next()          # before looking, so that no round is missed
    ... look what has come ...
    await told                    # the next round is over

The engine works, and the server's loop answers: neither waits for the other.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

_PAUSE = 0.002  # seconds between two rounds in which requests only waited: for an adapter that is being read, say
_AFTER_FAILURE = 0.1

#: What calls a round when it is its turn, and returns what that returns: whether there was something to do.
Around = Callable[[Callable[[], bool]], bool]


def at_once(advance: Callable[[], bool]) -> bool:
    return advance()


class Rounds:
    """Calls `engine.advance` as long as it has requests. All but `wake` belongs to one event loop."""

    def __init__(self, engine: Any, around: Around = at_once):
        """`around`: what each round is done in, for who shares the device with others; by default at once."""
        self._engine, self._around = engine, around
        self._work = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="graftax-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._over: asyncio.Future[None]
        self.failure: str | None = None  # what the last round ended with, if it failed

    def start(self) -> None:
        """Begin, in the loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.create_future()
        self._thread.start()

    def next(self) -> asyncio.Future[None]:
        """Done when the next round is over."""
        return self._over

    def wake(self) -> None:
        """Say that there is something to do; from any thread."""
        self._work.set()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """End when the round under way is over."""
        self._stopping = True
        self._work.set()
        self._thread.join()

    # -- in the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            self._work.clear()
            busy = self._round()
            self._loop.call_soon_threadsafe(self._tell)
            if not busy:
                self._work.wait(None if self._engine.idle else _PAUSE)

    def _round(self) -> bool:
        try:
            busy = self._around(self._engine.advance)
        except Exception as error:  # the texts in it have ended with this as their error; others go on
            logging.getLogger("graftax").exception("a round of the engine failed")
            self.failure = f"{type(error).__name__}: {error}"
            threading.Event().wait(_AFTER_FAILURE)
            return True
        if busy:
            self.failure = None
        return busy

    # -- in the loop ------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self._over.set_result(None)
        self._over = self._loop.create_future()
