"""What became of one adapter of a run, and how its steps are timed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..shown import Shown


@dataclass(frozen=True, repr=False)
class Result(Shown):
    """What became of one adapter."""

    name: str  # the adapter's
    directory: Path  # where it was saved
    metrics: dict[str, float]  # of the validation rows at the kept epoch, and the loss
    step_seconds: float | None = None  # wall clock of a step, shared by the slots that took it: median of the epochs' means
    history: list[dict[str, Any]] = field(default_factory=list)  # the lines of metrics.jsonl about this adapter
    pack_size: int = 1  # adapters that were trained at once, this one among them
    pushed: str | None = None  # what it is called where `push` has put it, such as bank/intent:1

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "directory": str(self.directory), "epochs": len(self.history), "metrics": self.metrics} | (
            {} if self.pushed is None else {"pushed": self.pushed}
        )


@dataclass
class Timer:
    """Of one job's steps, those of this process. A step returns before it is computed, so that epochs are what can be timed."""

    seconds: float = 0.0  # of this epoch
    steps: int = 0
    means: list[float] = field(default_factory=list)  # of the epochs before

    def step(self, seconds: float) -> None:
        """Count a step that took so long."""
        self.seconds, self.steps = self.seconds + seconds, self.steps + 1

    def end_epoch(self) -> None:
        self.means.append(self.seconds / self.steps)
        self.seconds, self.steps = 0.0, 0

    @property
    def step_seconds(self) -> float:
        """The median of the epochs' mean times of a step."""
        return float(np.median(self.means))
