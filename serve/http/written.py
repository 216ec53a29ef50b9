"""Texts that one request asks for, while they are written: begun together, heard in pieces, given up when nobody listens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from starlette.requests import Request

from ...counted import counted
from ...errors import GraftaxError
from ...models.token_bytes import TokenBytes
from ..continuation import Continuation, Writing
from ..generator import Generator
from ..sampling import Sampling
from ..soundness import NotFinite
from ..spelling import Spelled, Spelling
from .complaints import Gone, Refused
from .mixes import Who
from .parameters import ToWrite
from .quotas import spend
from .response_formats import grammar_of
from .service import Service, headers_of, in_thread, note, route_of, said_of, too_much

_REASONS = {"stop": "stop", "eos": "stop", "length": "length"}  # OpenAI's words for what ended a text


@dataclass(frozen=True)
class Piece:
    """A further piece of a text."""

    index: int  # of the text
    text: str
    end: Continuation | None  # with the last piece the whole
    spelled: Sequence[Spelled]  # its tokens, where they are told


@dataclass(frozen=True)
class Written:
    """Texts under way: of each prompt `n`, in the order of prompts."""

    service: Service
    request: Request
    asked: ToWrite
    who: Who
    prompt_tokens: int  # of all prompts
    writings: Sequence[Writing]
    spellings: Sequence[Spelling]  # of each, where its tokens are told

    @property
    def headers(self) -> dict[str, str]:
        return headers_of(self.who)

    def beginning(self, kind: str) -> dict[str, Any]:
        """What every answer, and every piece of one, says first."""
        name = {"text_completion": "cmpl", "chat.completion": "chatcmpl", "chat.completion.chunk": "chatcmpl"}[kind]
        return {
            "id": f"{name}-{self.request.state.id}",
            "object": kind,
            "created": self.request.state.begun,
            "model": self.asked.model,
            "system_fingerprint": self.service.backbone.fingerprint[:16],
            **said_of(self.who),
        }

    def logprobs(self, piece: Piece, form: Callable[[Sequence[Spelled], TokenBytes], Any]) -> Any:
        """The tokens of a piece in a form of `logprobs.py`; None where nobody asked for them."""
        assert self.service.tokenizer is not None  # of whoever writes
        return None if self.asked.told is None else form(piece.spelled, self.service.tokenizer.bytes_of)

    def usage(self, ends: Sequence[Continuation | None]) -> dict[str, int]:
        """The numbers of tokens, when these have come to their ends."""
        written = sum(len(end.tokens) for end in ends if end is not None)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": self.prompt_tokens + written,
        }

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The pieces of all texts, as they come. Whoever hears no more gives up what is left.

        Raises Gone where the client went away, Refused where a text cannot be written to its end or takes too long.
        """
        loop, rounds, left = asyncio.get_running_loop(), self.service.rounds, [*range(len(self.writings))]
        begun = loop.time()
        until = begun + self.service.limits.timeout
        gone = asyncio.ensure_future(_gone(self.request))
        try:
            while left:
                told = rounds.next()
                for piece in await in_thread(_heard, self.writings, self.spellings, left):
                    if piece.end is not None:
                        left.remove(piece.index)
                        self.service.counts.ended(piece.end, loop.time() - begun)
                    yield piece
                if left:
                    done, _ = await asyncio.wait({told, gone}, timeout=until - loop.time(), return_when="FIRST_COMPLETED")
                    if gone in done:
                        raise Gone
                    if not done:
                        raise self.service.too_slow()
        finally:
            gone.cancel()
            written = [writing.end for writing in self.writings if writing.end is not None]
            note(self.request, completion_tokens=sum(len(end.tokens) for end in written))
            note(self.request, finish_reasons=[_REASONS[end.finished] for end in written])
            for index in left:
                self.writings[index].cancel()
                spend(self.writings[index].request.count)
            rounds.wake()

    async def whole(self) -> list[Piece]:
        """All texts, when all are written, as one piece each."""
        spelled: list[list[Spelled]] = [[] for _ in self.writings]
        ends: dict[int, Continuation] = {}
        async for piece in self.pieces():
            spelled[piece.index] += piece.spelled
            if piece.end is not None:
                ends[piece.index] = piece.end
        return [Piece(index, ends[index].text, ends[index], spelled[index]) for index in sorted(ends)]


async def begin(service: Service, request: Request, asked: ToWrite, prompts: Sequence[Any], most: int | None) -> Written:
    """Have texts written behind prompts; `most`: tokens of each, None: as many as there is room for.

    Raises Refused, and then nothing is written.
    """
    generator = service.generator
    if generator is None:
        raise Refused(422, f"{service.name} is no language model, so it writes nothing; /classify and /v1/embeddings ask it.")
    if len(prompts) * asked.n > service.limits.max_texts:
        much = f"{counted(len(prompts), 'prompt')}, {counted(asked.n, 'text')} each"
        raise Refused(400, f"{much}: more than {service.limits.max_texts} (--max-texts).")
    who = await service.resolve(asked.model, route_of(request, asked.user))
    await service.adapters(who)
    if (waiting := len(generator.engine.waiting)) + len(prompts) * asked.n > service.limits.max_queue:
        raise too_much(waiting)
    try:
        count, writings = await in_thread(_begun, generator, who, asked, prompts, most, service.limits.max_prompt)
        spellings = [] if asked.told is None else [Spelling(writing, generator.tokenizer.bytes_of) for writing in writings]
    except GraftaxError as error:
        raise Refused(400, str(error)) from None
    service.rounds.wake()
    service.counts.read(count)
    note(request, **{name: getattr(asked, name) for name in ("model", "n", "temperature", "top_p")}, max_tokens=most)
    note(request, prompt_tokens=count, **said_of(who))
    return Written(service, request, asked, who, count, writings, spellings)


def finish_reason(end: Continuation | None) -> str | None:
    """What ended a text, in OpenAI's words; None while it goes on."""
    return None if end is None else _REASONS[end.finished]


def drawn_seed() -> int:
    """What a request is sampled with that names no seed: another one each time."""
    return int.from_bytes(os.urandom(4))


# -- in a thread --------------------------------------------------------------------------------------------------------------


def _begun(
    generator: Generator, who: Who, asked: ToWrite, prompts: Sequence[Any], most: int | None, longest: int | None
) -> tuple[int, list[Writing]]:
    """How many tokens the prompts have, and what writes behind them; where one cannot be begun none is."""
    ids = [generator.tokens(prompt, who) for prompt in prompts]
    for own in ids:
        if longest is not None and len(own) > longest:
            raise GraftaxError(f"a prompt of {len(own)} tokens, and this server takes {longest} (--max-prompt).")
    guide = None if (grammar := grammar_of(asked)) is None else generator.grammars.guide(grammar)
    seed = drawn_seed() if asked.seed is None else asked.seed
    writings: list[Writing] = []
    try:
        for own in ids:
            for _ in range(asked.n):
                sampling = _sampling(asked, most or _room(generator, own), (seed + len(writings)) % 2**32)
                own_guide = None if guide is None else guide.copy()
                writings.append(generator.begin(own.tolist(), who, sampling, told=asked.told, guide=own_guide))
    except BaseException:
        for writing in writings:
            writing.cancel()
        raise
    return sum(map(len, ids)), writings


def _room(generator: Generator, ids: np.ndarray) -> int:
    """How many tokens the context has room for behind a prompt; 1 where it has none, of which there is an error to come."""
    config = generator.backbone.config
    return max(1, config.max_tokens - (0 if generator.backbone.family.encodes else len(ids)))


def _sampling(asked: ToWrite, most: int, seed: int) -> Sampling:
    how = Sampling(most, asked.temperature, repetition_penalty=asked.repetition_penalty, stop=asked.stops, seed=seed)
    if asked.temperature == 0:  # then nothing is drawn
        return how
    return replace(how, top_k=max(0, asked.top_k), top_p=asked.top_p, min_p=asked.min_p)


def _heard(writings: Sequence[Writing], spellings: Sequence[Spelling], left: Sequence[int]) -> list[Piece]:
    """What has come of some texts since they were heard last."""
    try:
        heard = [(index, *writings[index].hear()) for index in left]
    except NotFinite as error:
        raise Refused(422, str(error), param="model", code="adapter_unusable") from None
    except GraftaxError as error:  # not of what was asked for, which is known to be sound by now
        raise Refused(503, str(error), code="adapter_unavailable") from None
    told = [(index, piece, end) for index, piece, end in heard if piece or end is not None]
    return [Piece(*one, spellings[one[0]].further() if spellings else ()) for one in told]


async def _gone(request: Request) -> None:
    """Return when the client has gone away; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
