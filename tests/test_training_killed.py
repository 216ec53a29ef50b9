"""`graftax serve --training` as a process that is killed in the middle of sixteen tenants' jobs, asked by the `openai` client.

On real data (CLINC150) and a real backbone where they are there.
"""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openai
from conftest import MINILM, SHARED, needs_assets
from tiny import command_line, weights_of

from graftax.adapters import LoRA
from graftax.models.backbone import Backbone
from graftax.models.load import load_backbone
from graftax.train import Recipe, train_many
from graftax.tuning.jobs.job_table import JobTable

JOBS, INTENTS, ROWS = 16, 3, 24
COMPARED = 3  # jobs that are trained again alone: first of all those that went on
RECIPE: dict[str, Any] = {"epochs": 6, "batch_size": 8, "lr": 3e-3, "max_length": 32}


@contextmanager
def server(folder: Path) -> Iterator[tuple[subprocess.Popen[str], openai.OpenAI]]:
    """A process that serves and trains, and a client of it."""
    options = ("--port", 0, "--no-warm-up", "--training", folder, "--save-every", 0.2)
    with subprocess.Popen(command_line("serve", "-b", MINILM, *options), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, openai.OpenAI(base_url=process.stdout.readline().split()[-1], api_key="none", max_retries=0)
        finally:
            process.kill()


def some_rows(job: int) -> list[dict[str, str]]:
    """A domain of a few intents of CLINC150, other ones for each job."""
    by_intent: dict[str, list[dict[str, str]]] = {}
    with (SHARED / "data" / "clinc150" / "train.csv").open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            by_intent.setdefault(row["label"], []).append({"text": row["text"], "label": row["label"]})
    own = [by_intent[intent][: ROWS // INTENTS] for intent in sorted(by_intent.keys() - {"oos"})[INTENTS * job :][:INTENTS]]
    return [row for turn in zip(*own, strict=True) for row in turn]


def asked_for(client: openai.OpenAI, job: int) -> str:
    """Upload rows and make a job of them; its id."""
    lines = "".join(json.dumps(row) + "\n" for row in some_rows(job))
    file = client.files.create(file=(f"domain{job}.jsonl", lines.encode()), purpose="fine-tune")
    settings = {"task": "classify", "method": {"name": "lora", "r": 4}, "recipe": RECIPE}
    made = client.fine_tuning.jobs.create(
        model=MINILM.name, training_file=file.id, seed=job, suffix=f"domain{job}", extra_body={"graftax": settings}
    )
    assert made.status == "validating_files"
    return made.id


def until(true: Callable[[], bool], seconds: float = 500) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def weights_alone(backbone: Backbone, job: int, width: int, folder: Path) -> dict[str, np.ndarray]:
    """What `train_many` makes of a job in a pack as wide, beside copies of itself under other seeds."""
    names = [f"copy{other}" for other in range(width)]
    each = {name: {"seed": job + 1000 * other} for other, name in enumerate(names)}
    settings: dict[str, Any] = {"method": LoRA(r=4), "recipe": Recipe(**RECIPE), "pack_size": width, "progress": False}
    train_many(backbone, dict.fromkeys(names, some_rows(job)), folder, each=each, **settings)
    return weights_of(folder / "copy0")


@needs_assets
def test_a_kill_in_the_middle_of_sixteen_jobs(tmp_path: Path) -> None:
    """Each comes to the bytes of a run of its own that nobody disturbed, and answers by the name that its job says."""
    folder = tmp_path / "training"
    with server(folder) as (process, client):
        ids = [asked_for(client, job) for job in range(JOBS)]

        def states() -> list[str]:
            return [job.status for job in client.fine_tuning.jobs.list(limit=50)]

        def saved() -> int:
            """How many jobs have a state on the disk that is whole: others have names that are no numbers."""
            return len({path.parent for path in (folder / "states").glob("*/*") if path.name.isdigit()})

        until(lambda: "succeeded" in states() and saved() > 2)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert JobTable(folder / "jobs.sqlite").not_over()
    with server(folder) as (process, client):
        until(lambda: all(client.fine_tuning.jobs.retrieve(job).status == "succeeded" for job in ids))
        for number, job in enumerate(ids):
            events = [event.message for event in client.fine_tuning.jobs.list_events(job, limit=50)]
            assert sum(message.startswith("Epoch 1 of 6") for message in events) == 1, events
            model = client.fine_tuning.jobs.retrieve(job).fine_tuned_model
            row = some_rows(number)[0]
            said = client.post("/classify", body={"model": model, "input": [row["text"]]}, cast_to=dict[str, Any])
            assert {said["data"][0]["label"]} <= {other["label"] for other in some_rows(number)}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 0
    backbone, table = load_backbone(MINILM), JobTable(folder / "jobs.sqlite")
    went_on = {job for job in ids if any(event.message.startswith("The training goes on") for event in table.events(job, 99))}
    assert went_on
    for job in sorted(ids, key=lambda job: job not in went_on)[:COMPARED]:
        record = table.job(job)
        assert record is not None
        assert record.pack_size is not None
        whole = weights_alone(backbone, ids.index(job), record.pack_size, tmp_path / job)
        assert weights_of(folder / "models" / job) == whole, record
