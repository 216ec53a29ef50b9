"""/v1/chat/completions: what the assistant says next in a chat."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...typed import shown
from .bodies import read_object
from .complaints import Refused, as_json
from .logprobs import of_chat
from .parameters import ChatCompletion, parameters_of
from .service import Service
from .sse import as_events
from .written import Written, begin, finish_reason


async def answer_chat(service: Service, request: Request) -> Response:
    """The assistant's message, or `n`; whole, or in pieces."""
    asked = parameters_of(ChatCompletion, await read_object(request, service.limits))
    written = await begin(service, request, asked, [_messages(asked.messages)], asked.max_completion_tokens or asked.max_tokens)
    if asked.stream:
        return await as_events(_pieces(written), written.headers)
    texts = await written.whole()
    choices = [
        {
            "index": text.index,
            "message": {"role": "assistant", "content": text.text, "refusal": None},
            "logprobs": written.logprobs(text, of_chat),
            "finish_reason": finish_reason(text.end),
        }
        for text in texts
    ]
    usage = written.usage([text.end for text in texts])
    content = {**written.beginning("chat.completion"), "choices": choices, "usage": usage}
    return as_json(content, headers=written.headers)


async def _pieces(written: Written) -> AsyncGenerator[dict[str, Any], None]:
    """First of each message whose it is; then what it says; at last what ended it."""
    counts = {"usage": None} if written.asked.stream_options.include_usage else {}
    beginning, ends = written.beginning("chat.completion.chunk"), []
    begun = set[int]()
    async with aclosing(written.pieces()) as pieces:
        async for piece in pieces:
            index = piece.index
            if index not in begun:
                begun.add(index)
                yield {**beginning, "choices": [_choice(index, {"role": "assistant", "content": ""})], **counts}
            if piece.text or piece.spelled:
                said = {**_choice(index, {"content": piece.text}), "logprobs": written.logprobs(piece, of_chat)}
                yield {**beginning, "choices": [said], **counts}
            if piece.end is not None:
                ends.append(piece.end)
                yield {**beginning, "choices": [_choice(index, {}, finish_reason(piece.end))], **counts}
    if counts:
        yield {**beginning, "choices": [], "usage": written.usage(ends)}


def _messages(given: Sequence[Any]) -> list[Any]:
    """The messages, whose roles are texts, and whose contents are no numbers, as a table's may be that are read as texts."""
    for index, message in enumerate(given):
        for name, kinds in (("role", str), ("content", str | list | None)):
            if isinstance(message, dict) and not isinstance(message.get(name, ""), kinds):
                words = "a text" if name == "role" else "a text or a list of parts"
                raise Refused(400, f"messages[{index}]: {name} must be {words}, got {shown(message[name])}.", param="messages")
    return list(given)


def _choice(index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
