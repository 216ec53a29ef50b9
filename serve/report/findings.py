"""What stands out in a report, in sentences: what somebody should know who reads nothing else of it."""

from __future__ import annotations

from collections.abc import Iterator

from ...counted import counted
from ...store.events import Measure
from ...tasks.reliability import Reliability
from ..confusion import Confusion
from .adapter_report import AdapterReport
from .domain_shift import Shift

_SURE = 0.05  # the expected calibration error from which on it is worth a sentence
_FAR = 0.05  # p below which features count as apart


def findings(found: AdapterReport) -> Iterator[str]:
    """The most telling first."""
    if found.main is not None:
        yield f"{words(found.main_metric)} is {told(found.main)}."
    if found.unknown:
        named = ", ".join(f"{label} ({count:,})" for label, count in list(found.unknown.items())[:8])
        yield f"Labels that it does not know, counted as wrong: {named}{', ...' if len(found.unknown) > 8 else ''}."
    for slices in found.slices:
        if slices.worst is None:
            several = f"Each {slices.column} is that of a single row, so that it makes no slices."
            yield several if slices.values > 1 else f"Every row has one {slices.column}: {slices.shown[0].value}."
            continue
        worst = slices.shown[slices.worst]
        main = worst.metrics.get(found.main_metric)
        if main is not None:
            certain = "worse than all rows together" if worst.apart else "which may be chance"
            yield (f"By {slices.column} it is worst on {worst.value} ({counted(worst.rows, 'row')}): {told(main)}, {certain}.")
    if found.reliability is not None:
        yield _how_sure(found.reliability)
    if found.confusion is not None and (sentence := _confused(found.confusion)):
        yield sentence
    if found.shift is not None:
        yield from _shifted(found, found.shift)


def told(measure: Measure) -> str:
    """A value with its interval."""
    if measure.low is None or measure.high is None:
        return number(measure.value)
    return f"{number(measure.value)} [{number(measure.low)}, {number(measure.high)}]"


def number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}" if abs(value) < 1e6 else f"{value:.3g}"


def words(metric: str) -> str:
    """A metric's name as it begins a sentence."""
    return metric[:1].upper() + metric[1:].replace("_", " ")


def _how_sure(found: Reliability) -> str:
    error = f"expected calibration error {found.error:.3f} over {counted(found.claims, 'probability', 'probabilities')}"
    if found.error < _SURE:
        return f"What is said to be likely is so about as often: {error}."
    gap = 100 * (found.said - found.was_so)
    if abs(gap) < 1:
        return f"What is said to be likely is right on average, and not at each probability: {error}."
    return f"It is {abs(gap):.1f} points too {'sure' if gap > 0 else 'unsure'}: {error}."


def _confused(found: Confusion) -> str | None:
    wrong = {pair: count for pair, count in found.counts.items() if pair[0] != pair[1] and None not in pair}
    if not wrong:
        return None
    (label, answer), count = max(wrong.items(), key=lambda item: item[1])
    return f"Most often confused: {label} answered as {answer}, {count:,} times." if count > 1 else None


def _shifted(found: AdapterReport, shift: Shift) -> Iterator[str]:
    there = shift.there.name or "the other rows"
    better = shift.change.value < 0 if found.lower_is_better else shift.change.value > 0
    low, high = shift.change.low, shift.change.high
    certain = "" if low is None or high is None else " for certain" if low > 0 or high < 0 else ", which may be chance"
    if shift.change.value:
        yield f"Against {there} it is {'better' if better else 'worse'} here by {told(_size(shift.change))}{certain}."
    for one in shift.distances:
        apart = "farther" if one.p < _FAR else "no farther"
        spread = f"{number(one.value)} of a row's own spread, by chance {number(one.chance)}"
        yield f"The mean features {one.features} are {apart} apart than chance makes them: {spread}."


def _size(change: Measure) -> Measure:
    """A change without its sign."""
    if change.value >= 0:
        return change
    return Measure(-change.value, *(() if change.low is None or change.high is None else (-change.high, -change.low)))
