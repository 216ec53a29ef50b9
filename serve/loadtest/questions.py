"""A request of each kind, and what is kept of its answer: when its first piece came and its last, its tokens, who made it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from .arrivals import Planned
from .light_client import Answer, LightClient, NoAnswer
from .meanings import Meanings, Said, complaint_in, said_in

#: Where requests of a kind go.
PATHS = {"completions": "/v1/completions", "classify": "/v1/classify", "embeddings": "/v1/embeddings"}
_DONE = b"[DONE]"


class Malformed(Exception):
    """An answer that is not what such a request is answered with."""


@dataclass
class Outcome:
    """What became of a request. Seconds are on the clock of the test."""

    asked: Planned
    began: float
    ended: float = 0.0
    first: float | None = None  # when the first piece of a text came
    read: int = 0  # tokens, as the server counts them,
    written: int = 0  # likewise
    error: str | None = None  # a status, or what else went wrong
    complaint: str = ""  # in words
    right: bool | None = None  # whether the adapter that was asked made it; None: not known


async def ask(client: LightClient, meanings: Meanings, asked: Planned, timeout: float, start: float) -> Outcome:
    """Ask, and hear the answer to its end; whatever goes wrong is in the outcome."""
    outcome = Outcome(asked, time.perf_counter() - start)
    said: set[Said | None] = set()
    try:
        async with asyncio.timeout(timeout), client.asked("POST", PATHS[asked.kind], _body(asked)) as answer:
            if answer.status != 200:
                outcome.error, outcome.complaint = str(answer.status), complaint_in(await answer.whole())
            elif asked.kind == "completions":
                async for event in _events(answer):
                    _hear(event, outcome, said, time.perf_counter() - start)
            else:
                _hear_whole(_object(await answer.whole()), answer, outcome, said)
    except TimeoutError:
        outcome.error, outcome.complaint = "timeout", f"no answer within {timeout:g} s."
    except NoAnswer as error:
        outcome.error, outcome.complaint = "no answer", f"{error}."
    except Malformed as error:
        outcome.error, outcome.complaint = "malformed", str(error)
    outcome.ended = time.perf_counter() - start
    if outcome.error is None:
        fits = [await meanings.fits(asked.model, one) for one in said]
        outcome.right = False if False in fits or len(fits) != 1 else fits[0]
    return outcome


def _body(asked: Planned) -> dict[str, Any]:
    if asked.kind != "completions":
        return {"model": asked.model, "input": asked.text}
    options = {"max_tokens": asked.tokens, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    return {"model": asked.model, "prompt": asked.text, **options}


async def _events(answer: Answer) -> Any:
    """The objects in server-sent events; Malformed where the last one that is to come does not."""
    line, done = b"", False
    async for piece in answer.pieces():
        *whole, line = (line + piece).split(b"\n")
        for one in whole:
            if (data := one.removeprefix(b"data:").strip()) == _DONE:
                done = True
            elif one.startswith(b"data:"):
                yield _object(data)
    if not done:
        raise Malformed("the events ended without [DONE].")


def _object(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise Malformed("what came is no JSON object.")
    return content


def _hear(event: dict[str, Any], outcome: Outcome, said: set[Said | None], now: float) -> None:
    """A piece of a text, or the numbers behind all."""
    if "error" in event:
        outcome.error, outcome.complaint = "in a stream", complaint_in(json.dumps(event).encode())
        return
    said.add(said_in(event))
    if outcome.first is None:
        outcome.first = now
    _count(event.get("usage"), outcome)


def _hear_whole(content: dict[str, Any], answer: Answer, outcome: Outcome, said: set[Said | None]) -> None:
    """An answer of one piece; what its header says is held against what it says itself."""
    own = said_in(content)
    said.add(own)
    if own is not None and answer.headers.get("x-adapter-digest") != own[1]:
        said.add((own[0], answer.headers.get("x-adapter-digest")))
    if len(content.get("data") or []) != 1:
        raise Malformed("an answer to another number of texts.")
    _count(content.get("usage"), outcome)


def _count(usage: Any, outcome: Outcome) -> None:
    if isinstance(usage, dict):
        outcome.read, outcome.written = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
