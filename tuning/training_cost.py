"""What training has cost: of a job, of a loop, or of all that is a tenant's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Three ways to count it."""

    steps: int = 0  # of the optimizer
    tokens: int = 0  # of what was learnt from, each as often as it was
    seconds: float = 0.0  # of the device: of a step that several took together, each has an even share

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.steps + other.steps, self.tokens + other.tokens, self.seconds + other.seconds)
