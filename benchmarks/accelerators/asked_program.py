"""A program that is to be compiled for a described device: a jitted function, and the shapes that it is called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from ...platforms import compiling_for
from .buffers import Attention
from .described_devices import Device
from .program_facts import Facts, donated_bytes, read_facts


@dataclass(frozen=True)
class AskedProgram:
    """What a program is compiled of, and what is looked for in it."""

    function: Any  # as `jax.jit` gives it, and not traced before: what is traced knows the platform it is for
    args: tuple[Any, ...]  # arrays or shapes
    named: Mapping[str, Any] = field(default_factory=dict)  # static arguments
    attention: Attention | None = None  # where it has some

    def compiled(self, device: Device) -> tuple[Any, int]:
        """The program for a device, and how many bytes of its arguments are donated."""
        with compiling_for(device.platform):
            lowered = self.function.lower(*device.placed(shapes_of(self.args)), **self.named)
        return lowered.compile(), donated_bytes(lowered)

    def facts(self, device: Device) -> Facts:
        """What is read off it."""
        return read_facts(*self.compiled(device), self.attention)


def shapes_of(tree: Any) -> Any:
    """A tree with the shape of each array in its place."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def several(tree: Any, count: int) -> Any:
    """The shapes of so many trees along a leading axis."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), shapes_of(tree))
