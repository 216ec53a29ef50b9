"""How much of a benchmark is done, and about how long the rest will take: by epochs times rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from . import search
from .results import Cell
from .rows import TaskRows
from .suite import Suite

Key = tuple[str, int | None]  # task and size


class Clock:
    """Counts the work of the cells `own`, of which those `done` are there already, and tells `say`."""

    def __init__(
        self, suite: Suite, tasks: dict[str, TaskRows], own: Sequence[Key], done: set[Cell], say: Callable[[str], None]
    ):
        self.say, self.began = say, time.monotonic()
        self.rows = {(name, size): len(tasks[name].draw(size, 0)) for name, size in own}
        each = sum(self.rows[pair] for pair in own)
        self.total = 0.0
        for label in suite.methods:
            plan = search.rounds(suite, label)
            self.total += each * sum(count * epochs for count, epochs in plan)
            self.total += each * suite.epochs * (suite.seeds - (1 if plan else 0))  # the first seed was the search's
        self.before = self.done = sum(self.work(cell) for cell in done)

    def work(self, cell: Cell) -> float:
        return float(self.rows.get((cell.task, cell.size), 0) * cell.epochs)

    def add(self, cells: Sequence[Cell]) -> None:
        self.done += sum(map(self.work, cells))

    def tell(self, what: str, cells: int) -> None:
        spent, new = time.monotonic() - self.began, self.done - self.before
        left = f"; about {spent * (self.total - self.done) / new / 60:.0f} min left" if new and self.done < self.total else ""
        self.say(f"[{spent / 60:5.1f} min] {what}: {cells} cells, {min(1.0, self.done / self.total):.0%} done{left}")
