"""The bytes that each token of a tokenizer stands for, of which a text is put together.

    byte-level BPE    each letter of a token is a byte: `Ġday` is " day", `Ã` the first half of "é" (Radford et al., 2019)
    SentencePiece     `▁day` is " day", and `<0xC3>` the byte that no token has
    WordPiece         `##s` goes on with a word, and any other token begins one

A token may be a part of a character, so it is bytes and no text. Which of these a tokenizer does is what its decoder says; what
that does to a text as a whole, such as to drop its first space, is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


class TokenBytes:
    """Of the tokens of a `tokenizers.Tokenizer`."""

    def __init__(self, backend: Any):
        self._backend = backend

    def __call__(self, token: int) -> bytes:
        """A token's bytes; those of a special one's name, and none where there is no such token."""
        if (name := self._added.get(token)) is not None:
            return name.encode()
        if (name := self._backend.id_to_token(token)) is None:
            return b""
        kinds = {step["type"] for step in self._steps}
        if "ByteLevel" in kinds:
            letters = _byte_letters()
            return b"".join(bytes([letters[letter]]) if letter in letters else letter.encode() for letter in name)
        if "ByteFallback" in kinds and (byte := _BYTE.fullmatch(name)):
            return bytes([int(byte[1], 16)])
        if "WordPiece" in kinds:
            return (name.removeprefix("##") if name.startswith("##") else f" {name}").encode()
        return (name.replace(_SPACE, " ") if kinds & {"Replace", "Metaspace"} else name).encode()

    def is_special(self, token: int) -> bool:
        """Whether a text leaves a token out."""
        return token in self._special

    @cached_property
    def _steps(self) -> list[Mapping[str, Any]]:
        """What the decoder does, one after another."""
        decoder = self._backend.decoder
        return [] if decoder is None else list(_flat(json.loads(decoder.__getstate__())))

    @cached_property
    def _added(self) -> dict[int, str]:
        return {token: added.content for token, added in self._backend.get_added_tokens_decoder().items()}

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(token for token, added in self._backend.get_added_tokens_decoder().items() if added.special)


def _flat(decoder: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A decoder's steps; one may be several."""
    if decoder["type"] != "Sequence":
        yield decoder
    for step in decoder.get("decoders", ()):
        yield from _flat(step)


def _byte_letters() -> dict[str, int]:
    """The letters of byte-level BPE, and their bytes: those that can be printed as they are, the others from 256 on."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + i): byte for i, byte in enumerate(others)}
