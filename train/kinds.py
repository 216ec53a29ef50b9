"""Which jobs of a queue may share a pack: those of one *kind*.

A kind is all that the compiled step knows of a job, beside the shape of its batches: the layout of its adapter (methods, sites,
sizes rounded up to their buckets), whether anything is dropped, the optimizer. It follows from the job alone. LoRAs of rank 3
and 7 are of one kind, for both are padded to 8; one of rank 9 is of another, and so is an adapter with more than 8 labels.

Jobs of all kinds could share one pack, padded to the largest sizes of the queue. But a sum over 16 numbers, eight of them zero,
is not rounded as the sum over the first eight, so a neighbour's rank or number of labels would be felt in the last bits of
everybody's adapter. So a run trains one kind after another, each through a pack of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..adapters.adapter import Layout
from ..adapters.sites import Site
from .job import Job


class Kind(NamedTuple):
    layout: Layout
    dropout: bool  # without any, a program draws no random bits
    optimizer: str
    preconditioned: bool


def kind_of(job: Job, sites: Sequence[Site]) -> Kind:
    layout = Layout.of([job.adapter], sites, bucket=True)
    dropout = any(getattr(method, "dropout", 0.0) > 0 for method in job.adapter.methods)
    return Kind(layout, dropout, job.recipe.optimizer, job.recipe.preconditioned)


def by_kind(jobs: Sequence[Job], sites: Sequence[Site]) -> list[list[Job]]:
    """The jobs, those of one kind together; kinds and jobs in the order in which they come."""
    found: dict[Kind, list[Job]] = {}
    for job in jobs:
        found.setdefault(kind_of(job, sites), []).append(job)
    return list(found.values())
