"""Chats: lists of messages, each an object with a role and a content.

A message of the assistant may have a `weight`, as in OpenAI's rows: with 0 it is not learnt from, with 1 it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import GraftaxError
from .values import Unreadable, described, plain, text_of

Chat = tuple[dict[str, Any], ...]


def chat_of(value: Any) -> Chat:
    """The messages in a list of them."""
    value = plain(value)
    if not isinstance(value, list | tuple) or not value:
        raise Unreadable(f"{described(value)} is no list of messages")
    return tuple(_message(message) for message in value)


def turns_of(value: Any, role: str) -> Chat:
    """Messages of a list, or a text that one of this role says."""
    return ({"role": role, "content": text_of(value)},) if isinstance(value, str | bytes) else chat_of(value)


def is_chat(value: Any) -> bool:
    """Whether a value is meant as messages rather than as a text."""
    value = plain(value)
    return isinstance(value, list | tuple) and any(isinstance(message, Mapping) for message in value)


def chat_in(row: Mapping[str, Any], column: str, index: int, source: str) -> Chat:
    """The messages in a column of row `index`."""
    try:
        return chat_of(row.get(column))
    except Unreadable as error:
        raise GraftaxError(f"{source}: row {index + 1}: {error} (column {column!r}).") from None


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping) or "role" not in message or not ("content" in message or message.get("tool_calls")):
        raise Unreadable("a message is not an object with role and content")
    if "weight" in message:
        _expect_weight(message)
    return {**message, "role": text_of(message["role"]), "content": _content(message)}


def is_learnt(message: Mapping[str, Any]) -> bool:
    """Whether a message of a chat is learnt from."""
    return message["role"] == "assistant" and message.get("weight", 1) == 1


def _expect_weight(message: Mapping[str, Any]) -> None:
    weight = plain(message["weight"])
    if isinstance(weight, bool) or weight not in (0, 1):
        raise Unreadable(f"a message has weight {weight!r}, which may be 0 or 1")
    if message["role"] != "assistant":
        raise Unreadable(f"a message of the {message['role']} has a weight, which is for those of the assistant")


def _content(message: Mapping[str, Any]) -> str | None:
    """What a message says: a text, or parts, all of which are texts; nothing where it calls tools instead."""
    content = plain(message.get("content"))
    if content is None and message.get("tool_calls"):
        return None
    if content is None:
        raise Unreadable("a message has no content, which is null")
    if not isinstance(content, list | tuple):
        return text_of(content)
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Unreadable("a message has a part that is no text")
    return "".join(part["text"] for part in content)
