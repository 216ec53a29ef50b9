"""How many requests were answered, and how long those of the last minute took."""

from __future__ import annotations

import time
from collections import deque

_WINDOW = 60.0  # seconds
_MOST = 10_000  # that are remembered


class Recent:
    """For the thread of the event loop."""

    def __init__(self) -> None:
        self.answered = self.failed = 0  # since the beginning; those that failed are among the answered
        self._ends: deque[tuple[float, float]] = deque(maxlen=_MOST)  # when a request ended, and how long it took

    def ended(self, failed: bool, seconds: float) -> None:
        """A request was answered to its end."""
        self.answered += 1
        self.failed += failed
        self._ends.append((time.monotonic(), seconds))

    def latency(self) -> dict[str, float | int | None]:
        """Of the last minute how many there were, and the seconds that half and 95 in a hundred of them took at most."""
        since = time.monotonic() - _WINDOW
        while self._ends and self._ends[0][0] < since:
            self._ends.popleft()
        took = sorted(seconds for _, seconds in self._ends)
        return {"requests": len(took), "median": _share(took, 0.5), "p95": _share(took, 0.95)}


def _share(took: list[float], share: float) -> float | None:
    """What a share of them did not take longer than."""
    return took[min(len(took) - 1, int(share * len(took)))] if took else None
