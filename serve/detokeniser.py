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
        whole = self._whole()
        if self._stops(whole):
            while self._stops(earlier := self._whole(-1)):  # what came behind the token that stopped it was for nothing
                whole, _ = earlier, self.tokens.pop()
            whole, finished = whole[: min(self._stops(whole))], "stop"
        if not finished:  # half a character, or what may become a stop text
            whole = whole.rstrip("\N{REPLACEMENT CHARACTER}")
            whole = whole[: len(whole) - max((_overlap(whole, text) for text in self.stop), default=0)]
        further, self.said = whole[len(self.said) :], whole if len(whole) > len(self.said) else self.said
        return further, finished

    def _whole(self, end: int | None = None) -> str:
        """What the tokens up to number `end` say."""
        told = [*self.context, *(token for token in self.tokens[:end] if token not in self.ends)]
        return self.tokenizer.text(told)[len(self.before) :]

    def _stops(self, whole: str) -> list[int]:
        """Where the stop texts begin that are there."""
        return [begin for begin in (whole.find(text) for text in self.stop) if begin >= 0]


def _overlap(text: str, stop: str) -> int:
    """How many of the text's last characters begin the stop text."""
    return max((n for n in range(1, min(len(text), len(stop)) + 1) if text.endswith(stop[:n])), default=0)
