"""Arrays that may be larger than the memory: pixels of many pictures, what frozen layers make of a data set."""

from __future__ import annotations

import math
import tempfile
from typing import Any

import numpy as np

IN_MEMORY = 2 << 30  # bytes


def large_array(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array to be filled: in memory, and beyond `IN_MEMORY` bytes on disk."""
    if math.prod(shape) * np.dtype(dtype).itemsize <= IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:  # the file has no name, and its memory map outlives it: it is gone when the array is
        return np.memmap(file, dtype, "w+", shape=shape)
