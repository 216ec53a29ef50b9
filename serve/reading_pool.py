"""Items that many ask to have read, read together.

While one batch is read, what arrives waits; then all of it goes into the next batch, whatever adapters it asks for: a batch row
for each item, 64 at most. So batches are as large as the traffic is heavy, and nobody waits for one to fill. Of many items a
request has its share of a batch, and the rest in those that follow, so that a large request holds nobody up; and of many
requests each has its turn (`turns.py`). Where all programs are compiled beforehand, a batch is read in several calls if that
is less work (`reading_calls.py`).

A program is compiled for each padded length and each number of batch rows, with and without heads that answer
positions, and where `Residents.state_for` has another shape. Batches in which an item uses several adapters have programs of
their own.
"""

from __future__ import annotations

from collections import deque
from functools import cached_property
from typing import Any

import jax
import numpy as np

from ..adapters.graft import Mix
from ..adapters.methods.head import HEADS, OF_POSITIONS
from ..errors import GraftaxError
from ..models.backbone import Backbone, Logits
from ..models.inputs import Inputs, TextInputs
from ..models.processor import Processor
from .composition import laid
from .holding import Holding
from .read_request import Piece, Reading, Wanted
from .reading_calls import cut_into_calls, positions_of
from .soundness import NotFinite
from .text_chances import text_chances
from .turns import Turns

ROWS = (1, 2, 4, 8, 16, 32, 64)  # batch rows of one call of a program
MOST_ROWS = ROWS[-1]


class _Chosen:
    """The pieces of one request that are in a batch."""

    def __init__(self, reading: Reading):
        self.reading = reading
        self.indices: list[int] = []

    @property
    def pieces(self) -> list[Piece]:
        return [self.reading.pieces[index] for index in self.indices]


class ReadingPool:
    """The requests that wait for items to be read, and the programs that read them."""

    def __init__(self, backbone: Backbone, holding: Holding):
        self.backbone, self.holding = backbone, holding
        self.waiting: deque[Reading] = deque()  # threads append; whoever advances it takes
        self.compilations = 0
        self.all_compiled = False  # whether no call has to wait for its program, so that there may be calls of any size
        self._turns = Turns()
        self.forward = jax.jit(self._traced)
        self.encode = jax.jit(self._traced_vectors)
        self.chances = jax.jit(self._traced_chances)

    @cached_property
    def processor(self) -> Processor:
        return self.backbone.new_processor()

    def _traced(self, params: Any, state: Any, inputs: Inputs, slots: jax.Array | Mix) -> Logits:
        """The logits of a batch; jitted, so this code runs when a program is traced, and not when it is called."""
        self.compilations += 1
        return self.backbone.forward(params, state, inputs, slots)

    def _traced_vectors(self, params: Any, state: Any, inputs: Inputs, slots: jax.Array | Mix) -> jax.Array:
        """The vectors of a batch, `[rows, size]`; jitted likewise."""
        self.compilations += 1
        return self.processor.vector_of(self.backbone.encode(params, state, inputs, slots), inputs)

    def _traced_chances(self, params: Any, state: Any, inputs: TextInputs, slots: jax.Array | Mix) -> jax.Array:
        """Of a batch of texts what `text_chances` says; jitted likewise."""
        self.compilations += 1
        hidden = self.backbone.encode(params, state, inputs, slots).hidden
        return text_chances(lambda some: self.backbone.next_token(params, state, some, slots), hidden, inputs.ids)

    def advance(self) -> bool:
        """Read one batch. False where there was none to read: nobody waits, or no adapter that is waited for has a slot.

        Raises:
            BaseException: what is no `Exception`, such as KeyboardInterrupt. The requests of the batch end with it as theirs.
        """
        chosen = self._chosen()
        try:
            self._read_each(chosen)
        except BaseException as error:
            for one in chosen:
                one.reading.fail(error)
            raise
        finally:
            self._let_go(chosen)
        return bool(chosen)

    def _let_go(self, chosen: list[_Chosen]) -> None:
        """Behind a batch: its adapters are free, who is not done waits behind all others, and who is waits no longer."""
        for one in chosen:
            for piece in one.pieces:
                self.holding.release(piece)
        served = {id(one.reading) for one in chosen}
        for reading in list(self.waiting):  # a copy: others append to it meanwhile
            if reading.over or id(reading) in served:
                self.waiting.remove(reading)
            if id(reading) in served and not reading.over:
                self.waiting.append(reading)

    def _chosen(self) -> list[_Chosen]:
        """What is read next, and held: pieces of the request whose turn it is, and of those that may join it, in turns."""
        waiting = [reading for reading in list(self.waiting) if not reading.over]
        if not waiting:
            return []
        first = next(self._turns.order(waiting))
        alike = [reading for reading in waiting if reading.joins(first)]
        chosen, room = list[_Chosen](), MOST_ROWS
        for place, reading in enumerate(self._turns.order(alike, waiting)):
            chosen.append(one := _Chosen(reading))
            room -= self._choose(one, max(1, room // (len(alike) - place)))
            if not room:
                break
        return [one for one in chosen if one.indices]

    def _choose(self, chosen: _Chosen, most: int) -> int:
        """Take up to so many further pieces of a request, as far as their adapters have slots; how many they are."""
        reading = chosen.reading
        for index in reading.left[:most]:
            try:
                if not self.holding.hold(reading.pieces[index]):
                    break
            except GraftaxError as error:  # an adapter cannot be had, which is nobody else's affair
                reading.fail(error)
                break
            chosen.indices.append(index)
            self._turns.charge(reading, len(reading.pieces[index].item))
        return len(chosen.indices)

    def _read_each(self, chosen: list[_Chosen]) -> None:
        """Read a batch; where that fails, each request's part by itself, so that what is wrong with one fails no other."""
        try:
            self._read(chosen)
        except Exception as error:
            if len(chosen) == 1:
                chosen[0].reading.fail(error)
                return
            for one in chosen:
                self._read_each([one])

    def _read(self, chosen: list[_Chosen]) -> None:
        """Read a batch, and give each request what its pieces became."""
        pieces = [piece for one in chosen for piece in one.pieces]
        if pieces:
            made = iter(self._made(pieces, chosen[0].reading.wanted))
            for one in chosen:
                own = {index: next(made) for index in one.indices}
                if all(array is None or np.isfinite(array).all() for array in own.values()):
                    one.reading.give(own)
                else:
                    one.reading.fail(NotFinite(one.reading.adapters))

    def _made(self, pieces: list[Piece], wanted: Wanted) -> list[np.ndarray | None]:
        """What pieces become, in their order.

        In one call of a program, of which the number of batch rows is the next power of two, so that few are compiled; where
        all are, in as many calls as are least work.
        """
        if not self.all_compiled:
            return self._made_by_call(pieces, wanted, next(rows for rows in ROWS if rows >= len(pieces)))
        padded = [self.processor.shape_to_ask([piece.item], 1).length for piece in pieces]
        lengths = [positions_of(self.processor, length) for length in padded]
        order = sorted(range(len(pieces)), key=lengths.__getitem__)
        made, done = dict[int, np.ndarray | None](), 0
        for count, rows in cut_into_calls([lengths[index] for index in order]):
            own = order[done : done + count]
            made |= zip(own, self._made_by_call([pieces[index] for index in own], wanted, rows), strict=True)
            done += count
        return [made[index] for index in range(len(pieces))]

    def _made_by_call(self, pieces: list[Piece], wanted: Wanted, count: int) -> list[np.ndarray | None]:
        """What pieces become in one call of a program with so many batch rows; those beyond the pieces use no adapter."""
        items = [piece.item for piece in pieces]
        shape = self.processor.shape_to_ask(items, count)
        inputs = self.processor.lay(items, [(batch_row, 0) for batch_row in range(len(items))], shape)
        plans, answering = [piece.plan for piece in pieces], [piece.answering for piece in pieces]
        slots = laid(plans, answering, self.holding.slot, count, shape.length)
        state = self.holding.adapters.state_for(handle for piece in pieces for handle in piece.handles)
        if wanted is not Wanted.LOGITS:
            state = {name: tree for name, tree in state.items() if name not in HEADS}
            if wanted is Wanted.VECTORS:
                return list(np.asarray(self.encode(self.backbone.params, state, inputs, slots))[: len(pieces)])
            told = np.asarray(self.chances(self.backbone.params, state, inputs, slots))
            return [told[batch_row, : len(item) - 1] for batch_row, item in enumerate(items)]
        asked = {piece.reads for piece in pieces}
        # without heads that read all positions the last layer computes the pooled ones alone
        state = {name: tree for name, tree in state.items() if name not in OF_POSITIONS or name in asked}
        logits = jax.device_get(self.forward(self.backbone.params, state, inputs, slots))
        return [
            None if piece.answering is None else logits.of(piece.reads)[batch_row] for batch_row, piece in enumerate(pieces)
        ]
