"""Labels of a batch, and whose its outputs are, by hand: three items in two batch rows, the first of which two share."""

from __future__ import annotations

import numpy as np
import pytest

from graftax.data.batches import Planned, Shape
from graftax.data.examples import Examples
from graftax.data.prepared import Prepared
from graftax.tasks.outputs import Against, NextToken, OfItem, OfPosition, OfTarget, Output

PLANNED, SHAPE = Planned((2, 0, 1), ((0, 0), (0, 2), (1, 1))), Shape(4, 2, 6, target=5)


def prepared(labels: list) -> Prepared:
    return Prepared(Examples({"text": ("a", "b", "c")}), [None] * 3, labels)


BY_POSITION = prepared([np.array([5, 6, 7]), np.array([8]), np.array([3, 4])])


@pytest.mark.parametrize(("output", "length"), [(OfPosition(), 6), (NextToken(), 6), (Against(), 6), (OfTarget(), 5)])
def test_labels_of_positions_lie_where_their_items_do(output: Output, length: int) -> None:
    laid = output.lay(BY_POSITION, PLANNED, SHAPE, room=9)
    assert laid.tolist() == [[3, 4, 5, 6, 7, -1][:length], [-1, 8, -1, -1, -1, -1][:length]]


@pytest.mark.parametrize("output", [OfPosition(), NextToken()])
def test_outputs_of_positions_are_those_of_their_items(output: Output) -> None:
    found = dict(output.each(np.arange(24).reshape(2, 6, 2), BY_POSITION, PLANNED))
    assert {i: mine[:, 0].tolist() for i, mine in found.items()} == {2: [0, 2], 0: [4, 6, 8], 1: [14]}


def test_labels_of_items_are_in_the_batchs_order() -> None:
    """A number each, or several, for which there is room beyond an adapter's own classes."""
    numbers = prepared([np.int32(4), np.int32(5), np.int32(6)])
    assert OfItem().lay(numbers, PLANNED, SHAPE, room=3).tolist() == [6, 4, 5, 0]
    several = prepared([np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.array([1.0, 1.0])])
    assert OfItem().lay(several, PLANNED, SHAPE, room=3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("output", [OfItem(), Against()])
def test_outputs_of_items_are_in_the_batchs_order(output: Output) -> None:
    found = output.each(np.array([[1.0], [2.0], [3.0], [9.0]]), BY_POSITION, PLANNED)
    assert {i: mine.tolist() for i, mine in found} == {2: [1.0], 0: [2.0], 1: [3.0]}
