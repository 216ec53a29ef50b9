"""What loops cost, and whether the quota of their tenant lets them go on.

Costs are added up in memory and written into the table of jobs once in a while, by loop and hour: a call waits for no disk,
and a kill loses the last seconds of an account.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import reduce
from operator import add

from ...disk import DiskFull
from ..jobs.job_table import JobTable
from ..jobs.training_quotas import TrainingQuotas
from ..training_cost import Cost

HOUR = 3600  # seconds
_OFTEN = 5.0  # seconds after which what has come is written


class Accounts:
    """The accounts of all loops. Calls come from any thread."""

    def __init__(self, table: JobTable, quotas: TrainingQuotas, clock: Callable[[], float] = time.time):
        """`clock`: seconds since 1970."""
        self._table, self._quotas, self._clock = table, quotas, clock
        self._lock = threading.Lock()  # of the two below
        self._tenants: dict[str, str | None] = {}
        self._costs: dict[tuple[str, str | None], Cost] = {}  # by loop and tenant, what is not written yet
        self._written = clock()

    def open(self, loop: str, tenant: str | None) -> None:
        """A loop begins, which is a tenant's."""
        with self._lock:
            self._tenants[loop] = tenant

    def close(self, loop: str) -> None:
        """Nothing more comes of a loop."""
        self.write()
        with self._lock:
            self._tenants.pop(loop, None)

    def charge(self, loop: str, cost: Cost) -> None:
        """Count what was done for a loop."""
        with self._lock:
            if loop in self._tenants:
                key = (loop, self._tenants[loop])
                self._costs[key] = self._costs.get(key, Cost()) + cost
            is_due = abs(self._clock() - self._written) > _OFTEN  # a clock may be put back
        if is_due:
            self.write()

    def refusal(self, loop: str) -> str | None:
        """Why a loop may not go on; None: it may."""
        with self._lock:
            tenant = self._tenants.get(loop)
            more = reduce(add, (cost for (_, other), cost in self._costs.items() if other == tenant), Cost())
        return self._quotas.refusal_of_loops(tenant, more)

    def of(self, tenant: str | None, begin: int, end: int) -> list[tuple[str, int, Cost]]:
        """As of `JobTable.loop_costs`, up to now."""
        self.write()
        return self._table.loop_costs(tenant, begin, end)

    def write(self) -> None:
        """Write down what has come; where that fails, the next time."""
        with self._lock:
            self._written = self._clock()
            if not self._costs:
                return
            try:
                self._table.charge_loops(self._costs, int(self._written) // HOUR * HOUR)
            except (DiskFull, sqlite3.Error):
                logging.getLogger("graftax").exception("what loops have cost was not written")
            else:
                self._costs = {}
