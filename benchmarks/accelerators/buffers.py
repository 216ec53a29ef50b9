"""What of a compiled program stands in memory: how many bytes it moves, what it copies, whether attention's scores are held.

The bytes that are moved are counted as XLA counts them: every instruction outside of fusions reads its operands and writes
what it makes. Of what is sliced or gathered out of an array, or written into one, that part alone counts, also where it is
done within a fusion; of what a TPU holds near its cores, nothing. So it is more than a device with a cache moves, and never
less than a program that reads everything once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from .hlo_text import Computation, Instruction, Program, Shape, Step

#: What moves nothing: names for arrays, or for parts of tuples; what only calls others; and what waits for others to be done.
_NAMES = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "iota", "broadcast")
_CALLS = ("while", "conditional", "call", "partition-id", "replica-id")
_FREE = (*_NAMES, *_CALLS, "copy-done", "slice-done", "async-done", "async-update")
_COPIES = {"copy", "copy-start", "transpose"}
_SLICES = ("dynamic-slice", "slice", "gather")


def bytes_moved(program: Program) -> int:
    """Bytes that are read and written, of all turns of loops whose number is known."""
    return sum(step.times * _moved(program, step) for step in _in_memory(program) if step.instruction.opcode not in _FREE)


def _in_memory(program: Program) -> Iterator[Step]:
    return (step for step in program.steps if step.in_memory)


def _moved(program: Program, step: Step) -> int:
    """Bytes that one instruction reads and writes."""
    one, given = step.instruction, step.within.given(step.instruction)
    called = program.computations.get(one.computation("calls"))
    if one.opcode == "fusion" and called is not None:
        return _read_by_fusion(called, given) + _written_by_fusion(called, one)
    if one.opcode == "copy-start":  # makes (the copy, what is copied, a token)
        return _bytes(one.shapes[:2])
    if one.opcode == "slice-start":  # makes (what is sliced, the slice, a token)
        return one.shapes[1].nbytes + _bytes(one.shapes[1:2])
    if one.opcode in _SLICES:
        return 2 * _bytes(one.shapes)
    if one.opcode == "dynamic-update-slice":
        return 2 * _bytes(given[1].shapes)
    return sum(_bytes(operand.shapes) for operand in given) + _bytes(one.shapes)


def _bytes(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.nbytes for shape in shapes if not shape.near)


def _read_by_fusion(fused: Computation, given: list[Instruction]) -> int:
    """Of each operand all of it, or what is sliced out of it where nothing else is done with it."""
    total = 0
    for parameter, operand in zip(fused.parameters, given, strict=True):
        sliced = 0
        for reader in fused.readers(parameter.name):
            if reader.operands[0] == parameter.name and reader.opcode in _SLICES:
                sliced += sum(shape.nbytes for shape in reader.shapes)
            elif reader.operands[0] == parameter.name and reader.opcode == "dynamic-update-slice":
                continue  # what is not written over stays where it is
            else:
                sliced = sum(shape.nbytes for shape in operand.shapes)
                break
        total += min(sliced, _bytes(operand.shapes))
    return total


def _written_by_fusion(fused: Computation, fusion: Instruction) -> int:
    """Of each of its results all of it, or what is written into an array that was there."""
    root, shapes, total = fused.root, iter(fusion.shapes), 0
    for made in fused.given(root) if root.opcode == "tuple" else [root]:
        own = tuple(islice(shapes, len(made.shapes)))
        while made.opcode == "bitcast":
            (made,) = fused.given(made)
        updates = made.opcode == "dynamic-update-slice"
        total += min(_bytes(own), fused.operands(made)[1].nbytes) if updates else _bytes(own)
    return total


class Attention(NamedTuple):
    """By what scores of attention are known: in how many batch rows, how many queries and keys, of how many heads, which share
    how many keys."""

    rows: int
    queries: int
    keys: int
    heads: int
    groups: int

    def has_scores(self, shape: Shape) -> bool:
        """Whether an array is one of scores: `[..., queries, keys]` or `[..., keys, queries]`, of all heads.

        XLA may lay the queries of heads that share a key behind one another. A mask of all batch rows is not one of all heads,
        and an array that only happens to have two such lengths, as of as many tokens as it is wide, is seldom one.
        """
        if len(shape.lengths) < 3 or shape.dtype == "pred":
            return False
        queries = {self.queries, self.queries * (self.heads // self.groups)}
        left, right = shape.lengths[-2:]
        alike = any(a in queries and b == self.keys for a, b in ((left, right), (right, left)))
        return alike and shape.size % (self.rows * self.heads * self.queries * self.keys) == 0


def scores_in_memory(program: Program, attention: Attention) -> list[Shape]:
    """Arrays in memory that are attention's scores, the largest first."""
    found = {shape for step in _in_memory(program) for shape in step.instruction.shapes if attention.has_scores(shape)}
    return sorted(found, key=lambda shape: (-shape.nbytes, str(shape)))


def copies(program: Program, least: int) -> list[Shape]:
    """Arrays of at least so many bytes that are copied from memory to memory, turned or not; the largest first.

    Whether that is an instruction or a fusion is all the same. What a TPU brings near its cores before it is used, or back from
    there, is no copy in this sense.
    """
    found = []
    for step in _in_memory(program):
        if _copies(program, step.instruction):
            both = step.instruction.shapes[0], *step.within.operands(step.instruction)[:1]
            if both[0].nbytes >= least and not any(shape.near for shape in both):
                found.append(both[0])
    return sorted(found, key=lambda shape: (-shape.nbytes, str(shape)))


def _copies(program: Program, one: Instruction) -> bool:
    """Whether an instruction makes what it is given once more, and nothing else."""
    called = program.computations.get(one.computation("calls"))
    if one.opcode == "fusion" and called is not None:
        does = {inner.opcode for inner in called.instructions.values()} - {"parameter", "bitcast"}
        return bool(does) and does <= _COPIES and len(called.parameters) == 1
    return one.opcode in _COPIES
