"""/v1/files by OpenAI's own client: what is uploaded comes back to the byte, what is no row is refused by its line."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from http_servers import connected, until
from job_servers import Training, training
from openai import OpenAI
from test_job_table import a_job

from graftax import disk
from graftax.disk import DiskFull
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.serve.http.complaints import GONE
from graftax.serve.http.keys import Key
from graftax.tuning.jobs.job_table import JobTable
from graftax.tuning.jobs.step_metrics import step_metrics
from graftax.tuning.jobs.uploads import NoRoom, Uploads
from graftax.tuning.training_settings import TrainingSettings

ROWS = b'{"prompt": "one", "completion": "two"}\n{"prompt": "three", "completion": "f\xc3\xbcnf"}'
KEYS = tuple(Key(hashlib.sha256(name.encode()).digest(), admin=False) for name in ("ann", "bob"))


@pytest.fixture(scope="module")
def trained(teller: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    with training(teller, tmp_path_factory.mktemp("training"), TrainingSettings(max_upload=4096), keys=KEYS) as there:
        yield there


@pytest.fixture
def ann(trained: Training) -> OpenAI:
    return trained.served.openai("ann")


@pytest.fixture
def bob(trained: Training) -> OpenAI:
    return trained.served.openai("bob")


def test_a_file_comes_back_as_it_was_sent(ann: OpenAI) -> None:
    file = ann.files.create(file=("shop.jsonl", ROWS), purpose="fine-tune")
    assert (file.filename, file.bytes, file.purpose, file.status) == ("shop.jsonl", len(ROWS), "fine-tune", "processed")
    assert file.id.startswith("file-")
    assert ann.files.retrieve(file.id) == file
    assert ann.files.content(file.id).content == ROWS
    assert ann.files.wait_for_processing(file.id) == file
    assert ann.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError, match=f"there is no file '{file.id}'"):
        ann.files.retrieve(file.id)


def test_a_larger_file_is_spooled_and_still_the_same(teller: Backbone, tmp_path: Path) -> None:
    """Beyond the megabyte that is kept in memory."""
    rows = b"".join(json.dumps({"prompt": f"{n} " * 40, "completion": str(n)}).encode() + b"\n" for n in range(12_000))
    assert len(rows) > 1 << 20
    settings = TrainingSettings(max_upload=len(rows), max_uploads=len(rows) + len(ROWS))
    with training(teller, tmp_path, settings) as there:
        client = there.served.openai()
        file = client.files.create(file=("rows.jsonl", io.BytesIO(rows)), purpose="fine-tune")
        assert client.files.content(file.id).content == rows
        with pytest.raises(openai.APIStatusError, match=f"more than the {len(rows):,} bytes") as refused:
            client.files.create(file=("rows.jsonl", rows + b'{"a": 1}'), purpose="fine-tune")
        assert refused.value.status_code == 413
        client.files.create(file=("b.jsonl", ROWS), purpose="fine-tune")
        said = f"a.jsonl: it has 7 bytes, and the files on this server have {len(rows) + len(ROWS):,} of the "
        with pytest.raises(openai.APIStatusError, match=said) as full:
            client.files.create(file=("a.jsonl", b'{"a":1}'), purpose="fine-tune")
        assert (full.value.status_code, full.value.code) == (413, "storage_quota_exceeded")
        client.files.delete(file.id)
        client.files.create(file=("a.jsonl", b'{"a":1}'), purpose="fine-tune")
        assert len([*tmp_path.glob("files/*")]) == 2


def test_a_full_disk_is_the_servers_affair(teller: Backbone, tmp_path: Path) -> None:
    """It is said as such, of the table as of the files; and files can be deleted, however full it is."""
    with training(teller, tmp_path, TrainingSettings()) as trained:
        _fill_the_disk(trained, trained.served.openai())


def _fill_the_disk(trained: Training, ann: OpenAI) -> None:
    def keep(count: int) -> str:
        return [ann.files.create(file=("a.jsonl", ROWS), purpose="fine-tune").id for _ in range(count)][-1]

    tables: Any = trained.table._tables
    ((usual,),) = tables.execute("PRAGMA max_page_count").fetchall()
    tables.execute("PRAGMA max_page_count = 1")  # as many as there are
    try:
        with pytest.raises(openai.InternalServerError, match="the server's disk is full") as full:
            keep(200)  # or so many as the last page has room for
        assert (full.value.status_code, full.value.code, full.value.type) == (507, "disk_full", "server_error")
        assert len([*trained.folder.glob("files/*")]) == len(ann.files.list().data)
    finally:
        tables.execute(f"PRAGMA max_page_count = {usual}")
    for file in ann.files.list():
        ann.files.delete(file.id)

    def nowhere(path: Path, *arguments: Any) -> Any:
        raise DiskFull(f"{path}: no space left on the disk; nothing was changed there.")

    kept = keep(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "new_file", nowhere)
        with pytest.raises(openai.InternalServerError, match="the server's disk is full") as full:
            keep(1)
    assert str(trained.folder) not in str(full.value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained.table, "remove_file", nowhere)
        with pytest.raises(openai.InternalServerError):
            ann.files.delete(kept)
        assert not [*trained.folder.glob("files/*")]  # which has made room
    ann.files.delete(kept)
    assert not ann.files.list().data


def test_a_tenant_has_so_much_in_all(tmp_path: Path) -> None:
    """However many files come at once; others have their own, and a file whose time is over counts no longer."""
    clock = [0.0]
    uploads = Uploads(tmp_path / "files", JobTable(tmp_path / "jobs.sqlite"), lambda: clock[0], most=3 * len(ROWS))

    def keep(tenant: str, seconds: int | None = None) -> bool:
        try:
            uploads.keep(io.BytesIO(ROWS), name="a.jsonl", purpose="fine-tune", tenant=tenant, seconds=seconds)
        except NoRoom:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(keep, ["ann"] * 8)) == 3
    assert len([*(tmp_path / "files").iterdir()]) == 3
    assert [keep("bob", 100), keep("bob"), keep("bob"), keep("bob")] == [True, True, True, False]
    clock[0] = 100.0
    assert [keep("bob"), keep("bob")] == [True, False]


def test_results_are_kept_once(tmp_path: Path) -> None:
    """Also by a process that takes the last step of a job anew, after a kill."""
    uploads, job = Uploads(tmp_path / "files", JobTable(tmp_path / "jobs.sqlite")), a_job("ann")
    assert uploads.results(job) == []
    content = step_metrics([{"epoch": 1, "step": 3, "loss": 2.5}, {"epoch": 2, "step": 6, "loss": 2.0, "val_loss": 2.25}])
    for _ in range(2):
        uploads.keep_results(job, content)
    (file,) = uploads.listed("ann")
    assert uploads.results(job) == [file.id]
    columns = "step,train_loss,valid_loss,full_valid_loss,valid_mean_token_accuracy,full_valid_mean_token_accuracy"
    assert uploads.path(file.id).read_text() == f"{columns}\n3,2.5,,,,\n6,2.0,2.25,2.25,,\n"
    assert (file.name, file.purpose, file.bytes) == ("step_metrics.csv", "fine-tune-results", len(content))


def test_nobody_has_anothers_files(ann: OpenAI, bob: OpenAI) -> None:
    file = ann.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    assert file.id in [one.id for one in ann.files.list()]
    assert file.id not in [one.id for one in bob.files.list()]
    for ask in (bob.files.retrieve, bob.files.content, bob.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(file.id)
    with pytest.raises(openai.BadRequestError, match=f"training_file: there is no file '{file.id}'") as refused:
        bob.fine_tuning.jobs.create(model="backbone", training_file=file.id)
    assert refused.value.param == "training_file"


def test_files_are_listed_in_pages(bob: OpenAI) -> None:
    files = [bob.files.create(file=(f"{n}.jsonl", ROWS), purpose="fine-tune").id for n in range(3)]
    assert [file.id for file in bob.files.list(order="asc")] == files
    first = bob.files.list(limit=2)
    assert [file.id for file in first.data] == files[:0:-1]
    assert first.has_more
    assert not bob.files.list(limit=3).has_more
    assert [file.id for file in first] == files[::-1]  # which goes on to the next page
    assert [file.id for file in bob.files.list(limit=2, after=files[1])] == files[:1]
    assert not bob.files.list(purpose="batch").data
    with pytest.raises(openai.BadRequestError, match="after: nothing in this list has the id 'file-x'"):
        bob.files.list(after="file-x")
    for limit in ("0", "10001", "many", "-1"):
        with pytest.raises(openai.BadRequestError, match="limit must be a whole number from 1 to 10,000"):
            bob.files.list(extra_query={"limit": limit})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1}\n[1]\n', "a.jsonl: line 2 is not a JSON object"),
        (b'{"a": 1}\n\n{"a": 2}\n', "a.jsonl: line 2 is empty"),
        (b'{"a": 1}\n{"a": 2', "a.jsonl: line 2: not valid JSON"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "a.jsonl: line 2 is not UTF-8 text"),
        (b"text,label\ngood,1\n", "a.jsonl: line 1: not valid JSON"),
        (b"", "a.jsonl is empty"),
        (b'{"a": 1, "a": 2}\n', "a.jsonl: line 1: not valid JSON"),
    ],
)
def test_what_is_no_row_is_refused_by_its_line(ann: OpenAI, content: bytes, said: str) -> None:
    before = len(ann.files.list().data)
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        ann.files.create(file=("a.jsonl", content), purpose="fine-tune")
    assert (refused.value.param, refused.value.code) == ("file", "invalid_file_format")
    assert len(ann.files.list().data) == before


def test_a_mark_and_windows_ends_of_lines_are_taken(ann: OpenAI) -> None:
    content = b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n'
    file = ann.files.create(file=("a.jsonl", content), purpose="fine-tune")
    assert ann.files.content(file.id).content == content


def test_other_purposes_and_bad_bodies_are_refused(trained: Training, ann: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose 'assistants': files are taken to be trained on"):
        ann.files.create(file=("a.jsonl", ROWS), purpose="assistants")
    with pytest.raises(openai.BadRequestError, match="the file's name must be"):
        ann.files.create(file=("a" * 256, ROWS), purpose="fine-tune")
    with pytest.raises(openai.APIStatusError, match="more than the 4,096 bytes") as refused:
        ann.files.create(file=("a.jsonl", b'{"a": "' + b"b" * 80_000 + b'"}'), purpose="fine-tune")
    assert refused.value.status_code == 413
    key = {"Authorization": "Bearer ann"}
    bodies: list[tuple[dict[str, Any], str]] = [
        ({"json": {"purpose": "fine-tune"}}, "uploaded as multipart/form-data"),
        ({"files": {"purpose": (None, "fine-tune")}}, "file is missing"),
        ({"files": {"file": ("a.jsonl", ROWS)}}, "purpose is missing"),
        ({"files": {"file": ("a.jsonl", ROWS), "purpose": (None, "fine-tune"), "b": (None, "c")}}, "no such field: b"),
        ({"content": b"nothing", "headers": {"Content-Type": "multipart/form-data"}}, "cannot be read"),
        (
            {"content": b"nothing", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            "(cannot be read|file is missing)",
        ),
    ]
    for options, said in bodies:
        headers = key | options.pop("headers", {})
        answer = trained.served.ask("POST", "/v1/files", headers=headers, **options)
        assert answer.status_code == 400
        assert re.search(said, answer.json()["error"]["message"]), answer.text


def test_who_goes_away_in_the_middle_leaves_nothing(trained: Training, ann: OpenAI) -> None:
    folder = trained.jobs.uploads.path("any").parent
    before = [file.id for file in ann.files.list()], sorted(folder.iterdir())
    head = "POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\nContent-Length: 4000\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    with connected(trained.served) as client:
        client.sendall(head.encode() + part.encode() + ROWS)
    counts = trained.served.service.counts.responses
    until(lambda: counts[GONE] == 1)
    assert ([file.id for file in ann.files.list()], sorted(folder.iterdir())) == before


def test_a_file_is_removed_when_its_time_is_over(tmp_path: Path) -> None:
    now, table = [1000.0], JobTable(tmp_path / "jobs.sqlite")
    uploads = Uploads(tmp_path / "files", table, lambda: now[0])
    file = uploads.keep(io.BytesIO(ROWS), name="a.jsonl", purpose="fine-tune", tenant=None, seconds=3600)
    assert (file.created, file.expires) == (1000, 4600)
    now[0] = 4599.0
    assert uploads.listed(None) == [file]
    now[0] = 4600.0
    assert uploads.listed(None) == []
    assert not uploads.path(file.id).exists()


def test_expiry_is_told_to_the_client(ann: OpenAI) -> None:
    file = ann.files.create(
        file=("a.jsonl", ROWS), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    with pytest.raises(openai.BadRequestError, match="seconds must be from 3,600 to 2,592,000"):
        ann.files.create(file=("a.jsonl", ROWS), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 1})


def test_content_that_nobody_knows_is_removed_at_the_next_start(tmp_path: Path) -> None:
    """As a kill leaves it between the file and the table."""
    table = JobTable(tmp_path / "jobs.sqlite")
    kept = Uploads(tmp_path / "files", table).keep(io.BytesIO(ROWS), name="a.jsonl", purpose="fine-tune", tenant=None)
    (tmp_path / "files" / "file-left").write_bytes(ROWS)
    again = Uploads(tmp_path / "files", table)
    assert [path.name for path in (tmp_path / "files").iterdir()] == [kept.id]
    assert [row["prompt"] for row in again.rows(kept.id).rows] == ["one", "three"]
    again.path(kept.id).write_bytes(ROWS.replace(b"two", b"six"))
    with pytest.raises(GraftaxError, match="damaged on the server's disk"):
        again.rows(kept.id)


def test_a_file_that_a_job_needs_is_not_deleted(trained: Training, ann: OpenAI) -> None:
    with trained.holding():
        file = ann.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
        job = ann.fine_tuning.jobs.create(model=trained.served.service.name, training_file=file.id)
        with pytest.raises(openai.ConflictError, match=f"a.jsonl .{file.id}. is needed by job {job.id}"):
            ann.files.delete(file.id)
        ann.fine_tuning.jobs.cancel(job.id)
    assert ann.files.delete(file.id).deleted
