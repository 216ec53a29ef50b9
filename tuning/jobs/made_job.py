"""A job of the table made a job of training: its files read, its rows checked, its adapter drawn.

That is done twice: before a job is queued, so that whoever asked hears of every fault at once, with its row; and when it begins
or goes on, for nothing of it is kept in memory meanwhile. What an adapter becomes is decided by the files, the request, the
backbone and, where training goes on from an adapter, by that one.
"""

from __future__ import annotations

from collections.abc import Callable

from ...adapters.adapter import Adapter
from ...adapters.fitting import refuse_rank
from ...data.columns import Columns
from ...data.sources import Source
from ...models.backbone import Backbone
from ...tasks.fit import refuse_unfit_task
from ...tasks.read_examples import check_columns
from ...tasks.task import Task
from ...tasks.task_registry import the_task
from ...train.intake import prepare
from ...train.job import Job
from ...train.recipe import Recipe
from .asked_job import methods_of
from .job_record import JobRecord
from .openai_rows import rows_to_learn
from .uploads import Uploads


def the_job(
    record: JobRecord,
    uploads: Uploads,
    backbone: Backbone,
    *,
    base: str,
    adapter_named: Callable[[str], Adapter],
    max_lora_rank: int | None = None,
) -> Job:
    """The job of a record, as `train_many` would make it; it is called as the record is.

    Args:
        uploads: where its files are.
        base: what requests call the backbone; any other model is an adapter from which training goes on,
        adapter_named: by its name.
        max_lora_rank: adapters of a greater rank are refused: they could not be asked afterwards.

    Raises:
        GraftaxError: a file that is gone, a row that does not fit (with its file and number, which is that of its line), a
            method that does not fit the backbone.
    """
    request, task = record.request, the_task(record.request.task)
    refuse_unfit_task(task, backbone)
    columns = Columns(**request.columns)
    check_columns(columns, task, backbone.processor)
    before = [] if request.model == base else [adapter_named(request.model)]
    rows = [_rows(file, uploads, task, columns, backbone) for file in (request.training_file, request.validation_file)]
    assert rows[0] is not None
    job = prepare(
        record.id,
        rows[0],
        rows[1],
        backbone=backbone,
        task=task,
        method=(*methods_of(request.method), *before),
        recipe=Recipe().replace(**request.recipe),
        columns=columns,
    )
    refuse_rank(job.adapter, max_lora_rank, record.id)
    return job


def _rows(file: str | None, uploads: Uploads, task: Task, columns: Columns, backbone: Backbone) -> Source | None:
    """The rows of a file as a task reads them."""
    if file is None:
        return None
    return rows_to_learn(uploads.rows(file), task.name, columns, task.fields(backbone.processor))


def model_name(base: str, record: JobRecord, step: int | None = None) -> str:
    """What the adapter of a job is called, or with `step` that of a checkpoint, in OpenAI's form.

    `base`: what requests call the backbone.
    """
    short = record.id.partition("-")[2][:12]
    name = f"ft:{base}:graftax:{record.request.suffix or ''}:{short}"
    return name if step is None else f"{name}:ckpt-step-{step}"
