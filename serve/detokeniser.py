"""What one batch row has written, as text, while its tokens come."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ..models.tokens import Tokenizer


class Detokeniser:
    """The text that the tokens of one batch row make: nothing of it could be taken back by a further token or a stop text."""

    def __init__(self, tokenizer: Tokenizer, prompt: np.ndarray, stop: Sequence[str], ends: Collection[int], most: int):
        """`ends`: the tokens that end a text; `most`: how many tokens it has at most."""
        self.tokenizer, self.stop, self.ends, self.most = tokenizer, stop, ends, most
        self.context = prompt[-4:].tolist()  # decoded with the rest: tokenizers drop a text's first space
        self.before = tokenizer.text(self.context)
        self.tokens: list[int] = []
        self.said = ""

    def hear(self, drawn: Sequence[int]) -> tuple[str, str]:
        """The further text that new tokens make, and how the text has finished ("" if it has not)."""
        finished = ""
        for token in drawn:
            if token < 0 or finished:
                break
            self.tokens.append(token)
            finished = "eos" if token in self.ends else "length" if len(self.tokens) == self.most else ""
        told = [*self.context, *(t for t in self.tokens if t not in self.ends)]
        whole = self.tokenizer.text(told)[len(self.before) :]
        found = [begin for begin in (whole.find(text) for text in self.stop) if begin >= 0]
        if found:
            whole, finished = whole[: min(found)], "stop"
        if not finished:  # half a character, or what may become a stop text
            whole = whole.rstrip("\N{REPLACEMENT CHARACTER}")
            whole = whole[: len(whole) - max((_overlap(whole, text) for text in self.stop), default=0)]
        further, self.said = whole[len(self.said) :], whole if len(whole) > len(self.said) else self.said
        return further, finished


def _overlap(text: str, stop: str) -> int:
    """How many of the text's last characters begin the stop text."""
    return max((n for n in range(1, min(len(text), len(stop)) + 1) if text.endswith(stop[:n])), default=0)
