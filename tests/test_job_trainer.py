"""Jobs of many tenants in the packs of a server: to the same bytes as alone, whoever comes, leaves or fails beside them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import DATA, QUICK, nan_rows, run_many
from tiny import toy_rows, weights_of

from graftax import disk
from graftax.adapters import LoRA
from graftax.data.columns import Columns
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.tasks.task_registry import the_task
from graftax.train.intake import prepare
from graftax.train.job import Job
from graftax.tuning.device_time import DeviceTime
from graftax.tuning.jobs.job_pushing import JobPushing
from graftax.tuning.jobs.job_record import JobRecord, JobRequest
from graftax.tuning.jobs.job_table import JobTable, new_job_id
from graftax.tuning.jobs.job_trainer import JobTrainer

#: Files of rows of another task; the labels of the second are no numbers, and neither is its loss.
REGRESSED: dict[str, Any] = {"numbers": toy_rows("regress", 16), "nan": nan_rows()}


class Tuning:
    """A trainer whose threads are not started: a test lets it advance."""

    def __init__(self, backbone: Backbone, folder: Path, **settings: Any):
        folder.mkdir(exist_ok=True)
        self.backbone, self.folder = backbone, folder
        self.table = JobTable(folder / "jobs.sqlite")
        self.published: dict[str, Path] = {}
        self.count = 0  # jobs that were added
        self.order: list[str] = []  # of the directories that were published
        options = {"slots": 4, "device": DeviceTime(), **settings}
        called: dict[str, Any] = {"make": self.make, "called": lambda record: f"ft:{record.request.suffix}"}
        called |= {"publish": self.publish, "publish_again": self.publish, "withdraw": self.withdraw}
        self.trainer = JobTrainer(backbone, self.table, folder, **called, **options)

    def withdraw(self, name: str) -> None:
        if (directory := self.published.pop(name, None)) is not None:
            disk.remove_directory(directory)

    def publish(self, record: JobRecord, name: str, directory: Path) -> None:
        self.published[name] = directory
        self.order.append(directory.name)

    def make(self, record: JobRecord) -> Job:
        request = record.request
        if (rows := (DATA | REGRESSED).get(request.training_file)) is None:
            raise GraftaxError(f"{request.training_file}: there is no such file.")
        method, recipe = LoRA(**request.method), QUICK.replace(**request.recipe)
        settings: dict[str, Any] = {"backbone": self.backbone, "task": the_task(request.task), "columns": Columns()}
        return prepare(record.id, rows, None, method=method, recipe=recipe, **settings)

    def add(self, file: str, tenant: str | None = None, *, r: int = 4, priority: int = 0, **recipe: Any) -> str:
        """A job on one of the files of `runs.DATA`; returns its id."""
        task, suffix = "regress" if file in REGRESSED else "classify", f"{file}{self.count or ''}"
        request = JobRequest("base", file, None, task, {"r": r}, recipe, {}, suffix=suffix, priority=priority)
        self.count += 1
        self.table.add(record := JobRecord(new_job_id(), tenant, request, "validating_files", created=1))
        return record.id

    def advance(self, until: Callable[[], bool] = lambda: False) -> None:
        """Read all files, and train until nothing is left to be done, or something is so."""
        while not until() and (self.trainer.take_in() or self.trainer.train()):
            pass

    def status(self, job: str) -> str:
        record = self.table.job(job)
        assert record is not None
        return record.status

    def told(self, job: str) -> list[str]:
        return [event.message for event in reversed(self.table.events(job, 99))]

    def weights(self, job: str) -> dict[str, np.ndarray]:
        return weights_of(self.folder / "models" / job)


@pytest.fixture
def tuning(tiny: Backbone, tmp_path: Path) -> Tuning:
    return Tuning(tiny, tmp_path / "tuning")


def alone(backbone: Backbone, folder: Path, file: str, width: int, r: int = 4, **recipe: Any) -> dict[str, np.ndarray]:
    """What `train_many` makes of the same job: in a pack as wide, whose other slots hold the same job under other seeds."""
    task = "regress" if file in REGRESSED else "classify"
    names = [f"copy{seed}" for seed in range(width)]
    each = {name: {"seed": seed} for seed, name in enumerate(names)}
    settings: dict[str, Any] = {"method": LoRA(r=r), "recipe": QUICK.replace(**recipe), "each": each, "pack_size": width}
    run_many(backbone, dict.fromkeys(names, (DATA | REGRESSED)[file]), folder, task=task, **settings)
    return weights_of(folder / "copy0")


def test_jobs_of_one_kind_share_a_pack(tiny: Backbone, tuning: Tuning, tmp_path: Path) -> None:
    """Two tenants' jobs on the same rows side by side; one of another rank gets a pack of its own. Bytes as of `train_many`."""
    first, second, other = tuning.add("a", "one"), tuning.add("a", "two", lr=1e-2), tuning.add("a", "one", r=12)
    tuning.advance()
    records = [tuning.table.job(job) for job in (first, second, other)]
    assert [record and (record.status, record.pack_size) for record in records] == [
        ("succeeded", 2),
        ("succeeded", 2),
        ("succeeded", 1),
    ]
    assert tuning.weights(first) == alone(tiny, tmp_path / "pair", "a", 2)
    assert tuning.weights(second) == alone(tiny, tmp_path / "rate", "a", 2, lr=1e-2)
    assert tuning.weights(other) == alone(tiny, tmp_path / "other", "a", 1, r=12)
    assert tuning.published["ft:a"].name == first
    done = records[0]
    assert done is not None
    assert (done.cost.steps, done.steps_in_all) == (6, 6)  # two epochs of 21 rows in batches of 8
    assert done.cost.tokens == 2 * sum(len(item) for item in tuning.make(done).train.items)
    assert done.cost.seconds > 0


def test_what_is_told_of_a_job(tuning: Tuning) -> None:
    job = tuning.add("b")
    tuning.advance()
    loss = [event.data for event in reversed(tuning.table.events(job, 9)) if event.kind == "metrics"]
    assert [(line["epoch"], line["step"]) for line in loss] == [(1, 2), (2, 4)]
    assert tuning.told(job) == [
        "The files are valid: 12 rows, 4 steps. The job is queued.",
        "The training has begun.",
        *(f"Epoch {line['epoch']} of 2: training loss {line['loss']:.4g}." for line in loss),
        "The job has succeeded: its model is ft:b.",
    ]
    (kept,) = tuning.table.checkpoints(job)  # of the first epoch: the last one's is the model
    assert (kept.step, kept.model) == (2, "ft:b:ckpt-step-2")
    assert tuning.weights(f"{job}-step-2") != tuning.weights(job)
    assert tuning.published == {
        "ft:b:ckpt-step-2": tuning.folder / f"models/{job}-step-2",
        "ft:b": tuning.folder / f"models/{job}",
    }


def test_only_the_last_epochs_are_kept(tuning: Tuning) -> None:
    job = tuning.add("d", epochs=6)
    tuning.advance()
    there = sorted(path.name for path in (tuning.folder / "models").iterdir())
    assert there == sorted([job, *(f"{job}-step-{step}" for step in (6, 8, 10))])
    assert sorted(path.name for path in tuning.published.values()) == there


@pytest.mark.parametrize("way", ["stopped", "paused"])
def test_a_job_goes_on_where_it_was(tiny: Backbone, tmp_path: Path, way: str) -> None:
    """After a stop of the server, or a pause, to the bytes of a job that was left alone; what was told is told once."""
    tuning = Tuning(tiny, tmp_path / "tuning")
    jobs = [tuning.add("a", lr=lr) for lr in (1e-3, 2e-3)]
    tuning.advance(until=lambda: tuning.trainer.progress(jobs[0]) is not None and steps_of(tuning, jobs[0]) == 4)
    if way == "paused":
        tuning.trainer.pause(jobs[0])
        tuning.advance()
        assert [tuning.status(job) for job in jobs] == ["paused", "succeeded"]
        tuning.trainer.resume(jobs[0])
    else:
        tuning.trainer.lay_down()
        tuning = Tuning(tiny, tmp_path / "tuning")
        tuning.trainer.take_up()
    tuning.advance()
    assert [tuning.status(job) for job in jobs] == ["succeeded"] * 2
    for job, lr in zip(jobs, (1e-3, 2e-3), strict=True):
        assert tuning.weights(job) == alone(tiny, tmp_path / f"{lr}", "a", 2, lr=lr)
    told = [line for line in tuning.told(jobs[0]) if line.startswith(("Epoch", "The training"))]
    assert [line.split(" of ")[0].split(" from ")[0] for line in told] == [
        "The training has begun.",
        "Epoch 1",
        "The training goes on",
        "Epoch 2",
    ]
    assert not any((tuning.folder / "states").iterdir())


def steps_of(tuning: Tuning, job: str) -> int:
    cost = tuning.trainer.progress(job)
    return 0 if cost is None else cost.steps


def test_after_a_kill_a_job_goes_on_from_its_last_save(tiny: Backbone, tmp_path: Path) -> None:
    """The process ends two steps behind the save: these are taken anew, to the same bytes."""
    tuning = Tuning(tiny, tmp_path / "tuning", save_every=0.0)
    job = tuning.add("a")
    tuning.advance(until=lambda: steps_of(tuning, job) == 3)
    tuning.trainer._save_every = 1e9  # nothing more is saved; then the object is let go, as a kill would
    tuning.advance(until=lambda: steps_of(tuning, job) == 5)
    for one in tuning.trainer._running.values():
        one._kept().wait()
    shutil.copytree(
        tuning.folder / "states" / job, tuning.folder / "states" / "ftjob-ended"
    )  # a kill came before it was removed
    again = Tuning(tiny, tmp_path / "tuning")
    again.trainer.take_up()
    assert [path.name for path in (tuning.folder / "states").iterdir()] == [job]
    again.advance(until=lambda: steps_of(again, job) > 0)
    assert again.told(job)[-1] == "The training goes on from step 3."
    again.advance()
    assert again.weights(job) == alone(tiny, tmp_path / "whole", "a", 1)


def test_a_job_that_fails_fails_alone(tiny: Backbone, tuning: Tuning, tmp_path: Path) -> None:
    """Its loss is not finite; its neighbour in the pack keeps every bit."""
    good, bad, none = tuning.add("numbers"), tuning.add("nan"), tuning.add("nowhere")
    tuning.advance()
    assert [tuning.status(job) for job in (good, bad, none)] == ["succeeded", "failed", "failed"]
    assert tuning.weights(good) == alone(tiny, tmp_path / "good", "numbers", 2)
    errors = [record.error for record in map(tuning.table.job, (bad, none)) if record is not None]
    assert [error and (error.code, error.param) for error in errors] == [
        ("training_failed", None),
        ("invalid_training_file", "training_file"),
    ]
    assert "not finite" in tuning.told(bad)[-1]
    assert "no such file" in tuning.told(none)[-1]


def test_a_crash_of_a_pack_is_the_affair_of_its_jobs(tuning: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing, other = tuning.add("a"), tuning.add("c", r=12)
    tuning.advance(until=lambda: steps_of(tuning, crashing) == 1)
    pack = tuning.trainer._running[crashing].pack

    def crash() -> list[int]:
        raise MemoryError("no room")

    monkeypatch.setattr(pack, "tick", crash)
    tuning.advance()
    assert [tuning.status(job) for job in (crashing, other)] == ["failed", "succeeded"]
    assert tuning.told(crashing)[-1] == "The job has failed: MemoryError: no room"


def test_a_job_that_fails_on_a_full_disk_is_told_of_later(tuning: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the table can be written again; its neighbour has gone on meanwhile."""
    failing, other = tuning.add("a", lr=1e-3), tuning.add("a", lr=2e-3)
    tuning.advance(until=lambda: steps_of(tuning, failing) == 1)
    monkeypatch.setattr(tuning.trainer, "_allow", lambda record, cost: "no more" if record.id == failing else None)

    def full(job: str, **changes: Any) -> bool:
        raise disk.DiskFull("the table of jobs: no space left on the disk; nothing was changed there.")

    with monkeypatch.context() as patch:
        patch.setattr(tuning.table, "change", full)
        tuning.trainer.train()
        assert (tuning.trainer.progress(failing), steps_of(tuning, other)) == (None, 2)
        with pytest.raises(disk.DiskFull):
            tuning.trainer.train()
    assert tuning.status(failing) == "running"
    tuning.advance()
    assert [tuning.status(job) for job in (failing, other)] == ["failed", "succeeded"]


def test_cancelled_jobs_give_up_their_slots(tiny: Backbone, tmp_path: Path) -> None:
    tuning = Tuning(tiny, tmp_path / "tuning", slots=2)
    jobs = [tuning.add("a", r=r) for r in (4, 12)]  # each in a pack of its own: both slots
    waiting = tuning.add("a", r=4, epochs=1)
    tuning.advance(until=lambda: steps_of(tuning, jobs[0]) == 1)
    assert tuning.status(waiting) == "queued"
    assert tuning.trainer.cancel(jobs[0]).status == "cancelled"
    tuning.advance(until=lambda: steps_of(tuning, waiting) > 0)
    assert tuning.status(jobs[1]) == "running"
    with pytest.raises(GraftaxError, match=r"is over \(status: cancelled\)"):
        tuning.trainer.cancel(jobs[0])
    with pytest.raises(GraftaxError, match="can be resumed"):
        tuning.trainer.resume(jobs[1])
    with pytest.raises(GraftaxError, match="no job ftjob-none"):
        tuning.trainer.pause("ftjob-none")
    tuning.advance()
    assert [tuning.status(job) for job in (*jobs, waiting)] == ["cancelled", *["succeeded"] * 2]
    assert jobs[0] not in {path.name for path in (tuning.folder / "models").iterdir()}


@pytest.mark.parametrize("way", ["cancel", "pause"])
def test_too_late_or_just_in_time(tuning: Tuning, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Between the last step of a job and its end it is cancelled, and leaves no model; or paused, and has ended."""
    job, ask = tuning.add("a"), {"cancel": tuning.trainer.cancel, "pause": tuning.trainer.pause}[way]

    def published(record: JobRecord, name: str, directory: Path) -> None:
        tuning.publish(record, name, directory)
        if directory.name == job:
            ask(job)

    monkeypatch.setattr(tuning.trainer, "_publish", published)
    tuning.advance()
    left = [] if way == "cancel" else ["ft:a"]
    assert tuning.status(job) == ("cancelled" if way == "cancel" else "succeeded")
    assert [*tuning.published] == ["ft:a:ckpt-step-3", *left]
    assert {path.name for path in (tuning.folder / "models").iterdir()} == {f"{job}-step-3", *([job] if left else [])}
    assert tuning.trainer.progress(job) is None


def test_a_job_has_one_slot_however_fast_it_is_paused_and_resumed(tuning: Tuning) -> None:
    """Its files are read before the trainer has looked."""
    job = tuning.add("a")
    tuning.advance(until=lambda: steps_of(tuning, job) == 1)
    tuning.trainer.pause(job)
    tuning.trainer.resume(job)
    assert tuning.trainer.take_in()
    tuning.trainer._admit()
    assert sum(len(pack.bookmarks) for _, pack in tuning.trainer._packs._packs) == 1
    tuning.advance()
    assert tuning.status(job) == "succeeded"
    assert tuning.told(job).count("The training goes on from step 1.") == 1


def test_tenants_take_turns_and_priorities_go_first(tiny: Backbone, tmp_path: Path) -> None:
    """With a single slot: of one tenant's three jobs and another's one the other's is second; what is urgent is first."""
    tuning = Tuning(tiny, tmp_path / "tuning", slots=1)
    many = [tuning.add("d", "many", epochs=1, lr=lr) for lr in (1e-3, 2e-3, 3e-3)]
    one, urgent = tuning.add("d", "one", epochs=1), tuning.add("d", "many", priority=1, epochs=1)
    tuning.advance()
    assert tuning.order == [urgent, one, *many]


def test_a_pack_is_as_wide_as_before(tiny: Backbone, tuning: Tuning, tmp_path: Path) -> None:
    """A job that began in a pack of two goes on in one of two, though it is alone now."""
    jobs = [tuning.add("a", lr=lr) for lr in (1e-3, 2e-3)]
    tuning.advance(until=lambda: steps_of(tuning, jobs[0]) == 2)
    tuning.trainer.pause(jobs[0])
    tuning.trainer.cancel(jobs[1])
    tuning.advance()
    tuning.trainer.resume(jobs[0])
    tuning.advance()
    record = tuning.table.job(jobs[0])
    assert record is not None
    assert (record.status, record.pack_size) == ("succeeded", 2)
    assert tuning.weights(jobs[0]) == alone(tiny, tmp_path / "whole", "a", 2, lr=1e-3)


def test_a_quota_that_is_used_up_ends_a_job(tiny: Backbone, tmp_path: Path) -> None:
    said = "this key may train 3 steps"
    tuning = Tuning(tiny, tmp_path / "tuning", allow=lambda record, cost: said if cost.steps > 3 else None)
    job = tuning.add("a")
    tuning.advance()
    record = tuning.table.job(job)
    assert record is not None
    assert record.error is not None
    assert (record.status, record.error.code, record.error.message, record.cost.steps) == ("failed", "quota_exceeded", said, 4)
    (tuning.folder / "models" / f"{job}-step-4").mkdir()  # saved, and then the process was killed
    again = Tuning(tiny, tmp_path / "tuning")
    again.trainer.take_up()
    assert again.published == tuning.published == {"ft:a:ckpt-step-3": tuning.folder / "models" / f"{job}-step-3"}
    assert [path.name for path in (tuning.folder / "models").iterdir()] == [f"{job}-step-3"]


class OneShelf:
    """A hub that is away at first."""

    def __init__(self) -> None:
        self.is_away, self.held = True, dict[str, Path]()

    def expect(self, names: Sequence[str]) -> None:
        raise AssertionError("nobody asks")

    def put(self, name: str, directory: Path) -> str:
        if self.is_away:
            raise GraftaxError("the hub does not answer.")
        self.held[name] = directory
        return f"team/{name}:1"

    def later(self, out: Path) -> str:
        raise AssertionError("nobody asks")


def test_what_jobs_have_made_is_pushed_when_the_hub_is_there(tuning: Tuning) -> None:
    """The job has succeeded before; why its model is not there is told once, and what was deleted is not pushed."""
    first, gone = tuning.add("b", epochs=1), tuning.add("d", epochs=1)
    tuning.advance()
    now, shelf = [0.0], OneShelf()
    pushing = JobPushing(tuning.table, shelf, tuning.folder / "models", lambda: now[0])
    shutil.rmtree(tuning.folder / "models" / gone)
    while pushing.push_next():
        pass
    now[0] = 61.0
    assert pushing.push_next()
    assert not pushing.push_next()  # it has patience
    told = "The model is not on the hub yet: the hub does not answer."
    assert [line for line in tuning.told(first) if "hub" in line] == [told]
    shelf.is_away, now[0] = False, 130.0
    while pushing.push_next():
        pass
    short = first.partition("-")[2][:12]
    assert shelf.held == {f"b-{short}": tuning.folder / "models" / first}
    record = tuning.table.job(first)
    assert record is not None
    assert record.pushed == f"team/b-{short}:1"
    assert tuning.told(first)[-1] == f"The model was pushed to the hub as team/b-{short}:1."
    assert tuning.table.to_be_pushed() == []


def test_few_of_many_jobs_are_in_memory(tiny: Backbone, tmp_path: Path) -> None:
    """All are checked before they are queued; of each tenant as many stay as there are slots."""
    tuning = Tuning(tiny, tmp_path / "tuning", slots=2)
    jobs = [tuning.add("d", tenant) for tenant in "aaaab"]
    while tuning.trainer.take_in():
        pass
    assert [tuning.status(job) for job in jobs] == ["queued"] * 5
    assert set(tuning.trainer._ready) == {jobs[0], jobs[1], jobs[4]}


def test_the_threads_train_what_comes(tiny: Backbone, tmp_path: Path) -> None:
    """Started and stopped as in a server, with a job that comes later; the threads end."""
    tuning = Tuning(tiny, tmp_path / "tuning")
    tuning.trainer.start()
    try:
        jobs = [tuning.add("b", epochs=1), tuning.add("d", epochs=1)]
        tuning.trainer.look()
        deadline = time.monotonic() + 300
        while not all(tuning.status(job) == "succeeded" for job in jobs):
            assert time.monotonic() < deadline, [tuning.told(job) for job in jobs]
            time.sleep(0.02)
    finally:
        tuning.trainer.stop()
    assert not {"graftax-intake", "graftax-trainer"} & {thread.name for thread in threading.enumerate()}
    assert tuning.trainer.failure is None


def test_a_paused_job_waits_for_nothing(tuning: Tuning) -> None:
    """Paused before it began, it is read when it is resumed."""
    job = tuning.add("b")
    assert tuning.trainer.take_in()
    tuning.trainer.pause(job)
    tuning.advance()
    assert tuning.status(job) == "paused"
    tuning.trainer.resume(job)
    tuning.advance()
    assert tuning.status(job) == "succeeded"


def test_what_is_saved_as_it_is_is_not_saved_again(tiny: Backbone, tmp_path: Path) -> None:
    """As between two steps that take longer than from one save to the next, and right after a job went on."""
    tuning = Tuning(tiny, tmp_path / "tuning", save_every=0.0)
    job = tuning.add("a", epochs=2)
    tuning.advance(lambda: bool(tuning.trainer._running))
    running = tuning.trainer._running[job]
    for _ in range(2):
        tuning.trainer._save(running)
    tuning.trainer.lay_down()
    again = Tuning(tiny, tmp_path / "tuning", save_every=0.0)
    again.trainer.take_up()
    again.advance(lambda: bool(again.trainer._running))
    for _ in range(2):
        again.trainer._save(again.trainer._running[job])
    again.advance()
    assert again.status(job) == "succeeded"
