"""Continuing texts with many adapters resident: every prompt of a call may name another adapter.

    generator = Generator(backbone)
    generator.load("pirate", "adapters/pirate")
    generator.generate(["Once upon a time", "Hello"], ["pirate", None], Sampling(temperature=0.8, top_p=0.95))

How a call goes: prompts of like length form a batch, of 64 at most, in which each has a batch row. One call of a program reads
all of them (the *prefill*). Then each call of another program chooses up to 16 tokens for every prompt, on the device
(`writer.py`), and between these calls tokens become text (`detokeniser.py`). Keys and values of attention are kept in a cache
of a fixed size. An encoder-decoder reads the prompt, and what it writes is a text of its own.

What is asked for each prompt (its adapter, seed, temperature) is data. A program is compiled for each padded length of
prompts, for each size of the cache, for each number of batch rows (a power of two up to 64), and when the bank grows.
`Generator.compilations` counts them all.
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
from .choice import Needs, Settings
from .composition import Composition, Parallel, laid, plan_of, refuse_tokens
from .detokeniser import Detokeniser
from .requests import listed
from .requests import named as adapters_of
from .sampling import Sampling
from .writer import Adapted, Standing, Writer

MOST_ROWS = 64  # batch rows of one call of a program

Prompt = str | Sequence[Mapping[str, Any]]  # a text, or the messages of a chat


@dataclass(frozen=True)
class Continuation:
    """What was generated behind one prompt."""

    adapter: str | None  # a composition as it prints
    text: str  # without the stop text that ended it
    tokens: tuple[int, ...] = field(repr=False)  # with the one that ended it
    finished: str  # what ended it: "stop" (a stop text), "eos" (a token that ends texts) or "length"


#: The index of a prompt, a further piece of its continuation, and with the last piece the continuation.
Told = tuple[int, str, Continuation | None]


@dataclass(frozen=True)
class _Asked:
    """A prompt to be continued."""

    ids: np.ndarray  # its tokens
    what: str | Composition | None  # the adapter or composition asked for
    sampling: Sampling


class Generator(Shown):
    """A frozen language model, and a bank of adapters that write with it. Calls may come from several threads."""

    @held
    def __init__(self, backbone: Backbone, *, chat_template: str | None = None):
        """A generator without adapters.

        Args:
            backbone: frozen; not changed.
            chat_template: of all chats, a name or a Jinja text (`models/chat.py`). None: the template with which the adapter
                asked for was trained, if it is one by name, else the tokenizer's own. "adapter": the template with which it was
                trained, whatever that is.
        """
        if not backbone.generates:
            raise GraftaxError(f"{backbone.name} is no language model: it cannot continue texts.")
        if unsupported := backbone.config.rules.unsupported:
            raise GraftaxError(f"{backbone.name}: generation_config.json has what is not supported: {', '.join(unsupported)}.")
        self.backbone = backbone
        self.bank = Bank(backbone)
        self.tokenizer = Tokenizer.of(backbone, chat_template)
        self._tokenizers: dict[str, Tokenizer] = {}  # by adapter: the tokenizer with its template of chats
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
        """Make an adapter resident under a name, in place of one that has it; arguments and errors as of `Predictor.load`.

        An adapter with a head is refused, because a generator asks no head.
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
        """Forget an adapter."""
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
        """The continuation of every prompt, in their order.

        Args:
            prompts: texts, or chats that the assistant is to answer. Texts are tokenized as the tokenizer does it, with the
                token that it puts before a text, but without what it would put behind one. A chat is a list of {role, content},
                and is written by the chat template.
            adapters: the adapter, `Average` or `Stack` for each prompt, or one for all; None is no adapter.
            sampling: for each prompt, or one for all, in which case prompt i draws from seed + i.
            settings: fields of `Sampling` that go before those of `sampling`, as in `generate(prompts, max_new_tokens=20)`. A
                note says which have no effect, such as `top_k` without a temperature.

        Raises:
            GraftaxError: a name that is not loaded, an empty prompt, one that leaves no room in the context, a chat that the
                template refuses, arguments of other types.
        """
        ends = {index: end for index, _, end in self.stream(prompts, adapters, sampling, **settings) if end is not None}
        return [ends[index] for index in sorted(ends)]

    def stream(
        self,
        prompts: Sequence[Prompt],
        adapters: Sequence[str | Composition | None] | str | Composition | None = None,
        sampling: Sampling | Sequence[Sampling] = Sampling(),
        **settings: Any,
    ) -> Iterator[Told]:
        """As `generate`, while it is written: (index of a prompt, a further piece of text, None) again and again.

        The last piece of each prompt brings the whole continuation in place of None.
        """
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
        wanted = [_Asked(*one) for one in zip(ids, each, sampling, strict=True)]
        order = sorted(range(count), key=lambda i: len(ids[i]))
        most_rows = max(1, MOST_ROWS // max(beams, default=1))
        for begin in range(0, count, most_rows):
            chunk = order[begin : begin + most_rows]
            for k, text, end in self._batch([wanted[i] for i in chunk]):
                yield chunk[k], text, end

    def _ids(self, prompt: Any, what: Any, index: int) -> np.ndarray:
        """The tokens of a prompt; GraftaxError, which names it by its index, where it is none."""
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
        """The tokenizer with the chat template of the adapters that a prompt asks for, which must have the same."""
        names = {term.name for stage in plan_of(what) for term in stage} & self._tokenizers.keys()
        found = {self._tokenizers[name].chat_template: self._tokenizers[name] for name in sorted(names)}
        if len(found) > 1:
            raise GraftaxError(f"{what}: trained with different chat templates; choose one for all (chat_template).")
        return next(iter(found.values()), self.tokenizer)

    def _batch(self, asked: Sequence[_Asked]) -> Iterator[Told]:
        """As `stream`, of a batch of at most `MOST_ROWS` prompts."""
        rows = 1 << (len(asked) - 1).bit_length()
        standing = self._prefilled(asked, rows)
        ways = self._searched if asked[0].sampling.num_beams > 1 else self._decoded
        return ways(asked, standing, Settings.of([one.sampling for one in asked], rows))

    def _prefilled(self, asked: Sequence[_Asked], count: int) -> Standing:
        """A batch whose prompts are read: `count` batch rows, of which those beyond the prompts fill it up and are done."""
        most, encodes = self.backbone.config.max_tokens, self.backbone.family.encodes
        length = rung(max(len(one.ids) for one in asked), most)
        new = max(one.sampling.max_new_tokens for one in asked)
        columns = rung(1 + new, 2 * most) if encodes else rung(length + new, 2 * most)
        wanted = np.zeros(count, np.int32)
        wanted[: len(asked)] = [one.sampling.max_new_tokens for one in asked]
        inputs, least = self._laid(asked, count, length), self._least(asked, count)
        with self._lock:
            return self.writer.prefill(self._adapted(asked, count), inputs, wanted, least, columns=columns)

    def _searched(self, asked: Sequence[_Asked], standing: Standing, settings: Settings) -> Iterator[Told]:
        """Continuations by beam search: each in one piece, for the search may drop its beginning until it ends."""
        how = [one.sampling for one in asked]
        limit = max(one.max_new_tokens for one in how)
        with self._lock:
            adapted = self._adapted(asked, len(standing.done))
            found = np.asarray(
                self.writer.search(adapted, standing, settings, needs=Needs.of(how), beams=how[0].num_beams, limit=limit)
            )
        for k, detokeniser in enumerate(self._detokenisers(asked)):
            text, finished = detokeniser.hear(found[k].tolist())
            yield k, text, _continued(asked[k], detokeniser, finished)

    def _decoded(self, asked: Sequence[_Asked], standing: Standing, settings: Settings) -> Iterator[Told]:
        """Continuations token by token: a piece of text for each burst of tokens."""
        needs, detokenisers = Needs.of([one.sampling for one in asked]), self._detokenisers(asked)
        left = {*range(len(asked))}
        while left:
            with self._lock:  # not held while the caller looks at a piece of text, for it may call again
                standing, drawn = self.writer.decode(self._adapted(asked, len(standing.done)), standing, settings, needs=needs)
                drawn = np.asarray(drawn)
            stopped = np.zeros(len(standing.done), bool)
            for k in sorted(left):
                text, finished = detokenisers[k].hear(drawn[:, k].tolist())
                end = _continued(asked[k], detokenisers[k], finished) if finished else None
                if finished:
                    left.discard(k)
                    stopped[k] = True
                if text or end:
                    yield k, text, end
            standing = standing._replace(done=standing.done | stopped)

    def _detokenisers(self, asked: Sequence[_Asked]) -> list[Detokeniser]:
        """A detokeniser for each prompt. What an encoder-decoder writes does not go on with the prompt: it begins anew."""
        ends, encodes = frozenset(self.backbone.config.eos_ids), self.backbone.family.encodes
        return [
            Detokeniser(
                self.tokenizer, one.ids[:0] if encodes else one.ids, one.sampling.stop, ends, one.sampling.max_new_tokens
            )
            for one in asked
        ]

    def _least(self, asked: Sequence[_Asked], count: int) -> np.ndarray:
        """How many tokens each text must have, its prompt included (`Written.length`), before one may end it."""
        least, rules = np.zeros(count, np.int32), self.backbone.config.rules
        before = [1 if self.backbone.family.encodes else len(one.ids) for one in asked]
        least[: len(asked)] = [max(rules.min_length, tokens + rules.min_new_tokens) for tokens in before]
        return least

    def _laid(self, asked: Sequence[_Asked], count: int, length: int) -> TextInputs:
        """Prompts in `count` batch rows of `length` positions, padded behind their ends."""
        ids, mask = np.full((count, length), self.tokenizer.pad_id, np.int32), np.zeros((count, length), bool)
        for k, one in enumerate(asked):
            ids[k, : len(one.ids)], mask[k, : len(one.ids)] = one.ids, True
        mask[len(asked) :, 0] = True  # attention over nothing would not be a number
        return TextInputs(ids, mask, np.zeros_like(ids))

    def _adapted(self, asked: Sequence[_Asked], count: int) -> Adapted:
        """What every program takes. Each burst asks for it anew, so that an adapter that is replaced changes what follows."""
        state = {name: tree for name, tree in self.bank.state.items() if name not in HEADS}
        return Adapted(self.backbone.params, self.backbone.layers, state, self._slots([one.what for one in asked], count))

    def _slots(self, named: list[Any], rows: int) -> np.ndarray | Mix:
        """The slots that the batch rows use, `rows` of them; GraftaxError for a composition that cannot be continued."""
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
    """A sampling for each prompt, with fields changed; given is one for all, or one for each."""
    given = checked(sampling, Sampling | Sequence[Sampling], "sampling")
    if isinstance(given, Sampling):
        how = given.changed(changes)
        return [replace(how, seed=(how.seed + i) % 2**32) for i in range(count)]
    if len(given) != count:
        raise GraftaxError(f"{count} prompts but {len(given)} samplings.")
    return [how.changed(changes) for how in given]


def _continued(asked: _Asked, detokeniser: Detokeniser, finished: str) -> Continuation:
    """What is handed out when a prompt's text has ended."""
    return Continuation(None if asked.what is None else str(asked.what), detokeniser.said, tuple(detokeniser.tokens), finished)
