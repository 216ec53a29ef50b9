"""Examples: rows as a task has read them, and which of them are held out for validation.

Rows come from `sources.py`, what their values mean is said in `values.py`, which labels are one in `labels.py`, which column
plays which part in `columns.py`. A task reads examples of rows (`Task.read`), before anything is trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..counted import counted
from ..errors import GraftaxError
from ..shown import Shown
from ..store.manifest import DataFacts


@dataclass(frozen=True, repr=False)
class Examples(Shown):
    """What a task learns from: what is read, by field, and what is to be answered."""

    fields: Mapping[str, tuple[Any, ...]]  # field -> its value in each example; at least one field
    labels: tuple[Any, ...] | None = None  # as the task has them; None: what is to be answered is among the fields
    source: str = "data"  # for error messages
    names: tuple[str, ...] = ()  # of all classes in their order, where the data says them

    def facts(self) -> dict[str, Any]:
        return {"source": self.source, "rows": len(self)}

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))

    def take(self, chosen: Sequence[int]) -> Examples:
        def pick(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in chosen)

        fields = {field: pick(values) for field, values in self.fields.items()}
        return replace(self, fields=fields, labels=None if self.labels is None else pick(self.labels))

    def with_fields(self, **fields: tuple[Any, ...]) -> Examples:
        """The same with other values in some fields."""
        return replace(self, fields={**self.fields, **fields})

    def known(self) -> DataFacts:
        """What is said of them where an adapter is kept that was trained or measured on them."""
        return DataFacts(self.digest(), len(self), Path(self.source).name)

    def digest(self) -> str:
        """sha256 of what stands in them, whatever their order, the form of their file and where it lies."""
        columns = sorted(self.fields.items())
        labels = (None,) * len(self) if self.labels is None else self.labels
        values = zip(*(values for _, values in columns), labels, strict=True)
        lines = sorted(json.dumps(of_one, default=_told) for of_one in values)
        return hashlib.sha256("\n".join([json.dumps([field for field, _ in columns]), *lines]).encode()).hexdigest()

    def contents(self) -> Iterator[str]:
        """What stands in each, as one text: equal where two examples are."""
        labels = (None,) * len(self) if self.labels is None else self.labels
        yield from map(repr, zip(*self.fields.values(), labels, strict=True))


def _told(value: Any) -> Any:
    """What JSON has no word for: an array as its numbers, anything else, such as a picture, as it prints."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else repr(value)


def are_among(some: Examples, others: Examples) -> bool:
    """Whether every one of some examples is one of others, too."""
    return {*some.contents()} <= {*others.contents()}


def check_fraction(fraction: float) -> None:
    """An error where it is no share of examples to hold out."""
    if not 0.0 < fraction < 1.0:
        raise GraftaxError(f"the validation fraction must be between 0 and 1, got {fraction}.")


def split(examples: Examples, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Which examples are for training and which for validation, at random; stratified where each has one label."""
    check_fraction(fraction)
    count = len(examples)
    order = np.random.default_rng(seed).permutation(count)
    labels = examples.labels or ()
    if labels and isinstance(labels[0], str):
        # round robin over the labels, so that the first examples hold each of them in its proportion
        seen: dict[str, int] = {}
        totals: dict[str, int] = {}
        for label in labels:
            totals[label] = totals.get(label, 0) + 1
        rank = np.empty(count)
        for i in order:
            seen[labels[i]] = seen.get(labels[i], 0) + 1
            rank[i] = (seen[labels[i]] - 0.5) / totals[labels[i]]
        order = order[np.argsort(rank[order], kind="stable")]
    held = max(1, round(count * fraction))
    if held >= count:
        raise GraftaxError(
            f"{examples.source}: {counted(count, 'row')}, too few to hold {fraction:g} of them out for validation."
        )
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())
