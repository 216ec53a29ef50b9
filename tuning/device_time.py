"""How training makes way for the serving, on the device that both use.

The serving waits for nothing: its rounds run beside the step of the training that is under way, and the two share the cores, or
on an accelerator its queue. It is the training that waits, before each step and between the parts of long ones.

While nobody has asked the server anything for a second, the training goes on. While the server is in use, what the training may
take is counted in seconds,

    owed to the training = share x (time that has passed) - (time that the training had)

and it takes a step in a gap between rounds if anything is owed, and without a gap if more than a second is. With a share of
a half the training has half of the time of a server in use, in the gaps if there are any, and requests meet a step under
way half of the time. What is owed is kept within seconds: what was done an hour ago is no reason to let anybody wait now.

(At first a round waited for the step under way. A text that MiniLM classifies in 7 ms then took 75 with steps of 94 ms; side by
side it takes 8, and the steps lose a tenth.)
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_IN_USE = 1.0  # seconds after a round in which the server counts as in use
_GRACE = 1.0  # seconds that may be owed before the training takes them without a gap
_LEAST_OWED, _MOST_OWED = -1.0, 2.0  # seconds
_LATELY = 20.0  # seconds of training, after which what was before counts half
_STALLED = 0.25  # seconds without a round after which a server that said it was busy is busy no longer


class DeviceTime:
    """The device of a server that trains. Its methods may be called from any thread."""

    def __init__(self, share: float = 0.5, clock: Callable[[], float] = time.monotonic):
        """`share`: of the time that the training has of a server in use, above 0, at most 1; `clock`: in seconds."""
        self._share, self._clock = share, clock
        self._changed = threading.Condition()
        self._trains: int | None = None  # the thread whose step is under way
        self._serving = False  # whether a round is under way, or the last one had something to do,
        self._round_ended = clock()  # and when that was over; infinity while one is under way
        self._used = -math.inf  # when a round that had something to do was over
        self._part_began = clock()  # of the step of the training that is under way
        self._owed, self._owed_at = 0.0, clock()  # what is owed, and when that was so
        self._waited = self._had = 0.0  # seconds that the training waited for the device and had it, the older the less

    def round(self, advance: Callable[[], bool]) -> bool:
        """A round of the serving, at once: what `advance` returns, whether there was something to do."""
        busy = False
        with self._changed:
            self._pass_time()
            self._serving, self._round_ended = True, math.inf
        try:
            busy = advance()
        finally:
            with self._changed:
                self._serving, self._round_ended = busy, self._clock()
                if busy:
                    self._used = self._round_ended
                else:
                    self._changed.notify_all()
        return busy

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step of the training, in a `with` block that is entered when it may begin. There is one at a time."""
        self._begin_part()
        try:
            yield
        finally:
            self._end_part()

    def breathe(self) -> None:
        """Between the parts of a step: wait until the next may begin. Nothing in a thread that has no step under way."""
        if self._trains == threading.get_ident():
            self._end_part()
            self._begin_part()

    def share(self) -> float:
        """Of the time in which the training wanted the device lately, the part in which it had it."""
        return self._had / (self._waited + self._had) if self._had else self._share

    def _begin_part(self) -> None:
        began = self._clock()
        with self._changed:
            while self._trains is not None or not self.may_train():
                self._changed.wait(self._seconds_until_owed())
            self._trains, self._part_began = threading.get_ident(), self._clock()
            if self._waited + self._had > _LATELY:
                self._waited, self._had = self._waited / 2, self._had / 2
            self._waited += self._part_began - began

    def _end_part(self) -> None:
        with self._changed:
            seconds = self._clock() - self._part_began
            self._had += seconds
            self._pass_time()
            self._owed = max(_LEAST_OWED, self._owed - seconds)
            self._trains = None
            self._changed.notify_all()

    def may_train(self) -> bool:
        """Whether the serving leaves the device to the training now."""
        self._pass_time()
        gap = not self._serving or self._clock() - self._round_ended > _STALLED
        return not self._in_use() or self._owed > (0.0 if gap else _GRACE)

    def _in_use(self) -> bool:
        under_way = self._round_ended == math.inf
        return under_way or self._clock() - self._used < _IN_USE

    def _pass_time(self) -> None:
        """Bring what is owed up to date; of a server that is not in use it is nothing."""
        now = self._clock()
        more = self._share * (now - self._owed_at)
        self._owed, self._owed_at = min(_MOST_OWED, self._owed + more) if self._in_use() else 0.0, now

    def _seconds_until_owed(self) -> float:
        """After how long it is worth looking whether the training may go on: the clock alone may have made it so."""
        return min(_STALLED, max(0.001, -self._owed / self._share))
