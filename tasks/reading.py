"""Data of any form as the examples of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.columns import Columns
from ..data.examples import Examples
from ..data.sources import source_of
from .task import Task


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
    columns.check(task.fields(processor), f"task {task.name!r}")
    direct = task.read_directly(data)
    return task.read(source_of(data, called), columns, processor, names) if direct is None else direct
