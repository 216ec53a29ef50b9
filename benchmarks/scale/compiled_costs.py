"""What programs for an H100 cost, by the compiler's own account: compiled ahead of time, read, and kept in compiled.json.

Of each program three numbers decide how long it takes at least (`step_time.py`): FLOPs of its matrix products, bytes that it
moves, and how many kernels it launches. They are counted in the program's text, with loops as often as they turn, as the
columns of benchmarks/ACCELERATORS.md are. The programs here are those that a fleet would run, which that page's are not: whole
backbones, and batches as small as those of small tasks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("compiled.json")
DEVICE = "h100"
SLOTS = (1, 8, 16, 64)
LANES = (1, 16, 64)  # texts that are written at once
COLUMNS, RESIDENT = 1024, 64
PROMPTS, CHUNK = 4, 256

#: What starts no kernel: names for arrays; what only calls others, or waits for them.
_NAMES = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier")
_NO_KERNEL = (*_NAMES, "while", "conditional", "call", "copy-done", "slice-done", "async-done", "async-update")


@dataclass(frozen=True)
class CompiledCost:
    """Of one program."""

    flops: float  # of matrix products, all of them in bfloat16 but for a head's
    moved: float  # bytes read and written
    kernels: int  # that are launched
    temporaries: int  # bytes
    arguments: int  # bytes
    seconds_to_compile: float  # measured, where compiled.json was made


@cache
def compiled_costs() -> dict[str, CompiledCost]:
    """All programs of compiled.json, by name."""
    return {name: CompiledCost(**cost) for name, cost in _file()["programs"].items()}


def compiled_when() -> str:
    """When, of which commit and by which versions."""
    made: str = _file()["made"]
    return made


def _file() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return found


def write_compiled(made: str, said: Callable[[str], None]) -> None:
    """Compile all programs, and write the file; minutes. Raises GraftaxError where nothing here compiles for the device."""
    from ..accelerators.asked_program import AskedProgram
    from ..accelerators.described_devices import described
    from ..accelerators.program_facts import read_facts

    device, costs = described(DEVICE), dict[str, Any]()
    asked: AskedProgram
    for name, asked in _programs():
        began = time.perf_counter()
        compiled, donated = asked.compiled(device)
        took = time.perf_counter() - began
        facts = read_facts(compiled, donated)
        kernels, flops = kernels_of(compiled.as_text()), sum(facts.flops.values())
        costs[name] = asdict(CompiledCost(flops, facts.moved, kernels, facts.temporaries, facts.arguments, round(took, 1)))
        said(f"{name}: {took:.0f} s of compiling")
    FILE.write_text(json.dumps({"made": made, "device": device.title, "programs": costs}, indent=1) + "\n", "utf-8")


def kernels_of(text: str) -> int:
    """How many a program launches: every instruction whose result stands in memory, and in a loop as often as that turns."""
    from ..accelerators.hlo_text import read_program

    steps = (step for step in read_program(text).steps if step.in_memory)
    return sum(step.times for step in steps if step.instruction.opcode not in _NO_KERNEL)


def _programs() -> Iterator[tuple[str, Any]]:
    """Of a classifier on BERT-base that learns from short texts, and of Llama-3.2-1B."""
    from ...data.batches import Shape
    from ..accelerators.catalogue_of_programs import CLASSES, DECODER, ENCODER, METHODS, TEXTS_OF_DECODER
    from ..accelerators.serving_programs import ServingPrograms
    from ..accelerators.step_programs import language_step, text_step
    from ..accelerators.weightless import weightless_backbone

    decoder = {**DECODER, "num_hidden_layers": 16}
    short_texts = Shape(items=32, rows=4, length=128)
    for slots in SLOTS:
        step = text_step(weightless_backbone(ENCODER), METHODS, slots, short_texts, CLASSES)
        yield f"classifier/gradient/{slots}", step.gradient
        yield f"classifier/update/{slots}", step.update
    for slots in SLOTS:
        step = language_step(weightless_backbone(decoder), METHODS, slots, TEXTS_OF_DECODER)
        yield f"decoder/gradient/{slots}", step.gradient
        yield f"decoder/update/{slots}", step.update
    serving = ServingPrograms(weightless_backbone(decoder), METHODS, RESIDENT)
    yield "decoder/prefill", serving.prefill(PROMPTS, CHUNK)
    for lanes in LANES:
        yield f"decoder/decode/{lanes}", serving.decode(lanes, COLUMNS)
