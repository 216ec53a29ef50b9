"""The rows of a benchmark's task: training rows to draw from, validation and test rows drawn once for everybody.

Validation rows that were held out of the training rows choose a setting; the final trainings draw from all rows, these too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.examples import Examples, split
from ..data.splits import place_and_split
from ..errors import GraftaxError
from ..models.pictures import Pictures
from ..models.tokens import Tokenizer
from ..paths import expect_file, is_directory
from ..tasks.read_examples import read_examples
from ..tasks.task_registry import task_named
from .published_splits import list_and_split, read_list
from .results import Stage
from .suite import Suite, TaskSpec

_DRAW = 20_000  # seeds of draws that no training's seed is to repeat


@dataclass(frozen=True, eq=False)
class TaskExamples:
    """A task's examples. `digest` is the sha256 of its files."""

    name: str
    spec: TaskSpec
    train: Examples  # of the search
    whole: Examples  # of the final trainings: those that were held out of them for the search are back
    val: Examples
    test: Examples
    digest: str

    def draw(self, stage: Stage, size: int | None, seed: int) -> Examples:
        """At most `size` training rows of each label, of rows without labels so many in all; None: all of the stage's.

        They are drawn by `seed`: what seeds differ by, beside the start and the order.
        """
        examples = self.train if stage == "search" else self.whole
        if size is None:
            return examples
        by_label: dict[Any, list[int]] = {}
        for i in np.random.default_rng([_DRAW, seed]).permutation(len(examples)).tolist():
            by_label.setdefault(examples.labels[i] if examples.labels else None, []).append(i)
        return examples.take(sorted(i for of_label in by_label.values() for i in of_label[:size]))


def read_task(suite: Suite, name: str, spec: TaskSpec) -> TaskExamples:
    """Rows of one task; shares are held out of the training rows before anything is drawn.

    Raises GraftaxError for a file that is not there, and for labels in the other rows that the training rows do not have.
    """
    digest = hashlib.sha256()
    for file in spec.files:
        place, part = place_of(suite, file)
        if not is_directory(place):
            expect_file(place, f"{place}: no such file, for task {name} of suite {suite.name}.")
        digest.update(_contents(place) + part.encode())

    task = task_named(spec.kind)
    processor = Pictures if task.about == Pictures.kind else Tokenizer

    def read(file: str) -> Examples:
        path: Any = suite.path(file)
        if (found := list_and_split(path)) is not None and processor is Pictures:
            path = read_list(*found, None if spec.images is None else suite.path(spec.images))
        return read_examples(path, spec.columns, task, processor)

    def held_out(examples: Examples, share: float) -> tuple[Examples, Examples]:
        if [*examples.fields] == ["text"] and examples.labels is None and len(examples) == 1:
            return _cut(examples, share)
        left, held = split(examples, share, _DRAW)
        return examples.take(left), examples.take(held)

    every = read(spec.train)
    whole, test = (every, read(spec.test)) if isinstance(spec.test, str) else held_out(every, spec.test)
    train, val = (whole, read(spec.val)) if isinstance(spec.val, str) else held_out(whole, spec.val)
    whole = whole if spec.whole is None else read(spec.whole)
    known = set(train.labels or ())
    for examples in (val, test, whole):
        unknown = sorted({str(label) for label in examples.labels or () if label not in known})
        if unknown:
            raise GraftaxError(f"{examples.source}: label {unknown[0]!r} is on none of the training rows of task {name}.")
    return TaskExamples(name, spec, train, whole, _some(val, spec.val_rows), _some(test, spec.test_rows), digest.hexdigest())


def place_of(suite: Suite, file: str) -> tuple[Path, str]:
    """The file or folder that a task names, and which part of it, if a part."""
    path = suite.path(file)
    return list_and_split(path) or place_and_split(path)


def at_hand(suite: Suite) -> tuple[dict[str, TaskSpec], str | None]:
    """The tasks that can be run here, and a line that names the others with the places where they were looked for.

    Where the suite does not say otherwise (`where_at_hand`) they are all tasks, and reading them says what is not there.

    Raises GraftaxError where nothing at all is there.
    """
    if not suite.where_at_hand:
        return {**suite.tasks}, None
    missing = {name: lacking for name, spec in suite.tasks.items() if (lacking := _missing(suite, spec)) is not None}
    if not missing:
        return {**suite.tasks}, None
    looked = f"not there, so passed over: {', '.join(f'{name} ({place})' for name, place in missing.items())}"
    if len(missing) == len(suite.tasks):
        raise GraftaxError(f"suite {suite.name}: none of its data is at hand; {looked}.")
    return {name: spec for name, spec in suite.tasks.items() if name not in missing}, f"suite {suite.name}: {looked}."


def _missing(suite: Suite, spec: TaskSpec) -> Path | None:
    """The first place of a task's that is not there."""
    places = [place_of(suite, file)[0] for file in spec.files]
    return next((place for place in places if not place.exists()), None)


def _contents(place: Path) -> bytes:
    """What tells a file from another; of a folder, which may have a million pictures, their names and sizes."""
    if not is_directory(place):
        return place.read_bytes()
    files = sorted(file for file in place.rglob("*") if file.is_file())
    return "\n".join(f"{file.relative_to(place)} {file.stat().st_size}" for file in files).encode()


def _cut(examples: Examples, share: float) -> tuple[Examples, Examples]:
    """A file of plain text in two, at the end of a line."""
    (text,) = examples.fields["text"]
    cut = text.find("\n", int(len(text) * (1 - share))) + 1
    if not 0 < cut < len(text):
        raise GraftaxError(f"{examples.source}: the text has too few lines to hold {share:g} of it out.")
    return examples.with_fields(text=(text[:cut],)), examples.with_fields(text=(text[cut:],))


def _some(examples: Examples, most: int) -> Examples:
    if len(examples) <= most:
        return examples
    return examples.take(sorted(np.random.default_rng(_DRAW).permutation(len(examples))[:most].tolist()))
