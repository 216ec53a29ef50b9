"""What the endpoints of files and jobs share, and who asks them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...serve.http.service import Service
from ...serve.turns import TENANT
from ..jobs.job_record import JobRecord
from ..jobs.job_table import JobTable
from ..jobs.outlook import estimated_ends
from ..jobs.published_models import PublishedModels
from ..jobs.trainer_asked import Trainer
from ..jobs.training_quotas import TrainingQuotas
from ..jobs.uploads import Uploads
from .job_objects import job_object


@dataclass(frozen=True)
class JobService:
    """Jobs on the backbone of a server."""

    service: Service
    table: JobTable
    uploads: Uploads
    trainer: Trainer
    quotas: TrainingQuotas
    models: PublishedModels
    max_upload: int = 512 << 20  # bytes of a file
    watts: float | None = None  # of the machine while it trains, by which energy is estimated
    creating: asyncio.Lock = field(default_factory=asyncio.Lock)  # of which jobs a key has, between its quota and the table

    def ends(self) -> Mapping[str, int]:
        """When the jobs that run or wait will have ended, as far as that is known."""
        return estimated_ends(self.table, self.trainer, time.time())

    def told(self, job: JobRecord, end: int | None = None) -> dict[str, Any]:
        """A job as it is told of, with what it has cost by now. `end`: when it will have ended, if that is known."""
        cost = self.trainer.progress(job.id)
        return job_object(job if cost is None else replace(job, cost=cost), self.watts, end, self.uploads.results(job))

    def job(self, job: str) -> JobRecord | None:
        """A job of whoever asks; None where there is none of this id, or it is another's."""
        return self._own(self.table.job(job))

    def made(self, model: str) -> JobRecord | None:
        """The job of whoever asks that has made a model."""
        return self._own(self.table.made(model))

    @staticmethod
    def _own(job: JobRecord | None) -> JobRecord | None:
        return job if job is not None and tenant() in (None, job.tenant) else None


def tenant() -> str | None:
    """Who asks: the hash of the key; None where the server has no keys."""
    return TENANT.get()
