"""Programs compiled before anybody asks for what they do, so that nobody waits for a compiler.

    warm = WarmUp(engine, print)
    warm.start()                        in a thread of its own; a line for each group: how many programs, and how long they took
    warm.done, warm.count, warm.over    how far it is

All sizes that a decoder's programs have can be listed (`ladders.py`), and those in which an encoder reads
(`reading_calls.py`); for each bucket of the adapters that the bank has room for (`Bank.kinds`). They are traced one by one, for
Python does that, and compiled side by side. Nothing is run, so it takes no memory but the compiler's and the programs', and the
engine may work meanwhile. What is not among them: averages and stacks of adapters, beams, encoder-decoders, texts that a
decoder only reads, and what comes of adapters for which the bank has to grow.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, combinations
from typing import Any

import jax
import numpy as np

from ..adapters.graft import State
from ..adapters.methods.head import HEADS, OF_POSITIONS
from ..data.batches import Shape, rung
from ..models.inputs import TextInputs
from .choice import Needs, Settings
from .engine import Engine
from .holding import Holding
from .ladders import Ladder, Ladders
from .lanes import Lanes, grown, taken
from .reading_calls import positions_of, rows_of_calls
from .reading_pool import ReadingPool
from .restraint import words_for
from .standing import Standing
from .writer import BURST, Writer, shapes_of

_MOST_COMPILERS = 8  # threads; each takes the memory of a program's compilation


@dataclass(frozen=True)
class Program:
    """A function of the writer, and arrays, or shapes of arrays, such as it is called with."""

    function: Any
    args: tuple[Any, ...]
    named: dict[str, Any]  # by name, as the engine gives them: to JAX that is a difference

    def traced(self) -> Any:
        return self.function.lower(*self.args, **self.named)


class WarmUp:
    """What is to be compiled for an engine, and how far that is."""

    def __init__(self, engine: Engine, say: Callable[[str], None]):
        """`say` is told a line for each group of programs that are compiled, and one at the end."""
        self._engine, self._say = engine, say
        self._stopping = False
        self.done, self.count = 0, 0  # programs that are compiled, and how many there are as soon as that is known
        self.over = False
        self.failure: str | None = None  # why it ended before its time
        self._thread = threading.Thread(target=self._run, name="graftax-warm-up", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Compile nothing that is not being compiled already, and return when that is over."""
        self._stopping = True
        if self._thread.is_alive():
            self._thread.join()

    def run(self) -> None:
        """Compile everything, unless it is told to stop."""
        begun, groups = time.monotonic(), groups_of(self._engine)
        self.count = sum(map(len, groups.values()))
        with ThreadPoolExecutor(min(_MOST_COMPILERS, os.cpu_count() or 1), "graftax-compiler") as compilers:
            for what, programs in groups.items():
                since = time.monotonic()
                for compiling in [compilers.submit(self._compile, traced) for traced in map(self._trace, programs)]:
                    compiling.result()
                    if self._stopping:
                        return
                    self.done += 1
                self._say(f"compiled {len(programs)} programs {what} in {time.monotonic() - since:.1f} s")
        self._engine.readings.all_compiled = not self._engine.backbone.generates
        self._say(f"warm after {time.monotonic() - begun:.1f} s: no request waits for a program")

    def _trace(self, program: Program) -> Any:
        return None if self._stopping else program.traced()

    def _compile(self, traced: Any) -> None:
        if not self._stopping:
            traced.compile()

    def _run(self) -> None:
        try:
            self.run()
        except Exception as error:  # requests are answered all the same, and wait for what they need
            logging.getLogger("graftax").exception("the warm-up failed")
            self.failure = f"{type(error).__name__}: {error}"
        self.over = True


def groups_of(engine: Engine) -> dict[str, list[Program]]:
    """The programs of an engine by what they do, in the order in which they are compiled."""
    if engine.backbone.family.encodes:
        return {}
    if not engine.backbone.generates:
        reading = _OfReadings(engine.readings, engine.holding.adapters.kinds())
        return {"that answer": reading.answering(), "that make vectors": reading.embedding()}
    ladders, room = engine.reserve()
    one = _OfLanes(engine.writer, engine.holding, ladders, room)
    return {
        "that begin texts": one.beginning(engine.holding.reads_whole_prompts),
        "that write": one.writing(),
        "that read on": one.reading_on(),
        "that move texts": one.growing(),
        "that write in forms": one.following(),
    }


@dataclass(frozen=True)
class _OfReadings:
    """The programs that read items."""

    pool: ReadingPool
    states: list[State]  # of the adapters that a batch may use

    def answering(self) -> list[Program]:
        """Those of heads; with and without the ones that answer positions, where there are such."""
        kinds = [state for state in self.states if any(name in HEADS for name in state)]
        without = [_without(state, left_out) for state in kinds for left_out in _subsets(OF_POSITIONS, state)]
        return [program for state in without for program in self._of(self.pool.forward, state)]

    def embedding(self) -> list[Program]:
        return [program for state in self.states for program in self._of(self.pool.encode, _without(state, HEADS))]

    def _of(self, function: Any, state: State) -> list[Program]:
        """A function in all sizes."""
        processor, params, shapes = self.pool.processor, self.pool.backbone.params, shapes_of(state)
        lengths = sorted({rung(length, processor.max_length) for length in range(1, processor.max_length + 1)})
        sizes = [
            Shape(rows, rows, length, shared=False)
            for length in lengths
            for rows in rows_of_calls(positions_of(processor, length))
        ]
        return [
            Program(function, (params, shapes, processor.lay([], [], size), np.zeros(size.rows, np.int32)), {})
            for size in sizes
        ]


def _subsets(names: Sequence[str], state: State) -> Iterator[tuple[str, ...]]:
    """Those of the names that are in a state, in every choice; the empty one first."""
    there = [name for name in names if name in state]
    return chain.from_iterable(combinations(there, count) for count in range(len(there) + 1))


def _without(state: State, names: Container[str]) -> State:
    return {name: tree for name, tree in state.items() if name not in names}


@dataclass(frozen=True)
class _OfLanes:
    """The programs of some lanes."""

    writer: Writer
    holding: Holding
    ladders: Ladders
    room: Lanes  # the shapes of what there is from the beginning

    def beginning(self, whole: bool) -> list[Program]:
        found: list[Program] = []
        for rows, length in self._reads(self.ladders.begun(whole)):
            none, ids = np.zeros(rows, np.int32), np.zeros((rows, length), np.int32)
            inputs = TextInputs(ids, ids == 0, ids)
            for adapted in self.holding.kinds(rows):
                found.append(Program(self.writer.prefill, (adapted, inputs, none, none), {"columns": length}))
            batch = self._batch(rows, self.ladders.virtual + length)
            begun: Any = self.writer.shapes_there(ids)  # virtual tokens are in the cache alone
            batch = batch._replace(written=batch.written._replace(ids=begun))
            found += [Program(self.writer.place, (room, none, batch, none), {}) for room in self._rooms]
        return found

    def writing(self) -> list[Program]:
        found: list[Program] = []
        for rows in self.ladders.rows:
            settings, needs = Settings.of([], rows), Needs.of([])
            for columns in self.ladders.columns_to_write:
                batch = self._batch(rows, columns)
                for adapted in self.holding.kinds(rows):
                    found.append(Program(self.writer.decode, (adapted, batch, settings, np.bool_(False)), {"needs": needs}))
                found += self._moving(rows, columns, self.ladders.columns_to_write, BURST)
        return found

    def following(self) -> list[Program]:
        """What writes texts that have guides; what moves them is that of all others."""
        found: list[Program] = []
        for rows in self.ladders.rows:
            settings, needs = Settings.of([], rows), Needs.of([])
            allowed = np.zeros((rows, words_for(self.writer.backbone.config.vocab_size)), np.int32)
            for columns in self.ladders.columns_to_write:
                batch = self._batch(rows, columns)
                for adapted in self.holding.kinds(rows):
                    args = (adapted, batch, settings, np.bool_(False), allowed)
                    found.append(Program(self.writer.follow, args, {"needs": needs}))
        return found

    def reading_on(self) -> list[Program]:
        found: list[Program] = []
        for rows, length in self._reads(self.ladders.read_on):
            ids = np.zeros((rows, length), np.int32)
            for columns in self.ladders.columns_to_read_on:
                batch = self._batch(rows, columns)
                for adapted in self.holding.kinds(rows):
                    found.append(Program(self.writer.extend, (adapted, batch, ids, ids == 0), {}))
                found += self._moving(rows, columns, self.ladders.columns_to_read_on, length)
        return found

    def growing(self) -> list[Program]:
        """What gives texts more room, and what lets one begin as another does."""
        found, number = list[Program](), np.int32(0)
        for place, room in enumerate(self._rooms):
            found.append(Program(self.writer.take_over, (room, *[number] * 6), {}))
            for larger in self._rooms[place + 1 :]:
                columns = larger.cache.mask.shape[1]
                found.append(Program(self.writer.grow, (room,), {"lanes": self.ladders.lanes, "columns": columns}))
        return found

    @cached_property
    def _rooms(self) -> list[Lanes]:
        """The shapes of the lanes as they are, and as they will be where texts are longer."""
        now = self.room.cache.mask.shape[1]
        grow = partial(grown, lanes=self.ladders.lanes)
        rooms = [jax.eval_shape(partial(grow, columns=columns), self.room) for columns in self.ladders.room if columns >= now]
        return [self.writer.shapes_there(room) for room in rooms]

    def _reads(self, lengths: Ladder) -> list[tuple[int, int]]:
        """The sizes of calls that read prompts: rows, and tokens of each."""
        return [(rows, length) for rows in self.ladders.rows for length in lengths if self.ladders.fits(rows, length)]

    def _batch(self, rows: int, columns: int) -> Standing:
        """The shapes of a batch that is taken out of the lanes."""
        which, first = np.zeros(rows, np.int32), np.int32(0)
        batch = jax.eval_shape(partial(taken, columns=columns), self.room, which, first=first)
        return self.writer.shapes_there(batch)

    def _moving(self, rows: int, columns: int, ladder: Ladder, new: int) -> list[Program]:
        """What takes such a batch out of the lanes, and puts back so many new columns of it."""
        found, which, first = list[Program](), np.zeros(rows, np.int32), np.int32(0)
        for room in self._rooms:
            if columns <= ladder.at_least(room.cache.mask.shape[1] - 1 + new):
                found.append(Program(self.writer.take, (room, which, first), {"columns": columns}))
                found.append(Program(self.writer.put_back, (room, which, first, self._batch(rows, columns)), {"new": new}))
        return found
