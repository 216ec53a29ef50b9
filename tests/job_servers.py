"""A server that takes jobs, with a trainer that trains one after another as soon as it looks, in a thread of its own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from http_servers import Served, served, until

from graftax import disk
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.serve.http.service import Service
from graftax.tasks.task_registry import the_task
from graftax.train.progress import Progress
from graftax.train.queue import open_run
from graftax.tuning.http.fine_tuning import FineTuning
from graftax.tuning.http.job_service import JobService
from graftax.tuning.jobs.job_record import Cost, JobError, JobRecord
from graftax.tuning.jobs.job_table import JobTable
from graftax.tuning.jobs.made_job import model_name, the_job
from graftax.tuning.jobs.training_quotas import TrainingQuotas
from graftax.tuning.jobs.uploads import Uploads


class OneAfterAnother:
    """A trainer (`tuning/jobs/trainer_asked.py`) of one job at a time."""

    def __init__(self, service: Service, table: JobTable, uploads: Uploads, folder: Path):
        self._service, self._table, self._uploads, self._folder = service, table, uploads, folder
        self._looks: queue.Queue[bool] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._holds = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._looks.put(False)
        self._thread.join()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Begin with no job while the block runs."""
        self._holds = True
        yield
        self._holds = False
        self.look()

    slots = 1

    def share(self) -> float:
        return 1.0

    def progress(self, job: str) -> Cost | None:
        return None

    def look(self) -> None:
        self._looks.put(True)

    def cancel(self, job: str) -> JobRecord:
        if not self._table.change(job, only_if=("validating_files", "queued", "running", "paused"), status="cancelled"):
            raise GraftaxError(f"job {job} has ended: it is {self._known(job).status}.")
        return self._known(job)

    def pause(self, job: str) -> JobRecord:
        if not self._table.change(job, only_if=("queued", "running"), status="paused"):
            raise GraftaxError(f"job {job} is {self._known(job).status}; only one that waits or runs is paused.")
        return self._known(job)

    def resume(self, job: str) -> JobRecord:
        if not self._table.change(job, only_if=("paused",), status="queued"):
            raise GraftaxError(f"job {job} is {self._known(job).status}, and not paused.")
        self.look()
        return self._known(job)

    def forget(self, model: str) -> None:
        self._service.residents.unregister(model)
        disk.remove_directory(self._folder / "models" / model)

    def _known(self, job: str) -> JobRecord:
        found = self._table.job(job)
        assert found is not None
        return found

    def _work(self) -> None:
        while self._looks.get():
            for job in self._table.in_states("validating_files"):
                self._check(job)
            for job in () if self._holds else self._table.in_states("queued"):
                self._train(job)

    def _made(self, job: JobRecord) -> Any:
        service = self._service
        return the_job(job, self._uploads, service.backbone, base=service.name, adapter_named=self._adapter)

    def _adapter(self, name: str) -> Any:
        return self._service.residents.adapter(self._service.residents.resolve(name))

    def _check(self, job: JobRecord) -> None:
        try:
            made = self._made(job)
        except GraftaxError as error:
            self._table.tell(job.id, str(error), level="error")
            failed = JobError("invalid_training_file", str(error), "training_file")
            self._table.change(job.id, only_if=("validating_files",), status="failed", error=failed, finished=1)
            return
        self._table.change(job.id, only_if=("validating_files",), status="queued", steps_in_all=made.steps)

    def _train(self, job: JobRecord) -> None:
        made, service = self._made(job), self._service
        if not self._table.change(job.id, only_if=("queued",), status="running", began=int(time.time())):
            return
        out = self._folder / "models"
        with disk.locked(self._folder / "run") as lock, Progress(False) as shown:
            task = the_task(job.request.task)
            run = open_run(service.backbone, task, [made], self._folder / "run", lock, 1, True, 99.0, shown, None)
            (result,) = run.go().values()
        name = model_name(service.name, job)
        disk.make_directory(out)
        result.directory.rename(out / name)
        self._table.tell(job.id, "step", data={"step": made.steps, **result.metrics}, step=made.steps)
        numbers = {"loss": 1.0, "val_loss": 2.0, "val_token_accuracy": 0.5}
        self._table.keep(job.id, made.steps, model_name(service.name, job, made.steps), numbers)
        service.owners[name] = job.tenant
        service.residents.register(name, out / name)
        cost = Cost(made.steps, 100, 0.5)
        self._table.change(job.id, only_if=("running",), status="succeeded", model=name, cost=cost, finished=int(time.time()))


@dataclass(frozen=True)
class Training:
    """A server that runs, and what it trains with."""

    served: Served
    table: JobTable
    trainer: OneAfterAnother

    def ended(self, job: str) -> JobRecord:
        """A job when it has ended."""
        until(lambda: (found := self.table.job(job)) is not None and found.is_over)
        return self.trainer._known(job)

    def checked(self, job: str) -> JobRecord:
        """A job when its files were looked at."""
        until(lambda: (found := self.table.job(job)) is not None and found.status != "validating_files")
        return self.trainer._known(job)


@contextmanager
def training(backbone: Backbone, folder: Path, *, max_upload: int = 1 << 20, **options: Any) -> Iterator[Training]:
    """A server of a backbone that takes jobs while the block runs; options are those of `served`."""
    folder.mkdir(exist_ok=True)
    table = JobTable(folder / "jobs.sqlite")
    made: list[OneAfterAnother] = []

    def further(service: Service) -> Sequence[FineTuning]:
        uploads = Uploads(folder / "files", table)
        made.append(OneAfterAnother(service, table, uploads, folder))
        quotas = TrainingQuotas(options.get("keys", ()), table)
        return [FineTuning(JobService(service, table, uploads, made[0], quotas, max_upload))]

    with served(backbone, further=further, **options) as server:
        yield Training(server, table, made[0])
