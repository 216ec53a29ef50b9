"""The adapters that jobs have made, put on a shelf such as names on a hub: each once, when it is there or later.

The table says which were not put there yet, so a kill between the end of a job and its push loses nothing. A hub that is away
is asked again after a while; the job has succeeded all the same, and its events say what is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ...errors import GraftaxError
from ...train.shelf import Shelf
from .job_record import JobRecord
from .job_table import JobTable

_PATIENCE = 60.0  # seconds until what could not be pushed is tried again


class JobPushing:
    """Pushes what jobs have made. Belongs to one thread."""

    def __init__(self, table: JobTable, shelf: Shelf, models: Path, clock: Callable[[], float] = time.monotonic):
        """`models`: the folder in which the adapter of a job lies under the job's id; `clock`: in seconds."""
        self._table, self._shelf, self._models, self._clock = table, shelf, models, clock
        self._again: dict[str, float] = {}  # when a job is tried again that could not be pushed

    def push_next(self) -> bool:
        """Push the next adapter that is to be pushed. False where there is none."""
        for record in self._table.to_be_pushed():
            if self._again.get(record.id, 0.0) <= self._clock():
                self._push(record)
                return True
        return False

    def _push(self, record: JobRecord) -> None:
        directory = self._models / record.id
        if not directory.is_dir():  # somebody has deleted the model since
            self._table.change(record.id, pushed="")
            return
        try:
            pushed = self._shelf.put(self._name(record), directory)
        except GraftaxError as error:
            if record.id not in self._again:
                self._table.tell(record.id, f"The model is not on the hub yet: {error}", level="warn")
            self._again[record.id] = self._clock() + _PATIENCE
        else:
            self._table.change(record.id, pushed=pushed)
            self._table.tell(record.id, f"The model was pushed to the hub as {pushed}.")

    @staticmethod
    def _name(record: JobRecord) -> str:
        """What the adapter is called there: jobs of several tenants may have the same suffix."""
        short = record.id.partition("-")[2][:12]
        return f"{record.request.suffix}-{short}" if record.request.suffix else short
