"""What tells one backbone's weights from another's: sha256 of every weight as float32, as checkpoints lay it out.

So it is the same whatever dtype the weights were stored in or are held as, whether they were loaded or merged in memory, and
under whatever prefix and older names a checkpoint has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..errors import GraftaxError
from .checkpoint import Stored
from .gguf_file import GgufTensor
from .parts import Weight

_NUMBERS = 1 << 22  # that are held as float32 on their way


class Fingerprint:
    """It grows weight by weight, in the order of `by_name`."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, weight: Weight, tensor: np.ndarray | Stored | GgufTensor, room: np.ndarray | None = None) -> None:
        """Take a weight as a checkpoint has it, some rows at a time; and write it into `room`, of its shape and any dtype.

        Raises GraftaxError where it is not finite.
        """
        self._digest.update(f"{weight.key}{tensor.shape}".encode())
        step = max(1, _NUMBERS * len(tensor) // max(1, tensor.size))
        for begin in range(0, len(tensor), step):
            with np.errstate(over="ignore"):
                piece = np.ascontiguousarray(tensor[begin : begin + step], np.float32)
            if not all_finite(piece):
                raise GraftaxError(f"the weights are damaged: {weight.key} holds NaN or infinite numbers.")
            self._digest.update(piece.data)
            if room is not None:
                room[begin : begin + step] = piece

    def __str__(self) -> str:
        return self._digest.hexdigest()


def all_finite(numbers: np.ndarray) -> bool:
    """Whether a float array holds no NaN and no infinity. A sum says so too, and is made in a third of the time."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(numbers.sum())) or bool(np.isfinite(numbers).all())


def fingerprint_of(weights: Sequence[Weight], arrays: Mapping[str, np.ndarray]) -> str:
    """Of stacked arrays by weight name. Raises GraftaxError where they are not finite."""
    found = Fingerprint()
    for name, group in by_name(weights):
        for weight in group:
            array = arrays[name] if weight.layer is None else arrays[name][weight.layer]
            found.add(weight, weight.as_stored(array))
    return str(found)


def by_name(weights: Sequence[Weight]) -> Iterator[tuple[str, list[Weight]]]:
    """Weights in groups that are stacked."""
    groups: dict[str, list[Weight]] = {}
    for weight in weights:
        groups.setdefault(weight.name, []).append(weight)
    yield from groups.items()
