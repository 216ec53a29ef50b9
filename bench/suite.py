"""A suite: which methods on which tasks and backbones, and how much tuning each gets. A TOML file:

name = "mine"
backbones = ["sentence-transformers/all-MiniLM-L6-v2"]     # directories or Hub ids; may name $VARIABLES
data = "$GRAFTAX_DATA"                                     # folder of the tasks' files; relative: to this file
sizes = [16, 64, "all"]                                    # training rows per class; a learning curve over the data
seeds = 5                                                  # trainings at the best setting, measured on the test rows
lrs = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]                       # searched on the validation rows, for every method as many
schedules = ["linear"]
epochs = 10

[tasks.sst2]
train = "sst2/train.csv"
val = "sst2/dev.csv"                                       # or a share of the training rows: val = 0.2
test = "sst2/test.csv"
test_rows = 500                                            # at most, drawn once

[methods.lora-32]
method = "lora"                                            # as `graftax train --method`; without it, the table's name
rank = 32
lrs = [3e-5, 1e-4, 3e-4, 1e-3, 3e-3]                       # its own rates: as many as the others have

[general]                                                  # a task nobody trains on: what do adapters forget of it?
train = "clinc150/train.csv"
test = "clinc150/test.csv"
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..adapters.named import make_method
from ..errors import GraftaxError
from ..train.data import Columns
from ..train.recipe import Recipe

FOLDER = Path(str(files("graftax"))) / "suites"
#: task of `train_many` -> metrics a benchmark of it may compare by; the first is its own
KINDS = {
    "classify": ("accuracy", "matthews", "macro_f1"),
    "lm": ("perplexity",),
    "sft": ("perplexity", "exact_match", "cer", "bleu", "final_number"),
    "seq2seq": ("cer", "exact_match", "bleu", "perplexity"),
}


@dataclass(frozen=True)
class TaskSpec:
    """Where a task's rows are, and what they are measured by."""

    train: str
    test: str | float = 0.25  # a file, or a share of the training rows
    val: str | float = 0.2
    kind: str = "classify"
    metric: str | None = None  # of `bench/metrics.py`; None: the kind's own
    text: str = "text"
    pair: str | None = None
    label: str = "label"
    prompt: str = "prompt"  # of kinds sft and seq2seq
    completion: str = "completion"
    backbones: tuple[str, ...] = ()  # of the suite's only these, by the last part of their name; empty: all
    val_rows: int = 500  # at most
    test_rows: int = 2000
    max_new_tokens: int = 64  # of a generated answer
    num_beams: int = 1  # it is generated with; 1: greedily

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise GraftaxError(f"a benchmark's task cannot be of kind {self.kind!r}; there are {', '.join(KINDS)}.")
        if self.main_metric not in KINDS[self.kind]:
            there = ", ".join(KINDS[self.kind])
            raise GraftaxError(f"a task of kind {self.kind!r} is not measured by {self.metric!r}; there are {there}.")

    @property
    def main_metric(self) -> str:
        return self.metric or KINDS[self.kind][0]

    @property
    def columns(self) -> Columns:
        named = {"prompt": self.prompt, "completion": self.completion}
        return Columns(text=self.text, pair=self.pair, label=self.label, **named)


@dataclass(frozen=True)
class MethodSpec:
    """A method with its settings, and its own search grid where it has one."""

    method: str
    rank: int | None = None  # of LoRA and its kin, as are the next two; None: the method's own default
    alpha: float | None = None
    start: str | None = None
    target: str | None = None
    options: tuple[str, ...] = ()  # name=value, as `graftax train --option`
    lrs: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        self.make()  # an unknown method or setting is refused before anything runs

    def make(self) -> Any:
        """What `train_many` takes as `method`."""
        return make_method(
            self.method, rank=self.rank, alpha=self.alpha, start=self.start, target=self.target, option=self.options
        )


@dataclass(frozen=True)
class Suite:
    """A suite as its file says it."""

    name: str
    backbones: tuple[str, ...]
    tasks: Mapping[str, TaskSpec]
    methods: Mapping[str, MethodSpec]
    lrs: tuple[float, ...]
    description: str = ""
    published: str = ""  # the figure of others that this suite is to reproduce
    data: str = "$GRAFTAX_DATA"
    general: TaskSpec | None = None
    sizes: tuple[int | None, ...] = (None,)
    seeds: int = 5
    schedules: tuple[str, ...] = ("linear",)
    keep: float = 0.5  # share of the settings that each round of the search keeps
    epochs: int = 10
    batch_size: int = 32
    max_length: int = 128
    weight_decay: float = 0.0
    pack_size: int | None = 1  # adapters trained at once; None: measured
    interference: bool = False  # train the seeds of each setting in one pack, too, and compare

    def __post_init__(self) -> None:
        if not self.backbones or not self.tasks or not self.methods or not self.lrs:
            raise GraftaxError(f"suite {self.name}: it needs backbones, [tasks.NAME], [methods.NAME] and lrs.")
        if self.seeds < 1 or not 0 < self.keep < 1:
            raise GraftaxError(f"suite {self.name}: seeds is at least 1, and keep lies between 0 and 1.")
        for label, spec in self.methods.items():
            if spec.lrs is not None and len(spec.lrs) != len(self.lrs):
                raise GraftaxError(
                    f"suite {self.name}: {label} searches {len(spec.lrs)} rates and the others {len(self.lrs)}; every method "
                    "gets the same budget."
                )
        for lr in {*self.lrs, *(lr for spec in self.methods.values() for lr in spec.lrs or ())}:
            for schedule in self.schedules:
                self.recipe(lr, schedule, self.epochs, 0)

    def recipe(self, lr: float, schedule: str, epochs: int, seed: int) -> Recipe:
        return Recipe(
            lr=lr,
            schedule=schedule,
            epochs=epochs,
            seed=seed,
            batch_size=self.batch_size,
            max_length=self.max_length,
            truncate=True,
            weight_decay=self.weight_decay,
        )

    def pairs(self, backbone: str) -> list[tuple[str, int | None]]:
        """What is trained on a backbone: (task, size)."""
        here = [name for name, task in self.tasks.items() if not task.backbones or Path(backbone).name in task.backbones]
        return [(name, size) for name in here for size in self.sizes]

    def settings(self, label: str) -> list[tuple[float, str]]:
        """The grid of a method: (learning rate, schedule)."""
        return [(lr, schedule) for lr in self.methods[label].lrs or self.lrs for schedule in self.schedules]

    def path(self, name: str) -> Path:
        """A task's file."""
        if Path(name).is_absolute():
            return Path(name)
        folder = Path(self.expanded(self.data, "pass --data-dir")).expanduser()
        return (Path() if "$" in self.data else FOLDER.resolve()) / folder / name

    def expanded(self, text: str, instead: str) -> str:
        """With environment variables filled in."""
        if not all(os.environ.get(variable) for variable in re.findall(r"\$\{?(\w+)", text)):
            raise GraftaxError(
                f"suite {self.name} wants {text}, and that variable is not set; set it, {instead}, or run --suite domains, "
                "whose rows come with graftax."
            )
        return os.path.expandvars(text)

    @property
    def digest(self) -> str:
        """Changes with whatever changes the cells or what they are compared by."""
        return hashlib.sha256(repr(dataclasses.replace(self, description="", published="", data="")).encode()).hexdigest()


def load_suite(name: str) -> Suite:
    """A suite by its name (`benchmarks/suites/NAME.toml`) or file.

    Raises GraftaxError for a file that is not there or not TOML, and for a key that is none of a suite's.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        raise GraftaxError(f"no suite {name!r}; there are {there}, or give a .toml file.")
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GraftaxError(f"{path}: not valid TOML ({error}).") from error
    tables: dict[str, dict[str, Any]] = {}
    for key in ("tasks", "methods"):
        found = content.get(key)
        if not isinstance(found, dict) or not found or not all(isinstance(table, dict) for table in found.values()):
            raise GraftaxError(f"{path}: it needs tables [{key}.NAME].")
        tables[key] = found
    content["tasks"] = {label: _made(TaskSpec, table, f"{path}: [tasks.{label}]") for label, table in tables["tasks"].items()}
    content["methods"] = {
        label: _made(MethodSpec, {"method": label, **table}, f"{path}: [methods.{label}]")
        for label, table in tables["methods"].items()
    }
    if "general" in content:
        content["general"] = _made(TaskSpec, content["general"], f"{path}: [general]")
    content["sizes"] = [None if size == "all" else size for size in content.get("sizes", ["all"])]
    return _made(Suite, {"name": path.stem, **content}, str(path))


def _made(kind: Any, table: Any, where: str) -> Any:
    """A dataclass from a TOML table, its keys and types checked."""
    if not isinstance(table, dict):
        raise GraftaxError(f"{where}: expected a table.")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [key for key in table if key not in fields]
    if unknown:
        raise GraftaxError(f"{where}: no such setting: {', '.join(unknown)}; there are {', '.join(fields)}.")
    missing = [f.name for f in fields.values() if f.default is dataclasses.MISSING and f.name not in table]
    if missing:
        raise GraftaxError(f"{where}: {', '.join(missing)} is missing.")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    for key, value in values.items():
        like = fields[key].default
        either = key in ("val", "test") and isinstance(value, str | float)
        if isinstance(like, bool | int | str) and type(value) is not type(like) and not either:
            raise GraftaxError(f"{where}: {key} is {type(like).__name__}, as in {key} = {like!r}; got {value!r}.")
    return kind(**values)
