"""The table of jobs: what is written is there for who opens it next, in the order in which it came."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graftax.errors import GraftaxError
from graftax.tuning.jobs.job_record import JobError, JobRecord, JobRequest
from graftax.tuning.jobs.job_table import JobTable, UploadedFile, new_job_id
from graftax.tuning.training_cost import Cost

REQUEST = JobRequest("base", "file-1", None, "classify", [{"name": "lora", "r": 4}], {"epochs": 2}, {"text": "review"})


def a_job(tenant: str | None = None, **changes: Any) -> JobRecord:
    return replace(JobRecord(new_job_id(), tenant, REQUEST, "queued", created=1), **changes)


@pytest.fixture
def table(tmp_path: Path) -> JobTable:
    return JobTable(tmp_path / "jobs.sqlite")


def test_a_job_is_there_for_who_opens_the_table_next(tmp_path: Path, table: JobTable) -> None:
    job = a_job("a tenant")
    table.add(job)
    error, cost = JobError("invalid_training_file", "row 3 has no label", "training_file"), Cost(7, 99, 1.5)
    assert table.change(job.id, status="failed", error=error, cost=cost, finished=9, pack_size=4)
    again = JobTable(tmp_path / "jobs.sqlite").job(job.id)
    assert again == replace(job, status="failed", error=error, cost=cost, finished=9, pack_size=4)
    assert table.job("ftjob-none") is None


def test_a_change_that_comes_too_late_changes_nothing(table: JobTable) -> None:
    job = a_job(status="cancelled")
    table.add(job)
    assert not table.change(job.id, only_if=("queued", "running"), status="running")
    assert table.job(job.id) == job


def test_jobs_are_listed_by_tenant_and_page(table: JobTable) -> None:
    jobs = [a_job(tenant) for tenant in ("a", "b", "a", "a")]
    for job in jobs:
        table.add(job)
    assert table.listed("a", 2) == [jobs[3], jobs[2]]
    assert table.listed("a", 2, after=jobs[2].id) == [jobs[0]]
    assert table.listed(None, 9) == jobs[::-1]
    table.change(jobs[1].id, status="running")
    assert [job.id for job in table.in_states("queued", "running")] == [job.id for job in jobs]
    table.change(jobs[0].id, status="succeeded")
    assert [job.id for job in table.not_over()] == [job.id for job in jobs[1:]]


def test_what_is_told_of_steps_that_are_taken_anew_is_forgotten(table: JobTable) -> None:
    job = a_job()
    table.add(job)
    table.tell(job.id, "began")
    for step in (5, 10):
        table.tell(job.id, f"step {step}", data={"step": step, "train_loss": 1.0}, step=step)
        table.keep(job.id, step, f"model-{step}", {"train_loss": 1.0})
    table.forget_metrics_beyond(job.id, 5)
    assert [event.message for event in table.events(job.id, 9)] == ["step 5", "began"]
    assert [kept.model for kept in table.checkpoints(job.id)] == ["model-5"]
    table.keep(job.id, 5, "model-5", {"train_loss": 2.0})  # once more, of the same step
    assert [kept.metrics for kept in table.checkpoints(job.id)] == [{"train_loss": 2.0}]
    newest, *_ = table.events(job.id, 1)
    assert newest.data == {"step": 5, "train_loss": 1.0}
    assert [event.message for event in table.events(job.id, 9, after=newest.id)] == ["began"]


def test_files_are_their_tenants(table: JobTable) -> None:
    files = [UploadedFile(f"file-{n}", tenant, "rows.jsonl", "fine-tune", 12, "ab", 1, None) for n, tenant in enumerate("aba")]
    for file in files:
        table.add_file(file)
    assert table.files("a") == [files[2], files[0]]
    assert table.file("file-1") == files[1]
    table.remove_file("file-1")
    assert table.file("file-1") is None
    assert table.files(None) == [files[2], files[0]]


def test_another_files_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.sqlite").write_bytes(b"no table at all, but long enough to be looked at" * 99)
    with pytest.raises(GraftaxError, match="cannot be opened"):
        JobTable(tmp_path / "none.sqlite")
    with sqlite3.connect(tmp_path / "newer.sqlite") as newer:
        newer.execute("PRAGMA user_version = 3")
    newer.close()
    with pytest.raises(GraftaxError, match="a newer version's"):
        JobTable(tmp_path / "newer.sqlite")
