"""The rows of a benchmark's task: training rows to draw from, validation and test rows drawn once for everybody.

Validation rows that were held out of the training rows choose a setting; the final trainings draw from all rows, these too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.examples import Examples, split
from ..data.splits import place_and_split
from ..errors import GraftaxError
from ..models.pictures import Pictures
from ..models.tokens import Tokenizer
from ..paths import expect_file
from ..tasks.read_examples import read_examples
from ..tasks.task_registry import task_named
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
    files = [file for file in (spec.train, spec.val, spec.test) if isinstance(file, str)]
    digest = hashlib.sha256()
    for file in files:
        place, part = place_and_split(suite.path(file))
        expect_file(place, f"{place}: no such file, for task {name} of suite {suite.name}.")
        digest.update(place.read_bytes() + part.encode())

    task = task_named(spec.kind)
    processor = Pictures if task.about == Pictures.kind else Tokenizer

    def read(file: str) -> Examples:
        return read_examples(suite.path(file), spec.columns, task, processor)

    def held_out(examples: Examples, share: float) -> tuple[Examples, Examples]:
        if [*examples.fields] == ["text"] and examples.labels is None and len(examples) == 1:
            return _cut(examples, share)
        left, held = split(examples, share, _DRAW)
        return examples.take(left), examples.take(held)

    every = read(spec.train)
    whole, test = (every, read(spec.test)) if isinstance(spec.test, str) else held_out(every, spec.test)
    train, val = (whole, read(spec.val)) if isinstance(spec.val, str) else held_out(whole, spec.val)
    known = set(train.labels or ())
    for examples in (val, test):
        unknown = sorted({str(label) for label in examples.labels or () if label not in known})
        if unknown:
            raise GraftaxError(f"{examples.source}: label {unknown[0]!r} is on none of the training rows of task {name}.")
    return TaskExamples(name, spec, train, whole, _some(val, spec.val_rows), _some(test, spec.test_rows), digest.hexdigest())


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
