"""Data of any form as the examples of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.columns import Columns
from ..data.examples import Examples
from ..data.sources import source_of
from .fit import refuse_other_input
from .task import Task
from .task_registry import TASKS


def check_columns(columns: Columns, task: Task, processor: Any) -> None:
    """An error where one column is named for two fields, or one for a field that this task does not read.

    Fields of other tasks are passed over, for a command or a file of settings may name the columns of several. But one that is
    read only where it is named, such as a second text, is meant for this task.
    """
    every = (field for other in TASKS.values() for field in other.fields(processor))
    columns.check(task.fields(processor), f"task {task.name!r}", {field.name for field in every if field.read != "named"})


def read_examples(
    data: Any, columns: Columns, task: Task, processor: Any, names: Sequence[str] = (), called: str = ""
) -> Examples:
    """Examples from a path, a `datasets` data set, a pandas DataFrame, an iterable of dicts, or Examples as they are.

    `processor`: the backbone's, which says what is read beside a label. `names`: the classes, where they are known already;
    vectors of as many 0 and 1 are read in these. `called`: what errors call rows that have no path.

    Raises GraftaxError, which names the source, and the row where it is one row that cannot be read.
    """
    if isinstance(data, Examples):
        return data
    check_columns(columns, task, processor)
    if (direct := task.read_directly(data)) is not None:
        return direct
    source = source_of(data, called)
    refuse_other_input(source, columns, task, processor)
    return task.read(source, columns, processor, names)
