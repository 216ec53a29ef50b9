"""What has become of the jobs of a run, beside the adapters that are saved: what was pushed, what failed, and how that is said.

A run has such ends in whichever place its jobs are trained: in this process (`queue.py`), or in workers elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from ..counted import counted
from ..errors import GraftaxError
from ..notes import note
from .progress import Progress
from .result import Result
from .shelf import Shelf


class NotAll(GraftaxError):
    """The run is over, and not everything has become of it that was asked for: raised when all else is done and saved."""


def pushed(result: Result, shelf: Shelf, progress: Progress) -> Result | None:
    """Put a saved adapter on a shelf: what is known of it then. Where that fails a note says why, and None is returned."""
    progress.doing(f"pushing {result.name}")
    try:
        name = shelf.put(result.name, result.directory)
    except GraftaxError as error:
        note(str(error))
        return None
    progress.say(f"{result.name}: pushed, {name}")
    return replace(result, pushed=name)


def said_of_failures(failures: Sequence[str], saved: Collection[str]) -> list[str]:
    """What is said at a run's end of adapters whose loss was not finite; nothing where there are none."""
    if not failures:
        return []
    return [
        f"no adapter for {', '.join(failures)}: the loss was not finite; try a lower learning rate. "
        f"Saved: {', '.join(saved) or 'none'}."
    ]


def said_of_unpushed(unpushed: Sequence[str], saved: Collection[str], shelf: Shelf | None, out: Path) -> list[str]:
    """What is said at a run's end of adapters that could not be pushed; nothing where there are none."""
    if not unpushed or shelf is None:
        return []
    return [
        f"{len(unpushed)} of {counted(len(saved), 'adapter')} not pushed: {', '.join(unpushed)}. "
        f"Everything is trained; once that is mended: {shelf.later(out)}"
    ]
