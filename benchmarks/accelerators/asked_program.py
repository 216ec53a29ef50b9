"""A program that is to be compiled for a described device: a jitted function, and the shapes that it is called with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from ...errors import GraftaxError
from ...platforms import compiling_for
from .buffers import Attention
from .described_devices import Device
from .program_facts import Facts, donated_bytes, read_facts

#: What the TPU's compiler says of a program that is too large.
_TOO_LARGE = re.compile(r"Used ([\d.]+[KMG]) of ([\d.]+[KMG]) hbm")


class TooLarge(GraftaxError):
    """A program that wants more memory than the device has."""


@dataclass(frozen=True)
class AskedProgram:
    """What a program is compiled of, and what is looked for in it."""

    function: Any  # as `jax.jit` gives it, and not traced before: what is traced knows the platform it is for
    args: tuple[Any, ...]  # arrays or shapes
    named: Mapping[str, Any] = field(default_factory=dict)  # static arguments
    attention: Attention | None = None  # where it has some

    @property
    def _placed(self) -> bool:
        """Whether arguments say already on which of several devices they are."""
        return any(isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is not None for leaf in jax.tree.leaves(self.args))

    def compiled(self, device: Device) -> tuple[Any, int]:
        """The program for a device, and how many bytes of its arguments are donated."""
        with compiling_for(device.platform):
            args = self.args if self._placed else device.placed(shapes_of(self.args))
            lowered = self.function.lower(*args, **self.named)
        return lowered.compile(), donated_bytes(lowered)

    def facts(self, device: Device) -> Facts:
        """What is read off it. Raises TooLarge where the compiler gives up, as a TPU's does."""
        try:
            return read_facts(*self.compiled(device), self.attention)
        except jax.errors.JaxRuntimeError as error:
            if (needed := _TOO_LARGE.search(str(error))) is None:
                raise
            raise TooLarge(f"does not fit: the compiler needs {needed[1]} of {needed[2]}") from error


def shapes_of(tree: Any) -> Any:
    """A tree with the shape of each array in its place."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def several(tree: Any, count: int) -> Any:
    """The shapes of so many trees along a leading axis."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), shapes_of(tree))
