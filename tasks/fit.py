"""Whether a task, its rows and a backbone belong together; where they do not, one line says so and what would work.

task 'image-classify' is about images, and minilm reads texts; it can do classify, multilabel, regress, tag.
reviews.csv has texts (column 'text'), and resnet20 reads images (column 'image').
"""

from __future__ import annotations

from typing import Any

from ..data.columns import Columns
from ..data.sources import Source
from ..errors import GraftaxError
from ..models.family_registry import FAMILIES
from .task import Task
from .task_registry import TASKS


def refuse_unfit_task(task: Task, backbone: Any) -> None:
    """An error, which names the tasks that would work, where a backbone cannot do a task."""
    if reason := _unfit(task, backbone):
        others = [other.name for other in TASKS.values() if not _unfit(other, backbone)]
        raise GraftaxError(f"task {task.name!r} {reason}; it can do {', '.join(others) or 'no task'}.")


def _unfit(task: Task, backbone: Any) -> str | None:
    """Why a backbone cannot do a task, in words behind the task's name; None where it can."""
    reads = backbone.processor.kind
    if task.about is not None and task.about != reads:
        return f"is about {task.about}s, and {backbone.name} reads {reads}s"
    return task.output.unfit(backbone)


def refuse_other_input(source: Source, columns: Columns, task: Task, processor: Any) -> None:
    """An error where rows have nothing of what the backbone's processor reads, and what another processor reads instead.

    `processor`: the backbone's, or its class. A task that reads fields of its own in place of the processor's is not asked.
    """
    own = _columns_of(processor, columns)
    if not {*processor.fields} <= {*task.fields(processor)} or any(column in source.rows[0] for column in own):
        return
    for other in {family.processor.kind: family.processor for family in FAMILIES.values()}.values():
        theirs = _columns_of(other, columns)
        if other.kind != processor.kind and all(column in source.rows[0] for column in theirs):
            raise GraftaxError(f"{source.name} has {_said(other, theirs)}, and this backbone reads {_said(processor, own)}.")


def _said(processor: Any, columns: list[str]) -> str:
    """What a processor reads, and in which columns, as errors say it."""
    return f"{processor.kind}s (column {', '.join(map(repr, columns))})"


def _columns_of(processor: Any, columns: Columns) -> list[str]:
    """The columns that a processor reads of every row."""
    return [columns[field.name] for field in processor.fields if field.read == "always"]
