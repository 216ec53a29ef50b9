"""The reliability scripts, briefly: all is well with the server, and what were not would be seen."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks" / "reliability"


@pytest.mark.slow
@pytest.mark.parametrize(("script", "options"), [("million", ["--requests", "3000"]), ("soak", ["--minutes", "0.7"])])
def test_a_short_run(script: str, options: list[str]) -> None:
    command = [sys.executable, str(FOLDER / f"{script}.py"), *options]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "answered" in done.stdout
    assert "faults" not in done.stdout


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Any:
    """That of two adapters of two names, which nobody answers."""
    monkeypatch.syspath_prepend(str(FOLDER))
    from checked_traffic import Traffic
    from tiny_world import Side

    side = Side(
        "classify", Path("base"), Path(), ["a", "b"], Path(), {"x": ["a"]}, {"a": [[0.5, 0.5]] * 8, "b": [[0.1, 0.9]] * 8}
    )
    made = Traffic(side, "http://127.0.0.1:1", 0)
    made.moments.over(made.moments.begin("n0", "a"))
    return made


A = {"index": 0, "probs": [0.5, 0.500001]}


@pytest.mark.parametrize(
    ("digest", "header", "data", "faults"),
    [
        ("a", "a", [A], 0),
        ("a", "b", [A], 1),
        ("b", "b", [A], 2),  # neither what the name means, nor what that one answers
        ("a", "a", [{**A, "probs": [0.1, 0.9]}], 1),
        ("a", "a", [A, {**A, "index": 1}], 1),
        ("c", "c", [A], 2),
    ],
)
def test_what_is_not_right_is_a_fault(digest: str, header: str, data: list[Any], faults: int, traffic: Any) -> None:
    content = {"adapter_digest": f"sha256:{digest}", "data": data}
    traffic.look("n0", [3], content, f"sha256:{header}", began=0.0)
    assert len(traffic.faults) == faults


def test_a_name_means_what_it_meant_until_the_change_is_over(traffic: Any) -> None:
    moments = traffic.moments
    meaning = moments.begin("n0", "b")
    assert moments.between("n0", 0.0, float("inf")) == {"a", "b"}
    moments.settled("n0", meaning)
    assert moments.between("n0", 1e18, 1e18) == {"b"}


def test_a_failure_that_nothing_explains_is_a_fault(traffic: Any) -> None:
    asyncio.run(traffic.ask(model="n0"))
    assert traffic.counts["no answer"] == len(traffic.faults) == 1


def test_of_two_changes_at_once_only_the_server_knows_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either may be what the name means, until a change that was begun behind both."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import moments
    from moments import Moments

    clock = iter(range(100))
    monkeypatch.setattr(moments, "now", lambda: next(clock))
    names = Moments()
    names.settled("n", names.begin("n", "before"))
    first, second = names.begin("n", "first"), names.begin("n", "second")
    names.settled("n", second)  # it may have come before the first, which is not over
    names.settled("n", first)
    both = next(clock)
    assert names.between("n", both, both) == {"first", "second"}
    names.settled("n", names.begin("n", "third"))
    last = next(clock)
    assert names.between("n", last, last) == {"third"}
    assert names.between("n", second.since, last) == {"before", "first", "second", "third"}
