"""DELETE /v1/models/NAME: what a job has made is taken away, its name and its adapter."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ...serve.http.complaints import Refused, as_json
from ...serve.http.service import in_thread
from .job_service import JobService


async def delete_model(jobs: JobService, request: Request) -> Response:
    """Delete the model of a job, or of one of its checkpoints."""
    name = request.path_params["name"]
    if await in_thread(jobs.made, name) is None or not await in_thread(jobs.models.delete, name):
        said = f"there is no model {name!r} that a job has made; only such models are deleted here."
        raise Refused(404, said, param="model", code="model_not_found")
    return as_json({"id": name, "object": "model", "deleted": True})
