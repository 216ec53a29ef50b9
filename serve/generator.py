"""Continuing texts with many adapters resident: every prompt of a call may name another adapter.

    generator = Generator(backbone)
    generator.load("pirate", "adapters/pirate")
    generator.generate(["Once upon a time", "Hello"], ["pirate", None], Sampling(temperature=0.8, top_p=0.95))

How a call goes: each prompt becomes tokens, and a request of the engine (`engine.py`), which writes up to 64 texts side by side
and begins another as soon as one has ended. One call of a program chooses up to 16 tokens for all of them, on the device
(`writer.py`); between these calls tokens become text (`detokeniser.py`). An encoder-decoder reads the prompt, and what it
writes is a text of its own.

What is asked for each prompt (its adapter, seed, temperature) is data. Programs are compiled for few shapes, and anew when the
bank of adapters grows. `Generator.compilations` counts them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.fitting import head_of
from ..adapters.methods.method_registry import method_of
from ..counted import counted
from ..data.chats import chat_of
from ..data.values import Unreadable
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.tokens import Tokenizer
from ..notes import note
from ..shown import Shown
from ..typed import Count, Location, Name, Some, checked, held
from .asked import What, listed, resolved
from .asked import named as adapters_of
from .composition import Composition, Parallel, Plan
from .continuation import Continuation, Writing
from .detokeniser import Detokeniser
from .engine import MOST_ROWS, Engine
from .grammars import Grammars, Guide
from .handles import Handle
from .request import Request
from .residents import Residents
from .sampling import Sampling

Prompt = str | Sequence[Mapping[str, Any]]  # a text, or the messages of a chat

#: The index of a prompt, a further piece of its continuation, and with the last piece the continuation.
Told = tuple[int, str, Continuation | None]


class Generator(Shown):
    """A frozen language model, and a bank of adapters that write with it. Calls may come from several threads."""

    @held
    def __init__(
        self,
        backbone: Backbone,
        *,
        chat_template: str | None = None,
        residents: Residents | None = None,
        engine: Engine | None = None,
        most_lanes: Some = MOST_ROWS,
    ):
        """A generator without adapters.

        Args:
            backbone: frozen; not changed.
            chat_template: of all chats, a name or a Jinja text (`models/chat.py`). None: the template with which the adapter
                asked for was trained, if it is one by name, else the tokenizer's own. "adapter": the template with which it was
                trained, whatever that is.
            residents: where its adapters are kept, which may look up names on a hub; None: it has adapters of its own.
            engine: one that has these residents, and that others ask too; None: it has an engine of its own,
            most_lanes: in which so many texts are written at once.
        """
        if not backbone.generates:
            raise GraftaxError(f"{backbone.name} is no language model: it cannot continue texts.")
        if unsupported := backbone.config.rules.unsupported:
            raise GraftaxError(f"{backbone.name}: generation_config.json has what is not supported: {', '.join(unsupported)}.")
        self.backbone = backbone
        self.residents = Residents(backbone) if residents is None else residents
        self.tokenizer = Tokenizer.of(backbone, chat_template)
        self.engine = Engine(backbone, self.residents, most_lanes=most_lanes) if engine is None else engine
        self.engine.refuse_others(backbone, self.residents)

    @property
    def compilations(self) -> int:
        """How many programs were traced."""
        return self.engine.writer.compilations

    @cached_property
    def grammars(self) -> Grammars:
        """What texts may be held to."""
        return Grammars(self.backbone, self.tokenizer)

    def facts(self) -> dict[str, Any]:
        return {"backbone": self.backbone.name, "adapters": list(self.residents.registered())}

    @held
    def load(self, name: Name, adapter: Adapter | Location, *, any_backbone: bool = False) -> None:
        """Have an adapter under a name, in place of one that has it; arguments and errors as of `Predictor.load`.

        What is being written goes on with the adapter that it began with. An adapter with a head is refused, because a
        generator asks no head; so is one that reads texts as a whole, as gates do.
        """
        handle, read = self.residents.handle(name, adapter, any_backbone=any_backbone)
        self._tokenizer_for(handle, read)
        self.residents.name(handle)

    @held
    def unload(self, name: str) -> None:
        """Forget an adapter."""
        self.residents.unregister(name)

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
        kinds = {how.num_beams for how in given}
        if len(kinds) > 1:
            raise GraftaxError(f"rows of one call share num_beams, got {', '.join(map(str, sorted(kinds)))}.")
        asked = zip(prompts, each, given, strict=True)
        writings = [self._writing(prompt, what, how, f"prompt {i + 1}") for i, (prompt, what, how) in enumerate(asked)]
        return self._heard(writings)

    def _heard(self, writings: list[Writing]) -> Iterator[Told]:
        """As `stream`, of writings that have not begun."""
        for writing in sorted(writings, key=lambda writing: len(writing.request.ids)):
            self.engine.submit(writing.request)
        try:
            while any(writing.end is None for writing in writings):
                self.engine.advance()
                for i, writing in enumerate(writings):
                    if writing.end is None:
                        piece, end = writing.hear()
                        if piece or end:
                            yield i, piece, end
        finally:  # the caller may have heard enough
            for writing in writings:
                writing.cancel()

    def begin(
        self,
        prompt: Prompt | Sequence[int],
        adapter: What = None,
        sampling: Sampling = Sampling(),
        *,
        told: int | None = None,
        guide: Guide | None = None,
    ) -> Writing:
        """Have one text written, in the rounds of the engine that somebody calls (`Engine.advance`); for servers.

        Args:
            prompt: as of `generate`, or its tokens.
            adapter: as of `generate`, or a handle.
            sampling: as of `generate`; without beams where chances are told.
            told: of how many of the likeliest tokens chances are told, beside each own (`chances.py`); None: nothing is.
            guide: of a grammar that the text is to obey (`grammars.py`); of a decoder's, and without beams.

        Raises:
            GraftaxError: as of `generate`.
        """
        (how,) = _samplings(sampling, {}, 1)
        checked(told, Count | None, "told")
        checked(guide, Guide | None, "guide")
        writing = self._writing(prompt, adapters_of([adapter], 1)[0], how, "the prompt")
        if guide is not None and (self.backbone.family.encodes or how.num_beams > 1):
            raise GraftaxError(f"{self.backbone.name}: by a grammar a decoder writes, and without beams.")
        writing.request.told, writing.request.guide = told, guide
        self.engine.submit(writing.request)
        return writing

    def tokens(self, prompt: Prompt | Sequence[int], adapter: What = None) -> np.ndarray:
        """The tokens of a prompt, int32; arguments and errors as of `begin`. A chat is written by the adapter's template."""
        return self._ids(prompt, self._plan(adapters_of([adapter], 1)[0])[1], "the prompt")

    def _writing(self, prompt: Any, what: Any, sampling: Sampling, where: str) -> Writing:
        """A text to be written; `where`: how its prompt is called in errors."""
        sampling, encodes = sampling.under(self.backbone.config.rules), self.backbone.family.encodes
        plan, tokenizer = self._plan(what)
        ids = self._ids(prompt, tokenizer, where)
        self._refuse_length(len(ids), sampling.max_new_tokens)
        rules, begun = self.backbone.config.rules, 1 if encodes else len(ids)
        request = Request(ids, plan, sampling, max(rules.min_length, begun + rules.min_new_tokens))
        # what an encoder-decoder writes does not go on with the prompt: it begins anew
        context, ends = ids[:0] if encodes else ids, frozenset(self.backbone.config.eos_ids)
        detokeniser = Detokeniser(self.tokenizer, context, sampling.stop, ends, sampling.max_new_tokens)
        return Writing(request, detokeniser, None if what is None else str(what))

    def _refuse_length(self, prompt: int, new: int) -> None:
        """An error where a prompt and what is to be written have no room in the context."""
        most, both = self.backbone.config.max_tokens, f"a prompt of {prompt} tokens and {new} new ones"
        if self.backbone.family.encodes and max(prompt, new) > most:
            raise GraftaxError(f"{both}: this backbone reads {most}, and writes as many.")
        if not self.backbone.family.encodes and prompt + new > most:
            raise GraftaxError(f"{both} are more than the {most} of the context.")

    def _ids(self, prompt: Any, tokenizer: Tokenizer, where: str) -> np.ndarray:
        """The tokens of a prompt, one at least; GraftaxError where it is none."""
        if not isinstance(prompt, str | list | tuple):
            raise GraftaxError(f"{where} must be a text or the list of a chat's messages, got {type(prompt).__name__}.")
        if not prompt:
            raise GraftaxError(f"{where} is empty.")
        if isinstance(prompt, str):
            ids = (self.tokenizer.ids if self.backbone.family.encodes else self.tokenizer.prompts)([prompt])[0]
        elif all(isinstance(token, int) for token in prompt):
            ids = np.asarray(checked(prompt, Sequence[Count], where), np.int64)
            if (beyond := int(ids.max())) >= self.backbone.config.vocab_size:
                raise GraftaxError(
                    f"{where}: there is no token {beyond}; the vocabulary has {self.backbone.config.vocab_size}."
                )
            ids = ids.astype(np.int32)
        else:
            try:
                messages = chat_of(prompt)
            except Unreadable as error:
                raise GraftaxError(f"{where}: {error}.") from None
            ids = tokenizer.chat(messages, where, answer=True)
        if not len(ids):
            raise GraftaxError(f"{where}: the tokenizer leaves no token of it.")
        return ids

    def _plan(self, what: Any) -> tuple[Plan, Tokenizer]:
        """The plan of an adapter or composition, by handles, and the tokenizer with the chat template of these adapters.

        Raises GraftaxError for what cannot be continued, and where their templates differ.
        """
        if isinstance(what, Parallel):
            raise GraftaxError(f"{what}: generate each part's continuation in a row of its own.")
        plan, adapters = resolved(what, self.residents)
        if any(term.begin or term.end is not None for stage in plan for term in stage):
            raise GraftaxError(f"{what}: a split by tokens cannot be continued.")
        found = {}
        for handle, adapter in adapters.items():
            tokenizer = self._tokenizer_for(handle, adapter)
            found[tokenizer.chat_template] = tokenizer
        if len(found) > 1:
            raise GraftaxError(f"{what}: trained with different chat templates; choose one for all (chat_template).")
        return plan, next(iter(found.values()), self.tokenizer)

    def _tokenizer_for(self, name: Handle, adapter: Adapter) -> Tokenizer:
        """The tokenizer with an adapter's chat template. Raises GraftaxError for an adapter that cannot write."""
        if head_of(adapter) is not None:
            advice = "a Generator asks no head; load it into a Predictor"
            raise GraftaxError(f"{name}: an adapter of task {adapter.task!r} answers with its head, and {advice}.")
        if whole := [method.name for method in adapter.methods if method_of(method.key).whole_text]:
            raise GraftaxError(f"{name}: {whole[0]} reads a text as a whole, and cannot be used while the text is made.")
        return self.tokenizer.of_adapter(adapter.recipe)


def _samplings(sampling: Any, changes: Mapping[str, Any], count: int) -> list[Sampling]:
    """A sampling for each prompt, with fields changed; given is one for all, or one for each."""
    given = checked(sampling, Sampling | Sequence[Sampling], "sampling")
    if isinstance(given, Sampling):
        how = given.changed(changes)
        return [replace(how, seed=(how.seed + i) % 2**32) for i in range(count)]
    if len(given) != count:
        raise GraftaxError(f"{counted(count, 'prompt')} but {counted(len(given), 'sampling')}.")
    return [how.changed(changes) for how in given]
