"""What became of an adapter that GRPO has trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...shown import Shown


@dataclass(frozen=True, repr=False)
class GrpoResult(Shown):
    """What became of an adapter, and how."""

    name: str  # the adapter's
    directory: Path  # where it was saved
    metrics: dict[str, float]  # "reward": its mean over the last ten steps, or as many as there are
    history: list[dict[str, Any]] = field(default_factory=list)  # the lines of metrics.jsonl, one for each step
    compilations: int = 0  # programs that this call has compiled

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "directory": str(self.directory), "steps": len(self.history), "metrics": self.metrics}
