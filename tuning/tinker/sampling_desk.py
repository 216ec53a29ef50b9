"""Samples: texts of the server's own engine, beside those that are written for everybody else.

Each sample is a request of the engine, so samples of many tenants and the server's other texts are written in one batch, each
under its own adapter. One task of the event loop hears them all after each round, and settles a promise when its texts are
whole.

A text ends with a token that ends texts, with a stop text, or with a stop token, which belong to it; or where it is as long as
it may be. Its log probabilities are the model's own, before temperature and cuts (`serve/chances.py`): those that a gradient's
`logprobs` are compared with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import GraftaxError
from ...models.tokens import Tokens
from ...serve.composition import plan_of
from ...serve.continuation import Writing
from ...serve.generator import Generator
from ...serve.handles import Handle
from ...serve.http.quotas import METER, Meter
from ...serve.http.service import Service, in_thread
from ...serve.read_request import Piece, Reading
from ...serve.read_request import Wanted as Read
from ...serve.sampling import Sampling
from ...serve.soundness import NotFinite
from ...serve.text_chances import likeliest_of
from .promises import Failure, Result, Tell
from .wire_data import PromptTold, Sampled, packed_samples


@dataclass(frozen=True)
class Wanted:
    """What is to be sampled behind a prompt."""

    ids: Sequence[int]
    handle: Handle | None  # None: the base alone
    sampling: Sampling  # of the first text; those that follow draw from the seeds that follow
    count: int
    stop_tokens: frozenset[int]
    told: int = 0  # of how many of the likeliest tokens log probabilities are told beside each that is written,
    tells_prompt: bool = False  # whether they are told of the prompt's tokens,
    told_of_prompt: int = 0  # and of how many of the likeliest there
    last: int | None = None  # of how many of the prompt's last tokens; None: of all


class _Text:
    """One text, while it is written."""

    def __init__(self, writing: Writing, wanted: Wanted):
        self._writing, self._wanted = writing, wanted
        self.sampled: Sampled | None = None  # once it is whole

    def hear(self) -> None:
        """What has come since the last call; raises whatever ended the text before its time."""
        if self.sampled is not None:
            return
        _, end = self._writing.hear()
        tokens = list(self._writing.tokens)
        stop = next((place for place, token in enumerate(tokens) if token in self._wanted.stop_tokens), None)
        if stop is not None:
            self._writing.cancel()
            self._end(tokens[: stop + 1], stopped=True)
        elif end is not None:
            self._end(list(end.tokens), stopped=end.finished != "length")

    def _end(self, tokens: list[int], *, stopped: bool) -> None:
        chances = self._writing.request.chances[: len(tokens)]
        likeliest = [chance.likeliest for chance in chances] if self._wanted.told else None
        self.sampled = Sampled(tokens, [chance.logprob for chance in chances], "stop" if stopped else "length", likeliest)

    def cancel(self) -> None:
        self._writing.cancel()


class _Sampling:
    """The texts of one promise, and what is told of their prompt."""

    def __init__(self, texts: list[_Text], wanted: Wanted, reading: Reading | None, tell: Tell, meter: Meter | None):
        self.texts, self._wanted, self._reading, self.tell, self.meter = texts, wanted, reading, tell, meter
        self.cancelled = False

    def hear(self) -> Result | None:
        """What came of it, once all texts are whole. In a thread."""
        try:
            for text in self.texts:
                text.hear()
            whole = [text.sampled for text in self.texts if text.sampled is not None]
            if len(whole) < len(self.texts) or not (self._reading is None or self._reading.future.done()):
                return None
            return packed_samples(whole, self._prompt())
        except NotFinite as error:
            return Failure(str(error))
        except GraftaxError as error:  # the adapter cannot be read, which is not the client's fault
            return Failure(str(error), "server")
        except Exception as error:  # a round of the engine has failed
            logging.getLogger("graftax").exception("samples failed")
            return Failure(f"{type(error).__name__}: the server failed to write; what happened is in its log.", "server")

    def _prompt(self) -> PromptTold:
        """What is told of the prompt, which is read."""
        if self._reading is None:
            return PromptTold()
        (told,) = self._reading.future.result()
        assert told is not None  # of no head
        wanted, skipped = self._wanted, 0 if self._wanted.last is None else len(told) + 1 - self._wanted.last
        logprobs = [None, *(None if place < skipped else float(row[0]) for place, row in enumerate(told, 1))]
        rows = [[], *([] if place < skipped else row for place, row in enumerate(likeliest_of(told, wanted.told_of_prompt), 1))]
        return PromptTold(logprobs if wanted.tells_prompt else None, rows if wanted.told_of_prompt else None)

    def give_up(self) -> None:
        for text in self.texts:
            text.cancel()
        if self._reading is not None:
            self._reading.cancelled = True

    @property
    def tokens(self) -> int:
        return sum(len(text.sampled.tokens) for text in self.texts if text.sampled is not None)


class SamplingDesk:
    """All texts that are being sampled. Belongs to the server's event loop."""

    def __init__(self, service: Service, generator: Generator):
        self._service, self._generator = service, generator
        self._under_way: list[_Sampling] = []
        self._begun = asyncio.Event()
        self._task: asyncio.Task[None]

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._hear())

    def stop(self) -> None:
        self._task.cancel()
        for one in self._under_way:
            one.give_up()
            one.tell(Failure("the server ends.", "server"))

    async def begin(self, wanted: Wanted, tell: Tell) -> Callable[[], None]:
        """Have texts sampled; what is returned has them given up. Raises GraftaxError where that cannot be done."""
        texts = await in_thread(self._texts, wanted)
        reading = _reading_of(wanted)
        if reading is not None:
            self._generator.engine.read(reading)
        self._under_way.append(one := _Sampling(texts, wanted, reading, tell, METER.get()))
        self._service.counts.read(len(wanted.ids))
        self._begun.set()
        self._service.rounds.wake()

        def cancel() -> None:
            one.cancelled = True
            self._service.rounds.wake()

        return cancel

    def _texts(self, wanted: Wanted) -> list[_Text]:
        """Texts that are to be written; none is, where one cannot be."""
        texts: list[_Text] = []
        try:
            for number in range(wanted.count):
                how = wanted.sampling.changed({"seed": (wanted.sampling.seed + number) % 2**32})
                writing = self._generator.begin(list(wanted.ids), wanted.handle, how, told=wanted.told)
                texts.append(_Text(writing, wanted))
        except BaseException:
            for text in texts:
                text.cancel()
            raise
        return texts

    async def _hear(self) -> None:
        """Hear after each round what has come, as long as something is to come."""
        while True:
            while not self._under_way:
                self._begun.clear()
                await self._begun.wait()
            told = self._service.rounds.next()
            for one, result in await in_thread(_heard, list(self._under_way)):
                self._end(one, result)
            for one in [one for one in self._under_way if one.cancelled]:
                self._end(one, Failure("the call was cancelled."))
            if self._under_way:
                await told

    def _end(self, one: _Sampling, result: Result) -> None:
        self._under_way.remove(one)
        one.give_up()
        self._service.counts.written_tokens += one.tokens
        if one.meter is not None:
            one.meter.spend(one.tokens)
        one.tell(result)


def _reading_of(wanted: Wanted) -> Reading | None:
    """What has the prompt read, if anything is to be told of it."""
    if not (wanted.tells_prompt or wanted.told_of_prompt):
        return None
    ids = np.asarray(wanted.ids, np.int32)
    item = Tokens(ids, np.zeros_like(ids), None)
    return Reading([Piece(item, plan_of(wanted.handle))], Read.CHANCES, alone=False)


def _heard(under_way: Sequence[_Sampling]) -> list[tuple[_Sampling, Any]]:
    """Those that have come to an end, and what came of them."""
    each = [(one, one.hear()) for one in under_way]
    return [(one, result) for one, result in each if result is not None]
