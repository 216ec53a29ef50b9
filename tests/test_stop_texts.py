"""Where a stop text ends a text does not hang on how many tokens come at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graftax.serve.detokeniser import Detokeniser


class Letters:
    """A tokenizer whose tokens are letters."""

    def text(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


@pytest.mark.parametrize("at_once", [1, 2, 3, 16])
@pytest.mark.parametrize(
    ("stop", "said", "tokens"),
    [
        (("cd",), "ab", "abcd"),
        (("bcdef", "d"), "abc", "abcd"),  # the one that is whole first, though the other begins before it
        (("b", "cd"), "a", "ab"),
        (("gh\n",), "abcdefgh", "abcdefgh"),  # which never comes
    ],
)
def test_the_first_that_is_whole(at_once: int, stop: tuple[str, ...], said: str, tokens: str) -> None:
    letters: Any = Letters()
    detokeniser = Detokeniser(letters, np.array([ord("x")]), stop, frozenset(), most=8)
    coming, pieces, finished = [ord(letter) for letter in "abcdefgh"], "", ""
    while not finished:
        piece, finished = detokeniser.hear([coming.pop(0) for _ in range(min(at_once, len(coming)))])
        pieces += piece
    assert (pieces, detokeniser.said, letters.text(detokeniser.tokens)) == (said, said, tokens)
    assert finished == ("length" if said == "abcdefgh" else "stop")
