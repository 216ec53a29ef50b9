"""Texts of which all are as long as any can be, for a tower that was trained so and sees the padding (`siglip.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .tokens import Tokenizer, Tokens


class PaddedTexts(Tokenizer):
    """A tokenizer whose texts are filled up with tokens that are read like others."""

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 128) -> list[Tokens]:
        """As of `Tokenizer`; a text is cut to `max_length`, and padded to the longest that the backbone takes."""
        return [self._padded(text) for text in super().__call__(texts, pairs, max_length)]

    def _padded(self, text: Tokens) -> Tokens:
        behind = (0, self.max_length - len(text))
        ids = np.pad(text.ids, behind, constant_values=self.pad_id)
        return Tokens(ids, np.pad(text.types, behind), text.words, cut=text.cut)
