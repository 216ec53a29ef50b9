"""The texts that are in lanes: prompts are read on and tokens written, round by round.

In a round the prompts of texts that begin are read, or the first chunk of each; of texts whose prompt goes on, the next chunk;
and of those whose prompt is read, up to 16 tokens are written. So a long prompt holds nobody up for longer than a chunk takes
(Sarathi, Agrawal et al., arXiv:2308.16369). How large the calls are is said in `ladders.py`.

A prompt that begins as a text in some lane does, under the same adapters, takes that beginning over and is read from there on:
a system prompt is read once for each adapter, and a chat goes on where it was. A lane that is free keeps its text for this,
until another needs the lane; the one that was free for the longest goes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from ..models.backbone import Backbone
from ..models.inputs import TextInputs
from . import lanes
from .choice import Needs, Settings
from .holding import Holding
from .ladders import CHUNK, Ladder, Ladders
from .lanes import Lanes
from .request import Request, say_all
from .restraint import words_for
from .writer import BURST, Adapted, Writer

MOST_READ = 4096  # tokens of all prompts that are read in a round, padding included
LOOKS = 4  # tokens of a text with a guide that are written in a round: each has to wait for what the guide says of it
_RESERVED = 1024  # columns of every lane that a server makes room for before they are needed
LEAST_SHARED = 16  # tokens of a beginning that is taken over: below, reading it costs no more


@dataclass(eq=False)
class _Text:
    """A request that has a lane."""

    request: Request
    lane: int
    read: int = 0  # tokens of its prompt that are read
    virtual: int = 0  # tokens that its adapters put before it
    written: list[int] = field(default_factory=list)  # tokens behind its prompt

    @property
    def columns(self) -> int:
        """How many it takes of the lane."""
        return self.virtual + self.read + len(self.written)

    @property
    def tokens(self) -> np.ndarray:
        """Those that the lane holds; of the one that was written last this is not sure, for it may have ended the text."""
        return np.concatenate([self.request.ids[: self.read], np.asarray(self.written[:-1], np.int32)])

    @property
    def left(self) -> int:
        """Tokens of its prompt that are not read."""
        return len(self.request.ids) - self.read


class LanePool:
    """A decoder's lanes. There is room for as many texts, and as long ones, as there were at once."""

    def __init__(self, backbone: Backbone, writer: Writer, holding: Holding, most: int, chunk: int = CHUNK):
        """`most`: texts that are in lanes at once; `chunk`: tokens of a prompt that are read in a round."""
        self.backbone, self.writer, self.holding, self.most, self.chunk = backbone, writer, holding, most, chunk
        self._texts: list[_Text] = []  # in the order in which they got their lanes
        self._past: list[_Text] = []  # that have ended, in lanes that are free; the last to end is the last
        self._room: Lanes | None = None
        self._least = 1, 1  # lanes and columns that there is room for at first
        self._reserved = False  # whether that is room for all lanes
        self._virtual: dict[Any, int] = {}  # by the shapes of adapters: how many virtual tokens they put before a text

    @cached_property
    def ladders(self) -> Ladders:
        """The sizes of its calls. Asked of decoders alone: other backbones' engines have lanes too, and never use them."""
        return Ladders(self.most, self.chunk, self.backbone.config.max_tokens)

    @property
    def requests(self) -> list[Request]:
        return [text.request for text in self._texts]

    @property
    def is_full(self) -> bool:
        return len(self._texts) == self.most

    def add(self, request: Request) -> None:
        """Give a request a free lane; its adapters are held, and the pool is not full."""
        model, shared = self._alike(request)
        self._texts.append(text := _Text(request, self._lane_for(model, shared)))
        if model is not None:
            self._take_over(text, model, shared)

    def _lane_for(self, model: _Text | None, shared: int) -> int:
        """A free lane for a text that begins as `model` does; what that has beyond `shared` tokens is kept if it can be."""
        used = {text.lane for text in (*self._texts, *self._past)}
        unused = next(lane for lane in range(self.most + 1) if lane not in used)
        past = [text for text in self._past if text is not model]
        if model in self._past:
            past = [model, *past] if shared == len(model.tokens) else [*past, model]
            if past[0] is not model and unused < self._count:
                return unused
        elif unused < self._count or not past:
            return unused
        self._past.remove(past[0])
        return past[0].lane

    @property
    def _count(self) -> int:
        """How many lanes there are by now."""
        return 0 if self._room is None else len(self._room.done) - 1

    def _alike(self, request: Request) -> tuple[_Text | None, int]:
        """The text whose beginning is the longest that a prompt shares, and how many tokens that is; None, if too few."""
        if self._room is None or self.holding.reads_whole_prompts:
            return None, 0
        best, most = None, LEAST_SHARED - 1
        for text in (*self._past, *self._texts):
            if text.read and text.request.plan == request.plan:
                shared = _shared(text.tokens, request.ids[:-1])  # one token at least is read, for what comes next
                if shared > most:
                    best, most = text, shared
        return best, most

    def _take_over(self, text: _Text, model: _Text, shared: int) -> None:
        """Have a text begin as another does."""
        text.read, text.virtual = shared, model.virtual
        room = self._grown([text], model.virtual)
        which = (model.lane, text.lane, shared, model.virtual, text.request.sampling.max_new_tokens, text.request.least)
        self._room = self.writer.take_over(room, *(np.int32(number) for number in which))

    def remove(self, request: Request) -> None:
        """Free the lane of a request."""
        (text,) = (text for text in self._texts if text.request is request)
        self._texts.remove(text)
        self._past.append(text)

    def forget(self) -> None:
        """Free all lanes, whose room may be lost: a program that was given it has failed."""
        self._texts, self._past, self._room = [], [], None

    def begin_anew(self, texts: int, columns: int) -> None:
        """Free all lanes; there will be room for so many texts at once, each of so many columns, and more if it is needed.

        What is written then does not depend on what was before, and no programs are compiled that make the room grow.
        """
        self.forget()
        self._least = self.ladders.rows_for(min(texts, self.most)), self.ladders.room.at_least(columns)

    def advance(self) -> None:
        """One round."""
        if self._texts:
            self._begin()
            self._read_on()
            self._write()

    def _begin(self) -> None:
        """Read the prompts of texts that begin, or their first chunks."""
        whole = self.holding.reads_whole_prompts
        ladder = self.ladders.begun(whole)
        for texts, rows, length in self._calls([text for text in self._texts if not text.read], ladder):
            ids, real = self._next_tokens(texts, rows, length)
            real[len(texts) :, 0] = True  # attention over nothing would not be a number
            inputs = TextInputs(ids, real, np.zeros_like(ids))
            most, least = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
            most[: len(texts)] = [text.request.sampling.max_new_tokens for text in texts]
            least[: len(texts)] = [text.request.least for text in texts]
            adapted = self._adapted(texts, rows)
            virtual, room = self._room_for(texts, adapted, inputs)
            batch = self.writer.prefill(adapted, inputs, most, least, columns=length)
            padding = length - real.sum(1, dtype=np.int32)
            self._room = self.writer.place(room, _lanes_of(texts, rows), batch, padding)
            for text in texts:
                text.read, text.virtual = min(length, text.left), virtual

    def _read_on(self) -> None:
        """Read the next chunk of prompts whose beginnings are read."""
        for texts, rows, length in self._calls([text for text in self._texts if text.read and text.left], self.ladders.read_on):
            ids, real = self._next_tokens(texts, rows, length)
            adapted, which = self._adapted(texts, rows), _lanes_of(texts, rows)
            first, columns = self._columns(texts, length, self._sizes(texts).columns_to_read_on)
            batch = self.writer.take(self._room, which, first, columns=columns)
            batch = self.writer.extend(adapted, batch, ids, real)
            self._room = self.writer.put_back(self._room, which, first, batch, new=length)
            for text, count in zip(texts, real.sum(1).tolist(), strict=False):
                text.read += count

    def _write(self) -> None:
        """Write up to `BURST` tokens of every text whose prompt is read, and `LOOKS` of one that has a guide."""
        texts = [text for text in self._texts if text.read and not text.left]
        self._write_some([text for text in texts if text.request.guide is None], guided=False)
        self._write_some([text for text in texts if text.request.guide is not None], guided=True)

    def _write_some(self, texts: list[_Text], *, guided: bool) -> None:
        """Write further tokens of some texts, of which all have a guide or none has."""
        if not texts:
            return
        rows, how = self.ladders.rows_for(len(texts)), [text.request.sampling for text in texts]
        adapted, which = self._adapted(texts, rows), _lanes_of(texts, rows)
        tells = np.bool_(any(text.request.told is not None for text in texts))
        settings, needs = Settings.of(how, rows), Needs.of(how)
        first, columns = self._columns(texts, BURST, self._sizes(texts).columns_to_write)
        batch = self.writer.take(self._room, which, first, columns=columns)
        for _ in range(LOOKS if guided else 1):
            if guided:
                allowed = self._allowed(texts, rows)
                batch, drawn = self.writer.follow(adapted, batch, settings, tells, allowed, needs=needs)
            else:
                batch, drawn = self.writer.decode(adapted, batch, settings, tells, needs=needs)
            said = say_all([text.request for text in texts], drawn, frozenset(self.backbone.config.eos_ids))
            for text, tokens in zip(texts, said, strict=True):
                text.written += [token for token in tokens if token >= 0]
        self._room = self.writer.put_back(self._room, which, first, batch, new=BURST)

    def _allowed(self, texts: list[_Text], rows: int) -> np.ndarray:
        """What the guides of texts let come next, int32 `[rows, vocabulary / 32]`."""
        allowed = np.zeros((rows, words_for(self.backbone.config.vocab_size)), np.int32)
        for row, text in enumerate(texts):
            if (own := text.request.allowed()) is not None:
                allowed[row, : len(own)] = own
        return allowed

    def _calls(self, texts: list[_Text], ladder: Ladder) -> Iterator[tuple[list[_Text], int, int]]:
        """The calls of a round that read some texts: which each reads, its rows, and its tokens of each."""
        read = 0
        while texts:
            wanted = [min(text.left, ladder.most) for text in texts]
            count, rows, length = self.ladders.of_first(wanted, ladder)
            if read and read + rows * length > MOST_READ:
                return
            read += rows * length
            yield texts[:count], rows, length
            texts = texts[count:]

    def _next_tokens(self, texts: list[_Text], rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The next tokens of prompts, int32 `[rows, length]`, and which are real."""
        ids, real = np.zeros((rows, length), np.int32), np.zeros((rows, length), bool)
        for row, text in enumerate(texts):
            own = text.request.ids[text.read : text.read + length]
            ids[row, : len(own)], real[row, : len(own)] = own, True
        return ids, real

    def reserve(self) -> tuple[Ladders, Lanes]:
        """Make room for all lanes, and not only for those that are needed; sizes of programs, and the shapes of the room."""
        virtual = 0
        for adapted in self.holding.kinds(1):
            ids = np.zeros((1, 1), np.int32)
            virtual = max(virtual, self._virtual_of(adapted, TextInputs(ids, ids == 0, ids)))
        ladders = replace(self.ladders, virtual=virtual)
        self._least, self._reserved = (self.most, ladders.room.at_least(_RESERVED)), True
        assert self._room is not None
        self._room = self._with_room(*self._least)
        return ladders, self.writer.shapes_there(self._room)

    def _room_for(self, texts: list[_Text], adapted: Adapted, inputs: TextInputs) -> tuple[int, Lanes]:
        """How many virtual tokens precede each text, and the lanes, with room for some that begin.

        `inputs`: their prompts, or the beginnings of them.
        """
        virtual = self._virtual_of(adapted, inputs)
        return virtual, self._grown(texts, virtual)

    def _virtual_of(self, adapted: Adapted, inputs: TextInputs) -> int:
        """How many virtual tokens precede each text; and there are lanes."""
        of_slots = [np.shape(leaf)[1:] for leaf in jax.tree.leaves(adapted.slots)]  # where one is stages, each has its own
        shapes = (*of_slots, *(leaf.shape for leaf in jax.tree.leaves(adapted.state)))
        if self._room is None or shapes not in self._virtual:
            batch = self.writer.shapes(adapted, inputs)
            self._virtual[shapes] = batch.cache.mask.shape[1] - inputs.mask.shape[1]
            self._room = lanes.empty(batch, *self._least, self.writer.where) if self._room is None else self._room
        return self._virtual[shapes]

    def _grown(self, texts: list[_Text], virtual: int) -> Lanes:
        """The lanes, with room for some texts, of which each has so many virtual tokens."""
        assert self._room is not None
        longest = max(len(text.request.ids) + text.request.sampling.max_new_tokens for text in texts)
        count = self.ladders.rows_for(1 + max(text.lane for text in texts))
        columns = replace(self.ladders, virtual=virtual).room.at_least(virtual + longest)
        return self._with_room(count, columns)

    def _with_room(self, count: int, columns: int) -> Lanes:
        """The lanes, of which there are so many, and so many columns of each, at least."""
        assert self._room is not None
        now = self._room.cache.mask.shape
        if count < now[0] and columns <= now[1]:
            return self._room
        return self.writer.grow(self._room, lanes=max(count, now[0] - 1), columns=max(columns, now[1]))

    def _sizes(self, texts: list[_Text]) -> Ladders:
        return replace(self.ladders, virtual=max(text.virtual for text in texts))

    def _columns(self, texts: list[_Text], new: int, ladder: Ladder) -> tuple[np.int32, int]:
        """The first of so many new columns, which lies behind the longest of some texts; and how many columns are taken.

        Where room was not reserved, so that no sizes were compiled beforehand, no more columns are taken than the lanes have,
        if the new ones fit in: short texts are not to pay for attention over 256.
        """
        assert self._room is not None
        first, there = max(text.columns for text in texts), self._room.cache.mask.shape[1]
        columns = ladder.at_least(first + new)
        return np.int32(first), columns if self._reserved or first + new > there else min(columns, there)

    def _adapted(self, texts: list[_Text], rows: int) -> Adapted:
        return self.holding.adapted([text.request for text in texts], rows)


def _shared(left: np.ndarray, right: np.ndarray) -> int:
    """How many tokens two texts have in common, from the first on."""
    length = min(len(left), len(right))
    differ = np.flatnonzero(left[:length] != right[:length])
    return int(differ[0]) if len(differ) else length


def _lanes_of(texts: list[_Text], rows: int) -> np.ndarray:
    """The lane of each batch row, int32 `[rows]`; those beyond the texts have the spare one, which is the last."""
    which = np.full(rows, -1, np.int32)
    which[: len(texts)] = [text.lane for text in texts]
    return which
