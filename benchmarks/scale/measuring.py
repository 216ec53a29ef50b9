"""measured.json, written: the constants of this machine, and the runs that they are held against.

Three kinds of processes take turns, so that a busy machine is as busy for each: a training of one task, one of several, and
a longer one of other tasks, which is the run that is predicted. Medians count, and of single acts, which are over in
milliseconds, the quickest. What the first two take beside preparing, steps and saving is what a call and a shape of batch cost:

    beside(one task) = train_many + shape,    beside(several tasks) = train_many + shapes * shape
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from typing import Any

import numpy as np

from .measured_costs import FILE, MeasuredCosts, MeasuredRun
from .small_runs import OFTEN, SmallTask, Trained, single_acts, small_tasks, train_tasks

_TURNS = 3
_SEVERAL, _PREDICTED = 6, 16  # tasks
_EPOCHS = 3
_FIRST_INTENT = 36  # of the tasks that are predicted; those before are for the constants


def write_measured(made: str, backbone: str, data: Any, said: Callable[[str], None]) -> None:
    """Measure, and write the file."""
    several, others = small_tasks(data, 0, _SEVERAL), small_tasks(data, _FIRST_INTENT, _PREDICTED)
    with tempfile.TemporaryDirectory() as folder:

        def trained(tasks: Sequence[SmallTask], cache: str) -> Trained:
            return _alone(train_tasks, time.time(), backbone, str(data), f"{folder}/{cache}", tasks, _EPOCHS)

        cold = [trained(several, f"empty{turn}") for turn in range(2)]
        cold_run = trained(others, "filled")  # and it is filled now
        said(f"{_PREDICTED} tasks, empty cache: {cold_run.whole:.1f} s")
        trained(several, "filled")
        acts = _alone(single_acts, backbone, str(data), f"{folder}/filled")
        ones, more, runs = list[Trained](), list[Trained](), list[Trained]()
        for turn in range(_TURNS):
            ones.append(trained(several[2:3], "filled"))
            more.append(trained(several, "filled"))
            runs.append(trained(others, "filled"))
            seconds = ", ".join(f"{each[-1].whole:.1f}" for each in (ones, more, runs))
            said(f"turn {turn + 1} of {_TURNS}: {seconds} s; load {os.getloadavg()[0]:.1f}")
    costs = _costs(acts, ones, more, cold)
    measured = [_run("filled", runs), _run("empty", [cold_run])]
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[2]:.1f} in the last 15 minutes"
    load += f"; medians of {_TURNS} processes, single acts the quickest of {OFTEN}"
    content = {"made": f"{made}; {load}", "costs": asdict(costs), "runs": [asdict(run) for run in measured]}
    FILE.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, called in a process of its own that begins now."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def _costs(acts: dict[str, float], ones: Sequence[Trained], more: Sequence[Trained], cold: Sequence[Trained]) -> MeasuredCosts:
    """`acts`: `single_acts`; the others: trainings of one task, and of several with a filled and an empty compilation cache."""
    every = [*ones, *more]
    positions = [count for run in every for count in run.positions]
    seconds = [taken for run in every for taken in run.step_seconds]
    step, position = _line(positions, seconds)

    def beside(run: Trained) -> float:
        row = acts["prepare_row"] + acts["row_tokens"] * acts["prepare_token"]
        own = sum(acts["prepare_job"] + rows * row + acts["save"] for rows in run.rows)
        steps = sum(count * taken for count, taken in zip(run.steps, run.step_seconds, strict=True))
        return run.whole - run.start - run.load - own - steps

    of_one, of_more = statistics.median(map(beside, ones)), statistics.median(map(beside, more))
    find = max(0.0, (of_more - of_one) / (more[0].shapes - ones[0].shapes))
    call = max(0.0, of_one - find * ones[0].shapes)
    compiled = (statistics.median(map(beside, cold)) - call) / cold[0].shapes
    return MeasuredCosts(
        start=statistics.median(run.start for run in every),
        load=statistics.median(run.load for run in every),
        train_many=call,
        compile_shape=compiled,
        find_shape=find,
        step=step,
        step_position=position,
        **{name: acts[name] for name in _SINGLE},
    )


_TIMES = ("prepare_job", "prepare_row", "prepare_token", "save", "push", "checkpoint", "read", "bank", "answer")
_AMOUNTS = (
    "row_tokens",
    "prepared_job_bytes",
    "prepared_row_bytes",
    "prepared_token_bytes",
    "adapter_bytes",
    "adapter_files",
    "checkpoint_bytes",
)
_SINGLE = (*_TIMES, *_AMOUNTS)


def _line(positions: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """The straight line of a step's time over its positions, through the medians of each number of positions."""
    each = sorted(set(positions))
    medians = [statistics.median(s for p, s in zip(positions, seconds, strict=True) if p == count) for count in each]
    slope, beginning = np.polyfit(each, medians, 1)
    return float(max(0.0, beginning)), float(slope)


def _run(cache: str, runs: Sequence[Trained]) -> MeasuredRun:
    one, times = runs[0], [run.whole for run in runs]
    seconds = statistics.median(times)
    return MeasuredRun(cache, one.rows, one.steps, one.positions, one.shapes, seconds, min(times), max(times), len(times))
