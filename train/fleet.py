"""Who trains the jobs of a run in place of this process: machines elsewhere.

Nothing in `train/` knows of clusters. What a run asks of a fleet is this; `graftax/fleet/` has the one that there is.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from .. import signals
from .result import Result
from .wanted_run import WantedRun


class Opened(Protocol):
    """A run whose jobs are trained elsewhere, and whose adapters come here."""

    stop: signals.Stop

    def go(self) -> dict[str, Result]:
        """As `queue.Run.go`."""


@runtime_checkable
class Fleet(Protocol):
    """Machines that train."""

    def open_run(self, wanted: WantedRun) -> Opened:
        """As `queue.open_run`, of a run over these machines."""
