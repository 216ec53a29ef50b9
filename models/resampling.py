"""What stands at every cell of a grid, such as a trained position, on a grid of another size.

Cells are resampled along each axis by itself, as `torch.nn.functional.interpolate` does (`align_corners=False`): a new cell is
a sum of old ones, weighed by Keys' cubic of how far they lie from it (Keys, 1981, doi:10.1109/TASSP.1981.1163711). Of five old
cells at new ones of 2.5 times their size:

    weights(5, 2)  [2, 5]          new = weights @ old

With `antialias` the cubic is as wide as a new cell where that is larger than an old one, and of another shape, Pillow's.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..shapes import Float, shaped

_PLAIN, _ANTIALIASED = -0.75, -0.5  # the cubic's slope at 1


@shaped
def resampled(
    cells: Float[Array, "rows columns dim"], size: tuple[int, int], *, antialias: bool = False
) -> Float[Array, "high wide dim"]:
    """What stands at the cells of a grid of `size`, rows and columns, of what stands at those of another."""
    if cells.shape[:2] == size:
        return cells
    down, across = (jnp.asarray(weights(old, new, antialias), jnp.float32) for old, new in zip(cells.shape, size, strict=False))
    made = jnp.einsum("hr,wc,rcd->hwd", down, across, cells.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
    return made.astype(cells.dtype)


def weights(old: int, new: int, antialias: bool) -> np.ndarray:
    """How much of each old cell is in a new one, `[new, old]`."""
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale - 0.5
    if antialias:
        reach = max(scale, 1.0)
        found = _cubic((np.arange(old) - centres[:, None]) / reach, _ANTIALIASED)
        return found / found.sum(1, keepdims=True)
    found = np.zeros((new, old))
    first = np.floor(centres).astype(int)
    for step in range(-1, 3):  # cells beyond an edge are that at the edge
        near = np.clip(first + step, 0, old - 1)
        np.add.at(found, (np.arange(new), near), _cubic(first + step - centres, _PLAIN))
    return found


def _cubic(distance: np.ndarray, slope: float) -> np.ndarray:
    x = np.abs(distance)
    near = ((slope + 2) * x - (slope + 3)) * x * x + 1
    far = ((slope * x - 5 * slope) * x + 8 * slope) * x - 4 * slope
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
