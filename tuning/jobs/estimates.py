"""When jobs will have ended, by what their steps took so far.

The device works on all jobs in slots alike, each second of it that the training has is shared evenly between them: so of n jobs
in slots each has share / n of the time. When one ends, the first that waits begins, of those of the highest priority the one
that came first. With what is left of each job in seconds of the device, that is followed from end to end:

    2 slots, all of the time    a: 10 s left    b: 30 s left    c waits: 20 s
    a ends after 20 s; b has 20 s left, c begins; both end after 40 s more

What is not known beforehand, such as jobs that will come, early stops or more work for the serving, is not in it; it is asked
anew whenever somebody looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What is left to be done for a job."""

    job: str
    steps: int  # that are left
    seconds: float  # of the device for a step; of a step that several jobs take, its even part
    priority: int = 0

    @property
    def left(self) -> float:
        """Seconds of the device."""
        return self.steps * self.seconds


def seconds_to_ends(running: Sequence[Work], waiting: Sequence[Work], *, slots: int, share: float) -> Mapping[str, float]:
    """How many seconds from now each job will have ended.

    Args:
        running: jobs in slots.
        waiting: others, in the order in which they came.
        slots: how many jobs are trained at once.
        share: of the time that the training has the device, above 0.
    """
    left = {work.job: work.left for work in running}
    queue = sorted(waiting, key=lambda work: -work.priority)  # which keeps the order of those of one priority
    now, ends = 0.0, dict[str, float]()
    while left or queue:
        while queue and len(left) < max(slots, 1):
            following = queue.pop(0)
            left[following.job] = following.left
        least = min(left.values())
        now += least * len(left) / share
        left = {job: seconds - least for job, seconds in left.items()}
        ends |= {job: now for job, seconds in left.items() if seconds <= 0.0}
        left = {job: seconds for job, seconds in left.items() if seconds > 0.0}
    return ends
