"""What a key may have trained: refused before a job begins, and told to whoever trains while one does."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import openai
import pytest
from job_servers import Training, training
from openai import OpenAI
from refusals import refused

from graftax.models.backbone import Backbone
from graftax.serve.http.keys import Key, read_keys
from graftax.serve.http.quotas import Quota, TrainingQuota
from graftax.tuning.jobs import job_table
from graftax.tuning.jobs.job_record import JobRecord
from graftax.tuning.jobs.job_table import JobTable
from graftax.tuning.jobs.training_quotas import TrainingQuotas
from graftax.tuning.tinker.accounts import Accounts
from graftax.tuning.training_cost import Cost

HASHES = {name: hashlib.sha256(name.encode()).digest() for name in ("ann", "bob", "eve")}
ROW = json.dumps({"prompt": "a", "completion": "b"}).encode()


@pytest.fixture(scope="module")
def trained(teller: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    quota = TrainingQuota(training_jobs=2, training_steps=100, training_priority=5)
    keys = (Key(HASHES["ann"], False, training=quota), Key(HASHES["bob"], False))
    with training(teller, tmp_path_factory.mktemp("training"), keys=keys) as there:
        yield there


def begun(client: OpenAI, **said: object) -> str:
    file = client.files.create(file=("a.jsonl", ROW), purpose="fine-tune")
    return client.fine_tuning.jobs.create(model="backbone", training_file=file.id, extra_body={"graftax": said}).id


def test_they_stand_behind_a_key(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{HASHES['ann'].hex()} rpm=60 training_seconds=3600 training_jobs=4\n")
    (key,) = read_keys(tmp_path / "keys")
    assert key == Key(HASHES["ann"], False, Quota(rpm=60), TrainingQuota(training_seconds=3600, training_jobs=4))
    (tmp_path / "keys").write_text(f"{HASHES['ann'].hex()} training_hours=1\n")
    said = refused(lambda: read_keys(tmp_path / "keys"))
    assert "NAME=NUMBER of rpm, tpm, max_parallel_requests, training_seconds, " in said
    assert "got 'training_hours=1'" in said


def test_so_many_jobs_at_once(trained: Training) -> None:
    ann = trained.served.openai("ann")
    with trained.holding():
        jobs = [begun(ann) for _ in range(2)]
        with pytest.raises(
            openai.RateLimitError, match=r"may have 2 jobs that have not ended \(training_jobs\), and has 2"
        ) as full:
            begun(ann)
        assert full.value.code == "rate_limit_exceeded"
        assert full.value.response.headers["x-should-retry"] == "false"
        ann.fine_tuning.jobs.cancel(jobs.pop())
        jobs.append(begun(ann))
        for job in jobs:
            ann.fine_tuning.jobs.cancel(job)


def test_what_is_used_up_is_refused(trained: Training) -> None:
    ann, bob = (trained.served.openai(name) for name in ("ann", "bob"))
    with trained.holding():
        job = begun(ann)
        trained.table.change(job, status="cancelled", cost=Cost(100, 5000, 7.5))
        with pytest.raises(
            openai.RateLimitError, match=r"100 steps of training in all \(training_steps\), and has had 100"
        ) as gone:
            begun(ann)
        assert (gone.value.code, gone.value.type) == ("insufficient_quota", "insufficient_quota")
        bob.fine_tuning.jobs.cancel(begun(bob))
        trained.table.change(job, cost=Cost())


def test_a_priority_is_granted(trained: Training) -> None:
    ann, bob = (trained.served.openai(name) for name in ("ann", "bob"))
    with trained.holding():
        for client, priority in ((ann, 5), (bob, 0), (bob, -3)):
            client.fine_tuning.jobs.cancel(begun(client, priority=priority))
        for client, priority in ((ann, 6), (bob, 1)):
            with pytest.raises(openai.PermissionDeniedError, match=f"priority {priority} is more than this key's"):
                begun(client, priority=priority)


def test_whoever_trains_is_told_when_it_is_used_up(tmp_path: Path) -> None:
    from test_job_table import a_job

    table = JobTable(tmp_path / "jobs.sqlite")
    tenants = {name: HASHES[name].hex() for name in HASHES}
    jobs: dict[str, JobRecord] = {}
    for number, tenant in enumerate(("ann", "ann", "bob", "eve")):
        jobs[f"{tenant}{number}"] = record = a_job(tenants[tenant], cost=Cost(10, 1000, 30.0))
        table.add(record)
    keys = [
        Key(HASHES["ann"], False, training=TrainingQuota(training_seconds=60, training_tokens=5000)),
        Key(HASHES["bob"], False, training=TrainingQuota(training_steps=40)),
        Key(HASHES["eve"], False),
    ]
    quotas = TrainingQuotas(keys, table)
    assert quotas.refusal(jobs["ann0"], Cost(12, 1200, 29.9)) is None
    said = "this key may have 60 seconds of training in all (training_seconds), and has had 60."
    assert quotas.refusal(jobs["ann0"], Cost(12, 1200, 30.2)) == said
    assert "5,000 tokens" in str(quotas.refusal(jobs["ann0"], Cost(12, 4000, 1.0)))
    assert quotas.refusal(jobs["bob2"], Cost(39)) is None
    assert "40 steps" in str(quotas.refusal(jobs["bob2"], Cost(40)))
    assert quotas.refusal(jobs["eve3"], Cost(10**9)) is None
    assert quotas.refusal(replace(jobs["eve3"], tenant=None), Cost(10**9)) is None


def test_loops_are_counted_beside_jobs(tmp_path: Path) -> None:
    """In the hour in which they were, and written once in a while; a table that was made without them learns of them."""
    from test_job_table import a_job

    with sqlite3.connect(tmp_path / "jobs.sqlite") as old:
        old.executescript(f"{job_table._TABLES[0]} PRAGMA user_version = 1;")
    old.close()
    table, clock, ann = JobTable(tmp_path / "jobs.sqlite"), [7200.0], HASHES["ann"].hex()
    table.add(record := a_job(ann, cost=Cost(10, 1000, 30.0)))
    quotas = TrainingQuotas([Key(HASHES["ann"], False, training=TrainingQuota(training_tokens=1500))], table)
    accounts = Accounts(table, quotas, lambda: clock[0])
    accounts.open("a", ann)
    accounts.open("b", None)
    accounts.charge("a", Cost(0, 300, 1.0))
    accounts.charge("b", Cost(0, 10**9, 1.0))
    assert table.spent(ann) == Cost(10, 1000, 30.0)
    assert (accounts.refusal("a"), accounts.refusal("b")) == (None, None)
    accounts.charge("a", Cost(1, 200, 1.5))
    assert "1,500 tokens" in str(accounts.refusal("a"))
    clock[0] += 6.0
    accounts.charge("a", Cost(1))
    assert table.spent(ann) == Cost(12, 1500, 32.5)
    assert "1,500 tokens" in str(quotas.refusal(record, record.cost))
    clock[0] = 3 * 3600.0
    accounts.charge("a", Cost(0, 7, 0.25))
    assert accounts.of(ann, 0, 10**6) == [("a", 7200, Cost(2, 500, 2.5)), ("a", 10800, Cost(0, 7, 0.25))]
    assert accounts.of(ann, 7201, 10**6) == [("a", 10800, Cost(0, 7, 0.25))]


def test_a_full_disk_loses_no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is kept, also of a loop that has ended, and written the next time."""
    table = JobTable(tmp_path / "jobs.sqlite")
    accounts = Accounts(table, TrainingQuotas([], table))
    accounts.open("a", "ann")
    accounts.charge("a", Cost(1, 2, 3.0))
    with monkeypatch.context() as full:

        def fails(*arguments: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        full.setattr(table, "charge_loops", fails)
        accounts.close("a")
    accounts.write()
    assert table.spent("ann") == Cost(1, 2, 3.0)
