"""Numbers of things are said in words that fit them."""

from __future__ import annotations

import pytest

from graftax.counted import counted


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ["file"], "0 files"),
        (1, ["file"], "1 file"),
        (2, ["label name"], "2 label names"),
        (1234, ["row"], "1,234 rows"),
        (1, ["class", "classes"], "1 class"),
        (3, ["class", "classes"], "3 classes"),
    ],
)
def test_a_number_of_things(number: int, words: list[str], said: str) -> None:
    assert counted(number, *words) == said
