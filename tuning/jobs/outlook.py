"""When the jobs of a table will have ended, by what they and others have cost so far (`estimates.py` says how)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..training_cost import Cost
from .estimates import Work, seconds_to_ends
from .job_record import JobRecord
from .job_table import JobTable
from .trainer_asked import Trainer

_RECENT = 20  # jobs that have ended lately, by which a step is known of one that has taken none


def estimated_ends(table: JobTable, trainer: Trainer, now: float) -> Mapping[str, int]:
    """When each job that runs or waits in the queue will have ended, in seconds since 1970 like `now`.

    Nothing is said as long as no job has taken a step, for then nobody knows how long one takes.
    """
    jobs = table.in_states("running", "queued")
    costs = {job.id: trainer.progress(job.id) or job.cost for job in jobs}
    known = [cost for cost in costs.values() if cost.steps] or [job.cost for job in table.lately(_RECENT) if job.cost.steps]
    if not known or not jobs:
        return {}
    typical = sum(cost.seconds for cost in known) / sum(cost.steps for cost in known)
    works = {job.id: _work(job, costs[job.id], typical) for job in jobs}
    running = [works[job.id] for job in jobs if job.status == "running"]
    waiting = [works[job.id] for job in jobs if job.status == "queued"]
    ends = seconds_to_ends(running, waiting, slots=trainer.slots, share=trainer.share())
    return {job: math.ceil(now + seconds) for job, seconds in ends.items()}


def _work(job: JobRecord, cost: Cost, typical: float) -> Work:
    left = max(0, (job.steps_in_all or 0) - cost.steps)
    return Work(job.id, left, cost.seconds / cost.steps if cost.steps else typical, job.request.priority)
