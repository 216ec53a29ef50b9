"""Files, jobs, events and checkpoints as objects of OpenAI's API; what that has no words for stands under `graftax`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...train.recipe import Recipe
from ..jobs.job_record import JobCheckpoint, JobEvent, JobRecord
from ..jobs.job_table import UploadedFile
from ..jobs.step_metrics import named

_ORGANIZATION = "graftax"
_SECONDS_AN_HOUR = 3600


def file_object(file: UploadedFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created,
        "expires_at": file.expires,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",  # its lines were looked at when it came
        "status_details": None,
        "sha256": file.sha256,
    }


def job_object(
    job: JobRecord, watts: float | None = None, estimated_finish: int | None = None, result_files: Sequence[str] = ()
) -> dict[str, Any]:
    """A job. `watts`: of the machine while it trains; `estimated_finish`: seconds since 1970, of a job that runs or waits."""
    request = job.request
    hyperparameters = request.asked[request.asked["type"]]["hyperparameters"]
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": job.created,
        "error": None if job.error is None else asdict(job.error),
        "fine_tuned_model": job.model if job.status == "succeeded" else None,
        "finished_at": job.finished,
        "hyperparameters": {name: value for name, value in hyperparameters.items() if name != "beta"},
        "model": request.model,
        "organization_id": _ORGANIZATION,
        "result_files": [*result_files],
        "seed": request.recipe["seed"],
        "status": job.status,
        "trained_tokens": job.cost.tokens if job.is_over else None,
        "training_file": request.training_file,
        "validation_file": request.validation_file,
        "estimated_finish": estimated_finish,
        "integrations": [],
        "metadata": dict(request.metadata) or None,
        "method": request.asked,
        "graftax": {
            "suffix": request.suffix,
            "task": request.task,
            "method": request.method,
            "recipe": asdict(Recipe().replace(**request.recipe)),
            "columns": request.columns,
            "priority": request.priority,
            "steps": job.steps_in_all,
            "began_at": job.began,
            "cost": {**asdict(job.cost), "energy_wh": None if watts is None else job.cost.seconds * watts / _SECONDS_AN_HOUR},
        },
    }


def event_object(event: JobEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "object": "fine_tuning.job.event",
        "created_at": event.created,
        "level": event.level,
        "message": event.message,
        "type": event.kind,
        "data": _metrics(event.data),
    }


def _metrics(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers under graftax's names, and under OpenAI's where it has some for them."""
    return {**numbers, **named(numbers)}


def checkpoint_object(checkpoint: JobCheckpoint) -> dict[str, Any]:
    return {
        "id": checkpoint.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": checkpoint.created,
        "fine_tuned_model_checkpoint": checkpoint.model,
        "fine_tuning_job_id": checkpoint.job,
        "metrics": {"step": checkpoint.step, **_metrics(checkpoint.metrics)},
        "step_number": checkpoint.step,
    }
