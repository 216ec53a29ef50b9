"""Which jobs of a run one worker trains, one after another through a pack: a *shard*.

    shards_of([[a, b, c, d, e, f]], [2], workers=1)  ->  [[c, a], [e, b], [d, f]], say

Jobs of one cohort share programs, and a worker compiles a program for every shape of batch. So the jobs of a cohort are laid
in a row by their shapes, within a shape the longest first, and the row is cut where a shard has its share of the work. A
shard has as many jobs as its pack has slots, at least, or slots would stay empty. Shards are given away with the most work
first, so that what comes last is short and workers end at about the same time.

What an adapter becomes depends on its job and on the width of the pack, and on nothing here: not on its shard, nor on how
many workers there are.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..train.job import Job
from ..train.pack_size import positions_of

_FOR_EACH = (
    4  # shards for each worker: a worker that is slow, or late, or lost, is waited for with a quarter of its work at most
)


def shards_of(cohorts: Sequence[Sequence[Job]], widths: Sequence[int], workers: int) -> list[list[Job]]:
    """The jobs of each cohort in shards, those with the most work first; `widths` are the pack sizes of the cohorts."""
    share = sum(positions_of(job) for own in cohorts for job in own) / (_FOR_EACH * workers)
    shards = [shard for own, width in zip(cohorts, widths, strict=True) for shard in _cut(own, width, share)]
    return sorted(shards, key=lambda shard: -sum(map(positions_of, shard)))


def _cut(jobs: Sequence[Job], width: int, share: float) -> list[list[Job]]:
    """The jobs of one cohort in shards of at least so much work, and of at least `width` jobs where there are as many."""
    shards: list[list[Job]] = [[]]
    for job in sorted(jobs, key=lambda job: (job.shape, -positions_of(job))):
        if len(shards[-1]) >= width and sum(map(positions_of, shards[-1])) >= share:
            shards.append([])
        shards[-1].append(job)
    if len(shards) > 1 and len(shards[-1]) < width:
        rest = shards.pop()
        shards[-1] += rest
    return shards
