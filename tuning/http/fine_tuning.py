"""Jobs of others on the server's backbone, by OpenAI's API: which endpoint is where.

    make_app(service, keys, further=[FineTuning(JobService(service, table, uploads, trainer, quotas, models))])

Whoever asks sees what is his own, by his API key: a file, a job or a model of somebody else's is one that is not there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...disk import DiskFull
from ...serve.http.complaints import Refused
from ...serve.http.further import Body
from ..jobs.asked_job import AskedJob
from .file_endpoints import FORM, delete_file, file_content, list_files, show_file, upload
from .job_endpoints import cancel, create_job, list_checkpoints, list_events, list_jobs, pause, resume, show_job
from .job_service import JobService
from .tuned_models import delete_model

Endpoint = Callable[[Request], Awaitable[Response]]
_FILE, _JOB = "/v1/files/{file}", "/v1/fine_tuning/jobs/{job}"
_ENDPOINTS = (
    ("POST", "/v1/files", upload),
    ("GET", "/v1/files", list_files),
    ("GET", _FILE, show_file),
    ("GET", f"{_FILE}/content", file_content),
    ("DELETE", _FILE, delete_file),
    ("POST", "/v1/fine_tuning/jobs", create_job),
    ("GET", "/v1/fine_tuning/jobs", list_jobs),
    ("GET", _JOB, show_job),
    ("POST", f"{_JOB}/cancel", cancel),
    ("POST", f"{_JOB}/pause", pause),
    ("POST", f"{_JOB}/resume", resume),
    ("GET", f"{_JOB}/events", list_events),
    ("GET", f"{_JOB}/checkpoints", list_checkpoints),
    ("DELETE", "/v1/models/{name:path}", delete_model),
)


_BODIES: Mapping[str, Body] = {"/v1/files": {"multipart/form-data": FORM}, "/v1/fine_tuning/jobs": AskedJob}


def _told_where_full(answer: Callable[[JobService, Request], Awaitable[Response]], jobs: JobService) -> Endpoint:
    """An endpoint that says, where the disk is full, that this is the server's affair."""

    @wraps(answer)
    async def endpoint(request: Request) -> Response:
        try:
            return await answer(jobs, request)
        except DiskFull:
            logging.getLogger("graftax").exception("the disk is full")
            said = "the server's disk is full, and nothing was changed; deleting files or models makes room."
            raise Refused(507, said, kind="server_error", code="disk_full") from None

    return endpoint


class FineTuning:
    """The endpoints, as a server takes them (`Further`)."""

    def __init__(self, jobs: JobService, let_go: Callable[[], None] = lambda: None):
        """`let_go`: called when it has stopped; then another process may have the folder."""
        self._jobs, self._let_go = jobs, let_go
        jobs.service.offers.add("jobs")

    @property
    def routes(self) -> Sequence[Route]:
        return [Route(path, _told_where_full(answer, self._jobs), methods=[method]) for method, path, answer in _ENDPOINTS]

    @property
    def bodies(self) -> Mapping[str, Body]:
        return _BODIES

    def start(self) -> None:
        self._jobs.trainer.start()

    def stop(self) -> None:
        self._jobs.trainer.stop()
        self._jobs.table.close()
        self._let_go()
