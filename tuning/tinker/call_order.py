"""In which order calls are done: those of a model by their numbers, those of several models together.

A model has a *line* of calls. A call with a number waits until those with lower ones have come; one without a number comes when
it comes. At the head of each line stands what its model is to do next. The thread takes the head that has waited longest, and
with it all that is of its kind at the heads of other lines: one batch of gradients, or one of steps. What a model is asked to
do alone, such as to be saved, is done alone.

    line of a    gradient 1   gradient 2   step 3             gradients a1 a2 b1 in one batch,
    line of b    gradient 1   step 2                          then steps a3 b2 in another

A number that never comes (a client that has died between two calls) holds up its own model alone, and for a time: then what
waits behind it comes to nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...disk import DiskFull
from ...errors import GraftaxError
from ...serve.http.complaints import Refused
from ..loops.calls import Call, Outcome, Step, StepOutcome
from ..loops.loops import Loops
from .accounts import Accounts
from .promises import Failure, Result, Tell
from .wire_data import packed_outcome

_PATIENCE = 600.0  # seconds that a call waits for one before it: a client sends a call again for 300
_MOST_TOKENS = 1 << 16  # of all gradients of a batch, beyond one call of each model


@dataclass(frozen=True)
class Gradient:
    """Asks for a loss, and unless it is forward only for its gradient."""

    call: Call

    @property
    def loop(self) -> str:
        return self.call.loop

    @property
    def tokens(self) -> int:
        return sum(len(datum.tokens) for datum in self.call.data)


@dataclass(frozen=True)
class Advance:
    """Asks for a step of the optimizer."""

    step: Step
    tokens: int = 0

    @property
    def loop(self) -> str:
        return self.step.loop


@dataclass(frozen=True)
class Alone:
    """Asks for something else; what it returns is the result, and a GraftaxError says why there is none."""

    run: Callable[[], Result]
    tokens: int = 0


Asked = Gradient | Advance | Alone


@dataclass(eq=False)
class _Waiting:
    """A call in a line."""

    asked: Asked
    tell: Tell
    since: float


@dataclass(eq=False)
class _Line:
    """What a model is asked."""

    next: int  # the lowest number that has not come
    ready: deque[_Waiting] = field(default_factory=deque)
    early: dict[int, _Waiting] = field(default_factory=dict)  # by their numbers, which are above `next`


class CallOrder:
    """The lines of all models, and the thread that does what they are asked. Calls come from any thread."""

    def __init__(
        self, loops: Loops, accounts: Accounts, *, patience: float = _PATIENCE, clock: Callable[[], float] = time.monotonic
    ):
        """`accounts`: what gradients and steps cost; `patience`: seconds that a call waits for the number before it."""
        self._loops, self._accounts, self._patience, self._clock = loops, accounts, patience, clock
        self._lines: dict[str, _Line] = {}
        self._changed = threading.Condition()  # guards the lines
        self._errands: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="graftax-loops", daemon=True)
        self.batches = 0  # that were done so far

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End when the batch under way is done; what waits comes to nothing."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()
        for model in list(self._lines):
            self.close(model, "the server ends.", category="server")

    def open(self, model: str, first: int = 0) -> None:
        """A line for a model, whose calls are numbered from `first` on."""
        with self._changed:
            self._lines[model] = _Line(first)

    def close(self, model: str, why: str, *, category: str = "user") -> None:
        """Do away with a line; what waits in it comes to nothing."""
        with self._changed:
            line = self._lines.pop(model, None)
        if line is not None:
            _fail([*line.ready, *line.early.values()], Failure(why, category))

    def add(self, model: str, number: int | None, asked: Asked, tell: Tell) -> None:
        """Have something done when its turn has come.

        Raises Refused where its number was there before: what came of that call was given up.
        """
        waiting = _Waiting(asked, tell, self._clock())
        with self._changed:
            line = self._lines.get(model)
            if line is None:
                raise Refused(404, f"there is no model {model!r}.", param="model_id", code="model_not_found")
            if number is None:
                line.ready.append(waiting)
            elif number < line.next or number in line.early:
                said = f"seq_id {number} of {model} was there before, and its result was given up; the next is {line.next}."
                raise Refused(410, said, param="seq_id", code="gone")
            else:
                line.early[number] = waiting
                while line.next in line.early:
                    line.ready.append(line.early.pop(line.next))
                    line.next += 1
            self._changed.notify()

    def afterwards(self, errand: Callable[[], None]) -> None:
        """Have something done in the thread, behind what is being done. It raises nothing."""
        with self._changed:
            self._errands.append(errand)
            self._changed.notify()

    # -- in the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._stopping or self._errands or any(line.ready for line in self._lines.values())):
                    self._fail_overdue()
                    self._changed.wait(self._seconds_to_wait())
                if self._stopping:
                    return
                self._fail_overdue()
                errands, self._errands = self._errands, deque()
                batch = [] if errands else self._next_batch()
            for errand in errands:
                errand()
            if batch:
                self._do(batch)
                self.batches += 1

    def _seconds_to_wait(self) -> float | None:
        """Until the first call in a line has waited for too long; None where none waits for another."""
        first = min((one.since for line in self._lines.values() for one in line.early.values()), default=None)
        return None if first is None else max(0.0, first + self._patience - self._clock())

    def _fail_overdue(self) -> None:
        """Give up what waits for a number that does not come."""
        late = self._clock() - self._patience
        for model, line in self._lines.items():
            if line.early and not line.ready and min(one.since for one in line.early.values()) <= late:
                said = f"seq_id {line.next} of {model} did not come within {self._patience:g} s; later calls wait for it."
                _fail(line.early.values(), Failure(said))
                line.next = max(line.early) + 1
                line.early.clear()

    def _next_batch(self) -> list[_Waiting]:
        """What is done next: of one kind, and out of the lines."""
        lines = sorted((line for line in self._lines.values() if line.ready), key=lambda line: line.ready[0].since)
        kind = type(lines[0].ready[0].asked)
        if kind is Alone:
            return [lines[0].ready.popleft()]
        lines = [line for line in lines if type(line.ready[0].asked) is kind]
        batch = [line.ready.popleft() for line in lines]
        if kind is Gradient:  # further ones of the same models, as a client cuts its data into several calls
            tokens = sum(one.asked.tokens for one in batch)
            for line in lines:
                while line.ready and type(line.ready[0].asked) is kind:
                    tokens += line.ready[0].asked.tokens
                    if tokens > _MOST_TOKENS:
                        return batch
                    batch.append(line.ready.popleft())
        return batch

    def _do(self, batch: list[_Waiting]) -> None:
        try:
            batch = [one for one in batch if not self._is_refused(one)]
            results = self._results([one.asked for one in batch]) if batch else []
        except DiskFull as error:
            _fail(batch, Failure(str(error), "server"))
        except GraftaxError as error:  # of what is done alone
            _fail(batch, Failure(str(error)))
        except Exception as error:
            logging.getLogger("graftax").exception("calls of training loops failed")
            _fail(batch, Failure(f"{type(error).__name__}: the server failed; what happened is in its log.", "server"))
        else:
            for one, result in zip(batch, results, strict=True):
                one.tell(result)

    def _is_refused(self, one: _Waiting) -> bool:
        """Whether a call comes to nothing, because its tenant has had as much training as he may."""
        if isinstance(one.asked, Alone) or (why := self._accounts.refusal(one.asked.loop)) is None:
            return False
        one.tell(Failure(why))
        return True

    def _results(self, asked: Sequence[Any]) -> list[Result]:
        """What comes of calls of one kind."""
        if isinstance(asked[0], Alone):
            return [one.run() for one in asked]
        results: list[Result] = []
        for one, outcome in zip(asked, self._outcomes(asked), strict=True):
            self._accounts.charge(one.loop, outcome.cost)
            results.append(_of_outcome(outcome))
        return results

    def _outcomes(self, asked: Sequence[Any]) -> Sequence[Outcome | StepOutcome]:
        """What comes of gradients, or of steps."""
        if isinstance(asked[0], Gradient):
            return self._loops.forward_backward([one.call for one in asked])
        return self._loops.optim_step([one.step for one in asked])


def _of_outcome(outcome: Outcome | StepOutcome) -> Result:
    if outcome.error is not None:
        return Failure(outcome.error)
    return packed_outcome(outcome) if isinstance(outcome, Outcome) else {"metrics": outcome.metrics}


def _fail(several: Iterable[_Waiting], failure: Failure) -> None:
    for one in several:
        one.tell(failure)
