"""Items are cut into calls so that as little as can be is computed for nothing."""

from __future__ import annotations

from itertools import accumulate, product
from types import SimpleNamespace
from typing import cast

import pytest

from graftax.models.processor import Processor
from graftax.serve import reading_calls
from graftax.serve.reading_calls import cut_into_calls, positions_of, rows_of_calls


def test_short_items_are_not_padded_to_a_long_one() -> None:
    assert cut_into_calls([16] * 36 + [48]) == [(16, 16), (16, 16), (4, 4), (1, 1)]
    assert cut_into_calls([16] * 14) == [(14, 16)]
    assert cut_into_calls([8, 8, 8, 12]) == [(4, 4)]
    assert cut_into_calls([]) == []


@pytest.mark.parametrize("lengths", [[8, 8, 8, 16, 16, 64], [8, 12, 16, 24, 32, 48], [8] * 6, [16, 16, 16, 16, 16, 512]])
def test_no_other_way_costs_less(lengths: list[int]) -> None:
    def cost(ways: list[tuple[int, int]]) -> int:
        ends = accumulate(count for count, _ in ways)
        return sum(32 + rows * lengths[end - 1] for (_, rows), end in zip(ways, ends, strict=True))

    found = cut_into_calls(lengths)
    assert sum(count for count, _ in found) == len(lengths)
    every = []
    for cuts in product((False, True), repeat=len(lengths) - 1):
        counts, count = [], 1
        for cut in cuts:
            counts, count = ([*counts, count], 1) if cut else (counts, count + 1)
        every.append([(each, next(rows for rows in (1, 4, 16, 64) if rows >= each)) for each in [*counts, count]])
    assert cost(found) == min(map(cost, every))


def test_others_wait_for_no_enormous_call() -> None:
    assert [rows_of_calls(length) for length in (64, 128, 512, 8192)] == [[1, 4, 16, 64], [1, 4, 16], [1, 4], [1]]
    assert cut_into_calls([512] * 9) == [(4, 4), (4, 4), (1, 1)] or cut_into_calls([512] * 9) == [(1, 1), (4, 4), (4, 4)]


def test_pictures_are_not_read_with_rows_of_nothing() -> None:
    """They have no length that says how much work they are, and are much."""
    texts, pictures = SimpleNamespace(sequences=True), SimpleNamespace(sequences=False)
    assert positions_of(cast(Processor, texts), 16) == 16
    length = positions_of(cast(Processor, pictures), 1)
    assert sorted(cut_into_calls([length] * 37)) == [(1, 1), (4, 4), (16, 16), (16, 16)]


def test_where_many_positions_are_computed_at_once_the_fewest_calls_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_calls.jax, "default_backend", lambda: "gpu")
    assert cut_into_calls([16] * 36 + [48]) == [(37, 64)]
