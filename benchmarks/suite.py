"""A suite: which methods on which tasks and backbones, and how much tuning each gets. A TOML file:

name = "mine"
backbones = ["sentence-transformers/all-MiniLM-L6-v2"]     # directories or Hub ids; may name $VARIABLES
data = "$GRAFTAX_DATA"                                     # folder of the tasks' files; relative: to this file
sizes = [16, 64, "all"]                                    # training rows per class; a learning curve over the data
seeds = 5                                                  # trainings at the best setting, measured on the test rows
lrs = [3e-4, 1e-3, 3e-3]                                   # where the search begins (`search.py`); it goes on by their ratio
search = "widening"                                        # its way; "halving" is the other (`halving.py`), with an `eta`
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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from ..adapters.methods.named import PROBE, make_method
from ..data.batches import number_of_batches
from ..data.columns import Columns
from ..errors import GraftaxError
from ..serve.sampling import Beams
from ..toml_files import read_toml
from ..train.recipe import Epochs, Recipe
from ..typed import Count, Positive, Rate, Size, Some, Within, checked, read, settle
from .halving import Halving
from .search import Search
from .widening import Widening

FOLDER = Path(str(files("graftax"))) / "benchmarks" / "suites"
_OF_CLASSES = ("accuracy", "matthews", "macro_f1")
#: task of `train_many` -> metrics a benchmark of it may compare by; the first is its own
KINDS = {
    "classify": _OF_CLASSES,
    "image-classify": _OF_CLASSES,
    "lm": ("perplexity",),
    "sft": ("perplexity", "exact_match", "cer", "bleu", "final_number"),
    "seq2seq": ("cer", "exact_match", "bleu", "perplexity"),
}

#: What a picture's channels are normalised by, in words: mean and deviation of each
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}

NEAREST_MEAN = "nearest-mean"  # stands among the methods of a classification task, and is none of a suite's

Share = Annotated[float, Within(above=0.0, below=1.0)]  # of the training rows
Few = Annotated[int, Within(0, most=20)]  # rates beyond the first ones; doublings of a length
_ETA = 3  # of successive halving, where a suite does not say


@dataclass(frozen=True)
class TaskSpec:
    """Where a task's rows are, and what they are measured by."""

    train: str
    test: str | Share = 0.25  # a file, or a share of the training rows
    val: str | Share = 0.2
    whole: str | None = (
        None  # a file of the final trainings' rows, where they are neither `train` nor `train` with a share back
    )
    images: str | None = None  # of lists of pictures (`published_splits.py`): the folder in which their paths begin
    group: str = ""  # of tasks whose values have a mean of their own (`averages.py`)
    kind: str = "classify"  # the name of a graftax task
    metric: str | None = None  # of `benchmarks/scores.py`; None: the usual one of `kind`
    text: str = "text"
    pair: str | None = None
    image: str = "image"
    label: str = "label"
    prompt: str = "prompt"  # of sft and seq2seq
    completion: str = "completion"
    backbones: tuple[str, ...] = ()  # of the suite's only these, by the last part of their name; empty: all
    val_rows: Some = 500  # at most
    test_rows: Some = 2000
    max_new_tokens: Some = 64  # of a generated answer
    num_beams: Beams = 1  # it is generated with; 1: greedily

    def __post_init__(self) -> None:
        settle(self)
        if self.kind not in KINDS:
            raise GraftaxError(f"a benchmark's task cannot be of kind {self.kind!r}; there are {', '.join(KINDS)}.")
        if self.main_metric not in KINDS[self.kind]:
            there = ", ".join(KINDS[self.kind])
            raise GraftaxError(f"a task of kind {self.kind!r} is not measured by {self.metric!r}; there are {there}.")

    @property
    def main_metric(self) -> str:
        return self.metric or KINDS[self.kind][0]

    @property
    def files(self) -> tuple[str, ...]:
        """Where its rows are, as paths or parts of what is there."""
        return tuple(place for place in (self.train, self.val, self.test, self.whole) if isinstance(place, str))

    @property
    def classifies(self) -> bool:
        """Whether an example has one label, be it a text or a picture: then there are baselines."""
        return KINDS[self.kind] is _OF_CLASSES

    @property
    def columns(self) -> Columns:
        named = {"image": self.image, "prompt": self.prompt, "completion": self.completion}
        return Columns(text=self.text, pair=self.pair, label=self.label, **named)


@dataclass(frozen=True)
class MethodSpec:
    """A method with its settings, and its own search grid where it has one."""

    method: str
    rank: Size | None = None  # of LoRA and its kin, as are the next two; None: the method's own default
    alpha: Positive | None = None
    start: str | None = None
    target: str | None = None
    options: tuple[str, ...] = ()  # name=value, as `graftax train --option`
    choices: tuple[str, ...] = ()  # options of which the search takes the best one: ("alpha=8", "alpha=80")
    lrs: tuple[Positive, ...] | None = None
    steps: Count = 0  # of its search's first length at least, where the suite says fewer

    def __post_init__(self) -> None:
        settle(self)
        for choice in self.choices or ("",):  # an unknown method or setting is refused before anything runs
            self.make(choice)

    @property
    def is_probe(self) -> bool:
        return self.method in PROBE

    def make(self, choice: str = "") -> Any:
        """What `train_many` takes as `method`, with one of the choices where there are some."""
        options = (*self.options, *([choice] if choice else []))
        return make_method(self.method, rank=self.rank, alpha=self.alpha, start=self.start, target=self.target, option=options)


#: The baseline, where a suite has none of its own; a step on kept features takes a millisecond.
_PROBE = MethodSpec("probe", lrs=(1e-2, 3e-2, 1e-1), steps=1000)


@dataclass(frozen=True)
class Published:
    """A table of others that a suite is there to reproduce, as they have it."""

    title: str
    source: str  # where it stands
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float | str, ...]]  # method -> what stands in each column

    def __post_init__(self) -> None:
        settle(self)
        if odd := [name for name, row in self.rows.items() if len(row) != len(self.columns)]:
            raise GraftaxError(f"the published row of {odd[0]} has {len(self.rows[odd[0]])} values, not {len(self.columns)}.")


@dataclass(frozen=True)
class Suite:
    """A suite as its file says it."""

    name: str
    backbones: tuple[str, ...]
    tasks: Mapping[str, TaskSpec]
    methods: Mapping[str, MethodSpec]
    lrs: tuple[Positive, ...]
    description: str = ""
    published: str = ""  # the figure of others that this suite is to reproduce
    reproduces: tuple[Published, ...] = ()  # tables of such figures; in the file each is a [[reproduces]]
    where_at_hand: bool = False  # whether tasks whose files are not there are passed over, and named
    folder: str = ""  # of the file, where relative paths begin
    data: str = "$GRAFTAX_DATA"
    tower: str | None = None  # of checkpoints of two, the one that is read, as `load_backbone` has it
    general: TaskSpec | None = None
    sizes: tuple[Some | Literal["all"], ...] = ("all",)
    seeds: Size = 5
    schedules: tuple[str, ...] = ("linear",)
    epochs: Epochs = 1  # of the search's first length, which has
    steps: Some = 100  # at least
    doublings: Few = 4  # of that length, at most: a longer training is not tried
    widen: Few = 3  # rates beyond either end of `lrs`, at most
    search: Literal["widening", "halving"] = "widening"  # how settings are searched (`search.py`)
    eta: Annotated[int, Within(2)] | None = None  # of a halving: of so many settings one goes on, for so many times the length
    batch_size: Some = 32
    max_length: Some = 128
    weight_decay: Annotated[float, Within(0.0)] = 0.0
    warmup: Rate = 0.06  # share of the steps with a rising rate
    augment: str | None = None  # of pictures, as `graftax train --augment`
    picture_size: Some | None = None  # side to which pictures are resized, without a crop; None: as the checkpoint says
    normalisation: str | None = None  # of pictures, one of NORMALISATIONS; None: the checkpoint's
    pack_size: Some | None = 1  # adapters trained at once; None: measured
    interference: bool = False  # train the seeds of each setting in one pack, too, and compare

    def __post_init__(self) -> None:
        settle(self, f"suite {self.name}")
        needed = ("backbones", "tasks", "methods", "lrs", "sizes", "schedules")
        if empty := [name for name in needed if not getattr(self, name)]:
            raise GraftaxError(f"suite {self.name}: {empty[0]} is empty.")
        if unseen := [name for name in (*self.tasks, *self.methods) if not name.strip() or not name.isprintable()]:
            raise GraftaxError(f"suite {self.name}: tasks and methods need names that can be read, got {unseen[0]!r}.")
        if len({*map(backbone_name, self.backbones)}) < len(self.backbones):
            raise GraftaxError(f"suite {self.name}: two backbones have the same name: {', '.join(self.backbones)}.")
        if not any(map(self.pairs, self.backbones)):
            raise GraftaxError(f"suite {self.name}: no task is for {', '.join(map(backbone_name, self.backbones))}.")
        if NEAREST_MEAN in self.methods or not self.methods.get("probe", _PROBE).is_probe:
            raise GraftaxError(
                f"suite {self.name}: {NEAREST_MEAN} and probe are names of baselines; call the method otherwise."
            )
        if self.normalisation is not None and self.normalisation not in NORMALISATIONS:
            there = ", ".join(NORMALISATIONS)
            raise GraftaxError(f"suite {self.name}: normalisation {self.normalisation!r} is none of {there}.")
        if self.general is not None and not self.general.classifies:
            raise GraftaxError(f"suite {self.name}: the task [general] is a classification, not of kind {self.general.kind!r}.")
        for label, spec in self.methods.items():
            self._check_rates(label, spec)

        if self.eta is not None and self.search != "halving":
            raise GraftaxError(
                f'suite {self.name}: eta = {self.eta} is of search = "halving", and its search is {self.search}.'
            )

    def _check_rates(self, label: str, spec: MethodSpec) -> None:
        """Refuse rates that the search cannot go on from, or from which it might come to numbers that are no rates."""
        if not _ascending(self.first_rates(spec)) or (len(self.first_rates(spec)) == 1 and self.widen):
            raise GraftaxError(
                f"suite {self.name}: the rates of {label} are two or more, ascending: the search goes on by their ratio "
                "(with widen = 0 it does not, and there may be one)."
            )
        search = self.search_of(spec, examples=1)
        every = search.rates
        reach = f"suite {self.name}: going on by their ratio, the rates of {label} are {', '.join(f'{lr:g}' for lr in every)}"
        if not _ascending(every):
            raise GraftaxError(f"{reach}; the first ones must be further apart, or nearer.")
        for lr, schedule in itertools.product((every[0], every[-1]), self.schedules):
            try:
                self.recipe(lr, schedule, self.epochs, 0)
            except GraftaxError as error:
                raise GraftaxError(f"{reach}: {error}") from error
        if isinstance(search, Halving):
            self._check_halving(label, search)

    def _check_halving(self, label: str, search: Halving) -> None:
        """Refuse a halving that would drop nothing."""
        if len(search.settings) < 2:
            raise GraftaxError(
                f'suite {self.name}: search = "halving" has one setting of {label} to begin with, and none to drop; give more '
                'lrs, a larger widen, schedules or choices, or search = "widening".'
            )
        if search.eta > 1 << self.doublings:
            raise GraftaxError(
                f"suite {self.name}: no training is longer than {1 << self.doublings} times the first (doublings = "
                f"{self.doublings}), and those of a halving's second rung are {search.eta} times as long (eta); give more "
                "doublings or a smaller eta."
            )

    def first_rates(self, spec: MethodSpec) -> tuple[float, ...]:
        """Where the search for a method's learning rate begins."""
        return self.lrs if spec.lrs is None else spec.lrs

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
            warmup=self.warmup,
            augment=self.augment,
        )

    def pairs(self, backbone: str) -> list[tuple[str, int | None]]:
        """What is trained on a backbone: (task, size)."""
        named = backbone_name(backbone)
        here = [name for name, task in self.tasks.items() if not task.backbones or named in task.backbones]
        return [(name, None if size == "all" else size) for name in here for size in self.sizes]

    def trained(self, task: str) -> dict[str, MethodSpec]:
        """The methods trained on a task: the suite's, and for a classification a linear probe."""
        with_probe = not self.tasks[task].classifies or any(spec.is_probe for spec in self.methods.values())
        return {**self.methods} if with_probe else {"probe": _PROBE, **self.methods}

    def methods_of(self, tasks: Collection[str]) -> list[str]:
        """The labels of all methods that are trained on some of these tasks."""
        return [*dict.fromkeys(label for task in self.tasks if task in tasks for label in self.trained(task))]

    @property
    def halving_by(self) -> int | None:
        """The eta of its searches; None: they halve nothing."""
        return None if self.search == "widening" else self.eta or _ETA

    def search_of(self, spec: MethodSpec, examples: int) -> Search:
        """Where a method's search on so many training rows begins, and how far it may go."""
        epochs = max(self.epochs, -(-max(self.steps, spec.steps) // number_of_batches(examples, self.batch_size)))
        bounds = self.first_rates(spec), self.schedules, epochs, self.widen, self.doublings, spec.choices or ("",)
        return Widening(*bounds) if self.halving_by is None else Halving(*bounds, eta=self.halving_by)

    def path(self, name: str) -> Path:
        """A task's file."""
        if Path(name).is_absolute():
            return Path(name)
        folder = Path(self.expanded(self.data, "pass --data-dir")).expanduser()
        return (Path() if "$" in self.data else Path(self.folder)) / folder / name

    def backbone(self, named: str) -> str:
        """A backbone's directory, or its Hub id."""
        found = self.expanded(named, "pass --backbone")
        return str(Path(self.folder) / found) if (Path(self.folder) / found).is_dir() else found

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
            repr(dataclasses.replace(self, description="", published="", reproduces=(), data="", folder="")).encode()
        ).hexdigest()


def _ascending(rates: Sequence[float]) -> bool:
    return bool(rates) and all(low < high for low, high in itertools.pairwise(rates))


def backbone_name(path: str) -> str:
    """What a backbone is called in results: the last part of its path or Hub id, in the Hub's cache the model's."""
    folder = Path(path)
    if folder.parent.name == "snapshots":  # models--OWNER--NAME/snapshots/COMMIT
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name


def load_suite(name: str) -> Suite:
    """A suite by its name (`benchmarks/suites/NAME.toml`) or file.

    Raises GraftaxError for a file that is not there or not TOML, and for a key that is none of a suite's or holds what is none
    of its values.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    there = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
    content = read_toml(path, f"no suite {name!r}; there are {there}, or give a .toml file.")
    if "folder" in content:
        raise GraftaxError(f"{path}: no such key: folder; data names the folder of the tasks' files.")
    tasks = {
        label: checked(table, TaskSpec, f"{path}: [tasks.{label}]") for label, table in _tables(content, "tasks", path).items()
    }
    methods = {
        label: checked({"method": label, **table}, MethodSpec, f"{path}: [methods.{label}]")
        for label, table in _tables(content, "methods", path).items()
    }
    if "reproduces" in content:
        listed = checked(content["reproduces"], tuple[dict[str, Any], ...], f"{path}: reproduces")
        content["reproduces"] = tuple(read(Published, table, f"{path}: [[reproduces]]") for table in listed)
    if "general" in content:
        content["general"] = checked(content["general"], TaskSpec, f"{path}: [general]")
    usual = {"name": path.stem, "folder": str(path.resolve().parent)}
    suite = read(Suite, {**usual, **content, "tasks": tasks, "methods": methods}, str(path))
    known = {*map(backbone_name, suite.backbones)}
    for label, task in suite.tasks.items():
        if unknown := [name for name in task.backbones if name not in known]:
            raise GraftaxError(
                f"{path}: [tasks.{label}] is for the backbone {unknown[0]}; the suite has {', '.join(sorted(known))}."
            )
    return suite


def _tables(content: Mapping[str, Any], name: str, path: Path) -> dict[str, dict[str, Any]]:
    """The tables [tasks.NAME] or [methods.NAME]."""
    found = content.get(name)
    if not isinstance(found, dict) or not found or not all(isinstance(table, dict) for table in found.values()):
        raise GraftaxError(f"{path}: it needs tables [{name}.NAME].")
    return found
