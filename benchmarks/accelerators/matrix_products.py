"""The matrix products of a compiled program, whatever they have become in it.

A product of `[m, k]` by `[k, n]`, `batch` times over, takes 2 batch m n k operations. It stands in HLO as

    dot               on a CPU, and within Triton's fusions on a GPU
    custom-call       of cuBLAS, which also says in its config which axes are summed over
    convolution       on a TPU, where every product is one; axes that the operands share, as of heads, are spatial there

What kernels of attention multiply is not among them (`attention_kernels.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .hlo_text import Program, Shape, Step

_CUBLAS = ("__cublas$gemm", "__cublas$lt$matmul", "__cublas$lt$matmul$f8")


@dataclass(frozen=True)
class Product:
    """One matrix product, or several of one shape."""

    inputs: tuple[str, str]  # dtypes of what is multiplied
    output: str
    batch: int
    m: int
    n: int
    k: int
    times: int = 1  # how often it is run
    name: str = ""  # of its instruction

    @property
    def flops(self) -> int:
        """Of all its runs."""
        return 2 * self.batch * self.m * self.n * self.k * self.times

    @property
    def dtypes(self) -> str:
        left, right = self.inputs
        return f"{left if left == right else f'{left} x {right}'} -> {self.output}"

    def exceeds(self, rank: int) -> bool:
        """Whether more than one of its lengths is greater than a rank: whether it is larger than what is within an adapter.

        x A is, of `[tokens, width]` by `[width, rank]`, and so are the gradients of A and B; A B^T of one site by itself is
        not worth another dtype.
        """
        return sum(length > rank for length in (self.m, self.n, self.k)) > 1


def products(program: Program) -> list[Product]:
    """Every matrix product and convolution, in the order in which they are written down."""
    return [found for step in program.steps if (found := _product(step)) is not None]


def _product(step: Step) -> Product | None:
    one = step.instruction
    if one.opcode == "dot":
        names = ("lhs_contracting_dims", "rhs_contracting_dims", "lhs_batch_dims", "rhs_batch_dims")
    elif one.opcode == "custom-call" and one.target in _CUBLAS:
        names = ("lhs_contracting_dimensions", "rhs_contracting_dimensions", "lhs_batch_dimensions", "rhs_batch_dimensions")
    elif one.opcode == "convolution":
        return _of_convolution(step)
    else:
        return None
    left, right = step.within.operands(one)[:2]
    sums, right_sums, batch, right_batch = (one.dims(name) for name in names)
    return Product(
        (left.dtype, right.dtype),
        one.shapes[0].dtype,
        _lengths(left, batch),
        _lengths(left, {*range(len(left.lengths))} - {*sums, *batch}),
        _lengths(right, {*range(len(right.lengths))} - {*right_sums, *right_batch}),
        _lengths(left, sums),
        step.times,
        one.name,
    )


def _lengths(shape: Shape, axes: Iterable[int]) -> int:
    return math.prod(shape.lengths[axis] for axis in axes)


def _of_convolution(step: Step) -> Product:
    """`dim_labels=b01f_01io->b01f`: batch, spatial axes and features of the input, of the kernel and of the output.

    The axes of products are spatial, too, where they are several. One that both operands have and the output keeps, as of
    heads, is of one length in all three, and one that is the right operand's alone, of length 1 in the input: XLA spreads or
    pads the input such that every position of the output meets one of the kernel's. Any other spatial axis is a convolution's
    own, or one that a product sums over: there every position of the output is a sum over the kernel's.
    """
    one = step.instruction
    left, right = step.within.operands(one)[:2]
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    assert labels is not None
    of_left, of_right, of_output = (
        dict(zip(own, shape.lengths, strict=True))
        for own, shape in zip(labels.groups(), (left, right, one.shapes[0]), strict=True)
    )
    batch, m, n, k = 1, of_output["b"], of_output["f"], of_right["i"]
    for axis in (label for label in of_right if label.isdigit()):
        if of_left[axis] == of_right[axis] == of_output[axis]:
            batch *= of_output[axis]
        elif of_left[axis] == 1 and of_right[axis] == of_output[axis]:
            n *= of_output[axis]
        else:
            m, k = m * of_output[axis], k * of_right[axis]
    return Product((left.dtype, right.dtype), one.shapes[0].dtype, batch, m, n, k, step.times, one.name)
