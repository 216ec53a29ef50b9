"""Loops: adapters that are trained call by call, by whoever asks, many of them at once on one frozen backbone.

    loops = Loops(backbone)
    loops.create("alice", [LoRA(r=2)], seed=1)
    loops.create("bob", [DoRA(r=32), IA3()])
    loops.forward_backward([Call("alice", data), Call("bob", other, "ppo")])    one batch; gradients are added up
    loops.optim_step([Step("alice"), Step("bob", learning_rate=3e-4)])          one program

Calls that are handed in together are computed together, whatever the methods, ranks and losses of their loops: their data lie
in the batch rows of common pieces (`laid_calls.py`), and the loops in slots of a common layout (`room.py`). What a loop becomes
follows from its own calls, to rounding: shapes of batches differ with the neighbours, and so the order of sums. A call in which
something is not finite gets an error, and its loop keeps every bit.

Nothing here has a thread, and all of it is called from one at a time. Around every call of a compiled program, until the device
is done with it, `turn` is entered: who shares the device with others waits for them there, and they for one piece at most.
Programs are compiled before, outside of it.

Not every method can be trained so: `loop_fit.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from ...adapters.adapter import Adapter, Layout
from ...adapters.fitting import refuse_rank, refuse_unfit
from ...adapters.method import Method
from ...adapters.methods.method_registry import method_of
from ...data.batches import Shape
from ...errors import GraftaxError
from ...models.backbone import Backbone
from ...models.tokens import Tokens
from ...typed import Name, Seed, Some, held
from ..training_cost import Cost
from .calls import Call, Moments, Outcome, Step, StepOutcome
from .laid_calls import Piece, pieces
from .loop_fit import refuse_other_adapter, refuse_other_leaves, refuse_untrainable
from .loop_programs import Adam, LoopPrograms, PieceInputs
from .read_calls import ReadCall, read_call
from .room import Kept, Room, kept_of, stacked, trainable_of
from .token_losses import LOSSES, LossInputs

Turn = Callable[[], AbstractContextManager[Any]]
_MOST_CALLS = 64  # that are computed together
_MOST_BYTES = 1 << 30  # of the leaves of their loops: each call has a copy of these, and one of their gradient
_SLOTS = 8  # at first; they double when they are used up


@dataclass
class _Loop:
    """What the host knows of a loop."""

    slot: int
    adapter: Adapter  # of its methods and sizes; what it has learnt is in the slot
    steps: int = 0
    calls: int = 0  # whose gradients were added since the last step


class Loops:
    """The loops of one backbone; see the module's docstring."""

    @held
    def __init__(
        self,
        backbone: Backbone,
        turn: Turn = nullcontext,
        *,
        most_tokens: Some = 1024,
        most_bytes: int | None = None,
        max_lora_rank: int | None = None,
    ):
        """No loops yet.

        Args:
            backbone: frozen, a decoder.
            turn: entered around each call of a program.
            most_tokens: of a piece, in batch rows; longer texts make longer ones.
            most_bytes: of all loops, with their gradients and what Adam remembers; None: a quarter of the memory.
            max_lora_rank: loops of a greater rank anywhere are refused; None: any is taken.
        """
        if not backbone.generates or backbone.family.encodes:
            raise GraftaxError(f"{backbone.name}: loops train adapters of language models that are decoders alone.")
        self.backbone, self.turn, self.most_tokens = backbone, turn, most_tokens
        self._most_bytes, self._max_rank = most_bytes or _memory() // 4, max_lora_rank
        self.programs = LoopPrograms.of(backbone)
        self._compiled_before = self.programs.compilations
        self.layout = Layout()
        self._capacity = _SLOTS
        self._loops: dict[str, _Loop] = {}
        self._room: Room | None = None
        self._compiled: set[Any] = set()
        self.seconds = 0.0  # that the device has had for all of it, without what was compiled

    # -- which there are ------------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._loops)

    @property
    def compilations(self) -> int:
        """How often a program was compiled since these loops were made."""
        return self.programs.compilations - self._compiled_before

    @held
    def create(self, name: Name, methods: Sequence[Method], seed: Seed = 0) -> None:
        """A loop that begins. GraftaxError where there is one of that name, or where its methods cannot be trained so."""
        if name in self._loops:
            raise GraftaxError(f"there is a loop {name!r} already.")
        refuse_untrainable(methods)
        said = {"method": "+".join(method.name for method in methods), "seed": seed}
        fingerprint = self.backbone.fingerprint
        adapter = Adapter.create(methods, self.backbone.sites, seed=seed, task="lm", fingerprint=fingerprint, recipe=said)
        refuse_untrainable(adapter.methods)  # one may train as another
        refuse_unfit(adapter, self.backbone, name=name)
        refuse_rank(adapter, self._max_rank, name)
        if not adapter.parameters:
            raise GraftaxError(f"{name}: nothing of {said['method']} is trained.")
        self._put(name, Kept(adapter))

    @held
    def forget(self, name: Name) -> None:
        """Take a loop away; its slot is free."""
        self._of(name)
        del self._loops[name]
        if not self._loops:  # so that what the next ones compute is no larger than they need
            self.layout, self._room, self._capacity = Layout(), None, _SLOTS

    def adapter(self, name: Name) -> Adapter:
        """What a loop has become so far: a copy, to be saved or sampled from."""
        return self.kept(name).adapter

    def moments(self, name: Name) -> Moments:
        """What Adam remembers of a loop."""
        kept = self.kept(name)
        return Moments(self._loops[name].steps, kept.first, kept.second)

    @held
    def kept(self, name: Name) -> Kept:
        """All that is known of a loop, on the host."""
        return self._kept(self._of(name))

    @held
    def restore(self, name: Name, adapter: Adapter, moments: Moments | None = None) -> None:
        """Make a loop what it was, or another that was saved of the same methods; its gradient is zero then.

        `moments`: what Adam goes on with; without, it begins anew. Where that fails, the loop is as it was.
        """
        loop = self._of(name)
        refuse_unfit(adapter, self.backbone, name=name)
        refuse_other_adapter(name, loop.adapter, adapter)
        kept, own = Kept(replace(loop.adapter, states=adapter.states)), trainable_of(loop.adapter)
        if moments is not None:
            for means in (moments.first, moments.second):
                refuse_other_leaves(name, "moments", own, means)
            kept = replace(kept, first=moments.first, second=moments.second)
        self._put(name, kept, steps=0 if moments is None else moments.steps)

    def _of(self, name: str) -> _Loop:
        if name not in self._loops:
            raise GraftaxError(f"there is no loop {name!r}; there are {', '.join(self._loops) or 'none'}.")
        return self._loops[name]

    # -- gradients ------------------------------------------------------------------------------------------------------

    def check(self, call: Call) -> None:
        """A GraftaxError where a call could not be computed: no such loop or loss, data that do not fit."""
        self._read(call)

    def _read(self, call: Call) -> ReadCall:
        methods, processor = self._of(call.loop).adapter.methods, self.backbone.processor
        room = processor.room(sum(method.virtual_tokens for method in methods))
        return read_call(call, room, self.backbone.config.vocab_size)

    def forward_backward(self, calls: Sequence[Call]) -> list[Outcome]:
        """The losses of calls, and their gradients added to those of their loops; one outcome each, in their order.

        Several may be of one loop. Whatever is wrong with a call is its own outcome's error.
        """
        outcomes: dict[int, Outcome] = {}
        read: dict[int, ReadCall] = {}
        for index, call in enumerate(calls):
            try:
                read[index] = self._read(call)
            except GraftaxError as error:
                outcomes[index] = Outcome(error=str(error))
        most = self._most_calls
        for forward_only in (False, True):
            alike = [index for index, one in read.items() if one.call.forward_only == forward_only]
            for begin in range(0, len(alike), most):
                together = alike[begin : begin + most]
                found = self._computed([read[index] for index in together], forward_only)
                outcomes.update(zip(together, found, strict=True))
        return [outcomes[index] for index in range(len(calls))]

    def _computed(self, calls: Sequence[ReadCall], forward_only: bool) -> list[Outcome]:
        """The outcomes of calls that are computed together, either all with gradients or all without."""
        assert self._room is not None
        programs, backbone, before = self.programs, self.backbone, self.seconds
        shared = not any(method.adds_tokens or method.whole_text for method in self._methods())
        limit, lengths = backbone.processor.max_length, [call.lengths for call in calls]
        work = pieces(lengths, limit=limit, most_tokens=self.most_tokens, shared=shared)
        shapes = {(piece.rows, piece.length) for piece in work}
        each_piece = programs.forward if forward_only else programs.gradient
        slots = self._slots([call.call.loop for call in calls], lambda count: self._has(each_piece, count, shapes))
        taken, summed = self._run(programs.take, (len(slots),), self._room.trainable, self._room.fixed, slots)
        losses = summed.loss
        logprobs: list[list[Any]] = [[None] * len(call.tokens) for call in calls]
        for piece in work:
            laid = self._laid(piece, calls, shared)
            sizes = (len(slots), piece.rows, piece.length)
            args = (backbone.params, backbone.unrolled, taken, laid)
            if forward_only:
                losses, found = self._run(programs.forward, sizes, *args, losses)
            else:
                summed, found = self._run(programs.gradient, sizes, *args, summed)
            said = np.asarray(found)
            for place in piece.placed:
                end = place.begin + len(calls[place.call].tokens[place.datum])
                logprobs[place.call][place.datum] = said[place.batch_row, place.begin : end].copy()
        if forward_only:
            finite = np.isfinite(np.asarray(losses))
        else:
            losses = np.asarray(summed.loss)
            gradient, done = self._run(programs.commit, (len(slots),), self._room.gradient, self._room.rate, slots, summed)
            self._room, finite = self._room._replace(gradient=gradient), np.asarray(done)
        each = (self.seconds - before) / sum(map(sum, lengths))  # of a token
        return [
            self._outcome(call, bool(sound), float(loss), own, each * sum(call.lengths))
            for call, sound, loss, own in zip(calls, finite, np.asarray(losses), logprobs, strict=False)
        ]

    def _outcome(self, call: ReadCall, finite: bool, loss: float, logprobs: list[np.ndarray], seconds: float) -> Outcome:
        name = call.call.loop
        cost = Cost(tokens=0 if call.call.forward_only else sum(call.lengths), seconds=seconds)
        if not finite:
            what = "the loss is not finite" if not np.isfinite(loss) else "the gradient is not finite"
            said = f"{name}: {what}; nothing was added to the gradient, and the loop is what it was."
            return Outcome(error=said, cost=cost)
        self._loops[name].calls += not call.call.forward_only
        return Outcome(tuple(logprobs), loss, cost=cost)

    def _laid(self, piece: Piece, calls: Sequence[ReadCall], shared: bool) -> PieceInputs:
        """A piece as arrays."""
        size, placed = (piece.rows, piece.length), piece.placed
        texts = [calls[place.call].tokens[place.datum] for place in placed]
        shape = Shape(len(placed), *size, shared=shared)
        inputs = self.backbone.processor.lay(
            [Tokens(ids, np.zeros_like(ids), None) for ids in texts], [(p.batch_row, p.begin) for p in placed], shape
        )
        if inputs.texts is not None:  # where each begins is for heads, and would make a program per number of texts
            inputs = inputs._replace(texts=inputs.texts._replace(first=np.zeros(1, np.int32)))
        of_rows, counts, targets = np.zeros(piece.rows, np.int32), np.zeros(size, bool), np.zeros(size, np.int32)
        losses = LossInputs(np.zeros(piece.rows, np.int32), *(np.zeros(size, np.float32) for _ in LossInputs._fields[1:]))
        for place in placed:
            call, own = calls[place.call], calls[place.call].inputs[place.datum]
            cells = (place.batch_row, slice(place.begin, place.begin + len(call.tokens[place.datum])))
            of_rows[place.batch_row] = place.call
            losses.loss[place.batch_row] = [*LOSSES].index(call.call.loss)
            counts[cells], targets[cells] = True, own["target_tokens"]
            for name, array in own.items():
                if name != "target_tokens":
                    getattr(losses, name)[cells] = array
        return PieceInputs(inputs, of_rows, targets, counts, losses)

    # -- steps ----------------------------------------------------------------------------------------------------------

    def optim_step(self, steps: Sequence[Step]) -> list[StepOutcome]:
        """A step of Adam for each of several loops, in their order. A loop may be among them once.

        The gradients are zero behind it. A loop without any since its last step does not move, and the step is not counted.
        """
        outcomes: dict[int, StepOutcome] = {}
        taking: dict[str, int] = {}
        for index, step in enumerate(steps):
            if step.loop not in self._loops:
                outcomes[index] = StepOutcome(error=f"there is no loop {step.loop!r}.")
            elif step.loop in taking:
                outcomes[index] = StepOutcome(error=f"{step.loop}: two steps cannot be taken at once.")
            elif not self._loops[step.loop].calls:
                outcomes[index] = StepOutcome()
            else:
                taking[step.loop] = index
        if taking:
            found = self._stepped([steps[index] for index in taking.values()])
            outcomes.update(zip(taking.values(), found, strict=True))
        return [outcomes[index] for index in range(len(steps))]

    def _stepped(self, steps: Sequence[Step]) -> list[StepOutcome]:
        assert self._room is not None
        before, programs = self.seconds, self.programs
        slots = self._slots([step.loop for step in steps], lambda count: self._has(programs.step, count, [()]))
        told = [
            Adam(s.learning_rate, s.beta1, s.beta2, s.eps, s.weight_decay, s.grad_clip_norm or np.inf, loop.steps)
            for s, loop in ((step, self._loops[step.loop]) for step in steps)
        ]
        told += [Adam(0.0, 0.0, 0.0, 1.0, 0.0, np.inf, 0)] * (len(slots) - len(told))
        adam = jax.tree.map(lambda *column: np.array(column, np.float32), *told)
        self._room, norms, moved = self._run(self.programs.step, (len(slots),), self._room, slots, adam)
        outcomes, cost = [], Cost(steps=1, seconds=(self.seconds - before) / len(steps))
        for step, norm, done in zip(steps, np.asarray(norms), np.asarray(moved), strict=False):
            loop = self._loops[step.loop]
            if done:
                outcomes.append(StepOutcome(float(norm), loop.calls, cost=cost))
                loop.steps += 1
            else:
                what = f"{step.loop}: the step would make numbers that are not finite; nothing has moved"
                outcomes.append(StepOutcome(error=f"{what}, and the gradient is zero.", cost=cost))
            loop.calls = 0
        return outcomes

    # -- on the device --------------------------------------------------------------------------------------------------

    def _methods(self) -> Iterator[Method]:
        """Those that the layout has room for."""
        return (method_of(space.method_key) for space in self.layout.spaces)

    @property
    def _most_calls(self) -> int:
        """How many calls are computed together at most: a power of two."""
        leaves = jax.tree.leaves(self._room.trainable if self._room else {})
        fit = _MOST_BYTES * self._capacity // max(1, sum(leaf.nbytes for leaf in leaves))
        return min(_MOST_CALLS, 1 << max(0, fit.bit_length() - 1))

    def _slots(self, names: Sequence[str], has: Callable[[int], bool]) -> np.ndarray:
        """The slots of loops, filled up with slot 0 to a power of two.

        It is the least, or, where a larger one `has` all of its programs, that. How many loops' calls wait together is chance:
        every number with every shape would be some forty programs before nothing is compiled any more, of seconds each.
        """
        least = 1 << (len(names) - 1).bit_length()
        larger = (1 << k for k in range(least.bit_length() - 1, self._most_calls.bit_length()))
        count = next((count for count in larger if has(count)), least)
        return np.array([self._loops[name].slot for name in names] + [0] * (count - len(names)), np.int32)

    def _has(self, program: Any, count: int, shapes: Collection[tuple[int, ...]]) -> bool:
        """Whether a program is compiled for so many slots and each of some shapes of pieces."""
        return all((program, self.layout, self._capacity, (count, *shape)) in self._compiled for shape in shapes)

    def _run(self, program: Any, sizes: tuple[int, ...], *args: Any) -> Any:
        """What a program makes of arguments, in a turn of its own; one of new sizes is compiled before that."""
        key = (program, self.layout, self._capacity, sizes)
        if key not in self._compiled:
            program.lower(*args).compile()
            self._compiled.add(key)
        with self.turn():
            began = time.perf_counter()
            try:
                return jax.block_until_ready(program(*args))
            finally:
                self.seconds += time.perf_counter() - began

    def _put(self, name: str, kept: Kept, steps: int = 0) -> None:
        """Write a loop into its slot, or into one that is free; where there is no room the room grows."""
        sites = self.backbone.sites
        layout = Layout.of([kept.adapter], sites, grow=self.layout, bucket=True)
        used = {loop.slot for loop in self._loops.values()}
        slot = self._loops[name].slot if name in self._loops else next(i for i in range(1, len(used) + 2) if i not in used)
        capacity = self._capacity if slot < self._capacity else 2 * self._capacity
        if self._room is None or (layout, capacity) != (self.layout, self._capacity):
            nobody = stacked(None, layout, sites)
            self._refuse_too_large(name, capacity * sum(leaf.nbytes for leaf in jax.tree.leaves(nobody)))
            every = {loop.slot: self._kept(loop) for loop in self._loops.values()} | {slot: kept}
            each = [stacked(every[i], layout, sites) if i in every else nobody for i in range(capacity)]
            there = self.backbone.everywhere
            self._room = jax.tree.map(lambda *leaves: jax.device_put(np.stack(leaves), there), *each)
        else:
            one = stacked(kept, layout, sites)
            self._room = self._run(self.programs.put, (), self._room, np.int32(slot), one)
        self.layout, self._capacity = layout, capacity
        self._loops[name] = _Loop(slot, kept.adapter, steps)

    def _refuse_too_large(self, name: str, size: int) -> None:
        """An error where a room of so many bytes is more than there is: one loop of a huge rank would end all others."""
        if size > self._most_bytes:
            said = f"{name}: with it all loops would take {size:,} bytes, and they may have {self._most_bytes:,}"
            raise GraftaxError(f"{said}; a smaller rank, fewer sites or fewer loops at once fit.")

    def _kept(self, loop: _Loop) -> Kept:
        """A loop's slot on the host."""
        assert self._room is not None
        one = self._run(self.programs.get, (), self._room._replace(fixed={}, rate={}), np.int32(loop.slot))
        return kept_of(jax.tree.map(np.asarray, one), loop.adapter, self.layout, self.backbone.sites)


def _memory() -> int:
    """Bytes of the device's memory; of a CPU the machine's."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(stats.get("bytes_limit", 0)) or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
