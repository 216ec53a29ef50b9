"""Where the cells of a grid lie to one another: patches of a picture, for relative and for rotary positions.

Of a grid of h x w cells, two cells are one of (2h - 1) (2w - 1) ways apart. `apart(2, 2)` numbers them, `[cells, cells]`:

    [[4, 3, 1, 0],
     [5, 4, 2, 1],          a cell and itself: the middle one, 4; the cell to its left: one more
     [7, 6, 4, 3],
     [8, 7, 5, 4]]
"""

from __future__ import annotations

import numpy as np


def apart(rows: int, columns: int) -> np.ndarray:
    """How two cells lie to one another, by number, int32 `[cells, cells]`: of each cell to all others."""
    row, column = (axis.reshape(-1) for axis in np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"))
    down = row[:, None] - row[None] + rows - 1
    across = column[:, None] - column[None] + columns - 1
    return (down * (2 * columns - 1) + across).astype(np.int32)


def ways_apart(rows: int, columns: int) -> int:
    return (2 * rows - 1) * (2 * columns - 1)


def angles(rows: int, columns: int, size: int, theta: float) -> np.ndarray:
    """By how much the channels of an attention head of `size` are turned at each cell, `[cells, size / 2]`, in float32.

    Half of the pairs of channels are turned by the row, the others by the column, both counted from -1 at one edge of the
    picture to 1 at the other; a pair by 2 pi theta^(-4i / size) of that (Simeoni et al., 2025, arXiv:2508.10104).
    """
    places = [2.0 * (np.arange(0.5, count, dtype=np.float32) / np.float32(count)) - 1.0 for count in (rows, columns)]
    cells = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    inverse = 1.0 / np.float32(theta) ** np.arange(0, 1, 4 / size, dtype=np.float32)
    turned: np.ndarray = (np.float32(2 * np.pi) * cells * inverse).reshape(rows * columns, -1)
    return turned
