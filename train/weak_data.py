"""What is said of data that will teach less than it seems, or be measured better than it is."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ..data.examples import Examples
from ..data.prepared import Prepared
from ..errors import GraftaxError
from ..models.processor import Processor, UnreadableItems
from ..notes import note

_MOST_SKIPPED = 0.1  # of all examples; where more cannot be read, the data are not what they are taken for
_SHOWN = 3


def readable(name: str, examples: Examples, prepare: Callable[[Examples], Prepared]) -> Prepared:
    """What `prepare` makes of examples, without those that cannot be read; a note says how many these are, and which.

    Raises GraftaxError where they are too many.
    """
    try:
        return prepare(examples)
    except UnreadableItems as error:
        lines, counted = error.lines, f"{len(error.lines):,} of {len(examples):,} rows cannot be read"
    if len(lines) > _MOST_SKIPPED * len(examples):
        raise GraftaxError(f"{name}: {counted}, more than the tenth that would be skipped: {_some(lines.values())}")
    note(f"{name}: {counted}; skipped: {_some(lines.values())}")
    return prepare(examples.take([i for i in range(len(examples)) if i not in lines]))


def note_weak(name: str, processor: Processor, train: Prepared, held: Prepared | None) -> None:
    """Notes on pictures that have several labels, or are there both for training and for validation, or are alone in a class.

    Two are the same where their pixels are, as the backbone sees them.
    """
    parts = [train, held] if held else [train]
    called = [processor.called(part.examples.fields) for part in parts]
    if called[0] is None:
        return
    names = [one for part in called for one in part or ()]
    labels = [label for part in parts for label in part.examples.labels or ()]
    seen = [hashlib.sha256(item.tobytes()).digest() for part in parts for item in part.items]
    _note_several_labels(name, names, labels, seen)
    if held and (both := {*seen[: len(train.items)]} & {*seen[len(train.items) :]}):
        again = [one for one, digest in zip(names[len(train.items) :], seen[len(train.items) :], strict=True) if digest in both]
        both_ways = f"validation pictures that are training pictures, too: {len(again):,} of {len(held.items):,}"
        note(f"{name}: {both_ways}; val_ figures are better than answers to others will be: {_some(again)}.")
    lone = [label for label, count in Counter(label for label in labels if isinstance(label, str)).items() if count == 1]
    if lone:
        note(f"{name}: classes with one picture alone, which can be learnt or measured, and not both: {', '.join(lone[:20])}.")


def _note_several_labels(name: str, names: Sequence[str], labels: Sequence[object], seen: Sequence[bytes]) -> None:
    """A note where pictures that are the same have different labels."""
    first: dict[bytes, int] = {}
    unlike: dict[bytes, str] = {}
    for i, digest in enumerate(seen):
        j = first.setdefault(digest, i)
        if labels[i] != labels[j]:
            unlike.setdefault(digest, f"{names[j]}, {labels[j]!r}, which is {names[i]}, {labels[i]!r}")
    if unlike:
        note(f"{name}: pictures with several labels: {len(unlike):,}, as {_some(unlike.values())}.")


def _some(lines: Iterable[str]) -> str:
    """The first of many lines, as a note shows them."""
    several = [*lines]
    return "; ".join(several[:_SHOWN]) + ("; ..." if len(several) > _SHOWN else "")
