"""What explanations come to, in sentences: what somebody should know who looks at nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...counted import counted
from ..report.findings import number
from .curves import Curves
from .explanation import About, Explanation

_MISSED = 0.05  # of a difference that attributions should add up to, from which on it is worth a sentence


def sentences(about: About, rows: Sequence[Explanation]) -> Iterator[str]:
    """Of all rows, the most telling first."""
    measured = [row.curves for row in rows if row.curves is not None]
    if measured:
        yield _telling(measured)
    if not about.changes:
        yield f"{about.adapter} has a head alone, and changes nothing in the network."
    elif about.explained == "probability":
        other = sum(row.without is not None and row.seen.answer != row.without.answer for row in rows)
        of_all = f"{other} of {counted(len(rows), 'row')}"
        yield f"Without what the adapter changes in the network {of_all} would be answered otherwise."
    far = [row for row in rows if (miss := missed(row)) is not None and miss > _MISSED]
    if far:
        yield (
            f"On {counted(len(far), 'row')} the attributions miss what they should add up to by more than "
            f"{_MISSED:.0%}: take more steps."
        )


def missed(row: Explanation) -> float | None:
    """What the attributions lack of what they should add up to, as a share of that; None where they need not add up."""
    if row.seen.missed is None:
        return None
    whole = abs(float(row.seen.values.sum()) + row.seen.missed)
    return abs(row.seen.missed) / max(whole, 1e-6)


def verdict(curves: Curves) -> str:
    """Of one row."""
    meant = "more than chance" if curves.telling else "no more than chance may"
    return (
        f"The order says {meant}: the area under deletion is {number(curves.deletion_area)}, at random "
        f"{between(curves.random_deletions)}, and under insertion {number(curves.insertion_area)}, at random "
        f"{between(curves.random_insertions)}."
    )


def between(areas: Sequence[float]) -> str:
    return f"{number(min(areas))} to {number(max(areas))}"


def _telling(measured: Sequence[Curves]) -> str:
    telling, draws = sum(curves.telling for curves in measured), len(measured[0].random)
    deletion = _mean([curves.deletion_area for curves in measured]), _mean([curves.random_deletions for curves in measured])
    insertion = _mean([curves.insertion_area for curves in measured]), _mean([curves.random_insertions for curves in measured])
    verdict = "means something" if 2 * telling > len(measured) else "may mean nothing"
    return (
        f"What is marked {verdict}: on {telling} of {counted(len(measured), 'row')} its order beats all {draws} random ones, "
        f"taken away and given back (mean area of deletion {deletion[0]}, at random {deletion[1]}; of insertion "
        f"{insertion[0]}, at random {insertion[1]})."
    )


def _mean(areas: Any) -> str:
    return number(float(np.mean(areas)))
