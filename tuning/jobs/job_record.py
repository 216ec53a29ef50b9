"""What is known of a job: what was asked for, by whom, how far it is, and what it has cost.

A job goes through these states, in OpenAI's words:

    validating_files --> queued --> running --> succeeded
            |              |  ^        |  |
            |              v  |        |  +---> failed      (its loss was not finite, or its files are gone)
            |            paused <------+
            v
          failed           ... and from every state that is no end: cancelled

All of it lies in a table (`job_table.py`), so it outlives the process. What a running job has learnt so far lies beside it in
checkpoints (`job_trainer.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..training_cost import Cost

Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
#: states that a job does not leave
ENDS = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class JobRequest:
    """What was asked for. Everything in it is JSON, as it lies in the table."""

    model: str  # the base, or an adapter from which training goes on
    training_file: str  # ids of files
    validation_file: str | None
    task: str  # graftax's name of it
    method: Sequence[Mapping[str, Any]]  # `{"name": "lora", "r": 8}`, each a method and its settings; none: the head alone
    recipe: Mapping[str, Any]  # fields of `Recipe` that differ from its defaults
    columns: Mapping[str, str]  # field -> column
    suffix: str | None = None  # of the model's name
    priority: int = 0  # a job of a higher one begins before those of lower ones
    metadata: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)  # `method` in OpenAI's form, as it is told again


@dataclass(frozen=True)
class JobError:
    """Why a job has failed, as OpenAI's API tells it."""

    code: str
    message: str
    param: str | None = None


def unfit(request: JobRequest, said: str) -> JobError:
    """The error of a job that cannot be made, by what is said of it: an error of rows names their file by its id."""
    for param, file in (("validation_file", request.validation_file), ("training_file", request.training_file)):
        if file is not None and file in said:
            return JobError(f"invalid_{param}", said, param)
    return JobError("invalid_job", said)


@dataclass(frozen=True)
class JobRecord:
    """A job, as the table has it. Times are seconds since 1970."""

    id: str  # "ftjob-..."
    tenant: str | None  # the hash of the key that asked; None: the server has no keys
    request: JobRequest
    status: Status
    created: int
    began: int | None = None  # its first step
    finished: int | None = None
    pack_size: int | None = None  # slots of the pack that it began in: part of what its last bits depend on
    steps_in_all: int | None = None  # known when its files were validated
    cost: Cost = Cost()
    model: str | None = None  # what the finished adapter is called
    error: JobError | None = None
    pushed: str | None = None  # what it is called on the hub; None: it is not there, or not yet

    @property
    def is_over(self) -> bool:
        return self.status in ENDS


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job, in the words of OpenAI's API."""

    id: str  # "ftevent-..."
    job: str
    created: int
    level: Literal["info", "warn", "error"]
    kind: Literal["message", "metrics"]
    message: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class JobCheckpoint:
    """The adapter that a job had become at the end of an epoch, which can be asked by its name."""

    id: str  # "ftckpt-..."
    job: str
    created: int
    step: int
    model: str  # what it is called
    metrics: Mapping[str, float]
