"""Where texts are laid, by hand: first fit of the longest first, examples of several texts, batches that are full."""

from __future__ import annotations

import numpy as np

from graftax.data.batches import Planned, Shape, draw_epoch, number_of_batches, place, plan_all, plan_epoch, wholes


def test_first_fit_of_the_longest_first() -> None:
    """Of rows of ten: 7 and the 3 that fills it to the last token, then 6 and the 4 behind it, then the 5."""
    assert place([3, 6, 7, 4, 5], 10) == [(0, 7), (1, 0), (0, 0), (1, 6), (2, 0)]


def test_texts_of_one_length_keep_their_order() -> None:
    assert place([5, 5, 5, 10], 10) == [(1, 0), (1, 5), (2, 0), (0, 0)]


def test_examples_of_two_texts_are_laid_whole() -> None:
    """Three examples of 2 + 3, 4 + 1 and 3 + 3 tokens, at most two a batch: the longest first."""
    lengths, shape = [2, 3, 4, 1, 3, 3], Shape(4, 2, 11, together=2)
    assert wholes(lengths, 2) == [5, 5, 6]
    assert plan_all(lengths, shape) == [
        Planned((4, 5, 0, 1), ((0, 0), (0, 3), (0, 6), (0, 8))),
        Planned((2, 3), ((0, 0), (0, 4))),
    ]


def test_a_batch_ends_where_its_rows_or_its_texts_do() -> None:
    rows = Shape(9, 2, 10)
    assert [items for items, _ in plan_all([6, 6, 6, 4], rows)] == [(0, 1), (2, 3)]
    few = Shape(2, 2, 10)  # at most two, in two batch rows of ten
    assert [items for items, _ in plan_all([1, 2, 3], few)] == [(2, 1), (0,)]
    alone = Shape(2, 2, 10, shared=False)
    assert plan_all([1, 2, 3], alone) == [Planned((2, 1), ((0, 0), (1, 0))), Planned((0,), ((0, 0),))]


def test_a_last_batch_is_begun_for_the_rest() -> None:
    assert [number_of_batches(rows, 4) for rows in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]


def test_epochs_are_drawn_anew_and_each_the_same_again() -> None:
    lengths = list(range(1, 31))
    drawn = [draw_epoch(lengths, 8, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert draw_epoch(lengths, 8, 1, 0) == drawn[2]
    assert all(one != other for i, one in enumerate(drawn) for other in drawn[:i])
    assert all(sorted(row for batch in epoch for row in batch) == list(range(30)) for epoch in drawn)


def test_every_batch_has_a_row_of_every_length() -> None:
    """A batch gets one of each run of as many rows, sorted by length, as there are batches."""
    lengths = np.random.default_rng(4).permutation(24).tolist()
    for batch in draw_epoch(lengths, 6, seed=3, epoch=2):
        assert sorted(lengths[row] // 4 for row in batch) == [0, 1, 2, 3, 4, 5]


def test_a_planned_epoch_is_what_was_drawn_laid_out() -> None:
    lengths, shape = [3, 6, 7, 4, 5, 2], Shape(3, 2, 10)
    planned = plan_epoch(lengths, shape, seed=5, epoch=1)
    drawn = draw_epoch(lengths, 3, seed=5, epoch=1)
    assert planned == [Planned(tuple(batch), tuple(place([lengths[i] for i in batch], 10))) for batch in drawn]
