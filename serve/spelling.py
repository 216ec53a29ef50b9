"""The tokens of a text that is being written, with their chances, as far as the text is said.

    text      "h"  "é"  "llo"                      what is said, piece by piece
    tokens    h    Ã ©  llo   ! ## ...             each begins at a character; a character may be several tokens
    at        0    1 1  2     5 ...

A token is told when its characters are: not while they may yet turn out to begin a stop text, and never where they have. The
token that ends a text is no part of it.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

from ..models.token_bytes import TokenBytes
from .chances import Chance
from .continuation import Writing


class Spelled(NamedTuple):
    """A token of a text."""

    chance: Chance
    at: int  # characters of the text before it


class Spelling:
    """Of one text, whose request is told chances."""

    def __init__(self, writing: Writing, token_bytes: TokenBytes):
        self._writing, self._bytes = writing, token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a part of a character is none yet
        self._told = self._characters = 0  # tokens, and the characters that they make

    def further(self) -> list[Spelled]:
        """The tokens whose characters were said since the last call."""
        told: list[Spelled] = []
        while self._told < len(self._writing.tokens) and self._is_said():
            own = self._own_bytes()
            told.append(Spelled(self._writing.request.chances[self._told], self._at(own)))
            self._characters += len(self._decoder.decode(own))
            self._told += 1
        return told

    def _own_bytes(self) -> bytes:
        """What the next token adds to the text."""
        token = self._writing.tokens[self._told]
        return b"" if self._bytes.is_special(token) else self._bytes(token)

    def _at(self, own: bytes) -> int:
        """How many characters are there before these bytes; what they go on with is none of them."""
        begun, _ = self._decoder.getstate()
        goes_on = own[:1] and own[0] & 0xC0 == 0x80
        return self._characters + (1 if begun and not goes_on else 0)

    def _is_said(self) -> bool:
        """Whether the next token is part of what is said."""
        end = self._writing.end
        if end is None or end.finished == "stop":
            return self._at(self._own_bytes()) < len(self._writing.said)
        return end.finished == "length" or self._told < len(end.tokens) - 1
