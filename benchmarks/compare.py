"""Two benchmark directories side by side: what changed between two versions, machines or days.

Differences are paired, by test example and by the seeds that both have, where the test data are the same; where they are not,
the values stand beside one another without a test.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from . import wording as say
from .analysis import ratio, results_of
from .blocks import BlockId, block_id_of, mean_of, named, paired_gain, where
from .results import Record, came_through
from .scores import metric_named
from .statistics import Interval
from .tables import Table, versions

Final = dict[tuple[BlockId, str], list[Record]]


def compare(a: Path, b: Path) -> str:
    """Markdown, of results in directories `a` and `b`. Raises `GraftaxError` where one has none."""
    all_a, all_b = (results_of(folder) for folder in (a, b))
    of_a, of_b = _finals(all_a), _finals(all_b)
    shared = [one for one in of_a if one in of_b]
    gains = {one: paired_gain(of_b[one], of_a[one], b, a) for one in shared}
    block_ids = [block_id for block_id, _ in [*of_a, *of_b]]
    parts = [f"A: {a}  \nB: {b}", _verdict(gains), *_differences(all_a, all_b)]
    if shared:
        lines = tuple(_line(one, of_a[one], of_b[one], gains[one], block_ids) for one in shared)
        note = (
            "Gains are B's over A's, in points, positive where B is better. Step time: A's over B's, above 1 where B is faster."
        )
        columns = ("task", "method", "A", "B", "B gains, points", "step time")
        parts.append(Table("In both", columns, lines, note).markdown())
    for name, mine, other in (("A", of_a, of_b), ("B", of_b, of_a)):
        if only := [
            f"{method} on {where(block_id, block_ids)}" for block_id, method in mine if (block_id, method) not in other
        ]:
            parts.append(f"Only in {name}: {'; '.join(only)}.")
    return "\n\n".join(parts) + "\n"


def _finals(records: Sequence[Record]) -> Final:
    found: Final = {}
    for record in records:
        if record.stage == "final" and came_through(record):
            found.setdefault((block_id_of(record), named(record)), []).append(record)
    return found


def _line(
    result: tuple[BlockId, str], mine: list[Record], other: list[Record], gain: Interval | None, block_ids: Sequence[BlockId]
) -> tuple[str, ...]:
    unit = say.unit(metric_named(mine[0].metric))
    values = [f"{unit * (mean_of(records, 'value') or 0.0):.2f}" for records in (mine, other)]
    steps = ratio(mean_of(mine, "step_seconds"), mean_of(other, "step_seconds"))
    busy = any(record.busy for record in (*mine, *other))
    return (
        where(result[0], block_ids),
        result[1],
        *values,
        say.gain(gain),
        say.times(steps) + (" (busy)" if busy and steps else ""),
    )


def _verdict(gains: dict[tuple[BlockId, str], Interval | None]) -> str:
    tested = [gain for gain in gains.values() if gain is not None]
    if not gains:
        return "Nothing was measured in both."
    if not tested:
        return "The test data differ: no difference could be tested."
    up, down = sum(gain.low > 0 for gain in tested), sum(gain.high < 0 for gain in tested)
    same = len(tested) - up - down
    said = f"Of {len(tested)} results that could be tested, B is better in {up}, worse in {down} and not told apart in {same}."
    return said + (f" {len(gains) - len(tested)} could not be tested." if len(gains) > len(tested) else "")


def _differences(a: Sequence[Record], b: Sequence[Record]) -> list[str]:
    """What else is not the same: then a difference may not be the program's."""
    said = []
    for what, of in (
        ("commit", lambda r: r.commit),
        ("device", lambda r: r.device),
        ("versions", versions),
        ("suite", lambda r: r.suite),
    ):
        first, second = ({of(r) for r in records} - {""} for records in (a, b))
        if first != second:
            said.append(f"Different {what}: A {', '.join(sorted(first)) or 'none'}; B {', '.join(sorted(second)) or 'none'}.")
    for task in dict.fromkeys(r.task for r in itertools.chain(a, b)):
        first, second = ({r.data for r in records if r.task == task} for records in (a, b))
        if first and second and first != second:
            said.append(f"Different test data of {task}.")
    return said
