"""Which jobs of a run may share a pack: those of one *cohort*, whose *traits* are the same.

The traits of a job are all that the compiled step knows of it, beside the shape of its batches: the layout of its adapter
(methods, sites, and sizes rounded up to their buckets), whether anything is dropped, the optimizer, and how items are
augmented. They follow from the job alone. For instance, LoRAs of rank 3 and of rank 7 have the same traits, because both are
padded to rank 8. A LoRA of rank 9 is padded to 16 and so belongs to another cohort, and so does an adapter with more than 8
labels.

All jobs of a run could share one pack that is padded to the largest sizes among them. But a sum over 16 numbers, of which
eight are zero, is not rounded as the sum over the first eight is. So the rank of a neighbour, or its number of labels, would
be felt in the last bits of everybody's adapter. Therefore a run trains one cohort after another, each through a pack of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..adapters.adapter import Layout
from ..adapters.sites import Site
from ..models.augment import Augment
from .job import Job


class Traits(NamedTuple):
    """What a compiled step knows of a job. Jobs with equal traits share its programs, and so may share a pack."""

    layout: Layout
    dropout: bool  # whether any method drops something; a program without dropout draws no random bits
    optimizer: str
    preconditioned: bool
    augment: Augment | None  # what is done to items as they are trained on; None, and a program has nothing of it


def traits_of(job: Job, sites: Sequence[Site]) -> Traits:
    """The traits of a job, whose adapter acts at some of these sites of the backbone."""
    layout = Layout.of([job.adapter], sites, bucket=True)
    dropout = any(method.dropout > 0 for method in job.adapter.methods)
    augment = None if job.recipe.augment is None else Augment.of(job.recipe.augment)
    return Traits(layout, dropout, job.recipe.optimizer, job.recipe.preconditioned, augment)


def cohorts_of(jobs: Sequence[Job], sites: Sequence[Site]) -> list[list[Job]]:
    """The jobs by cohort. Cohorts are in the order of their first jobs, and the jobs of each in the order given."""
    found: dict[Traits, list[Job]] = {}
    for job in jobs:
        found.setdefault(traits_of(job, sites), []).append(job)
    return list(found.values())
