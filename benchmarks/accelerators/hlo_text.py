"""The text of a compiled program, taken apart: XLA's HLO as computations of instructions.

    ENTRY %main (x: bf16[64,32], w: bf16[32,8]) -> f32[64,8] {
      %x = bf16[64,32]{1,0} parameter(0)
      %w = bf16[32,8]{1,0} parameter(1)
      ROOT %dot.1 = f32[64,8]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
    }

A program is a tree of such computations. What a *fusion* calls is computed in registers, and only what leaves it stands in
memory; what a loop's body computes stands there, and is computed as often as the loop turns. `Program.steps` walks the tree
and says both of every instruction.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_MODULE = re.compile(r"^HloModule ")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?:\s*\{"?n"?:\s*"?(\d+)')
_COMMENT = re.compile(r"/\*.*?\*/")
_ALIAS = re.compile(r"\{([\d, ]*)\}: \((\d+), \{([\d, ]*)\}")
_CLOSING = {"(": ")", "{": "}", "[": "]"}

_BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32, "s64": 64, "u64": 64}
_BITS |= {"f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128, "token": 0, "s2": 2, "u2": 2, "f4e2m1fn": 4}
_IN_MEMORY = ("while", "conditional", "call")  # whose computations write what they compute into memory


class Shape(NamedTuple):
    """An array: its dtype as HLO writes it, and its lengths; `near`: whether it is in a TPU's own memory beside the cores."""

    dtype: str
    lengths: tuple[int, ...]
    near: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.lengths)

    @property
    def nbytes(self) -> int:
        return -(-self.size * _BITS.get(self.dtype, 8) // 8)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.lengths))}]"


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]  # of what it makes; several where that is a tuple
    operands: tuple[str, ...]  # names, in the same computation
    attributes: str  # all that stands behind the operands
    is_root: bool = False

    @property
    def called(self) -> tuple[str, ...]:
        """The computations that it calls."""
        found = (match.group(1).strip("{}") for match in _CALLED.finditer(self.attributes))
        return tuple(name.strip().lstrip("%") for names in found for name in names.split(",") if name.strip())

    @property
    def target(self) -> str:
        """Of a custom call, what is called; of a kernel that was written for a TPU, its name."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        target = found.group(1) if found else ""
        return re.sub(r"[.\d]+$", "", self.name) if target == "tpu_custom_call" else target

    def dims(self, name: str) -> tuple[int, ...]:
        """An attribute that lists axes, such as `lhs_contracting_dims={1}`, or so in a library's config as JSON."""
        found = re.search(rf'\b{name}"?[=:]\s*[{{\[]([^}}\]]*)[}}\]]', self.attributes)
        return tuple(int(number) for number in re.findall(r"\d+", found.group(1))) if found else ()

    def computation(self, attribute: str) -> str:
        """The name of the one that an attribute has, such as a loop's `condition`."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found.group(1) if found else ""


@dataclass(frozen=True)
class Computation:
    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        return next((one for one in self.instructions.values() if one.is_root), [*self.instructions.values()][-1])

    def given(self, instruction: Instruction) -> list[Instruction]:
        """What makes the operands of an instruction, in their order."""
        return [self.instructions[name] for name in instruction.operands if name in self.instructions]

    def operands(self, instruction: Instruction) -> tuple[Shape, ...]:
        """The shapes of what an instruction is given."""
        return tuple(shape for one in self.given(instruction) for shape in one.shapes)

    @cached_property
    def parameters(self) -> list[Instruction]:
        """In their order."""
        own = [one for one in self.instructions.values() if one.opcode == "parameter"]
        return sorted(own, key=lambda one: int(one.operands[0]))

    def readers(self, name: str) -> list[Instruction]:
        return [one for one in self.instructions.values() if name in one.operands]


class Step(NamedTuple):
    """An instruction where it stands in the program."""

    instruction: Instruction
    within: Computation
    times: int  # how often it is run, as far as that is known; loops of unknown length count once
    in_memory: bool  # whether what it makes stands in memory


class Alias(NamedTuple):
    """An output that is written where an argument was."""

    output: tuple[int, ...]
    parameter: int


@dataclass(frozen=True)
class Program:
    computations: dict[str, Computation]
    entry: Computation
    aliases: tuple[Alias, ...]

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Every instruction that is run, those of fusions too."""
        return tuple(self._within(self.entry, 1, True))

    def trips(self, loop: Instruction) -> int | None:
        """How often a loop turns; None where that cannot be told.

        A GPU's compiler says it. Of a TPU's it follows from the condition: JAX's loops of known length count from 0, one by
        one, for as long as the count is less than a constant.
        """
        if found := _TRIPS.search(loop.attributes):
            return int(found.group(1))
        condition = self.computations.get(loop.computation("condition"))
        if condition is None or condition.root.opcode != "compare" or "direction=LT" not in condition.root.attributes:
            return None
        limit = condition.instructions[condition.root.operands[1]]
        return int(limit.operands[0]) if limit.opcode == "constant" else None

    def _within(self, computation: Computation, times: int, in_memory: bool) -> Iterator[Step]:
        for one in computation.instructions.values():
            yield Step(one, computation, times, in_memory)
            turns = times * (self.trips(one) or 1) if one.opcode == "while" else times
            for name in one.called:
                if name in self.computations:
                    yield from self._within(self.computations[name], turns, in_memory and one.opcode in _IN_MEMORY)


def read_program(text: str) -> Program:
    """A program, of what `compiled.as_text()` gives."""
    computations: dict[str, Computation] = {}
    entry, current, aliases = "", dict[str, Instruction](), tuple[Alias, ...]()
    for line in _whole_lines(text):
        if match := _MODULE.match(line):
            aliases = _aliases(line)
        elif match := _HEADER.match(line):
            current = {}
            computations[match.group(2)] = Computation(match.group(2), current)
            entry = match.group(2) if match.group(1) else entry
        elif match := _NAME.match(line):
            one = _instruction(match.group(2), line[match.end() :], bool(match.group(1)))
            current[one.name] = one
    return Program(computations, computations[entry], aliases)


def _whole_lines(text: str) -> Iterator[str]:
    """Lines, of which an instruction has one: what a kernel says of itself may have line breaks in it."""
    whole = ""
    for line in text.splitlines():
        begins = not line or line == "}" or any(pattern.match(line) for pattern in (_MODULE, _HEADER, _NAME))
        if begins and whole:
            yield whole
        whole = line if begins else f"{whole} {line}"
    yield whole


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
    """Of what stands behind `NAME = `: shapes, opcode, operands in parentheses, attributes."""
    text = _COMMENT.sub("", text)
    end = _closed(text, 0) if text.startswith("(") else text.index(" ")
    shapes, rest = _shapes(text[:end]), text[end:].lstrip()
    begin = rest.index("(")
    close = _closed(rest, begin)
    operands = tuple(part.split()[-1].lstrip("%") for part in _split(rest[begin + 1 : close - 1]) if part.strip())
    return Instruction(name, rest[:begin], shapes, operands, rest[close:], is_root)


def _shapes(text: str) -> tuple[Shape, ...]:
    found = []
    for dtype, lengths, layout in _ARRAY.findall(text):
        found.append(Shape(dtype, tuple(int(n) for n in lengths.split(",") if n), "S(1)" in layout))
    return tuple(found)


def _closed(text: str, begin: int) -> int:
    """Behind the bracket that closes the one at `begin`."""
    opening, depth = text[begin], 0
    for index in range(begin, len(text)):
        depth += (text[index] == opening) - (text[index] == _CLOSING[opening])
        if not depth:
            return index + 1
    raise ValueError(f"not closed: {text[begin : begin + 60]}")


def _split(text: str) -> Iterator[str]:
    """At the commas that stand in no bracket."""
    depth, begin = 0, 0
    for index, character in enumerate(text):
        depth += (character in "({[") - (character in ")}]")
        if character == "," and not depth:
            yield text[begin:index]
            begin = index + 1
    yield text[begin:]


def _aliases(line: str) -> tuple[Alias, ...]:
    begin = line.find("input_output_alias={")
    if begin < 0:
        return ()
    begin += len("input_output_alias=")
    inside = line[begin : _closed(line, begin)]
    return tuple(Alias(tuple(int(n) for n in re.findall(r"\d+", m[0])), int(m[1])) for m in _ALIAS.findall(inside))
