"""What a name may mean while it changes: every meaning with the time from which, and until which, an answer may have it."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass

GONE = "gone"  # the meaning of a name that is not known
_STOPPED = 3.0  # seconds in which nobody asked what time it is, who is asked many times a second: the machine stood still


class _Clock:
    """Seconds in which this process ran: where somebody stops all processes for a while, none of them sees that time."""

    def __init__(self) -> None:
        self._last, self._stopped = time.monotonic(), 0.0

    def __call__(self) -> float:
        there = time.monotonic()
        if there - self._last > _STOPPED:
            self._stopped += there - self._last
        self._last = there
        return there - self._stopped


now = _Clock()


@dataclass
class Meaning:
    """One that a name may have, from the moment on at which somebody began to give it."""

    digest: str
    since: float
    given: float = math.inf  # when that was over
    until: float = math.inf


class Moments:
    """Of each name its meanings, the last one last."""

    def __init__(self) -> None:
        self._meanings: dict[str, list[Meaning]] = defaultdict(list)

    def begin(self, name: str, digest: str) -> Meaning:
        """From now on the name may mean this: somebody has begun to change it."""
        self._meanings[name].append(meaning := Meaning(digest, now()))
        return meaning

    def over(self, meaning: Meaning) -> None:
        """Whoever gave it has ended, and may not have succeeded."""
        meaning.given = now()

    def settled(self, name: str, meaning: Meaning, later: float = 0.0) -> None:
        """The meaning was given: in `later` seconds the name has none any more that had been given before this was begun.

        One that somebody else gave at the same time may be the name's as well: who was first only the server knows.
        """
        self.over(meaning)
        end = now() + later
        for one in self._meanings[name]:
            if one.given <= meaning.since:
                one.until = min(one.until, end)
        self._meanings[name] = [one for one in self._meanings[name] if one.until > end - 600]

    def between(self, name: str, begin: float, end: float) -> set[str]:
        """All that the name may have meant between two moments."""
        return {one.digest for one in self._meanings[name] if one.since <= end and one.until >= begin}
