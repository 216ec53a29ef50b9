"""Whether the machine was quiet while something was timed: how many cores other processes kept busy meanwhile.

The kernel counts the busy time of every core (/proc/stat), and how much of it was this process's and its children's. What
remains is others', time stolen from a virtual machine among it. Of the cores only those count that this process may use.
Where the kernel does not tell (not Linux), nobody knows, and the times are marked as if the cores had been busy.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
_COUNTED = (0, 1, 2, 5, 6, 7)  # of a core's counters: user, nice, system, irq, softirq, steal

#: Times taken while others kept no more cores busy than this are of a quiet machine.
QUIET = 0.1


@dataclass
class Stretch:
    """A stretch of the run, to be read when it is over; None: not known."""

    other_cores: float | None = None


@contextmanager
def watched() -> Iterator[Stretch]:
    """How many cores other processes kept busy during the block, on average."""
    stretch, before = Stretch(), _reading()
    yield stretch
    after = _reading()
    if before is not None and after is not None and after[0] > before[0]:
        wall, busy, own = (late - early for late, early in zip(after, before, strict=True))
        stretch.other_cores = max(0.0, busy - own) / wall


def _reading() -> tuple[float, float, float] | None:
    """Seconds so far: of the clock, of all cores' work, of this process's and its children's."""
    try:
        lines = _STAT.read_text().splitlines()
        cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    except (OSError, AttributeError):  # no Linux
        return None
    counted = [line.split()[1:] for line in lines if line.split(maxsplit=1)[0] in cores]
    busy = sum(int(of_core[i]) for of_core in counted for i in _COUNTED) / os.sysconf("SC_CLK_TCK")
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.monotonic(), busy, sum(one.ru_utime + one.ru_stime for one in used)
