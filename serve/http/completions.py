"""/v1/completions: texts that go on where prompts end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .bodies import read_object
from .complaints import Refused, as_json
from .logprobs import of_completion
from .parameters import Completion, parameters_of
from .service import Service
from .sse import as_events
from .written import Piece, Written, begin, finish_reason

_KIND = "text_completion"
_FEW = 16  # tokens that are written where nobody says how many, as at OpenAI


async def complete(service: Service, request: Request) -> Response:
    """A text for each prompt, or `n`; whole, or in pieces."""
    asked = parameters_of(Completion, await read_object(request, service.limits))
    written = await begin(service, request, asked, _prompts(asked.prompt), asked.max_tokens or _FEW)
    if asked.stream:
        return await as_events(_pieces(written), written.headers)
    texts = await written.whole()
    content = {"choices": [_choice(written, text) for text in texts], "usage": written.usage([text.end for text in texts])}
    return as_json({**written.beginning(_KIND), **content}, headers=written.headers)


async def _pieces(written: Written) -> AsyncGenerator[dict[str, Any], None]:
    counts = {"usage": None} if written.asked.stream_options.include_usage else {}
    beginning, ends = written.beginning(_KIND), []
    async with aclosing(written.pieces()) as pieces:
        async for piece in pieces:
            ends.append(piece.end)
            yield {**beginning, "choices": [_choice(written, piece)], **counts}
    if counts:
        yield {**beginning, "choices": [], "usage": written.usage(ends)}


def _choice(written: Written, piece: Piece) -> dict[str, Any]:
    told = written.logprobs(piece, of_completion)
    return {"index": piece.index, "text": piece.text, "logprobs": told, "finish_reason": finish_reason(piece.end)}


def _prompts(given: Any) -> list[Any]:
    """The prompts of a request: of a text, a list of token ids, or a list of either."""
    several = isinstance(given, list) and given and all(isinstance(one, str | list) for one in given)
    prompts = given if several else [given]
    if not all(isinstance(one, str) or _are_ids(one) for one in prompts):
        raise Refused(400, "prompt must be a text, a list of token ids, or a list of either.", param="prompt")
    return prompts


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)
