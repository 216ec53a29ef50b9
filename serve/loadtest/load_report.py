"""What a load test says: numbers as JSON, and a page of 80 columns."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...counted import counted
from .load_run import Measured, Run, Settings

_SHARES = {"median": 50, "p90": 90, "p99": 99}
_TIMES = {"first_token_ms": "time to first token", "token_ms": "time per token", "latency_ms": "latency"}


def facts(measured: Measured, settings: Settings) -> dict[str, Any]:
    """Everything that was measured, as JSON: of each seed, and the medians over seeds."""
    runs = [_of_run(run, settings) for run in measured.runs]
    workload = settings.workload
    return {
        "adapters": len(measured.models),
        "kinds": list(settings.kinds),
        "alpha": workload.alpha,
        "cv": workload.cv,
        "words": list(workload.words),
        "tokens": list(workload.tokens),
        "seconds": settings.seconds,
        "callers": settings.callers,
        "capacity": measured.capacity,
        "rate": measured.rate,
        "checked": all(run["known"] == run["answered"] for run in runs),
        **_medians(runs),
        "errors": dict(sum((Counter(run["errors"]) for run in runs), Counter())),
        "wrong": sum(run["wrong"] for run in runs),
        "runs": runs,
    }


def _of_run(run: Run, settings: Settings) -> dict[str, Any]:
    """The numbers of a seed; of those in a second only what was answered while requests came counts."""
    answered = [one for one in run.outcomes if one.error is None]
    within = [one for one in answered if one.ended <= settings.seconds]
    several = [one for one in answered if one.first is not None and one.written > 1]
    return {
        "seed": run.seed,
        "asked": len(run.outcomes),
        "answered": len(answered),
        "errors": dict(Counter(one.error for one in run.outcomes if one.error is not None)),
        "known": sum(one.right is not None for one in answered),
        "wrong": sum(one.right is False for one in answered),
        "asked_per_second": len(run.outcomes) / settings.seconds,
        "requests_per_second": len(within) / settings.seconds,
        "tokens_read_per_second": sum(one.read for one in within) / settings.seconds,
        "tokens_written_per_second": sum(one.written for one in within) / settings.seconds,
        "first_token_ms": _spread([one.first - one.began for one in answered if one.first is not None]),
        "token_ms": _spread([(one.ended - one.first) / (one.written - 1) for one in several if one.first is not None]),
        "latency_ms": _spread([one.ended - one.began for one in answered]),
    }


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """Percentiles, in milliseconds; None of nothing."""
    return {name: float(np.percentile(seconds, share)) * 1e3 for name, share in _SHARES.items()} if seconds else None


def _medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over seeds, of each number by itself."""
    numbers = ("asked_per_second", "requests_per_second", "tokens_read_per_second", "tokens_written_per_second")
    made: dict[str, Any] = {name: statistics.median(run[name] for run in runs) for name in numbers}
    for name in _TIMES:
        known = [run[name] for run in runs if run[name] is not None]
        made[name] = {share: statistics.median(one[share] for one in known) for share in _SHARES} if known else None
    return made


def page(url: str, said: dict[str, Any]) -> str:
    """What `facts` says, for people."""
    kinds, seeds = ", ".join(said["kinds"]), len(said["runs"])
    who = f"{counted(said['adapters'], 'adapter')}, alpha {said['alpha']:g}"
    if said["rate"] is None:
        how = f"{counted(said['callers'], 'caller')}, each asks again when it is answered"
    else:
        share = f", {said['rate'] / said['capacity']:.2f} of the base's {said['capacity']:.2f}" if said["capacity"] else ""
        how = f"{said['rate']:.2f} requests a second{share}, cv {said['cv']:g}"
    lines = [f"{url}: {kinds}; {who}", how]
    lines += [f"{_range(said['words'])} words, {_range(said['tokens'])} new tokens; {seeds} x {said['seconds']:g} s", ""]
    rows = [("", *_SHARES)]
    rows += [(words, *(f"{value:,.1f} ms" for value in said[name].values())) for name, words in _TIMES.items() if said[name]]
    lines += [f"{row[0]:22}{row[1]:>16}{row[2]:>16}{row[3]:>16}" for row in rows]
    lines += [
        "",
        f"{'asked':22}{said['asked_per_second']:13.2f} / s",
        f"{'answered':22}{said['requests_per_second']:13.2f} / s",
    ]
    for name, words in (("tokens_read_per_second", "tokens read"), ("tokens_written_per_second", "tokens written")):
        lines += [f"{words:22}{said[name]:13,.1f} / s"] if said[name] else []
    asked = sum(run["asked"] for run in said["runs"])
    lines += ["", f"{counted(asked, 'request')}; {_errors(said['errors'])}; {_checked(said)}"]
    return "\n".join(lines)


def _range(bounds: Sequence[int]) -> str:
    return "-".join(map(str, dict.fromkeys(bounds)))


def _errors(errors: dict[str, int]) -> str:
    return ", ".join(f"{count:,} x {error}" for error, count in sorted(errors.items())) or "no errors"


def _checked(said: dict[str, Any]) -> str:
    if not said["checked"]:
        return "the server does not say which adapter answered"
    return f"{said['wrong']:,} from the wrong adapter"
