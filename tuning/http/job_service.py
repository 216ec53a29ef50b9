"""What the endpoints of files and jobs share, and who asks them."""

from __future__ import annotations

from dataclasses import dataclass

from ...serve.http.service import Service
from ...serve.turns import TENANT
from ..jobs.job_record import JobRecord
from ..jobs.job_table import JobTable
from ..jobs.trainer_asked import Trainer
from ..jobs.uploads import Uploads


@dataclass(frozen=True)
class JobService:
    """Jobs on the backbone of a server."""

    service: Service
    table: JobTable
    uploads: Uploads
    trainer: Trainer
    max_upload: int = 512 << 20  # bytes of a file

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
