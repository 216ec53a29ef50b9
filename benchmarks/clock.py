"""How much of a benchmark is done, and about how long the rest will take: as long as the methods that are done took, each."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Counts methods, on all tasks of a backbone each, of which there are `methods`, and tells `say`."""

    def __init__(self, methods: int, say: Callable[[str], None]):
        self.say, self.methods, self.done = say, methods, 0
        self.began = time.monotonic()
        self.taken: list[float] = []  # seconds of the methods of which something was left to do

    def tell(self, what: str, cells: int) -> None:
        spent, left = time.monotonic() - self.began, ""
        if self.taken:
            left = f"; about {sum(self.taken) / len(self.taken) * (self.methods - self.done) / 60:.0f} min left"
        self.say(f"[{spent / 60:5.1f} min] {what}: {cells} cells; {self.done} of {self.methods} methods done{left}")

    def method_done(self, seconds: float, worked: bool) -> None:
        self.done += 1
        self.taken += [seconds] if worked else []
