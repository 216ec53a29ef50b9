"""The engine: texts are written side by side, and one begins as soon as another has ended (continuous batching).

    engine.submit(request)        from any thread
    engine.advance()              one round: requests begin, prompts are read on, up to 16 tokens are written of each text
    request.hear()                the tokens that came since
    engine.read(reading)          likewise, for items that are only read: to be classified, say, or made vectors
    reading.future                done when they are

What is asked for each text (its adapter, its length, how it is drawn) is its own, and what it becomes does not depend on its
neighbours, beyond the rounding of sums that the number of batch rows decides. The adapters of a request are *held* from its
beginning to its end: to replace or unload a name changes no text that has begun.

A decoder's texts are in lanes (`lane_pool.py`); those that must begin and end together are a batch of their own
(`together.py`), beside the lanes; what is only read goes into one batch of each round (`reading_pool.py`). The engine knows
token ids, items and handles of adapters, and nothing of tokenizers, chats or servers. Batches whose texts come and go are
Orca's idea (Yu et al., OSDI 2022).
"""

from __future__ import annotations

import threading
from collections import deque

from ..errors import GraftaxError
from ..models.backbone import Backbone
from .handles import Handle
from .holding import Adapters, Holding
from .ladders import CHUNK, Ladders
from .lane_pool import LanePool
from .lanes import Lanes
from .read_request import Reading
from .reading_pool import ReadingPool
from .request import Request
from .together import Together
from .turns import Turns
from .writer import Writer

MOST_ROWS = 64  # batch rows of one call of a program
MOST_PASSED = 64  # requests that begin before one that waits for a slot alone


class Engine:
    """A backbone that writes and reads what it is given, in the threads that call it."""

    def __init__(self, backbone: Backbone, adapters: Adapters, *, most_lanes: int = MOST_ROWS, chunk: int = CHUNK):
        """`most_lanes`: texts that are written at once; `chunk`: tokens of a prompt that are read in a round."""
        self.backbone, self.writer, self.holding = backbone, Writer(backbone), Holding(backbone, adapters)
        self.pool = LanePool(backbone, self.writer, self.holding, most_lanes, chunk)
        self.readings = ReadingPool(backbone, self.holding)
        self._reads_first = False  # in this round, before texts that wait take slots
        self._together: Together | None = None
        self._turns = Turns()
        self._waiting: deque[Request] = deque()  # threads append; whoever has the lock takes
        self._lock = threading.Lock()

    def refuse_others(self, backbone: Backbone, adapters: Adapters) -> None:
        """An error where it is the engine of another backbone, or of other adapters."""
        if self.backbone is not backbone or self.holding.adapters is not adapters:
            raise GraftaxError("engine: it has another backbone, or other residents; give it together with its own.")

    @property
    def waiting(self) -> list[Request]:
        """The requests that nothing was done for yet."""
        return list(self._waiting)

    @property
    def running(self) -> list[Request]:
        """The requests that are being written."""
        together = [] if self._together is None else self._together.requests
        return [*self.pool.requests, *together]

    def submit(self, request: Request) -> None:
        """Have a request written in the rounds to come."""
        self._waiting.append(request)

    def read(self, reading: Reading) -> None:
        """Have items read in the rounds to come."""
        self.readings.waiting.append(reading)

    def place(self, handle: Handle) -> None:
        """Give an adapter a slot now, if there is one that it can have. Raises GraftaxError as of `Residents.hold`."""
        with self._lock:
            if self.holding.adapters.hold(handle) is not None:
                self.holding.adapters.release(handle)

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written or read."""
        return not (self._waiting or self.readings.waiting)

    def advance(self) -> bool:
        """One round. False where nothing was to be done: no request is being written or read, or can begin.

        Raises:
            BaseException: whatever a program ended with. All requests that were being written end, with this as their error.
        """
        with self._lock:
            try:
                self._release()
                self._reads_first = not self._reads_first  # in turns: a slot that has become free is for either
                read = self._reads_first and self.readings.advance()
                self._admit()
                busy = bool(self.running)
                self.pool.advance()
                if self._together is not None:
                    self._together.advance()
                self._release()
                if not self._reads_first:
                    read = self.readings.advance()
                return busy or read
            except BaseException as error:
                self._fail(error)
                raise

    def reserve(self) -> tuple[Ladders, Lanes]:
        """Make room for all lanes at once, in place of what was needed so far; the sizes of programs, and its shapes."""
        with self._lock:
            return self.pool.reserve()

    def _admit(self) -> None:
        """Begin requests that wait, in turns.

        One whose adapters have no slots yet lets others go first; but where it could have begun so many times, but for a slot,
        nobody takes one before it.
        """
        batch: list[Request] = []
        self._forget_cancelled()
        waiting = self.waiting
        overdue = {request for request in waiting if request.passed >= MOST_PASSED}
        passed: list[Request] = []
        for request in self._turns.order(waiting, self.running):
            if not (self._joins(request, batch) if self._apart(request) else not self.pool.is_full):
                continue
            if overdue and request.handles and request not in overdue:
                continue
            try:
                if not self.holding.hold(request):
                    if self.holding.lacks_slots(request):
                        passed.append(request)
                    continue
            except GraftaxError as error:  # its adapters cannot be had, which is nobody else's affair
                request.fail(error)
                self._turns.charge(request, 0)
            else:
                batch.append(request) if self._apart(request) else self.pool.add(request)
                self._turns.charge(request, request.most_tokens)
                for other in passed:
                    other.passed += 1
            self._waiting.remove(request)
        if batch:
            self._together = Together(self.backbone, self.writer, self.holding, batch)

    def _forget_cancelled(self) -> None:
        for request in [request for request in self.waiting if request.cancelled]:
            request.done = True
            self._waiting.remove(request)

    def _apart(self, request: Request) -> bool:
        """Whether a request cannot be in a lane."""
        return self.backbone.family.encodes or request.sampling.num_beams > 1

    def _joins(self, request: Request, batch: list[Request]) -> bool:
        """Whether a request may be written together with those of a batch that is about to begin."""
        beams = request.sampling.num_beams
        fits = (len(batch) + 1) * beams <= max(beams, MOST_ROWS)
        return self._together is None and fits and all(other.sampling.num_beams == beams for other in batch)

    def _release(self) -> None:
        """Let go of requests that have ended, or that nobody wants any longer."""
        for request in self.pool.requests:
            if request.done or request.cancelled:
                self.pool.remove(request)
                self._end(request)
        if self._together is not None and self._together.done:
            for request in self._together.requests:
                self._end(request)
            self._together = None

    def _end(self, request: Request) -> None:
        request.done = True
        self._turns.charge(request, -2 * (request.sampling.max_new_tokens - request.count))  # what was not written
        self.holding.release(request)

    def _fail(self, error: BaseException) -> None:
        """End all requests that are being written."""
        for request in self.running:
            if not request.done:
                request.fail(error)
            self.holding.release(request)
        self.pool.forget()
        self._together = None
