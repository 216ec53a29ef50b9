"""What training brings to a server's endpoints: everything below the directory that `graftax serve --training` names.

DIR/tinker/          loops that others write, by Tinker's API
DIR/jobs.sqlite      jobs by OpenAI's API; with files/ their rows, models/ what they have made, states/ what is under way
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from .. import disk
from ..adapters.adapter import Adapter
from ..errors import GraftaxError
from ..serve.http.further import Further
from ..serve.http.keys import Key
from ..serve.http.service import Service
from ..train.shelf import Shelf
from .device_time import DeviceTime
from .http.fine_tuning import FineTuning
from .http.job_service import JobService
from .jobs.job_pushing import JobPushing
from .jobs.job_table import JobTable
from .jobs.job_trainer import JobTrainer
from .jobs.made_job import model_name, the_job
from .jobs.published_models import PublishedModels
from .jobs.training_quotas import TrainingQuotas
from .jobs.uploads import Uploads
from .tinker.accounts import Accounts
from .tinker.tinker_api import TinkerApi
from .training_settings import TrainingSettings


def training_endpoints(
    service: Service,
    directory: Path,
    device: DeviceTime,
    keys: tuple[Key, ...] = (),
    settings: TrainingSettings = TrainingSettings(),
    shelf: Shelf | None = None,
) -> Sequence[Further]:
    """What a server is to answer besides, if it trains: jobs, and of a language model loops.

    Args:
        service: whose rounds are `device`'s.
        directory: what is kept lies below it.
        device: what training and serving share.
        keys: the server's, with their quotas.
        settings: how much is taken.
        shelf: where what jobs have made is put besides.

    Raises GraftaxError where the directory cannot be written, or another server has it.
    """
    if find_spec("python_multipart") is None:
        raise GraftaxError("graftax serve --training needs python-multipart: pip install 'graftax[training]'.")
    held = ExitStack()
    held.enter_context(disk.locked(directory))  # another server would train the same jobs, and sweep away files that are coming
    table = JobTable(directory / "jobs.sqlite")
    quotas = TrainingQuotas(keys, table)
    jobs = FineTuning(_jobs(service, directory, device, table, quotas, settings, shelf), held.close)
    if service.generator is None:
        return [jobs]
    return [jobs, TinkerApi(service, directory / "tinker", Accounts(table, quotas), device.step)]  # jobs close the table last


def _jobs(
    service: Service,
    directory: Path,
    device: DeviceTime,
    table: JobTable,
    quotas: TrainingQuotas,
    settings: TrainingSettings,
    shelf: Shelf | None,
) -> JobService:
    """Jobs on a server's backbone."""
    uploads, models = Uploads(directory / "files", table, most=settings.max_uploads), PublishedModels(service, table)
    make = partial(
        the_job,
        uploads=uploads,
        backbone=service.backbone,
        base=service.name,
        adapter_named=partial(_adapter, service),
        max_lora_rank=service.limits.max_lora_rank,
    )
    further = {} if shelf is None else {"afterwards": JobPushing(table, shelf, directory / "models").push_next}
    trainer = JobTrainer(
        service.backbone,
        table,
        directory,
        make=make,
        called=partial(model_name, service.name),
        publish=models.publish,
        publish_again=models.publish_again,
        withdraw=models.delete,
        device=device,
        allow=quotas.refusal,
        report=uploads.keep_results,
        slots=settings.training_slots,
        save_every=settings.save_every,
        **further,
    )
    return JobService(service, table, uploads, trainer, quotas, models, settings.max_upload, settings.training_watts)


def _adapter(service: Service, name: str) -> Adapter:
    """The adapter that a job goes on from."""
    return service.residents.adapter(service.residents.resolve(name))
