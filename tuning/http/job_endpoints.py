"""/v1/fine_tuning/jobs: jobs are made, listed, looked at, ended, paused and gone on with.

A job that was made is in the table when the answer comes, and the trainer does the rest: it reads the files and checks their
rows, which may take its time, and says in the job's events and its `error` what is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...adapters.adapter import Adapter
from ...disk import DiskFull
from ...errors import GraftaxError
from ...serve.handles import Handle
from ...serve.http.bodies import read_object
from ...serve.http.complaints import Refused, as_json
from ...serve.http.parameters import parameters_of
from ...serve.http.service import in_thread, route_of
from ..jobs.asked_job import AskedJob, asked_job
from ..jobs.job_record import JobRecord
from ..jobs.job_table import new_job_id
from ..jobs.uploads import NoSuchFile
from .job_objects import checkpoint_object, event_object
from .job_service import JobService, tenant
from .result_pages import behind, limit_of, page_of, unknown

_AT_ONCE = 100  # jobs that are read from the table to find those of some metadata


async def create_job(jobs: JobService, request: Request) -> Response:
    """Make a job."""
    asked = parameters_of(AskedJob, await read_object(request, jobs.service.limits))
    before, model = await _model(jobs, request, asked.model)
    for param, file in (("training_file", asked.training_file), ("validation_file", asked.validation_file)):
        if file is not None:
            await _expect_file(jobs, file, param)
    wanted = await in_thread(asked_job, asked, model, jobs.service.backbone, before)
    job = JobRecord(new_job_id(), tenant(), wanted, "validating_files", int(time.time()))
    async with jobs.creating:
        await in_thread(jobs.quotas.refuse_new, job.tenant, wanted.priority)
        await in_thread(jobs.table.add, job)
    await in_thread(jobs.table.tell, job.id, f"Created fine-tuning job: {job.id}")
    jobs.trainer.look()
    return as_json(jobs.told(job))


async def list_jobs(jobs: JobService, request: Request) -> Response:
    """Whoever asks is told of his jobs, the newest first."""
    limit, wanted, after = limit_of(request, 20), _metadata(request), request.query_params.get("after")
    if after is not None and await in_thread(jobs.job, after) is None:
        raise unknown(after)
    found: list[JobRecord] = []
    while len(found) <= limit:
        page = await in_thread(jobs.table.listed, tenant(), _AT_ONCE, after)
        found += [job for job in page if wanted(job.request.metadata)]
        if len(page) < _AT_ONCE:
            break
        after = page[-1].id
    ends = await in_thread(jobs.ends)
    return as_json(page_of([jobs.told(job, ends.get(job.id)) for job in found], limit))


async def show_job(jobs: JobService, request: Request) -> Response:
    """What is known of a job."""
    job = await _job(jobs, request)
    return as_json(jobs.told(job, (await in_thread(jobs.ends)).get(job.id)))


async def cancel(jobs: JobService, request: Request) -> Response:
    """End a job before its end."""
    return await _changed(jobs, request, jobs.trainer.cancel)


async def pause(jobs: JobService, request: Request) -> Response:
    """Let a job wait until it is gone on with."""
    return await _changed(jobs, request, jobs.trainer.pause)


async def resume(jobs: JobService, request: Request) -> Response:
    """Go on with a job that was paused."""
    return await _changed(jobs, request, jobs.trainer.resume)


async def list_events(jobs: JobService, request: Request) -> Response:
    """What has happened to a job, the newest first."""
    job, limit, after = await _job(jobs, request), limit_of(request, 20), request.query_params.get("after")
    if after is not None and not await in_thread(jobs.table.has_event, job.id, after):
        raise unknown(after)
    events = await in_thread(jobs.table.events, job.id, limit + 1, after)
    return as_json(page_of([event_object(one) for one in events], limit))


async def list_checkpoints(jobs: JobService, request: Request) -> Response:
    """The adapters that a job has become at the ends of its last epochs, and that can be asked, the newest first."""
    job, limit, after = await _job(jobs, request), limit_of(request, 10), request.query_params.get("after")
    there = [one for one in await in_thread(jobs.table.checkpoints, job.id) if one.model in jobs.models]
    objects = [checkpoint_object(one) for one in there]
    return as_json(page_of(behind(objects, after), limit))


async def _job(jobs: JobService, request: Request) -> JobRecord:
    """The job of whoever asks that the address names."""
    name = request.path_params["job"]
    if (found := await in_thread(jobs.job, name)) is None:
        raise Refused(404, f"there is no fine-tuning job {name!r}.", param="fine_tuning_job_id", code="fine_tune_not_found")
    return found


async def _changed(jobs: JobService, request: Request, change: Callable[[str], JobRecord]) -> Response:
    """A job after the trainer has changed it, or why it cannot be changed so."""
    job = await _job(jobs, request)
    try:
        return as_json(jobs.told(await in_thread(change, job.id)))
    except DiskFull:
        raise
    except GraftaxError as error:
        raise Refused(400, str(error), param="fine_tuning_job_id", code="invalid_job_state") from None


async def _model(jobs: JobService, request: Request, model: str) -> tuple[Adapter | None, str]:
    """The adapter from which a job goes on, None for the base; and its name, of a hub's adapter with the version."""
    who = await jobs.service.resolve(model, route_of(request, None))
    if who is None:
        return None, model
    if not isinstance(who, Handle):
        raise Refused(400, f"model: {model!r} is a mix, and training goes on from one adapter.", param="model")
    (adapter,) = await jobs.service.adapters(who)
    return adapter, str(who)


async def _expect_file(jobs: JobService, file: str, param: str) -> None:
    """Refused where whoever asks has no file of an id."""
    try:
        await in_thread(jobs.uploads.file, file, tenant())
    except NoSuchFile as error:
        raise Refused(400, f"{param}: {error}", param=param, code="file_not_found") from None


def _metadata(request: Request) -> Callable[[Mapping[str, str]], bool]:
    """Whether a job's metadata are those that are looked for: `metadata[key]=value`, or `metadata=null` for none at all."""
    pairs: dict[str, str] = {}
    alone = request.query_params.get("metadata")
    if alone not in (None, "null"):
        raise Refused(400, "metadata: what is looked for is said as metadata[key]=value, or metadata=null.", param="metadata")
    for name, value in request.query_params.multi_items():
        if name.startswith("metadata[") and name.endswith("]"):
            pairs[name.removeprefix("metadata[").removesuffix("]")] = value
    if alone is not None and pairs:
        raise Refused(400, "metadata: either keys and values, or null.", param="metadata")

    def is_wanted(metadata: Mapping[str, Any]) -> bool:
        if alone is not None:
            return not metadata
        return all(metadata.get(key) == value for key, value in pairs.items())

    return is_wanted
