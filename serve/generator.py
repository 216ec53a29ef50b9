"""Continuing texts with many adapters resident: a different adapter in every row of a batch.

    generator = Generator(backbone)
    generator.load("pirate", "adapters/pirate")
    generator.generate(["Once upon a time", "Hello"], ["pirate", None], Sampling(temperature=0.8, top_p=0.95))

A batch is prefilled in one compiled call and then decoded on the device, some tokens a call (`writer.py`), into a cache of
fixed size: what the rows ask for (adapters, seeds, temperatures) is data. An encoder-decoder reads the prompt and writes an
answer of its own. Programs are compiled per padded prompt length, per length of the cache, per number of rows (a power of two
up to 64) and when the bank grows. `compilations` counts them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.files import adapter_for
from ..adapters.fitting import head_of
from ..adapters.graft import Mix
from ..adapters.methods.head import HEADS
from ..data.batches import rung
from ..data.chats import chat_of
from ..data.values import Unreadable
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.inputs import TextInputs
from ..models.tokens import Tokenizer
from ..notes import note
from ..shown import Shown
from ..typed import Location, Name, checked, held
from .bank import Bank
from .choice import Kind, Settings
from .composition import Composition, Parallel, laid, plan_of, refuse_tokens
from .detokeniser import Detokeniser
from .requests import listed
from .requests import named as adapters_of
from .sampling import Sampling
from .writer import Adapted, Standing, Writer

MOST_ROWS = 64  # per call

Prompt = str | Sequence[Mapping[str, Any]]  # a text, or the messages of a chat


@dataclass(frozen=True)
class Continuation:
    """What was generated behind one prompt."""

    adapter: str | None  # a composition as it prints
    text: str  # without the stop text that ended it
    tokens: tuple[int, ...] = field(repr=False)  # the one that ended it included
    finished: str  # "stop" (a stop text), "eos" or "length"


Told = tuple[int, str, Continuation | None]  # row, further text, and at the row's end its continuation


@dataclass(frozen=True)
class _Asked:
    """A text to be continued."""

    ids: np.ndarray
    what: str | Composition | None
    sampling: Sampling


class Generator(Shown):
    """A frozen language model and a bank of adapters over it. Calls may come from several threads."""

    @held
    def __init__(self, backbone: Backbone, *, chat_template: str | None = None):
        """`chat_template`: of all chats, a name or a Jinja text (`models/chat.py`). None: that with which the row's adapter was
        trained, if it is one by name, else the tokenizer's own; "adapter": that of its training, whatever it is."""
        if not backbone.generates:
            raise GraftaxError(f"{backbone.name} is no language model: it cannot continue texts.")
        if unsupported := backbone.config.rules.unsupported:
            raise GraftaxError(f"{backbone.name}: generation_config.json has what is not supported: {', '.join(unsupported)}.")
        self.backbone = backbone
        self.bank = Bank(backbone)
        self.tokenizer = Tokenizer.of(backbone, chat_template)
        self._tokenizers: dict[str, Tokenizer] = {}  # by adapter: the same but for the template of chats
        self.writer = Writer(backbone)
        self._lock = threading.Lock()

    @property
    def compilations(self) -> int:
        """How many programs were traced."""
        return self.writer.compilations

    def facts(self) -> dict[str, Any]:
        return {"backbone": self.backbone.name, "adapters": list(self.bank.adapters)}

    @held
    def load(self, name: Name, adapter: Adapter | Location, *, any_backbone: bool = False) -> None:
        """Make an adapter resident under a name, replacing one of that name; arguments and errors as of `Predictor.load`.

        One with a head is refused: a generator would never ask it.
        """
        adapter = adapter_for(self.backbone, adapter, any_backbone=any_backbone, name=name)
        if head_of(adapter) is not None:
            advice = "a Generator asks no head; load it into a Predictor"
            raise GraftaxError(f"{name}: an adapter of task {adapter.task!r} answers with its head, and {advice}.")
        tokenizer = self.tokenizer.of_adapter(adapter.recipe)
        with self._lock:
            self.bank.put(name, adapter)
            self._tokenizers[name] = tokenizer

    @held
    def unload(self, name: str) -> None:
        with self._lock:
            self.bank.remove(name)
            del self._tokenizers[name]

    def generate(
        self,
        prompts: Sequence[Prompt],
        adapters: Sequence[str | Composition | None] | str | Composition | None = None,
        sampling: Sampling | Sequence[Sampling] = Sampling(),
        **settings: Any,
    ) -> list[Continuation]:
        """A continuation of every prompt, in their order.

        Args:
            prompts: texts; they are tokenized as the tokenizer has it, a beginning-of-text token included, but for what it puts
                behind a text. Or chats that the assistant is to answer, lists of {role, content}, by the template.
            adapters: the adapter, average or stack of each row, or one for all; None: no adapter.
            sampling: of each row, or one for all, in which case row i draws from seed + i.
            settings: fields of `Sampling`, in place of `sampling`'s: `generate(prompts, max_new_tokens=20)`. What has no effect
                there, such as `top_k` without a temperature, is said in a note.

        Raises:
            GraftaxError: a name that is not loaded, an empty prompt, one that leaves no room in the context, a chat that the
                template refuses, arguments of other kinds.
        """
        ends = {row: end for row, _, end in self.stream(prompts, adapters, sampling, **settings) if end is not None}
        return [ends[row] for row in sorted(ends)]

    def stream(
        self,
        prompts: Sequence[Prompt],
        adapters: Sequence[str | Composition | None] | str | Composition | None = None,
        sampling: Sampling | Sequence[Sampling] = Sampling(),
        **settings: Any,
    ) -> Iterator[Told]:
        """The same as it is made: (row, further text, None), and at each row's end (row, further text, its continuation)."""
        prompts = listed(prompts, "prompts")
        count = len(prompts)
        each, given = adapters_of(adapters, count), _samplings(sampling, settings, count)
        if idle := {name: need for how in given for name, need in how.idle.items()}:
            note("; ".join(f"{name} has no effect without {need}" for name, need in idle.items()) + ".")
        beams = self.backbone.config.rules.beams
        if beams > 1 and any(how.num_beams == 1 for how in given):
            note(f"{self.backbone.name}: generation_config.json asks for {beams} beams, and this call does not (num_beams).")
        sampling = [how.under(self.backbone.config.rules) for how in given]
        ids = [self._ids(prompt, what, i) for i, (prompt, what) in enumerate(zip(prompts, each, strict=True))]
        for own, how in zip(ids, sampling, strict=True):
            most, both = self.backbone.config.max_tokens, f"a prompt of {len(own)} tokens and {how.max_new_tokens} new ones"
            if self.backbone.family.encodes and max(len(own), how.max_new_tokens) > most:
                raise GraftaxError(f"{both}: this backbone reads {most}, and writes as many.")
            if not self.backbone.family.encodes and len(own) + how.max_new_tokens > most:
                raise GraftaxError(f"{both} are more than the {most} of the context.")
        beams = {how.num_beams for how in sampling}
        if len(beams) > 1:
            raise GraftaxError(f"rows of one call share num_beams, got {', '.join(map(str, sorted(beams)))}.")
        wanted = [_Asked(*row) for row in zip(ids, each, sampling, strict=True)]
        order = sorted(range(count), key=lambda i: len(ids[i]))
        most_rows = max(1, MOST_ROWS // max(beams, default=1))
        for begin in range(0, count, most_rows):
            chunk = order[begin : begin + most_rows]
            for k, text, end in self._batch([wanted[i] for i in chunk]):
                yield chunk[k], text, end

    def _ids(self, prompt: Any, what: Any, index: int) -> np.ndarray:
        where = f"prompt {index + 1}"
        if not isinstance(prompt, str | list | tuple):
            raise GraftaxError(f"{where} must be a text or the list of a chat's messages, got {type(prompt).__name__}.")
        if not prompt:
            raise GraftaxError(f"{where} is empty.")
        if not isinstance(prompt, str):
            try:
                messages = chat_of(prompt)
            except Unreadable as error:
                raise GraftaxError(f"{where}: {error}.") from None
            ids = self._tokenizer_of(what).chat(messages, where, answer=True)
        else:
            ids = (self.tokenizer.ids if self.backbone.family.encodes else self.tokenizer.prompts)([prompt])[0]
        if not len(ids):
            raise GraftaxError(f"{where}: the tokenizer leaves no token of it.")
        return ids

    def _tokenizer_of(self, what: Any) -> Tokenizer:
        """With the chat template of a row's adapters."""
        names = {term.name for stage in plan_of(what) for term in stage} & self._tokenizers.keys()
        found = {self._tokenizers[name].chat_template: self._tokenizers[name] for name in sorted(names)}
        if len(found) > 1:
            raise GraftaxError(f"{what}: trained with different chat templates; choose one for all (chat_template).")
        return next(iter(found.values()), self.tokenizer)

    def _batch(self, asked: Sequence[_Asked]) -> Iterator[Told]:
        """As `stream`, of at most `MOST_ROWS` rows."""
        rows = 1 << (len(asked) - 1).bit_length()
        at = self._prefilled(asked, rows)
        ways = self._searched if asked[0].sampling.num_beams > 1 else self._decoded
        return ways(asked, at, Settings.of([row.sampling for row in asked], rows))

    def _prefilled(self, asked: Sequence[_Asked], count: int) -> Standing:
        """Rows behind their prompts, `count` with those that fill the batch."""
        most, encodes = self.backbone.config.max_tokens, self.backbone.family.encodes
        length = rung(max(len(row.ids) for row in asked), most)
        new = max(row.sampling.max_new_tokens for row in asked)
        columns = rung(1 + new, 2 * most) if encodes else rung(length + new, 2 * most)
        wanted = np.zeros(count, np.int32)
        wanted[: len(asked)] = [row.sampling.max_new_tokens for row in asked]
        inputs, least = self._laid(asked, count, length), self._least(asked, count)
        with self._lock:
            return self.writer.prefill(self._adapted(asked, count), inputs, wanted, least, columns=columns)

    def _searched(self, asked: Sequence[_Asked], at: Standing, settings: Settings) -> Iterator[Told]:
        """By beams, all of which share a number of them: whole texts."""
        how = [row.sampling for row in asked]
        limit = max(one.max_new_tokens for one in how)
        with self._lock:
            adapted = self._adapted(asked, len(at.done))
            found = np.asarray(
                self.writer.search(adapted, at, settings, kind=Kind.of(how), beams=how[0].num_beams, limit=limit)
            )
        for k, detokeniser in enumerate(self._detokenisers(asked)):
            text, finished = detokeniser.hear(found[k].tolist())
            yield k, text, _continued(asked[k], detokeniser, finished)

    def _decoded(self, asked: Sequence[_Asked], at: Standing, settings: Settings) -> Iterator[Told]:
        """Token by token: further texts, a burst of tokens at a time."""
        kind, detokenisers = Kind.of([row.sampling for row in asked]), self._detokenisers(asked)
        left = {*range(len(asked))}
        while left:
            with self._lock:  # not while a caller looks at what there is: it may call again
                at, drawn = self.writer.decode(self._adapted(asked, len(at.done)), at, settings, kind=kind)
                drawn = np.asarray(drawn)
            stopped = np.zeros(len(at.done), bool)
            for k in sorted(left):
                text, finished = detokenisers[k].hear(drawn[:, k].tolist())
                end = _continued(asked[k], detokenisers[k], finished) if finished else None
                if finished:
                    left.discard(k)
                    stopped[k] = True
                if text or end:
                    yield k, text, end
            at = at._replace(done=at.done | stopped)

    def _detokenisers(self, asked: Sequence[_Asked]) -> list[Detokeniser]:
        """One for each row; what an encoder-decoder writes begins behind no text."""
        ends, encodes = frozenset(self.backbone.config.eos_ids), self.backbone.family.encodes
        return [
            Detokeniser(
                self.tokenizer, row.ids[:0] if encodes else row.ids, row.sampling.stop, ends, row.sampling.max_new_tokens
            )
            for row in asked
        ]

    def _least(self, asked: Sequence[_Asked], count: int) -> np.ndarray:
        """How many tokens each row has (`Written.length`) before one may end it."""
        least, rules = np.zeros(count, np.int32), self.backbone.config.rules
        before = [1 if self.backbone.family.encodes else len(row.ids) for row in asked]
        least[: len(asked)] = [max(rules.min_length, tokens + rules.min_new_tokens) for tokens in before]
        return least

    def _laid(self, asked: Sequence[_Asked], count: int, length: int) -> TextInputs:
        ids, mask = np.full((count, length), self.tokenizer.pad_id, np.int32), np.zeros((count, length), bool)
        for k, row in enumerate(asked):
            ids[k, : len(row.ids)], mask[k, : len(row.ids)] = row.ids, True
        mask[len(asked) :, 0] = True
        return TextInputs(ids, mask, np.zeros_like(ids))

    def _adapted(self, asked: Sequence[_Asked], count: int) -> Adapted:
        """What every program takes: an adapter that is replaced while it is used changes what follows."""
        state = {name: tree for name, tree in self.bank.state.items() if name not in HEADS}
        return Adapted(self.backbone.params, self.backbone.layers, state, self._slots([row.what for row in asked], count))

    def _slots(self, named: list[Any], rows: int) -> np.ndarray | Mix:
        for what in named:
            if isinstance(what, Parallel):
                raise GraftaxError(f"{what}: generate each part's continuation in a row of its own.")
        plans = [plan_of(what) for what in named]
        for what, plan in zip(named, plans, strict=True):
            for term in (term for stage in plan for term in stage):
                if term.begin or term.end is not None:
                    raise GraftaxError(f"{what}: a split by tokens cannot be continued.")
                refuse_tokens(what, plan, term.name, self.bank)
        return laid(plans, [None] * len(plans), self.bank.slot, rows, 1)


def _samplings(sampling: Any, changes: Mapping[str, Any], count: int) -> list[Sampling]:
    """One for each prompt, of one for all or one for each, with fields changed."""
    given = checked(sampling, Sampling | Sequence[Sampling], "sampling")
    if isinstance(given, Sampling):
        how = given.changed(changes)
        return [replace(how, seed=(how.seed + i) % 2**32) for i in range(count)]
    if len(given) != count:
        raise GraftaxError(f"{count} prompts but {len(given)} samplings.")
    return [how.changed(changes) for how in given]


def _continued(row: _Asked, detokeniser: Detokeniser, finished: str) -> Continuation:
    return Continuation(None if row.what is None else str(row.what), detokeniser.said, tuple(detokeniser.tokens), finished)
