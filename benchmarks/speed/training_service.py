"""Training as a service: tenants' jobs at a server, against one process of PEFT's for each; and what serving feels of it.

    python benchmarks/speed/training_service.py [jobs] [latency] [answer] [--tasks N] [--epochs N] [--repeats N]

`jobs`: sixteen tenants bring a task each (`many.py`: nine intents of CLINC150, 200 rows, five epochs; MiniLM, LoRA of rank 8 on
query and value, batches of 32) to a `graftax serve --training` that runs already, through OpenAI's client; measured is from the
first upload until the last model is there and has answered. PEFT trains the same one after the other, each in a process of its
own, as one does without a server. Once with an empty cache of compiled programs, and then with a full one.

`latency`: the same server classifies, without and with endless jobs; medians of requests, taking turns. Training has half
of the time, so half of what the server can is left, and it is asked for half of that: a quarter of its requests a second.

`answer`: from the end of a job's last step until its model has answered, in one process without HTTP, against 100 ms.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import MINILM, ROOT, Work, Worker, report, row, summary
from many import INTENTS, LR, tasks
from served import Server, asked, written_minilm

sys.path.insert(0, str(ROOT))

from graftax.serve.loadtest.load_run import Rate
from graftax.serve.loadtest.workload import Workload

_POLL = 0.5  # seconds between two looks at the jobs: who looks all the time is served all the time
_UNDER_WAY = ("validating_files", "queued", "running")
EXTRA = {"task": "classify", "method": {"name": "lora", "r": 8}}


def peft(name: str, count: int, epochs: int, out: str) -> Work:
    """One task in a process of its own, to its saved adapter and a first answer."""
    import torch
    from peft import get_peft_model
    from torch_loop import accuracy, base_model, fit, lora

    rows = tasks("train", count, False)[name]
    base, tokenizer = base_model(INTENTS)
    names = sorted({one["label"] for one in rows})
    torch.manual_seed(0)
    model = get_peft_model(base, lora())
    labels = [names.index(one["label"]) for one in rows]
    fit(model, tokenizer, [one["text"] for one in rows], labels, epochs=epochs, lr=LR, grouped=False)
    model.save_pretrained(str(Path(out) / name))
    accuracy(model, tokenizer, [rows[0]["text"]], labels[:1])
    yield {}


def server(folder: str, *options: str) -> Server:
    """A server that trains; compiled programs are kept in the folder."""
    environment = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
    os.environ.update(environment)
    command = [sys.executable, "-m", "graftax", "serve", "-b", MINILM, "--port", "0", "--training", f"{folder}/training"]
    return Server([*command, *options])


def client(url: str) -> Any:
    import openai

    return openai.OpenAI(base_url=url, api_key="none")


def job(asks: Any, name: str, rows: list[dict[str, str]], epochs: int) -> str:
    """Upload a task's rows and make a job of them; its id."""
    lines = "".join(json.dumps(one) + "\n" for one in rows)
    file = asks.files.create(file=(f"{name}.jsonl", lines.encode()), purpose="fine-tune")
    made = asks.fine_tuning.jobs.create(
        model=asks.models.list().data[0].id,
        training_file=file.id,
        suffix=name,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": 32}}},
        extra_body={"graftax": {**EXTRA, "recipe": {"lr": LR, "schedule": "linear", "warmup": 0.06}}},
    )
    return str(made.id)


def jobs(count: int, epochs: int, url: str) -> tuple[float, dict[str, float]]:
    """Seconds until all jobs of all tenants are done and their models have answered; and how well they do, by task."""
    asks, rows, test = client(url), tasks("train", count, False), tasks("test", count, False)
    began = time.perf_counter()
    ids = {name: job(asks, name, own, epochs) for name, own in rows.items()}
    models: dict[str, str] = {}
    while len(models) < count:
        time.sleep(_POLL)
        ended = {found.id: found for found in asks.fine_tuning.jobs.list(limit=count) if found.status not in _UNDER_WAY}
        for name, id_ in ids.items():
            if name not in models and id_ in ended:
                assert ended[id_].status == "succeeded", ended[id_].error
                models[name] = ended[id_].fine_tuned_model
                classify(url, models[name], [rows[name][0]["text"]])
    seconds = time.perf_counter() - began
    right = {}
    for name, model in models.items():
        said = classify(url, model, [one["text"] for one in test[name]])
        right[name] = statistics.mean(answer == one["label"] for answer, one in zip(said, test[name], strict=True))
    return seconds, right


def classify(url: str, model: str, texts: list[str]) -> list[str]:
    import httpx2

    said = httpx2.post(f"{url}/classify", json={"model": model, "input": texts}, timeout=600)
    said.raise_for_status()
    return [one["label"] for one in said.json()["data"]]


def measure_jobs(count: int, epochs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        theirs = 0.0
        for name in tasks("train", count, False):
            worker = Worker(peft, name=name, count=count, epochs=epochs, out=folder)
            worker.close()
            theirs += worker.ready["seconds"]
        for cache in ("an empty", "a full"):
            with server(folder) as serves:
                seconds, right = jobs(count, epochs, serves.url)
                numbers = {"seconds": seconds, "peak_mb": serves.peak_mb()}
            what = f"{count} tenants' jobs of 200 rows and {epochs} epochs at a server, {cache} compilation cache, / PEFT"
            note = f"PEFT a process for each job; mean accuracy {statistics.mean(right.values()):.1%}; one run"
            report(row(what, summary([(numbers, {"seconds": theirs, "peak_mb": worker.ready["peak_mb"]})]), note))


# -- latency ------------------------------------------------------------------------------------------------------------------


def endless(url: str, count: int) -> list[str]:
    """Jobs that last longer than whatever is measured beside them; when all of them have begun."""
    asks = client(url)
    ids = [job(asks, name, rows, 10_000) for name, rows in tasks("train", count, False).items()]
    while sum(asks.fine_tuning.jobs.retrieve(id_).status == "running" for id_ in ids) < count:
        time.sleep(0.2)
    time.sleep(20)  # until what they need is compiled
    return ids


def steps(url: str, ids: list[str]) -> int:
    """How many steps jobs have taken."""
    asks = client(url)
    return sum(asks.fine_tuning.jobs.retrieve(id_).model_extra["graftax"]["cost"]["steps"] for id_ in ids)


def measure_latency(repeats: int, seconds: float) -> None:
    """One server, and jobs of two tenants that are paused and gone on with between the runs of a load test."""
    with tempfile.TemporaryDirectory() as folder:
        adapters = written_minilm(Path(folder))
        named = [part for name, directory in adapters.items() for part in ("-a", f"{name}={directory}")]
        with server(folder, *named, "--slots", "40") as serves:
            # models are named, for the server's list has the jobs' own as well, of which old ones go
            how: dict[str, Any] = {"kinds": ["classify"], "workload": Workload(words=(4, 10)), "models": list(adapters)[:16]}
            capacity = asked(serves, 9, seconds, **how)["requests_per_second"]
            asks, ids, pairs, taken = client(serves.url), endless(serves.url, 2), [], list[float]()
            for seed in range(repeats):
                before, began = steps(serves.url, ids), time.perf_counter()
                beside = asked(serves, seed, seconds, **how, rate=Rate(capacity / 4))
                taken.append((steps(serves.url, ids) - before) / (time.perf_counter() - began))
                for id_ in ids:
                    asks.fine_tuning.jobs.pause(id_)
                time.sleep(2)
                alone = asked(serves, seed, seconds, **how, rate=Rate(capacity / 4))
                for id_ in ids:
                    asks.fine_tuning.jobs.resume(id_)
                time.sleep(5)
                medians = [said["latency_ms"]["median"] / 1e3 for said in (beside, alone)]
                print(f"  seed {seed}: {medians[0] * 1e3:.1f} / {medians[1] * 1e3:.1f} ms, {taken[-1]:.1f} steps/s", flush=True)
                pairs.append(tuple({"seconds": median, "peak_mb": serves.peak_mb()} for median in medians))
    taken_steps = f"{statistics.median(taken):.1f} steps of 32 rows a second"
    note = f"both columns graftax; a quarter of the {capacity:.0f} requests/s that it can alone, {taken_steps}"
    report(row("serve, MiniLM: median latency of classes while two jobs train, against none", summary(pairs), note))


# -- the first answer ---------------------------------------------------------------------------------------------------------


def first_answers(folder: str, repeats: int) -> Work:
    """Jobs one after another; of each the seconds from its last step until its model has answered."""
    import graftax
    from graftax.serve.http.serving import make_service
    from graftax.tuning.device_time import DeviceTime
    from graftax.tuning.jobs.job_record import JobRecord, JobRequest
    from graftax.tuning.jobs.job_table import UploadedFile, new_job_id
    from graftax.tuning.training_endpoints import training_endpoints

    service = make_service(graftax.load_backbone(MINILM))
    brought: Any = training_endpoints(service, Path(folder) / "training", DeviceTime())
    jobs = brought[-1]._jobs  # of `FineTuning`: its trainer is let advance by hand
    last_step: list[float] = []
    end_epoch = jobs.trainer._end_epoch

    def noted(one: Any) -> None:
        last_step.append(time.perf_counter())
        end_epoch(one)

    jobs.trainer._end_epoch = noted
    for name, rows in list(tasks("train", repeats + 2, False).items()):  # of the first two programs are compiled
        lines = "".join(json.dumps(one) + "\n" for one in rows).encode()
        file: UploadedFile = jobs.uploads.keep(io.BytesIO(lines), name=name, purpose="fine-tune", tenant=None)
        recipe = {"epochs": 1, "batch_size": 32, "seed": 0}
        asked_for = JobRequest(service.name, file.id, None, "classify", [EXTRA["method"]], recipe, {}, suffix=name)
        jobs.table.add(record := JobRecord(new_job_id(), None, asked_for, "validating_files", int(time.time())))
        while jobs.table.job(record.id).model is None:
            jobs.trainer.take_in()
            jobs.trainer.train()
        service.predictor.predict([rows[0]["text"]], jobs.table.job(record.id).model)
        yield {"seconds": time.perf_counter() - last_step[-1]}


def measure_first_answer(repeats: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(first_answers, folder=folder, repeats=repeats)
        worker.step()
        limit = {"seconds": 0.1, "peak_mb": 0.0}
        found = summary([(worker.step(), limit) for _ in range(repeats)])
        worker.close()
    report(row("from a job's last step to its model's first answer, MiniLM, against the limit", found, "in one process"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["jobs", "latency", "answer"])
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each run of a load test")
    args = parser.parse_args()
    if "jobs" in args.what:
        measure_jobs(args.tasks, args.epochs)
    if "latency" in args.what:
        measure_latency(args.repeats, args.seconds)
    if "answer" in args.what:
        measure_first_answer(args.repeats)
