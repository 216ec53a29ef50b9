"""What a process costs on the machine that measured.json was written on: seconds, bytes and files.

`python -m graftax.benchmarks.scale measure` writes the file (`measuring.py`); `one_machine.py` predicts a run from them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("measured.json")


def _seconds(what: str) -> Any:
    return field(metadata={"unit": "s", "what": what})


def _amount(unit: str, what: str) -> Any:
    return field(metadata={"unit": unit, "what": what})


@dataclass(frozen=True)
class MeasuredCosts:
    """Of MiniLM under LoRA of rank 8 with a head; what each is stands beside it, and in docs/scale.md."""

    start: float = _seconds("a process, until everything is imported")
    load: float = _seconds("MiniLM read")
    train_many: float = _seconds("one call of `train_many`, beside what is below")
    compile_shape: float = _seconds("another shape of batches, with an empty compilation cache")
    find_shape: float = _seconds("the same with a filled one")
    prepare_job: float = _seconds("an adapter's rows prepared, beside each row")
    prepare_row: float = _seconds("each row of them, beside its tokens")
    prepare_token: float = _seconds("each token of a row")
    step: float = _seconds("a step of one adapter, beside its positions")
    step_position: float = _seconds("each position of its batch")
    save: float = _seconds("a finished adapter written into a directory")
    push: float = _seconds("what is in it put on a hub in a folder")
    checkpoint: float = _seconds("a checkpoint of a pack of one slot, until it is on the disk")
    read: float = _seconds("an adapter read from a directory")
    bank: float = _seconds("and written into a slot of a bank")
    answer: float = _seconds("one short text answered under one of several adapters")
    prepared_job_bytes: float = _amount("B", "an adapter that waits to be trained, in memory, beside its rows")
    prepared_row_bytes: float = _amount("B", "each row of it, beside its tokens")
    prepared_token_bytes: float = _amount("B", "each token of a row")
    row_tokens: float = _amount("tokens", "in a row, on the average")
    adapter_bytes: float = _amount("B", "an adapter's directory")
    adapter_files: float = _amount("files", "in it")
    checkpoint_bytes: float = _amount("B", "a checkpoint of a pack of one slot")


@dataclass(frozen=True)
class MeasuredRun:
    """A run of `train_many` that was measured: what there was to do, and how long it took."""

    cache: str  # "empty" or "filled": the compilation cache
    rows: tuple[int, ...]  # of each job
    steps: tuple[int, ...]  # likewise
    positions: tuple[int, ...]  # of each job's batches
    shapes: int  # different shapes of batches among the jobs
    seconds: float  # from asking for the process to the last file; a median of `runs`
    lowest: float  # the quickest of them
    highest: float
    runs: int


@cache
def measured_costs() -> MeasuredCosts:
    return MeasuredCosts(**_file()["costs"])


@cache
def measured_runs() -> tuple[MeasuredRun, ...]:
    """Those that the constants do not come from."""
    return tuple(MeasuredRun(**run) for run in _file()["runs"])


def measured_when() -> str:
    """When, of which commit, on which machine and how busy it was."""
    made: str = _file()["made"]
    return made


def _file() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return found
