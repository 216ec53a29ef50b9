"""A suite: which methods on which tasks and backbones, and how much tuning each gets. A TOML file:

name = "mine"
backbones = ["sentence-transformers/all-MiniLM-L6-v2"]     # directories or Hub ids; may name $VARIABLES
data = "$GRAFTAX_DATA"                                     # folder of the tasks' files; relative: to this file
sizes = [16, 64, "all"]                                    # training rows per class; a learning curve over the data
seeds = 5                                                  # trainings at the best setting, measured on the test rows
lrs = [3e-4, 1e-3, 3e-3]                                   # where the search begins (`search.py`); it goes on by their ratio
schedules = ["linear"]
epochs = 2                                                 # of its first length, or, where these are fewer
steps = 100                                                # than so many steps, as many as make them

[tasks.sst2]
train = "sst2/train.csv"
val = "sst2/dev.csv"                                       # or a share of the training rows: val = 0.2
test = "sst2/test.csv"
test_rows = 500                                            # at most, drawn once

[methods.lora-32]
method = "lora"                                            # as `graftax train --method`; without it, the table's name
rank = 32
lrs = [1e-4, 3e-4, 1e-3]                                   # its own rates to begin with

[general]                                                  # a task nobody trains on: what do adapters forget of it?
train = "clinc150/train.csv"
test = "clinc150/test.csv"

Classification tasks have two baselines more than the suite lists: a linear probe, and the nearest class mean over frozen
features (`baselines.py`), which has no setting and is not searched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..adapters.named import PROBE, make_method
from ..errors import GraftaxError
from ..train.batches import number_of_batches
from ..train.data import Columns
from ..train.recipe import Recipe
from .search import Search

FOLDER = Path(str(files("graftax"))) / "suites"
#: task of `train_many` -> metrics a benchmark of it may compare by; the first is its own
KINDS = {
    "classify": ("accuracy", "matthews", "macro_f1"),
    "lm": ("perplexity",),
    "sft": ("perplexity", "exact_match", "cer", "bleu", "final_number"),
    "seq2seq": ("cer", "exact_match", "bleu", "perplexity"),
}

NEAREST_MEAN = "nearest-mean"  # stands among the methods of a classification task, and is none of a suite's


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
    steps: int = 0  # of its search's first length at least, where the suite says fewer

    def __post_init__(self) -> None:
        self.make()  # an unknown method or setting is refused before anything runs

    @property
    def is_probe(self) -> bool:
        return self.method in PROBE

    def make(self) -> Any:
        """What `train_many` takes as `method`."""
        return make_method(
            self.method, rank=self.rank, alpha=self.alpha, start=self.start, target=self.target, option=self.options
        )


_LISTS = ("backbones", "lrs", "options", "schedules", "sizes")  # the settings that are lists
#: The baseline, where a suite has none of its own; a step on kept features takes a millisecond.
_PROBE = MethodSpec("probe", lrs=(1e-2, 3e-2, 1e-1), steps=1000)


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
    folder: Path = Path()  # of the file, where relative paths begin
    data: str = "$GRAFTAX_DATA"
    general: TaskSpec | None = None
    sizes: tuple[int | None, ...] = (None,)
    seeds: int = 5
    schedules: tuple[str, ...] = ("linear",)
    epochs: int = 1  # of the search's first length, which has
    steps: int = 100  # at least
    doublings: int = 4  # of that length, at most: a longer training is not tried
    widen: int = 3  # rates beyond either end of `lrs`, at most
    batch_size: int = 32
    max_length: int = 128
    weight_decay: float = 0.0
    pack_size: int | None = 1  # adapters trained at once; None: measured
    interference: bool = False  # train the seeds of each setting in one pack, too, and compare

    def __post_init__(self) -> None:
        if not self.backbones or not self.tasks or not self.methods or not self.lrs:
            raise GraftaxError(f"suite {self.name}: it needs backbones, [tasks.NAME], [methods.NAME] and lrs.")
        least = {"seeds": 1, "epochs": 1, "steps": 1, "doublings": 0, "widen": 0}
        if not all(size is None or (type(size) is int and size > 0) for size in self.sizes):
            raise GraftaxError(f'suite {self.name}: sizes are numbers of rows per class, or "all"; got {self.sizes!r}.')
        if low := [name for name, minimum in least.items() if getattr(self, name) < minimum]:
            raise GraftaxError(f"suite {self.name}: {low[0]} is at least {least[low[0]]}.")
        if len({*map(backbone_name, self.backbones)}) < len(self.backbones):
            raise GraftaxError(f"suite {self.name}: two backbones have the same name: {', '.join(self.backbones)}.")
        if NEAREST_MEAN in self.methods or not self.methods.get("probe", _PROBE).is_probe:
            raise GraftaxError(
                f"suite {self.name}: {NEAREST_MEAN} and probe are names of baselines; call the method otherwise."
            )
        for label, spec in self.methods.items():
            rates = spec.lrs or self.lrs
            for lr in rates:
                for schedule in self.schedules:
                    self.recipe(lr, schedule, self.epochs, 0)
            if len(rates) < 2 or any(not low < high for low, high in itertools.pairwise(rates)):
                raise GraftaxError(
                    f"suite {self.name}: the rates of {label} are two or more, ascending: the search goes on by their ratio."
                )

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
        named = backbone_name(backbone)
        here = [name for name, task in self.tasks.items() if not task.backbones or named in task.backbones]
        return [(name, size) for name in here for size in self.sizes]

    def trained(self, task: str) -> dict[str, MethodSpec]:
        """The methods trained on a task: the suite's, and for a classification a linear probe."""
        with_probe = self.tasks[task].kind != "classify" or any(spec.is_probe for spec in self.methods.values())
        return {**self.methods} if with_probe else {"probe": _PROBE, **self.methods}

    def methods_of(self, tasks: Collection[str]) -> list[str]:
        """The labels of all methods that are trained on some of these tasks."""
        return [*dict.fromkeys(label for task in self.tasks if task in tasks for label in self.trained(task))]

    def search(self, spec: MethodSpec, rows: int) -> Search:
        """Where a method's search on so many training rows begins, and how far it may go."""
        epochs = max(self.epochs, -(-max(self.steps, spec.steps) // number_of_batches(rows, self.batch_size)))
        return Search(spec.lrs or self.lrs, self.schedules, epochs, self.widen, self.doublings)

    def path(self, name: str) -> Path:
        """A task's file."""
        if Path(name).is_absolute():
            return Path(name)
        folder = Path(self.expanded(self.data, "pass --data-dir")).expanduser()
        return (Path() if "$" in self.data else self.folder) / folder / name

    def backbone(self, named: str) -> str:
        """A backbone's directory, or its Hub id."""
        found = self.expanded(named, "pass --backbone")
        return str(self.folder / found) if (self.folder / found).is_dir() else found

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
        return hashlib.sha256(
            repr(dataclasses.replace(self, description="", published="", data="", folder=Path())).encode()
        ).hexdigest()


def backbone_name(path: str) -> str:
    """What a backbone is called in results: the last part of its path or Hub id, in the Hub's cache the model's."""
    folder = Path(path)
    if folder.parent.name == "snapshots":  # models--OWNER--NAME/snapshots/COMMIT
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name


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
    sizes = content.get("sizes", ["all"])
    content["sizes"] = [None if size == "all" else size for size in sizes] if isinstance(sizes, list) else sizes
    if "folder" in content:
        raise GraftaxError(f"{path}: no such setting: folder; data names the folder of the tasks' files.")
    return _made(Suite, {"name": path.stem, **content, "folder": path.resolve().parent}, str(path))


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
        if isinstance(value, tuple) != (key in _LISTS):
            raise GraftaxError(f"{where}: {key} is {'a' if key in _LISTS else 'no'} list; got {value!r}.")
        like = fields[key].default
        either = key in ("val", "test") and isinstance(value, str | float)
        if isinstance(like, bool | int | str) and type(value) is not type(like) and not either:
            raise GraftaxError(f"{where}: {key} is {type(like).__name__}, as in {key} = {like!r}; got {value!r}.")
    return kind(**values)
