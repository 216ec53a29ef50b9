"""What the endpoints ask of whoever trains (`job_trainer.py`): everything else goes through the table of jobs."""

from __future__ import annotations

from typing import Protocol

from ..training_cost import Cost
from .job_record import JobRecord


class Trainer(Protocol):
    """Whoever takes jobs from the table and trains them. Calls come from any thread and return soon."""

    def start(self) -> None:
        """Begin, with what the table has; called once, before the first request comes."""
        ...

    def stop(self) -> None:
        """Leave off, so that what has been learnt can be gone on with by the next process."""
        ...

    @property
    def slots(self) -> int:
        """How many jobs are trained at once."""
        ...

    def share(self) -> float:
        """Of the time lately, the part in which the training had the device, as long as it had something to do; above 0."""
        ...

    def progress(self, job: str) -> Cost | None:
        """What a job that has a slot has cost by now, which the table is told once in a while; None where it has none."""
        ...

    def look(self) -> None:
        """Something has changed in the table: there is a new job, in state `validating_files`."""
        ...

    def cancel(self, job: str) -> JobRecord:
        """End a job; as what it is known then. GraftaxError where it has ended."""
        ...

    def pause(self, job: str) -> JobRecord:
        """Let a job that runs or waits leave its slot; GraftaxError where it does neither."""
        ...

    def resume(self, job: str) -> JobRecord:
        """Let a job go on that was paused; GraftaxError where it was not."""
        ...
