"""The rows of a benchmark's task: training rows to draw from, validation and test rows drawn once for everybody."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import GraftaxError
from ..train.data import Examples, read_examples, split
from .suite import Suite, TaskSpec

_DRAW = 20_000  # seeds of draws that no training's seed is to repeat


@dataclass(frozen=True, eq=False)
class TaskRows:
    """A task's examples. `digest` is the sha256 of its files."""

    name: str
    spec: TaskSpec
    train: Examples
    val: Examples
    test: Examples
    digest: str

    def draw(self, size: int | None, seed: int) -> Examples:
        """At most `size` training rows of each label, of rows without labels so many in all.

        They are drawn by `seed`: what seeds differ by, beside the start and the order.
        """
        if size is None:
            return self.train
        labels, by_label = self.train.labels, dict[Any, list[int]]()
        for i in np.random.default_rng([_DRAW, seed]).permutation(len(self.train)).tolist():
            by_label.setdefault(labels[i] if labels else None, []).append(i)
        return self.train.take(sorted(i for rows in by_label.values() for i in rows[:size]))


def read_task(suite: Suite, name: str, spec: TaskSpec) -> TaskRows:
    """Rows of one task; shares are held out of the training rows before anything is drawn.

    Raises GraftaxError for a file that is not there, and for labels in the other rows that the training rows do not have.
    """
    files = [file for file in (spec.train, spec.val, spec.test) if isinstance(file, str)]
    digest = hashlib.sha256()
    for file in files:
        path = suite.path(file)
        if not path.is_file():
            raise GraftaxError(f"{path}: no such file, for task {name} of suite {suite.name}.")
        digest.update(path.read_bytes())

    def read(file: str) -> Examples:
        return read_examples(suite.path(file), spec.columns, spec.kind)

    def held_out(rows: Examples, share: float) -> tuple[Examples, Examples]:
        if rows.labels is None and rows.pairs is None and len(rows) == 1:
            return _cut(rows, share)
        left, held = split(rows, share, _DRAW)
        return rows.take(left), rows.take(held)

    train = read(spec.train)
    train, test = (train, read(spec.test)) if isinstance(spec.test, str) else held_out(train, spec.test)
    train, val = (train, read(spec.val)) if isinstance(spec.val, str) else held_out(train, spec.val)
    known = set(train.labels or ())
    for rows in (val, test):
        unknown = sorted({str(label) for label in rows.labels or () if label not in known})
        if unknown:
            raise GraftaxError(f"{rows.source}: label {unknown[0]!r} is on none of the training rows of task {name}.")
    return TaskRows(name, spec, train, _some(val, spec.val_rows), _some(test, spec.test_rows), digest.hexdigest())


def _cut(rows: Examples, share: float) -> tuple[Examples, Examples]:
    """A file of plain text in two, at the end of a line."""
    text = rows.texts[0]
    at = text.find("\n", int(len(text) * (1 - share))) + 1
    if not 0 < at < len(text):
        raise GraftaxError(f"{rows.source}: the text has too few lines to hold {share:g} of it out.")
    return replace(rows, texts=(text[:at],)), replace(rows, texts=(text[at:],))


def _some(rows: Examples, most: int) -> Examples:
    if len(rows) <= most:
        return rows
    return rows.take(sorted(np.random.default_rng(_DRAW).permutation(len(rows))[:most].tolist()))
