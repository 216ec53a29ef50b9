"""Log probabilities of tokens in OpenAI's two forms, of completions and of chats.

    {"tokens": [" a"], "token_logprobs": [-0.1], "top_logprobs": [{" a": -0.1, " the": -2.5}], "text_offset": [7]}
    {"content": [{"token": " a", "logprob": -0.1, "bytes": [32, 97], "top_logprobs": [{"token": ...}, ...]}], "refusal": null}

A token that is a part of a character is no text; its bytes are then written as OpenAI writes them, such as `\\xe2\\x80`, in
completions behind `bytes:`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...models.token_bytes import TokenBytes
from ..chances import Chance
from ..spelling import Spelled


def of_completion(spelled: Sequence[Spelled], bytes_of: TokenBytes) -> dict[str, Any]:
    """`top_logprobs` has each token itself, too, if it is not among the likeliest; of two with one text the likelier."""
    chances = [one.chance for one in spelled]
    return {
        "tokens": [_text(bytes_of(chance.token), "bytes:") for chance in chances],
        "token_logprobs": [chance.logprob for chance in chances],
        "top_logprobs": [_likeliest(chance, bytes_of) for chance in chances],
        "text_offset": [one.at for one in spelled],
    }


def _likeliest(chance: Chance, bytes_of: TokenBytes) -> dict[str, float]:
    told: dict[str, float] = {}
    for token, logprob in (*chance.likeliest, (chance.token, chance.logprob)):
        told.setdefault(_text(bytes_of(token), "bytes:"), logprob)
    return told


def of_chat(spelled: Sequence[Spelled], bytes_of: TokenBytes) -> dict[str, Any]:
    """Of each token, and of the likeliest in its place."""
    content = [
        _told(chance.token, chance.logprob, bytes_of)
        | {"top_logprobs": [_told(token, logprob, bytes_of) for token, logprob in chance.likeliest]}
        for chance, _ in spelled
    ]
    return {"content": content, "refusal": None}


def _told(token: int, logprob: float, bytes_of: TokenBytes) -> dict[str, Any]:
    own = bytes_of(token)
    return {"token": _text(own), "logprob": logprob, "bytes": list(own)}


def _text(own: bytes, before: str = "") -> str:
    """A token's bytes as text."""
    try:
        return own.decode()
    except UnicodeDecodeError:
        return before + "".join(f"\\x{byte:02x}" for byte in own)
