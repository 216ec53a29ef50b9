"""What a suite is there to reproduce, and the means in which such tables are given.

Two averages of VTAB's 19 tasks circulate under one name: the flat mean over all tasks, and the mean of the means of its three
groups, in which the four specialised tasks weigh as much as the eight structured ones. They differ by two to four points for
one and the same row. So both stand in a report, with the number of tasks that they are over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import typed
from .analysis import Analysis
from .blocks import Block, BlockId
from .results import RUN, origins
from .statistics import Interval, in_unit
from .suite import Published


@dataclass(frozen=True)
class Averages:
    """A method's means over the tasks of one backbone and size, of those on which it came through."""

    backbone: str
    size: int | None
    method: str
    tasks: int
    flat: Interval
    groups: Mapping[str, Interval]
    of_groups: Interval


def reproduced(folder: Path) -> list[Published]:
    """The published tables of the suite that a directory was begun with, once each."""
    tables = [typed.read(Published, table, RUN) for origin in origins(folder) for table in origin.reproduces]
    return [table for number, table in enumerate(tables) if table not in tables[:number]]


def groups_in(folder: Path) -> dict[str, str]:
    """The group of each task that is of one."""
    return {task: group for origin in origins(folder) for task, group in origin.groups.items()}


def averages(analysis: Analysis, groups: Mapping[str, str]) -> list[Averages]:
    """Of every method on every backbone and size, where tasks are of groups and are measured alike."""
    together: dict[tuple[str, int | None], list[Block]] = {}
    for block in analysis.compared:
        if block.id.task in groups:
            together.setdefault((block.id.backbone, block.id.size), []).append(block)
    found = []
    for (backbone, size), blocks in together.items():
        for method in dict.fromkeys(name for block in blocks for name in block.methods):
            there = [block for block in blocks if method in block.methods]
            if len({block.metric.name for block in there}) == 1:
                found.append(_averages(backbone, size, method, there, groups))
    return found


def _averages(backbone: str, size: int | None, method: str, blocks: Sequence[Block], groups: Mapping[str, str]) -> Averages:
    scores = {block.id: block.resampled.score(method) for block in blocks}
    members: dict[str, list[BlockId]] = {}
    for block in blocks:
        members.setdefault(groups[block.id.task], []).append(block.id)

    def mean(ids: Sequence[BlockId]) -> tuple[float, np.ndarray]:
        values, replicates = zip(*(scores[each] for each in ids), strict=True)
        return float(np.mean(values)), np.mean(replicates, axis=0)

    def interval(value: float, replicates: np.ndarray) -> Interval:
        return in_unit(blocks[0].metric, Interval.of(value, replicates))

    of_each = {group: mean(ids) for group, ids in members.items()}
    values, replicates = zip(*of_each.values(), strict=True)
    return Averages(
        backbone,
        size,
        method,
        len(blocks),
        interval(*mean([*scores])),
        {group: interval(*one) for group, one in of_each.items()},
        interval(float(np.mean(values)), np.mean(replicates, axis=0)),
    )
