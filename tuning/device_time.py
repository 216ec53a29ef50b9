"""Who has the device now: the serving, or the training beside it.

One of both has it at a time, and neither is interrupted: the serving has it for a round of its engine, the training for a step.
So a request that comes waits for the rest of a step at most. Who is next follows from a balance of time, in seconds:

    owed to the training = share x (time that the serving had) - (1 - share) x (time that the training had)

Where the serving has nothing to do, the training goes on, whatever is owed. Where it has, a step is taken only while more than
a second is owed. So with a share of a half a server that is busy all the time gives half of it away; one that is busy half of
the time gives nothing away, because the training has its half in the gaps. The balance is kept within seconds: what was done
an hour ago is no reason to let anybody wait now.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_GRACE = 1.0  # seconds that may be owed before the training takes them
_LEAST_OWED, _MOST_OWED = -1.0, 2.0  # seconds
_LATELY = 20.0  # seconds of training, after which what was before counts half
_STALLED = 0.25  # seconds without a round after which a server that said it was busy is busy no longer


class DeviceTime:
    """The device of a server that trains. Its methods may be called from any thread; each waits for its turn."""

    def __init__(self, share: float = 0.5, clock: Callable[[], float] = time.monotonic):
        """`share`: of the time that the training has where there is more to do than the device can; `clock`: in seconds."""
        self._share, self._clock = share, clock
        self._changed = threading.Condition()
        self._taken = False
        self._round_waits = False  # whether the serving waits for its round
        self._busy = False  # whether the serving had something to do in its last round,
        self._round_ended = clock()  # and when that was over
        self._part_began = clock()  # of the step of the training that has the device
        self._owed = 0.0
        self._waited = self._had = 0.0  # seconds that the training waited for the device and had it, the older the less

    def round(self, advance: Callable[[], bool]) -> bool:
        """Give the serving the device for a round: what `advance` returns, whether there was something to do."""
        with self._changed:
            self._round_waits = True
            self._changed.wait_for(lambda: not self._taken)
            self._round_waits, self._taken = False, True
        began, busy = self._clock(), False
        try:
            busy = advance()
        finally:
            now = self._clock()
            self._give_back(owed=self._share * (now - began) if busy else 0.0, busy=busy, round_ended=now)
        return busy

    @contextmanager
    def step(self) -> Iterator[None]:
        """The device for a step of the training, in a `with` block."""
        self._take_for_training()
        try:
            yield
        finally:
            self._end_part()

    def breathe(self) -> None:
        """Between the parts of a step: give the serving the device if it waits and is next, and take it back."""
        if self._round_waits:
            self._end_part()
            self._take_for_training()

    def share(self) -> float:
        """Of the time in which the training wanted the device lately, the part in which it had it."""
        return self._had / (self._waited + self._had) if self._had else self._share

    def _end_part(self) -> None:
        seconds = self._clock() - self._part_began
        self._had += seconds
        self._give_back(owed=-(1.0 - self._share) * seconds)

    def _take_for_training(self) -> None:
        began = self._clock()
        with self._changed:
            while not self._may_train():
                self._changed.wait(_STALLED)  # the clock alone may have made it so
            self._taken, self._part_began = True, self._clock()
        if self._waited + self._had > _LATELY:
            self._waited, self._had = self._waited / 2, self._had / 2
        self._waited += self._part_began - began

    def _may_train(self) -> bool:
        if self._taken or self._round_waits:
            return False
        return not self._busy or self._owed > _GRACE or self._clock() - self._round_ended > _STALLED

    def _give_back(self, owed: float, busy: bool | None = None, round_ended: float | None = None) -> None:
        with self._changed:
            self._owed = min(_MOST_OWED, max(_LEAST_OWED, self._owed + owed))
            self._taken = False
            if busy is not None and round_ended is not None:
                self._busy, self._round_ended = busy, round_ended
            self._changed.notify_all()
