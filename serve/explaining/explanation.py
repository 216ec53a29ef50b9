"""What was found of one row: what was said of it, and what is attributed to its positions, with and without an adapter."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .curves import Curves
from .fragments import sums


@dataclass(frozen=True)
class View:
    """What one model says of a row, and why."""

    answer: str  # a label, several, or a number
    said: float  # of the label that is explained: its probability, or the number
    evidence: float  # likewise: its log-odds, or the number
    values: np.ndarray  # what is attributed to each position, float32 `[*positions]`
    #: of a way whose values add up: what their sum lacks of how much more speaks for the label than of the blank input
    missed: float | None = None


@dataclass(frozen=True)
class Explanation:
    """Of one row: a picture, or a text (or a pair of them)."""

    row: int  # from 1
    name: str  # of a picture its file, where it has one
    label: str  # that is explained; "" where the answer is a number
    truth: str  # the row's own label; "" where none is known
    seen: View  # with the adapter: what was said, and `values`
    without: View | None  # with its head alone; None: there is nothing but a head
    fragments: np.ndarray  # the number of the fragment of each position (`fragments.py`)
    curves: Curves | None  # of what is seen with the adapter; None: they were not asked for
    picture: np.ndarray | None = None  # uint8 `[height, width, 1 or 3]`, as the network is given it
    texts: tuple[str, ...] = ()  # one or two; none of a picture
    spans: tuple[tuple[int, int, int], ...] = ()  # of a text: where each fragment lies, as `models.tokens.Span` says

    @property
    def change(self) -> np.ndarray | None:
        """What the adapter changed in what is attributed to each position."""
        return None if self.without is None else self.seen.values - self.without.values

    def record(self) -> dict[str, Any]:
        """For JSON; what is attributed is told by fragment: of a picture's cells row by row."""
        known: dict[str, Any] = {"row": self.row, "name": self.name or None, "label": self.label or None}
        known |= {"truth": self.truth or None, **self._record(self.seen)}
        known["without"] = None if self.without is None else self._record(self.without)
        if self.picture is not None:
            known["grid"] = [len(np.unique(self.fragments[:, 0])), len(np.unique(self.fragments[0]))]
        else:
            known["tokens"] = [self.texts[text][begin:end] for text, begin, end in self.spans]
        if self.curves is not None:
            known["deletion"], known["insertion"] = self.curves.deletion_area, self.curves.insertion_area
            known["random_deletions"] = list(self.curves.random_deletions)
            known["random_insertions"] = list(self.curves.random_insertions)
            known["telling"] = self.curves.telling
        return known

    def _record(self, view: View) -> dict[str, Any]:
        told = asdict(view) | {"values": sums(view.values, self.fragments).tolist()}
        return {key: value for key, value in told.items() if value is not None}


@dataclass(frozen=True)
class About:
    """What several explanations have in common."""

    backbone: str  # its name
    adapter: str
    task: str
    method: str  # the way's name,
    meaning: str  # what its values are, in a sentence,
    signed: bool  # and whether some of them speak against the label
    explained: str  # what is said of a label, or of none: "probability" or "number"
    changes: bool  # whether the adapter holds more than a head
