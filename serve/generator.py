"""Continuing texts with many adapters resident: a different adapter in every row of a batch.

    generator = Generator(backbone)
    generator.load("pirate", "adapters/pirate")
    generator.generate(["Once upon a time", "Hello"], ["pirate", None], Sampling(temperature=0.8, top_p=0.95))

A batch is prefilled in one compiled call and then decoded on the device, `BURST` tokens a call, into a cache of fixed size:
what the rows ask for (adapters, seeds, temperatures) is data. An encoder-decoder reads the prompt and writes an answer of its
own. Programs are compiled per padded prompt length, per length of the cache, per number of rows (a power of two up to 64) and
when the bank grows. `compilations` counts them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.files import adapter_for
from ..adapters.graft import Mix, State
from ..errors import GraftaxError
from ..models.backbone import Backbone, expect_backbone
from ..models.inputs import Inputs
from ..models.tokens import Tokenizer, rung
from ..shown import Shown
from ..train.chats import chat_of
from ..train.values import Unreadable
from .bank import Bank
from .beams import search
from .composition import Composition, Parallel, laid, plan_of, refuse_tokens
from .restraint import Written, restrained
from .rows import listed
from .rows import named as adapters_of
from .sampling import Kind, Sampling, Settings, choose

MOST_ROWS = 64  # per call
BURST = 16  # tokens per call of the decoding program

Prompt = str | Sequence[Mapping[str, Any]]  # a text, or the messages of a chat


@dataclass(frozen=True)
class Continuation:
    """What was generated behind one prompt."""

    adapter: str | None  # a composition as it prints
    text: str  # without the stop text that ended it
    tokens: tuple[int, ...] = field(repr=False)  # the one that ended it included
    finished: str  # "stop" (a stop text), "eos" or "length"


class _Rows(NamedTuple):
    """Where a batch is, on the device."""

    logits: jax.Array  # [rows, vocabulary] of the next token
    cache: Any
    written: Written  # prompt and continuation
    done: jax.Array  # bool [rows]
    number: jax.Array  # int32 [rows]: tokens drawn
    most: jax.Array  # int32 [rows]: tokens wanted


class Generator(Shown):
    """A frozen language model and a bank of adapters over it. Calls may come from several threads."""

    def __init__(self, backbone: Backbone, *, chat_template: str | None = None):
        """`chat_template`: of all chats, a name or a Jinja text (`models/chat.py`). None: that with which the row's adapter was
        trained, else the tokenizer's own."""
        expect_backbone(backbone)
        if not backbone.generates:
            raise GraftaxError(f"{backbone.name} is no language model: it cannot continue texts.")
        if unsupported := backbone.config.rules.unsupported:
            raise GraftaxError(f"{backbone.name}: generation_config.json has what is not supported: {', '.join(unsupported)}.")
        self.backbone = backbone
        self.bank = Bank(backbone)
        self.tokenizer = Tokenizer.of(backbone, chat_template)
        self._tokenizers: dict[str, Tokenizer] = {}  # by adapter: the same but for the template of chats
        self.compilations = 0
        self._lock = threading.Lock()
        self._prefill = jax.jit(self._prefilled, static_argnames="columns")
        self._decode = jax.jit(self._decoded, static_argnames="kind", donate_argnames="rows")
        self._search = jax.jit(self._searched, static_argnames=("kind", "beams", "limit"))

    def facts(self) -> dict[str, Any]:
        return {"backbone": self.backbone.name, "adapters": list(self.bank.adapters)}

    def load(self, name: str, adapter: str | Path | Adapter, *, any_backbone: bool = False) -> None:
        """Make an adapter resident under a name, replacing one of that name; arguments and errors as of `Predictor.load`."""
        adapter = adapter_for(self.backbone, adapter, any_backbone=any_backbone, name=str(name))
        tokenizer = self.tokenizer
        if tokenizer.chat_template is None:
            tokenizer = tokenizer.with_template(adapter.recipe.get("chat_template"))
        with self._lock:
            self.bank.put(name, adapter)
            self._tokenizers[name] = tokenizer

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
            settings: fields of `Sampling`, in place of `sampling`'s: `generate(prompts, max_new_tokens=20)`.

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
    ) -> Iterator[tuple[int, str, Continuation | None]]:
        """The same as it is made: (row, further text, None), and at each row's end (row, further text, its continuation)."""
        prompts = listed(prompts)
        count = len(prompts)
        each = adapters_of(adapters, count)
        sampling = [how.under(self.backbone.config.rules) for how in _samplings(sampling, settings, count)]
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
        order = sorted(range(count), key=lambda i: len(ids[i]))
        most_rows = max(1, MOST_ROWS // max(beams, default=1))
        for begin in range(0, count, most_rows):
            chunk = order[begin : begin + most_rows]
            rows = [ids[i] for i in chunk], [each[i] for i in chunk], [sampling[i] for i in chunk]
            for k, text, end in self._batch(*rows):
                yield chunk[k], text, end

    def _ids(self, prompt: Any, what: Any, index: int) -> np.ndarray:
        where = f"prompt {index + 1}"
        if not isinstance(prompt, str | list | tuple):
            raise GraftaxError(f"{where} must be a text or the list of a chat's messages, got {type(prompt).__name__}.")
        if not (prompt.strip() if isinstance(prompt, str) else prompt):
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

    def _batch(
        self, ids: list[np.ndarray], named: list[Any], sampling: list[Sampling]
    ) -> Iterator[tuple[int, str, Continuation | None]]:
        """At most `MOST_ROWS` rows."""
        rows = 1 << (len(ids) - 1).bit_length()
        most = self.backbone.config.max_tokens
        length = rung(max(map(len, ids)), most)
        new = max(s.max_new_tokens for s in sampling)
        columns = rung(1 + new, 2 * most) if self.backbone.family.encodes else rung(length + new, 2 * most)
        wanted = np.zeros(rows, np.int32)
        wanted[: len(ids)] = [s.max_new_tokens for s in sampling]
        least = self._least(ids, rows)
        with self._lock:
            at = self._prefill(*self._known(named, rows), self._laid(ids, rows, length), wanted, least, columns=columns)
        kind, settings = Kind.of(sampling), Settings.of(sampling, rows)
        before = [own[:0] for own in ids] if self.backbone.family.encodes else ids
        tellers = [_Teller(self.tokenizer, own, s.stop) for own, s in zip(before, sampling, strict=True)]
        eos, left = {*self.backbone.config.eos_ids}, {*range(len(ids))}
        if (beams := sampling[0].num_beams) > 1:
            with self._lock:
                found = np.asarray(self._search(*self._known(named, rows), at, settings, kind=kind, beams=beams, limit=new))
            for k, teller in enumerate(tellers):
                text, finished = teller.hear(found[k].tolist(), eos, sampling[k].max_new_tokens)
                yield k, text, Continuation(_name(named[k]), teller.said, tuple(teller.tokens), finished)
            return
        while left:
            with self._lock:  # not while a caller looks at what there is: it may call again
                at, drawn = self._decode(*self._known(named, rows), at, settings, kind=kind)
                drawn = np.asarray(drawn)
            stopped = np.zeros(rows, bool)
            for k in sorted(left):
                text, finished = tellers[k].hear(drawn[:, k].tolist(), eos, sampling[k].max_new_tokens)
                end = Continuation(_name(named[k]), tellers[k].said, tuple(tellers[k].tokens), finished) if finished else None
                if finished:
                    left.discard(k)
                    stopped[k] = True
                if text or end:
                    yield k, text, end
            at = at._replace(done=at.done | stopped)

    def _least(self, ids: list[np.ndarray], rows: int) -> np.ndarray:
        """How many tokens each row has (`Written.length`) before one may end it."""
        least, rules = np.zeros(rows, np.int32), self.backbone.config.rules
        before = [1 if self.backbone.family.encodes else len(own) for own in ids]
        least[: len(ids)] = [max(rules.min_length, count + rules.min_new_tokens) for count in before]
        return least

    def _laid(self, ids: list[np.ndarray], rows: int, length: int) -> Inputs:
        laid, mask = np.full((rows, length), self.tokenizer.pad_id, np.int32), np.zeros((rows, length), bool)
        for row, own in enumerate(ids):
            laid[row, : len(own)], mask[row, : len(own)] = own, True
        mask[len(ids) :, 0] = True
        return Inputs(laid, mask, np.zeros_like(laid))

    def _known(self, named: list[Any], rows: int) -> tuple[Any, ...]:
        """What every program takes: an adapter that is replaced while it is used changes what follows."""
        state = {name: tree for name, tree in self.bank.state.items() if not name.startswith("head.")}
        return self.backbone.params, self.backbone.layers, state, self._slots(named, rows)

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

    # -- the compiled programs ------------------------------------------------------------------------------------------

    def _prefilled(
        self,
        params: Any,
        layers: Any,
        state: State,
        slots: Any,
        inputs: Inputs,
        most: jax.Array,
        least: jax.Array,
        columns: int,
    ) -> _Rows:
        self.compilations += 1  # runs when the function is traced, not when it is called
        logits, cache = self.backbone.prefill(params, layers, state, inputs, slots, columns=columns)
        ids, mask = inputs.ids, inputs.mask
        if self.backbone.family.encodes:
            ids, mask = jnp.full_like(ids[:, :1], self.backbone.config.start_id), jnp.ones_like(mask[:, :1])
        begun = jnp.where(mask, ids, logits.shape[-1])
        begun = jnp.pad(begun, ((0, 0), (0, columns - begun.shape[1])), constant_values=logits.shape[-1])
        written = Written(begun, mask.sum(1, dtype=jnp.int32), jnp.asarray(least))
        return _Rows(logits, cache, written, most == 0, jnp.zeros(len(ids), jnp.int32), jnp.asarray(most))

    def _decoded(
        self, params: Any, layers: Any, state: State, slots: Any, rows: _Rows, settings: Settings, kind: Kind
    ) -> tuple[_Rows, jax.Array]:
        """Up to `BURST` more tokens of every row, `[BURST, rows]`; -1 behind a row's end."""
        self.compilations += 1
        config = self.backbone.config
        eos = jnp.asarray(config.eos_ids or (-1,), jnp.int32)
        step = partial(self.backbone.step, params, layers, state)

        def more(carry: tuple[jax.Array, _Rows, jax.Array]) -> jax.Array:
            i, at, _ = carry
            return (i < BURST) & ~at.done.all()

        def one(carry: tuple[jax.Array, _Rows, jax.Array]) -> tuple[jax.Array, _Rows, jax.Array]:
            i, at, drawn = carry
            logits = restrained(config, at.logits, at.written, at.number)
            seen = at.written.seen(logits.shape[-1]) if kind.penalises else None
            ids = self._forced(choose(kind, logits, settings, seen, at.number), at)
            drawn = drawn.at[i].set(jnp.where(at.done, -1, ids))
            number = jnp.where(at.done, at.number, at.number + 1)
            done = at.done | (ids[:, None] == eos).any(1) | (number >= at.most)
            logits, cache = step(ids, at.cache, slots)
            return i + 1, _Rows(logits, cache, at.written.add(ids), done, number, at.most), drawn

        drawn = jnp.full((BURST, len(rows.done)), -1, jnp.int32)
        _, rows, drawn = jax.lax.while_loop(more, one, (jnp.int32(0), rows, drawn))
        return rows, drawn

    def _searched(
        self,
        params: Any,
        layers: Any,
        state: State,
        slots: Any,
        rows: _Rows,
        settings: Settings,
        kind: Kind,
        beams: int,
        limit: int,
    ) -> jax.Array:
        """The best continuation of every row, `[rows, limit]`; -1 behind its end."""
        self.compilations += 1
        wide = jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf), beams, axis=0), slots)
        eos = jnp.asarray(self.backbone.config.eos_ids or (-1,), jnp.int32)

        def step(ids: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
            return self.backbone.step(params, layers, state, ids, cache, wide)

        def allowed(chances: jax.Array, written: Written, number: jax.Array) -> jax.Array:
            config, token = self.backbone.config, jnp.arange(chances.shape[-1], dtype=jnp.int32)
            chances = restrained(config, chances, written, jnp.full(len(chances), number))
            last = (number == jnp.repeat(rows.most, beams) - 1)[:, None]
            for only, there in ((config.first_id, number == 0), (config.last_id, last)):
                if only >= 0:
                    chances = jnp.where(there, jnp.where(token == only, 0.0, -jnp.inf), chances)
            return chances

        start = rows.logits, rows.cache, rows.written
        return search(step, allowed, start, rows.most, settings, eos, beams=beams, limit=limit, penalises=kind.penalises)

    def _forced(self, ids: jax.Array, at: _Rows) -> jax.Array:
        """The tokens chosen, or those that the backbone's config has a text begin and end with."""
        config = self.backbone.config
        for token, there in ((config.first_id, at.number == 0), (config.last_id, at.number == at.most - 1)):
            ids = jnp.where(there, jnp.int32(token), ids) if token >= 0 else ids
        return ids


def _samplings(sampling: Any, changes: Mapping[str, Any], count: int) -> list[Sampling]:
    """One for each prompt, of one for all or one for each, with fields changed."""
    if isinstance(sampling, Sampling):
        sampling = sampling.changed(changes)
        return [replace(sampling, seed=(sampling.seed + i) % 2**32) for i in range(count)]
    each = listed(sampling)
    wrong = [how for how in each if not isinstance(how, Sampling)]
    if wrong:
        raise GraftaxError(f"sampling must be a Sampling, or one for each prompt; got {type(wrong[0]).__name__}.")
    if len(each) != count:
        raise GraftaxError(f"{count} prompts but {len(each)} samplings.")
    return [how.changed(changes) for how in each]


def _name(what: Any) -> str | None:
    return None if what is None else str(what)


class _Teller:
    """What one row has said, as text: nothing that a further token or a stop text could take back."""

    def __init__(self, tokenizer: Tokenizer, prompt: np.ndarray, stop: Sequence[str]):
        self.tokenizer, self.stop = tokenizer, stop
        self.context = prompt[-4:].tolist()  # decoded with the rest: tokenizers drop a text's first space
        self.before = tokenizer.text(self.context)
        self.tokens: list[int] = []
        self.said = ""

    def hear(self, drawn: Sequence[int], eos: set[int], most: int) -> tuple[str, str]:
        """Further text, and how the row has finished ("" if it has not)."""
        finished = ""
        for token in drawn:
            if token < 0 or finished:
                break
            self.tokens.append(token)
            finished = "eos" if token in eos else "length" if len(self.tokens) == most else ""
        told = [*self.context, *(t for t in self.tokens if t not in eos)]
        whole = self.tokenizer.text(told)[len(self.before) :]
        found = [at for at in (whole.find(text) for text in self.stop) if at >= 0]
        if found:
            whole, finished = whole[: min(found)], "stop"
        if not finished:  # half a character, or what may become a stop text
            whole = whole.rstrip("\N{REPLACEMENT CHARACTER}")
            whole = whole[: len(whole) - max((_overlap(whole, text) for text in self.stop), default=0)]
        further, self.said = whole[len(self.said) :], whole if len(whole) > len(self.said) else self.said
        return further, finished


def _overlap(text: str, stop: str) -> int:
    """How many of the text's last characters begin the stop text."""
    return max((n for n in range(1, min(len(text), len(stop)) + 1) if text.endswith(stop[:n])), default=0)
