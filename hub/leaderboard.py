"""A leaderboard: how versions did on a task, by one metric, on the same rows.

Numbers from different rows say nothing of one another, so only what was measured on rows of one digest is ranked. A version
stands behind all those that are better for certain, whose 95% intervals lie wholly on the better side of its own. So versions
whose intervals overlap may share a place; within it they stand by their values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..counted import counted
from ..errors import GraftaxError, in_a_line
from ..store.version import Score
from ..tasks.main_metrics import main_metric_of
from ..tasks.metrics import LOWER_IS_BETTER

_WIDTH, _HEAD, _NAME = 80, 16, 30  # columns of a page, of a heading in it, of a name


@dataclass(frozen=True)
class Place:
    """A version on a leaderboard."""

    place: int  # from 1; shared by versions that are not told apart
    score: Score


@dataclass(frozen=True)
class Rows:
    """A set of rows on which versions were measured."""

    sha256: str
    name: str | None
    rows: int
    versions: int  # how many were measured on it by the metric


@dataclass(frozen=True)
class Leaderboard:
    """Versions ranked on a task by a metric on some rows, the best first."""

    task: str
    metric: str
    lower_is_better: bool
    data: Rows
    places: tuple[Place, ...]
    others: tuple[Rows, ...]  # on which versions were measured too, and are not ranked here


def leaderboard(scores: Sequence[Score], task: str, *, metric: str | None = None, data: str | None = None) -> Leaderboard:
    """Rank versions; those that were withdrawn are left out.

    Args:
        scores: every measurement on the task (`Store.scores`).
        task: its name.
        metric: by default the task's main one.
        data: the rows' name, or sha256 or how that begins; by default those on which most versions were measured.

    Raises:
        GraftaxError: nothing was measured so; what there is instead is said.
    """
    main = main_metric_of(task)
    metric = main.name if metric is None else metric
    there = [score for score in scores if score.task == task and score.version.yanked is None]
    if not there:
        raise GraftaxError(f"no version was measured on task {task!r} yet.")
    measured = [score for score in there if score.metric == metric]
    if not measured:
        metrics = ", ".join(sorted({score.metric for score in there}))
        raise GraftaxError(f"no version was measured on task {task!r} by {metric!r}; there are {metrics}.")
    every = _rows_of(measured)
    chosen = every[0] if data is None else _named(every, data)
    lower = main.lower_is_better if metric == main.name else metric in LOWER_IS_BETTER
    ranked = _ranked([score for score in measured if score.data == chosen.sha256], lower)
    return Leaderboard(task, metric, lower, chosen, ranked, tuple(rows for rows in every if rows != chosen))


def _rows_of(scores: Sequence[Score]) -> list[Rows]:
    """The sets of rows, that with most versions first."""
    counts = Counter(score.data for score in scores)
    first = {score.data: score for score in reversed(scores)}
    every = [Rows(data, first[data].data_name, first[data].rows, count) for data, count in counts.items()]
    return sorted(every, key=lambda rows: (-rows.versions, -rows.rows, rows.sha256))


def _named(every: Sequence[Rows], data: str) -> Rows:
    digits = data.removeprefix("sha256:")
    found = [rows for rows in every if rows.name == data or (digits and rows.sha256.startswith(digits))]
    if len(found) == 1:
        return found[0]
    there = ", ".join(_called(rows) for rows in found or every)
    raise GraftaxError(f"{data}: {'several sets of rows are' if found else 'no rows are'} called so; there are {there}.")


def _ranked(scores: Sequence[Score], lower_is_better: bool) -> tuple[Place, ...]:
    sign = -1.0 if lower_is_better else 1.0
    ordered = sorted(scores, key=lambda score: (-sign * score.value, score.version.name, -score.version.version))
    bounds = [sorted((sign * low, sign * high)) for low, high in map(_bounds, ordered)]
    places = [1 + sum(others_low > high for others_low, _ in bounds) for _, high in bounds]
    return tuple(map(Place, places, ordered))


def _bounds(score: Score) -> tuple[float, float]:
    """Of a score's interval; without one it is taken at its word."""
    return (score.value, score.value) if score.low is None or score.high is None else (score.low, score.high)


# -- shown ---------------------------------------------------------------------------------------------------------------


def leaderboard_page(board: Leaderboard) -> str:
    """For people, in 80 columns."""
    which = "lower" if board.lower_is_better else "higher"
    lines = [_called(board.data), f"{in_a_line(board.metric)[:_NAME]}: {which} is better", ""]
    cells = [("", "version", in_a_line(board.metric)[:_HEAD], "95% interval"), *map(_line, board.places)]
    numbers = [max(len(line[column]) for line in cells) for column in (0, 2, 3)]
    room = min(_WIDTH - sum(numbers) - 6, max(len(line[1]) for line in cells))
    for place, version, value, interval in cells:
        shown = version if len(version) <= room else f"{version[: room - 1]}~"
        line = f"{place:>{numbers[0]}}  {shown:{room}}  {value:>{numbers[1]}}  {interval:>{numbers[2]}}"
        lines.append(line.rstrip())
    if len({place.place for place in board.places}) < len(board.places):
        lines += ["", "Versions whose intervals overlap share a place."]
    if any(place.score.low is None for place in board.places):
        lines += ["", "-: the measurement has no interval; its value is taken at its word."]
    if board.others:
        lines += ["", "Not compared, for these are other rows:"]
        lines += [f"  {_called(rows)}, {counted(rows.versions, 'version')}"[:_WIDTH] for rows in board.others]
    return "\n".join(lines)


def leaderboard_record(board: Leaderboard) -> Mapping[str, Any]:
    """For JSON."""
    return {
        **{key: value for key, value in asdict(board).items() if key not in ("places", "data", "others")},
        "data": asdict(board.data),
        "places": [
            {
                "place": place.place,
                "name": place.score.version.name,
                "version": place.score.version.version,
                "digest": place.score.version.digest,
                **{key: getattr(place.score, key) for key in ("value", "low", "high")},
            }
            for place in board.places
        ],
        "others": [asdict(rows) for rows in board.others],
    }


def _line(place: Place) -> tuple[str, str, str, str]:
    score = place.score
    interval = "-" if score.low is None or score.high is None else f"{score.low:.4f} to {score.high:.4f}"
    return str(place.place), str(score.version), f"{score.value:.4f}", interval


def _called(rows: Rows) -> str:
    name = in_a_line(rows.name or "rows")
    return f"{name if len(name) <= _NAME else f'{name[: _NAME - 1]}~'} (sha256:{rows.sha256[:12]}, {counted(rows.rows, 'row')})"
