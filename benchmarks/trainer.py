"""Cells trained with `train_many`, and what that cost."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..adapters.adapter import Layout
from ..data.batches import number_of_batches
from ..data.examples import Examples
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..notes import silenced
from ..tasks.task_registry import task_named
from ..train import Interrupted, Result, train_many
from ..train.begun import Begun
from ..train.fleet import Fleet
from ..train.intake import prepare
from ..train.job import Job
from .cost import JOULES_PER_FLOP, Energy, StepCost, metered, step_cost
from .draws import TaskExamples
from .quiet import watched
from .results import Cell, Stage
from .suite import Suite


@dataclass(frozen=True)
class Outcome:
    """What became of a cell's training; `result` is None, too, where the adapter is there of an earlier process."""

    result: Result | None = None
    error: str | None = None
    used: Energy = Energy()
    other_cores: float | None = None  # as of a `Record`


class Trainer:
    """The cells of one backbone; their adapters go to `folder`."""

    def __init__(
        self,
        suite: Suite,
        backbone: Backbone,
        tasks: Mapping[str, TaskExamples],
        folder: Path,
        fleet: Fleet | None = None,
    ):
        """`fleet`: the machines that train, in this one's place."""
        self.suite, self.backbone, self.tasks, self.folder, self.fleet = suite, backbone, tasks, folder, fleet
        self._costs: dict[tuple[Stage, str, str, int | None], StepCost] = {}
        self._compiling: dict[Any, float] = {}  # seconds, by what decides a program

    def train(self, cells: Sequence[Cell], pack_size: int | None) -> dict[Cell, Outcome]:
        """Train those cells whose adapters are missing; an unfinished run goes on.

        They are of one method, with one choice, and one task of graftax's.
        """
        unfinished = self.folder / ".run" / "run.json"
        begun = Begun.read(unfinished).jobs if unfinished.is_file() else []
        todo = [cell for cell in cells if cell.id in begun or not self.has(cell)]
        there = {cell: Outcome() for cell in cells if cell not in todo}
        with silenced():  # how many rows are cut is said once, of the test rows
            return there | (self._train(todo, pack_size) if todo else {})

    def has(self, cell: Cell) -> bool:
        return (self.folder / cell.id).is_dir()

    def _train(self, cells: Sequence[Cell], pack_size: int | None) -> dict[Cell, Outcome]:
        one = cells[0]
        try:
            for cell in cells:  # before they are timed, so that it is here that programs are compiled
                self.step_cost(cell)
            with metered() as meter, watched() as stretch:
                results = train_many(
                    self.backbone,
                    {cell.id: self.examples(cell) for cell in cells},
                    self.folder,
                    method=self.suite.trained(one.task)[one.method].make(one.choice),
                    task=self.tasks[one.task].spec.kind,
                    recipe=self.suite.recipe(one.lr, one.schedule, one.epochs, one.seed),
                    each={
                        cell.id: {"lr": cell.lr, "schedule": cell.schedule, "epochs": cell.epochs, "seed": cell.seed}
                        for cell in cells
                    },
                    pack_size=pack_size,
                    progress=sys.stderr.isatty(),
                    fleet=self.fleet,
                )
        except Interrupted:
            raise
        except Exception as error:  # whatever it is, the other cells are to be had
            if not any(map(self.has, cells)) and len(cells) > 1:  # one may be to blame: each by itself
                return {cell: outcome for cell in cells for outcome in self._train([cell], pack_size).values()}
            said = str(error) if isinstance(error, GraftaxError) else f"{type(error).__name__}: {error}"
            failed = Outcome(error=next(iter(said.splitlines()), type(error).__name__))
            return {cell: Outcome() if self.has(cell) else failed for cell in cells}
        if self.fleet is not None:  # what this machine has used, and who used it beside, says nothing of others
            return {cell: Outcome(results[cell.id]) for cell in cells}
        seconds = {cell: self.seconds(cell, results[cell.id]) for cell in cells}
        shares = {cell: own / sum(seconds.values()) for cell, own in seconds.items()}
        return {cell: Outcome(results[cell.id], None, meter.share(shares[cell]), stretch.other_cores) for cell in cells}

    def examples(self, cell: Cell) -> Examples:
        """What a cell is trained on."""
        return self.tasks[cell.task].draw(cell.stage, cell.size, cell.seed)

    def job(self, cell: Cell) -> Job:
        """A cell's job, as `train_many` makes it."""
        spec = self.tasks[cell.task].spec
        return prepare(
            cell.id,
            self.examples(cell),
            None,
            backbone=self.backbone,
            task=task_named(spec.kind),
            method=self.suite.trained(cell.task)[cell.method].make(cell.choice),
            recipe=self.suite.recipe(cell.lr, cell.schedule, cell.epochs, cell.seed),
            columns=spec.columns,
        )

    def step_cost(self, cell: Cell) -> StepCost:
        """Of the first seed's job: other seeds draw other rows, of nearly the same lengths."""
        costed = cell.stage, cell.method, cell.task, cell.size
        if costed not in self._costs:
            task, job = task_named(self.tasks[cell.task].spec.kind), self.job(replace(cell, seed=0, epochs=1))
            cost = step_cost(self.backbone, task, job)
            layout = Layout.of([job.adapter], self.backbone.sites, bucket=True)
            first = self._compiling.setdefault((layout, task.name, job.shape), cost.compile_seconds)
            self._costs[costed] = replace(cost, compile_seconds=first)
        return self._costs[costed]

    def steps(self, cell: Cell) -> tuple[int, int]:
        """Training rows and steps of a cell."""
        count = len(self.examples(cell))
        return count, cell.epochs * number_of_batches(count, self.suite.batch_size)

    def seconds(self, cell: Cell, result: Result) -> float:
        """Of a cell's training, without compiling."""
        assert result.step_seconds is not None
        return self.steps(cell)[1] * result.step_seconds + self.step_cost(cell).feature_seconds

    def fields(self, cell: Cell, outcome: Outcome) -> dict[str, Any]:
        """The costs of a `Record`."""
        (count, steps), cost, used = self.steps(cell), self.step_cost(cell), outcome.used
        if used.joules is None:
            used = Energy(cost.flops * steps * JOULES_PER_FLOP, "flops")
        found = {
            "rows": count,
            "steps": steps,
            "compile_seconds": cost.compile_seconds,
            "memory_bytes": cost.memory_bytes,
            "flops": cost.flops * steps,
            "energy_joules": used.joules,
            "energy_source": used.source,
        }
        if outcome.result is not None:
            found |= {"seconds": self.seconds(cell, outcome.result), "step_seconds": outcome.result.step_seconds}
            found |= {"other_cores": outcome.other_cores}
        return found
