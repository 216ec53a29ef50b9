"""What a benchmark writes: a line of `results.jsonl` for every cell measured, and what was said about each example.

A *cell* is one training: a method on a task and backbone, with one learning rate, schedule, length and seed, either a step of
the search, measured on the validation rows, or a result, trained on all rows and measured on the test rows. As measured it is a
`Record`. What was said about each example lies beside it (`Predictions`), because the intervals and tests of `statistics.py`
draw examples anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .. import disk, typed
from ..errors import GraftaxError
from ..json_files import json_line, parse_json, read_bytes, read_object
from .quiet import QUIET

Stage = Literal["search", "final"]
_LARGEST = 1e38  # of a number: a perplexity beyond it is none
_LONGEST = 150  # characters of a cell's id before its digest: file systems have room for 255 bytes


@dataclass(frozen=True)
class Cell:
    """One training. Equal cells have equal ids, whoever runs them and when."""

    backbone: str
    task: str  # name in the suite
    method: str  # label in the suite
    size: int | None  # training rows per class (of a language task: rows); None: all
    lr: float
    schedule: str
    epochs: int
    seed: int
    library: str = "graftax"  # or the peer: "peft", "adapters"
    stage: Stage = "final"  # "search": compared with other settings on validation rows; "final": measured on test rows
    choice: str = ""  # the one of the method's `choices` in the suite, where it has some

    @property
    def id(self) -> str:
        """A directory name: readable, and distinct for distinct cells."""
        facts = {name: value for name, value in asdict(self).items() if (name, value) != ("choice", "")}
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:8]
        named = f"{self.task}-{self.method}-{self.lr:g}-{self.epochs}-{self.seed}"
        return f"{re.sub(r'^[.]|[^A-Za-z0-9._-]', '_', named)[:_LONGEST]}-{digest}"


@dataclass(frozen=True)
class Record(Cell):
    """A cell as measured. Costs are of its training; None: not measured, or (`error`) not to be had."""

    suite: str = ""
    split: str = "test"
    metric: str = ""  # main metric of the task
    value: float | None = None  # its value
    converged: bool | None = None  # of a result: the search saw that a longer training brings nothing
    edge: str | None = None  # of a result: "lowest" or "highest" where the search saw no rate beyond the best one
    metrics: Mapping[str, float | None] = field(default_factory=dict)  # all that were taken
    ece: float | None = None  # expected calibration error, 15 bins of equal width
    brier: float | None = None  # mean squared distance of the probabilities from the truth
    worst_slice: float | None = None  # share right in the worst slice (a label, or texts of like length) of 10 examples or more
    worst_slice_name: str | None = None
    forgetting: float | None = None  # change on the suite's general task, negative where the adapter does harm
    interference: float | None = None  # change of `value` when trained in a pack with others instead of alone
    rows: int | None = None  # trained on
    steps: int | None = None
    parameters: int | None = None  # trainable, with the head
    head_parameters: int | None = None
    file_bytes: int | None = None  # of the adapter's directory
    seconds: float | None = None  # wall clock of all steps, without compiling
    step_seconds: float | None = None  # median
    other_cores: float | None = None  # kept busy by other processes meanwhile (`quiet.py`); None: not known
    compile_seconds: float | None = None  # of the programs of this cell's method and shape, shared with its like
    process_seconds: float | None = None  # of a peer's process, which trains one cell, from its start to its end
    process_bytes: int | None = None  # its most memory
    memory_bytes: int | None = None  # arguments, temporaries and outputs of the step's program
    flops: float | None = None  # of all steps, by the compiled program
    energy_joules: float | None = None
    energy_source: str | None = None  # "rapl", "nvml" or "flops" (an estimate)
    predictions: str | None = None  # file, relative to the results
    data: str = ""  # sha256 of the task's files
    commit: str = ""
    device: str = ""
    date: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None

    def __post_init__(self) -> None:
        """What is no number was not measured: a file has no word for it, and who goes on is to find what was there before."""
        for name, value in vars(self).items():
            if isinstance(value, float):
                object.__setattr__(self, name, _number(value))
        object.__setattr__(self, "metrics", {name: _number(value) for name, value in self.metrics.items()})

    @property
    def busy(self) -> bool:
        """Whether its times were taken while other processes used the cores, or may have been."""
        return self.step_seconds is not None and (self.other_cores is None or self.other_cores > QUIET)

    @property
    def cell(self) -> Cell:
        return Cell(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Cell)})


def _number(value: float | None) -> float | None:
    return value if value is not None and abs(value) <= _LARGEST else None


def came_through(record: Record) -> bool:
    """Whether it has a value: a training may have failed, and a perplexity beyond all numbers is none."""
    return record.error is None and record.value is not None


@dataclass(frozen=True)
class Origin:
    """`run.json`: what a directory was begun with."""

    suite: str
    digest: str  # of the suite
    data: Mapping[str, str]  # sha256 of each task's files
    began: str  # the date
    groups: Mapping[str, str] = field(default_factory=dict)  # of the tasks that are of one
    reproduces: tuple[dict[str, Any], ...] = ()  # the suite's published tables (`suite.py`, Published)
    halving_by: int | None = None  # eta of its searches, where these were successive halvings


RUN = "run.json"
FILE = "results.jsonl"


def origins(folder: Path) -> list[Origin]:
    """What a benchmark's directory and its shards were begun with."""
    files = [folder / RUN, *sorted(folder.glob(f"shard-*/{RUN}"))]
    return [typed.read(Origin, read_object(file), str(file)) for file in files if file.is_file()]


def append(folder: Path, record: Record) -> None:
    """Add a line; it is on the disk when this returns."""
    with disk.writing(folder), (folder / FILE).open("a+b") as file:
        if end := file.tell():
            file.seek(end - 1)
            if file.read(1) != b"\n":  # a crash has cut the last line short
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write((json_line(asdict(record)) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> list[Record]:
    """All records of a benchmark's directory and of its shards'; a last line cut short by a crash is dropped.

    Raises GraftaxError for a line that is none of this version's results.
    """
    records = []
    for file in (folder / FILE, *sorted(folder.glob(f"shard-*/{FILE}"))):
        for record in _records(file) if file.is_file() else ():
            if record.predictions is not None:
                record = replace(record, predictions=str(file.parent.relative_to(folder) / record.predictions))
            records.append(record)
    return records


def _records(file: Path) -> Iterator[Record]:
    *lines, _ = read_bytes(file).split(b"\n")  # what follows the last newline was not written whole
    for number, line in enumerate(lines, 1):
        where = f"{file}: line {number}"
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise GraftaxError(f"{where} is no UTF-8 text ({error.reason}).") from error
        content = parse_json(text, where, not_numbers=True)  # older versions wrote NaN and Infinity
        if not isinstance(content, dict):
            raise GraftaxError(f"{where} is no result of a benchmark.")
        yield typed.read(Record, content, f"{where} is no result of this version of graftax")


_BLEU = 5  # sums that BLEU is made of
_KINDS = {"top": "f", "bottom": "f", "gold": "i", "said": "i", "confidence": "f"}  # of the arrays' numbers
_CLASSES = ("gold", "said")  # the arrays of class indices
_MOST_CLASSES = 1 << 15


@dataclass(frozen=True)
class Predictions:
    """What was said about each of n test examples.

    `top / bottom`, summed before they are divided, is the task's ratio metric: right answers over examples (accuracy), the sum
    of the tokens' losses over tokens (perplexity's logarithm), wrong characters over characters. BLEU is made of five such
    sums: matches of 1 to 4 words over as many words said, the length said over the length wanted. Of classifications `gold` and
    `said` are class indices and `confidence` is the probability of what was said.
    """

    top: np.ndarray  # [n] float64, of BLEU [n, 5]
    bottom: np.ndarray  # likewise
    gold: np.ndarray | None = None  # [n] int32
    said: np.ndarray | None = None
    confidence: np.ndarray | None = None  # [n] float32

    def save(self, file: Path) -> None:
        out = io.BytesIO()
        np.savez(out, **{name: value for name, value in vars(self).items() if value is not None})
        disk.write_bytes(file, out.getvalue())

    @classmethod
    def load(cls, file: Path) -> Predictions:
        """Raises GraftaxError for a file that holds no predictions, or is damaged."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found = cls(**{name: arrays[name] for name in arrays.files})
            found._check()
        except Exception as error:  # of NumPy, zipfile or zlib: a damaged file may end in any
            raise GraftaxError(f"{file}: no predictions of a benchmark ({error}); remove it to go on without.") from error
        return found

    def _check(self) -> None:
        """ValueError where these cannot be the predictions of some examples."""
        examples = (len(self.top),)
        if (self.gold is None) != (self.said is None):
            raise ValueError("gold or said alone")
        for name, array in vars(self).items():
            if array is None:
                continue
            shapes = (examples, (*examples, _BLEU)) if name == "top" else (self.top.shape if name == "bottom" else examples,)
            if array.shape not in shapes or not array.size:
                raise ValueError(f"{name} has shape {array.shape}")
            if array.dtype.kind != _KINDS[name] or not np.isfinite(array).all():
                raise ValueError(f"{name} is no array of numbers of its type")
            if name in _CLASSES and not 0 <= array.min() <= array.max() < _MOST_CLASSES:
                raise ValueError(f"{name} has numbers that are no classes")
