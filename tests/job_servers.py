"""A server that trains jobs, as `graftax serve --training` runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from http_servers import Served, served, until

from graftax.models.backbone import Backbone
from graftax.serve.http.further import Further
from graftax.serve.http.service import Service
from graftax.tuning.device_time import DeviceTime
from graftax.tuning.http.fine_tuning import FineTuning
from graftax.tuning.http.job_service import JobService
from graftax.tuning.jobs.job_record import JobRecord
from graftax.tuning.jobs.job_table import JobTable
from graftax.tuning.training_endpoints import training_endpoints
from graftax.tuning.training_settings import TrainingSettings


@dataclass(frozen=True)
class Training:
    """A server that runs, and its jobs."""

    served: Served
    jobs: JobService
    folder: Path  # that it trains below

    @property
    def table(self) -> JobTable:
        return self.jobs.table

    def ended(self, job: str) -> JobRecord:
        """A job when it has ended."""
        until(lambda: self._known(job).is_over)
        return self._known(job)

    def checked(self, job: str) -> JobRecord:
        """A job when its files were looked at."""
        until(lambda: self._known(job).status != "validating_files")
        return self._known(job)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """No job is given a slot while the block runs; files are looked at."""
        trainer: Any = self.jobs.trainer
        trainer._admit = lambda: None
        try:
            yield
        finally:
            del trainer._admit
            trainer.look()

    def _known(self, job: str) -> JobRecord:
        found = self.table.job(job)
        assert found is not None
        return found


@contextmanager
def training(
    backbone: Backbone, folder: Path, settings: TrainingSettings = TrainingSettings(), **options: Any
) -> Iterator[Training]:
    """A server of a backbone that trains below a folder while the block runs; options are those of `served`."""
    device, made = DeviceTime(settings.training_share), list[JobService]()

    def further(service: Service) -> Sequence[Further]:
        brought = training_endpoints(service, folder, device, options.get("keys", ()), settings)
        made.extend(one._jobs for one in brought if isinstance(one, FineTuning))
        return brought

    with served(backbone, further=further, around=device.round, **options) as server:
        yield Training(server, made[0], folder)
