"""Feature maps of another size: along each axis the two nearest positions, weighed by how near they are (bilinear).

A position is as wide as its share of the picture, and its value stands in its middle, as with `align_corners=False` in
`torch.nn.functional.interpolate`: of 2 positions at 4 the new ones lie at -0.25, 0.25, 0.75 and 1.25 of the old. Beyond the
outermost middles stands what stands there.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..shapes import Float, shaped


def weights_at(places: np.ndarray, size: int) -> np.ndarray:
    """How much of each of `size` positions stands at these places, `[places, size]`; 0 is the middle of the first position."""
    near = np.clip(places, 0, size - 1)[:, None]
    return np.maximum(0.0, 1.0 - np.abs(np.arange(size) - near)).astype(np.float32)


def middles(old: int, new: int) -> np.ndarray:
    """Where the middles of `new` positions lie among `old` ones that cover as much."""
    return (np.arange(new) + 0.5) * (old / new) - 0.5


@shaped
def resized(x: Float[Array, "*lead high wide channels"], size: Sequence[int]) -> Float[Array, "*lead higher wider channels"]:
    """A feature map of `size`, height and width."""
    if x.shape[-3:-1] == tuple(size):
        return x
    down, across = (
        jnp.asarray(weights_at(middles(old, new), old), x.dtype) for old, new in zip(x.shape[-3:-1], size, strict=True)
    )
    exact = jax.lax.Precision.HIGHEST
    x = jnp.einsum("Ww,...hwc->...hWc", across, x, precision=exact)
    return jnp.einsum("Hh,...hWc->...HWc", down, x, precision=exact)
