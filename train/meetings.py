"""When the processes of a run tell one another what each knows by itself: that a signal asks to stop, that it is time to save.

All of them act on it after the same tick, so they have to speak at the same tick. To speak after each would take a step's time
where steps are short. So they meet about once a second: at each meeting every process says how long its ticks took, and from
the slowest's follows after how many ticks they meet again. A process alone meets itself after every tick.

A meeting is also where it is found that somebody does not come (`processes.words`).
"""

from __future__ import annotations

import time

from .. import processes

_APART = 1.0  # seconds between meetings, as near as it can be known before


class Meetings:
    """Of one run, in each of its processes alike."""

    def __init__(self, tick: int = 0) -> None:
        """`tick`: the number of ticks when this process began."""
        self._next, self._last, self._since = tick + 1, tick, time.monotonic()

    def due(self, tick: int) -> bool:
        """Whether all meet after this tick, the number of which is counted since the run began."""
        return tick >= self._next

    def hold(self, tick: int, stop: bool, save: bool) -> tuple[bool, bool]:
        """What all do now: whether they stop, for one was asked to; and whether they save, for it is time in the first."""
        if processes.count() == 1:
            return stop, save
        now = time.monotonic()
        told = processes.words(f"tick {tick}", [stop, save, (now - self._since) / max(1, tick - self._last)])
        slowest = max(seconds for _, _, seconds in told)
        # ticks may become slower: so at most twice as many as since the meeting before
        more = max(1, min(int(_APART / max(slowest, 1e-6)), 2 * (tick - self._last)))
        self._next, self._last, self._since = tick + more, tick, time.monotonic()
        return any(stops for stops, _, _ in told), bool(told[0][1])
