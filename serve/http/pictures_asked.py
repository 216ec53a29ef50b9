"""Pictures that are to be read: image parts as OpenAI has them in messages, and as its newer interface has them.

    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AAQ..."}}
    {"type": "input_image", "image_url": "data:image/jpeg;base64,/9j/4AAQ..."}

They come under `input`, one or a list, or in `messages` of the user. Only `data:` URLs are taken: a server that fetched what it
is told to would ask its own network for strangers. Whether what one holds is a picture is seen when it is decoded.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from .complaints import Refused
from .limits import Limits

_KINDS = ("image_url", "input_image")


def pictures_of(given: Any, messages: Any, limits: Limits) -> list[bytes]:
    """The files of the pictures that a request has under either name, in their order; Refused where there is none."""
    name = "messages" if given is None else "input"
    if given is None and messages is None:
        raise Refused(400, "input is missing: a list of image parts, or messages that have such.", param="input")
    if given is not None and messages is not None:
        raise Refused(400, "messages: the pictures are under input already; give one of both.", param="messages")
    if given is None:
        parts = list(_parts_of(messages))
    else:
        parts = [(f"input[{i}]", one) for i, one in enumerate(given if isinstance(given, list) else [given])]
    if not parts:
        raise Refused(400, f"{name} has no picture.", param=name)
    if len(parts) > limits.max_texts:
        raise Refused(400, f"{name} has {len(parts)} pictures, more than {limits.max_texts} (--max-texts).", param=name)
    return [_file(part, where, name) for where, part in parts]


def _parts_of(messages: Any) -> Iterator[tuple[str, Any]]:
    """Where each part of some messages stands, and the part."""
    if not isinstance(messages, list):
        raise Refused(400, "messages must be a list of messages.", param="messages")
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, Mapping) or message.get("role") != "user" or not isinstance(message.get("content"), list):
            raise Refused(400, f"{where} must be of the user, its content a list of image parts.", param="messages")
        yield from ((f"{where}.content[{j}]", part) for j, part in enumerate(message["content"]))


def _file(part: Any, where: str, name: str) -> bytes:
    """The bytes that an image part holds."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in _KINDS:
        raise Refused(400, f"{where} must be an image part, of type {' or '.join(_KINDS)}.", param=name)
    said = part.get("image_url")
    url = said.get("url") if isinstance(said, Mapping) else said
    if not isinstance(url, str):
        raise Refused(400, f"{where}: its image_url has no url.", param=name)
    scheme, _, rest = url.partition(":")
    if scheme.lower() != "data":
        raise Refused(400, f"{where}: only data: URLs are taken; nothing is fetched from elsewhere.", param=name)
    form, _, content = rest.partition(",")
    if form.rpartition(";")[2].lower() != "base64":
        raise Refused(400, f"{where}: its URL must be data:image/...;base64,... .", param=name)
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, f"{where}: its URL is not base64.", param=name) from None
