"""Weights that are still in their files, of which each process reads the parts that its own devices are to have.

A backbone that no host's memory can hold is loaded *unread* (`load_backbone(..., unread=True)`). It lacks nothing but its
arrays: in place of each, of a stack in place of each layer's, stands an `Unread`, which knows the array's shape and where it
lies. When devices are to share the weights (`train/frozen_weights.py`), it is asked for one part after the other. Of a kernel
`[4096, 11008]` whose rows four devices share, a process that has the last two of them reads half:

    unread.part((slice(2048, 3072), slice(None)))     what lies there in the file, in the dtype wanted
    unread.part((slice(3072, 4096), slice(None)))

Nothing that was read is kept: who asks twice reads the file twice. So that nobody does so unawares, an `Unread` never becomes
an array by itself. JAX and NumPy are refused, and whoever wants the whole array says `read()`.

Not every weight has parts that can be read. A kernel that is quantised has scales that are made of all of it, and a GGUF file
packs its numbers. Such a weight is read whole, and cut when it is there, one after the other (`in_parts`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import numpy as np

from ..errors import GraftaxError
from .checkpoint import Stored
from .parts import Weight


def in_host_memory() -> Any:
    """A block in which arrays are made in the memory of the host, whatever devices there are."""
    return jax.default_device(jax.local_devices(backend="cpu")[0])


@dataclass(frozen=True, eq=False)
class Unread:
    """An array of a backbone, of one layer where it is a stack's, that is still in its file."""

    weight: Weight
    tensor: Any  # as the checkpoint has it: `Stored`, or what stands for a tensor of another file
    dtype: np.dtype  # of the array, or of a quantised kernel's scales
    quantise: Callable[[np.ndarray], Any] | None = None  # what makes a quantised kernel of it; None: it stays floats

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def in_parts(self) -> bool:
        """Whether a part can be read without the rest."""
        return isinstance(self.tensor, Stored) and self.quantise is None

    def part(self, index: tuple[slice, ...]) -> np.ndarray:
        """What lies at these places of the array, where it is `in_parts`."""
        return self._as_here(self.tensor[tuple(index[axis] for axis in np.argsort(self.weight.axes))], self.dtype)

    def read(self) -> Any:
        """The whole array, on the host; or the quantised kernel that is made of it."""
        whole = np.asarray(self.tensor)
        if self.quantise is None:
            return self._as_here(whole, self.dtype)
        with in_host_memory():
            return self.quantise(self._as_here(whole, np.dtype(np.float32)))

    def _as_here(self, stored: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Of the checkpoint's axes and dtype ours; through float32, as a weight that is loaded goes (`Fingerprint.add`)."""
        ours = stored.transpose(self.weight.axes)
        return np.ascontiguousarray(ours if ours.dtype == dtype else ours.astype(np.float32), dtype)

    # -- what it is not -------------------------------------------------------------------------------------------------

    @property
    def __jax_array__(self) -> NoReturn:
        """JAX looks for this wherever it is given something that is no array."""
        self._refuse()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise GraftaxError(
            f"{self.weight.name} is still in its file, for the backbone was loaded with unread=True, to be trained with "
            "fsdp=True: load it without."
        )


def any_unread(tree: Any) -> bool:
    """Whether a weight in a tree is still in its file."""
    return any(isinstance(leaf, Unread) for leaf in jax.tree.leaves(tree))
