"""What is read off one compiled program."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .attention_kernels import attention_flops
from .buffers import Attention, bytes_moved, copies, scores_in_memory
from .described_devices import Device
from .hlo_text import Program, Shape, read_program
from .matrix_products import Product, products
from .roofline import Roofline

_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_LARGE_COPY = 1 << 20  # bytes


@dataclass(frozen=True)
class Facts:
    """Of one program on one device. Bytes are the compiler's own account, where nothing else is said."""

    temporaries: int
    arguments: int
    outputs: int
    donated: int  # bytes of arguments that are given away
    aliased: int  # bytes of outputs that are written where arguments were
    flops: Mapping[str, int]  # of matrix products by the dtype of what is multiplied; counted in the program's text
    moved: int  # bytes; counted in the program's text
    products: tuple[Product, ...]
    custom_calls: Mapping[str, int]  # by name, with how many stand in the program
    collectives: Mapping[str, int]
    scores: tuple[Shape, ...]  # arrays in memory that look like attention's scores, the largest first
    copied: tuple[Shape, ...]  # arrays of a megabyte and more that are copied in memory
    loops_of_unknown_length: int  # whose bodies count once

    @property
    def by_dtypes(self) -> Counter[str]:
        """How many products stand in the program, by the dtypes of what goes in and comes out."""
        return Counter(product.dtypes for product in self.products)

    def float32_products(self, rank: int) -> list[Product]:
        """Products of float32 that are larger than a rank (`Product.exceeds`)."""
        return [product for product in self.products if "f32" in product.inputs and product.exceeds(rank)]

    @property
    def in_place(self) -> bool:
        """Whether nothing that is given away is copied."""
        return self.aliased >= self.donated

    def fits(self, device: Device) -> bool:
        """Whether a device has the memory for what it is given, what it makes and what it needs meanwhile."""
        return self.arguments + self.outputs - self.aliased + self.temporaries <= device.memory

    def roofline(self, device: Device) -> Roofline:
        return Roofline.of(device, self.flops, self.moved)


def donated_bytes(lowered: Any) -> int:
    """Bytes of the arguments that are donated and that the program reads."""
    donated = (leaf for leaf in jax.tree.leaves(lowered.args_info) if leaf.donated)
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in donated)


def read_facts(compiled: Any, donated: int, attention: Attention | None = None) -> Facts:
    program, memory = read_program(compiled.as_text()), compiled.memory_analysis()
    found = products(program)
    steps = program.steps
    calls = Counter(step.instruction.target for step in steps if step.instruction.opcode == "custom-call")
    return Facts(
        temporaries=int(memory.temp_size_in_bytes),
        arguments=int(memory.argument_size_in_bytes),
        outputs=int(memory.output_size_in_bytes),
        donated=donated,
        aliased=int(memory.alias_size_in_bytes),
        flops=_flops(program, found),
        moved=bytes_moved(program),
        products=tuple(found),
        custom_calls=calls,
        collectives=Counter(kind for step in steps if (kind := _collective(step.instruction.opcode)) is not None),
        scores=tuple(scores_in_memory(program, attention)) if attention else (),
        copied=tuple(copies(program, _LARGE_COPY)),
        loops_of_unknown_length=sum(
            step.instruction.opcode == "while" and program.trips(step.instruction) is None for step in steps
        ),
    )


def _flops(program: Program, found: list[Product]) -> dict[str, int]:
    """By dtype; of two dtypes the larger, in which both are multiplied."""
    flops: Counter[str] = Counter()
    for product in found:
        flops["f32" if "f32" in product.inputs else product.inputs[0]] += product.flops
    flops["bf16"] += attention_flops(program)  # of cuDNN 16 bits alone, on a TPU one pass in any case
    return {dtype: count for dtype, count in flops.items() if count}


def _collective(opcode: str) -> str | None:
    """What an opcode does among devices; what begins it, and not what waits for it."""
    kind = opcode.removesuffix("-start")
    return kind if kind in _COLLECTIVES else None
