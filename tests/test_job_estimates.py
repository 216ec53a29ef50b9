"""Estimates of when jobs end, held against a trainer that takes one step after another."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_job_table import a_job

from graftax.tuning.jobs.estimates import Work, seconds_to_ends
from graftax.tuning.jobs.job_table import JobTable
from graftax.tuning.jobs.outlook import estimated_ends
from graftax.tuning.training_cost import Cost


def simulated(running: Sequence[Work], waiting: Sequence[Work], slots: int, share: float) -> dict[str, float]:
    """The ends by a trainer that gives its time to whichever job in a slot has had least of it since all were there."""
    left = {work.job: work for work in running}
    had = dict.fromkeys(left, 0.0)
    done = dict.fromkeys(left, 0)
    queue, now, ends = list(waiting), 0.0, dict[str, float]()
    while left or queue:
        while queue and len(left) < slots:
            following = max(queue, key=lambda work: work.priority)  # the first of them
            queue.remove(following)
            had[following.job], done[following.job] = min((had[job] for job in left), default=0.0), 0
            left[following.job] = following
        job = min(left, key=lambda name: had[name])
        now += left[job].seconds / share
        had[job] += left[job].seconds
        done[job] += 1
        if done[job] == left[job].steps:
            ends[job] = now
            del left[job]
    return ends


def test_the_example_of_the_docstring() -> None:
    running = [Work("a", 10, 1.0), Work("b", 30, 1.0)]
    ends = seconds_to_ends(running, [Work("c", 20, 1.0)], slots=2, share=1.0)
    assert ends == {"a": 20.0, "b": 60.0, "c": 60.0}


@pytest.mark.parametrize("seed", range(5))
def test_they_are_those_of_a_trainer_that_takes_the_steps(seed: int) -> None:
    """To within a step of every job that is in a slot."""
    drawn = random.Random(seed)
    works = [Work(str(n), drawn.randint(20, 400), drawn.uniform(0.05, 0.5), drawn.choice((0, 0, 3))) for n in range(12)]
    slots, share = drawn.randint(2, 4), drawn.choice((0.25, 0.5, 1.0))
    ends = seconds_to_ends(works[:slots], works[slots:], slots=slots, share=share)
    true = simulated(works[:slots], works[slots:], slots, share)
    tolerance = slots * 0.5 * len(works) / share / 4
    assert ends == pytest.approx(true, abs=tolerance)
    assert max(true.values()) > 10 * tolerance


def test_a_higher_priority_begins_first() -> None:
    waiting = [Work("early", 10, 1.0), Work("late", 10, 1.0, priority=1)]
    assert seconds_to_ends([Work("now", 5, 1.0)], waiting, slots=1, share=0.5) == {"now": 10.0, "late": 30.0, "early": 50.0}


class Slots:
    """What is asked of a trainer for an outlook."""

    slots = 1

    def __init__(self, **costs: Cost):
        self._costs = costs

    def share(self) -> float:
        return 0.5

    def progress(self, job: str) -> Cost | None:
        return self._costs.get(job)


def test_an_outlook_is_by_what_the_jobs_have_cost(tmp_path: Path) -> None:
    table = JobTable(tmp_path / "jobs.sqlite")
    trainer: Any = Slots(runs=Cost(steps=20, seconds=10.0))  # newer than what the table has
    for name, status, cost in (("runs", "running", Cost(5, 9, 9.0)), ("waits", "queued", Cost()), ("rests", "paused", Cost())):
        table.add(replace(a_job(status=status, steps_in_all=100, cost=cost), id=name))
    assert estimated_ends(table, trainer, 1000.2) == {"runs": 1081, "waits": 1181}
    assert estimated_ends(table, trainer, 2000.0)["waits"] == 2180
    table.change("runs", status="succeeded", finished=3)
    assert estimated_ends(table, trainer, 1000.0) == {"waits": 1360}  # 1.8 s a step, as of the one that has ended
    table.change("runs", status="failed")
    assert estimated_ends(table, trainer, 1000.0) == {}


def test_nothing_left_ends_now() -> None:
    assert seconds_to_ends([Work("a", 0, 1.0)], [], slots=1, share=1.0) == {"a": 0.0}
    assert seconds_to_ends([], [], slots=1, share=1.0) == {}
