"""/v1/fine_tuning/jobs, asked by OpenAI's own client: from rows to the model that answers, and what is refused on the way."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from http_servers import until
from job_servers import Training, training
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from tiny import FRUIT, METAL, write_backbone

from graftax.data.columns import Columns
from graftax.data.sources import Source
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.models.load import load_backbone
from graftax.models.pictures import Pictures
from graftax.serve.http.keys import Key
from graftax.serve.http.limits import Limits
from graftax.tuning.jobs.openai_rows import rows_to_learn
from graftax.tuning.training_settings import TrainingSettings

KEYS = tuple(Key(hashlib.sha256(name.encode()).digest(), admin=name == "eve") for name in ("ann", "bob", "eve"))
CHATS = [{"messages": [{"role": "user", "content": f"{n}+1"}, {"role": "assistant", "content": str(n + 1)}]} for n in range(6)]
TWO_EPOCHS: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}}


@pytest.fixture(scope="module")
def trained(teller: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    with training(teller, tmp_path_factory.mktemp("training"), keys=KEYS) as there:
        yield there


@pytest.fixture
def ann(trained: Training) -> OpenAI:
    return trained.served.openai("ann")


@pytest.fixture
def bob(trained: Training) -> OpenAI:
    return trained.served.openai("bob")


def uploaded(client: OpenAI, rows: Sequence[Mapping[str, Any]], name: str = "rows.jsonl") -> str:
    content = "".join(json.dumps(row) + "\n" for row in rows)
    return client.files.create(file=(name, content.encode()), purpose="fine-tune").id


def of(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


def test_from_chats_to_the_model_that_the_job_names(trained: Training, ann: OpenAI, bob: OpenAI) -> None:
    file = uploaded(ann, CHATS)
    job = ann.fine_tuning.jobs.create(
        model="backbone",
        training_file=file,
        validation_file=uploaded(ann, [{"messages": [ASKED, ANSWER]}]),
        suffix="sums",
        seed=5,
        method=TWO_EPOCHS,
        metadata={"team": "a"},
    )
    assert (job.status, job.model, job.seed, job.training_file) == ("validating_files", "backbone", 5, file)
    assert job.fine_tuned_model is None
    assert job.metadata == {"team": "a"}
    trained.ended(job.id)
    job = ann.fine_tuning.jobs.retrieve(job.id)
    assert (job.status, job.error) == ("succeeded", None)
    assert job.trained_tokens == 2 * len(CHATS) * 23  # <user>0+1</s><assistant>1</s>: bytes, and two tokens that end turns
    assert job.method is not None
    assert job.method.supervised is not None
    numbers = job.method.supervised.hyperparameters
    assert numbers is not None
    assert (numbers.n_epochs, numbers.batch_size, numbers.learning_rate_multiplier) == (2, 4, 1.0)
    assert job.hyperparameters.n_epochs == 2
    model = job.fine_tuned_model
    assert model == f"ft:backbone:graftax:sums:{job.id.removeprefix('ftjob-')[:12]}"
    events = ann.fine_tuning.jobs.list_events(job.id)
    kinds = ["message", "metrics", "metrics", "message", "message", "message"]
    assert [event.type for event in events] == kinds
    assert events.data[0].message == f"The job has succeeded: its model is {model}."
    last: Any = events.data[1].data
    assert (last["epoch"], last["step"]) == (2, 4)
    (results,) = job.result_files
    assert ann.files.retrieve(results).purpose == "fine-tune-results"
    lines = [*csv.DictReader(io.StringIO(ann.files.content(results).text))]
    assert [line["step"] for line in lines] == ["2", "4"]
    assert float(lines[1]["train_loss"]) == last["train_loss"]
    assert float(lines[1]["valid_mean_token_accuracy"]) == last["valid_mean_token_accuracy"]
    (checkpoint,) = ann.fine_tuning.jobs.checkpoints.list(job.id)
    metrics = checkpoint.metrics
    assert (checkpoint.step_number, metrics.step) == (2, 2)
    first: Any = events.data[2].data
    assert metrics.train_loss == first["train_loss"] > last["train_loss"] > 0
    assert None not in (metrics.valid_loss, metrics.full_valid_loss, metrics.valid_mean_token_accuracy)
    assert checkpoint.fine_tuned_model_checkpoint == f"{model}:ckpt-step-2"
    asked: Any = {"messages": CHATS[0]["messages"][:1], "max_tokens": 4, "temperature": 0.0}
    assert model in [one.id for one in ann.models.list()]
    told = ann.chat.completions.create(model=model, **asked)
    assert told.model == model
    assert told.model_extra is not None
    assert told.model_extra["adapter"] == model
    for name in (model, f"0.5*{model}"):  # nobody else has it, knows of it or can delete it
        with pytest.raises(openai.NotFoundError, match="is loaded; loaded are none"):
            bob.chat.completions.create(model=name, **asked)
    assert model not in [one.id for one in bob.models.list()]
    assert model not in trained.served.ask("GET", "/traffic", headers=of("bob")).text
    assert model not in trained.served.ask("GET", "/catalogue", headers=of("bob")).text
    assert model in trained.served.ask("GET", "/catalogue", headers=of("ann")).text
    with ThreadPoolExecutor(1) as threads, trained.served.engine._lock:
        asking = threads.submit(ann.chat.completions.create, model=model, **asked)
        until(lambda: trained.served.engine.waiting)
        seen = [name for name in ("ann", "bob", "eve") if model in trained.served.ask("GET", "/metrics", headers=of(name)).text]
        assert seen == ["ann", "eve"]
    assert asking.result().model == model
    with pytest.raises(openai.NotFoundError):
        bob.models.delete(model)
    with pytest.raises(openai.NotFoundError):
        bob.files.content(results)
    assert ann.files.delete(results).deleted
    assert ann.fine_tuning.jobs.retrieve(job.id).result_files == []
    assert ann.models.delete(model).deleted
    with pytest.raises(openai.NotFoundError):
        ann.chat.completions.create(model=model, **asked)


def test_a_preference_and_what_auto_means(trained: Training, ann: OpenAI) -> None:
    asked = {"messages": [{"role": "user", "content": "hi"}], "tools": [], "parallel_tool_calls": True}
    rows = [
        {
            "input": asked,
            "preferred_output": [{"role": "assistant", "content": "yes"}],
            "non_preferred_output": [{"role": "assistant", "content": "no"}],
        }
    ] * 3
    hyperparameters: Any = {"beta": 0.25, "learning_rate_multiplier": 2.0, "n_epochs": "auto"}
    job = ann.fine_tuning.jobs.create(
        model="backbone",
        training_file=uploaded(ann, rows),
        validation_file=uploaded(ann, rows[:1]),
        method={"type": "dpo", "dpo": {"hyperparameters": hyperparameters}},
        extra_body={"graftax": {"method": [{"name": "lora", "r": 2}, {"name": "ia3"}], "recipe": {"lr": 0.0005}}},
    )
    assert job.method is not None
    assert job.method.dpo is not None
    numbers = job.method.dpo.hyperparameters
    assert numbers is not None
    assert (numbers.beta, numbers.n_epochs, numbers.batch_size, numbers.learning_rate_multiplier) == (0.25, 3, 32, 2.0)
    assert job.model_extra is not None
    said = job.model_extra["graftax"]
    assert said["task"] == "dpo"
    assert said["method"] == [{"name": "lora", "r": 2}, {"name": "ia3"}]
    assert {name: said["recipe"][name] for name in ("lr", "beta", "epochs")} == {"lr": 0.001, "beta": 0.25, "epochs": 3}
    assert trained.ended(job.id).status == "succeeded"
    (note,) = [event for event in ann.fine_tuning.jobs.list_events(job.id) if event.level == "warn"]
    assert "its validation rows are training rows, too" in note.message


def test_a_preference_is_read_the_right_way_round() -> None:
    row = {
        "input": {"messages": [ASKED]},
        "preferred_output": [ANSWER],
        "non_preferred_output": [{**ANSWER, "content": "c"}],
    }
    (read,) = rows_to_learn(Source("a.jsonl", [row]), "dpo", Columns(), ()).rows
    assert read == {"prompt": [ASKED], "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "c"}]}
    for key in row:
        with pytest.raises(GraftaxError, match=f"a.jsonl: row 1: {key} must be"):
            rows_to_learn(Source("a.jsonl", [{**row, key: None}]), "dpo", Columns(), ())
    with pytest.raises(GraftaxError, match="row 1 is a preference without input"):
        rows_to_learn(
            Source("a.jsonl", [{"preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}]), "dpo", Columns(), ()
        )


def test_training_goes_on_from_a_finished_job(trained: Training, ann: OpenAI) -> None:
    file = uploaded(ann, CHATS)
    first = ann.fine_tuning.jobs.create(model="backbone", training_file=file, method=TWO_EPOCHS)
    trained.ended(first.id)
    model = ann.fine_tuning.jobs.retrieve(first.id).fine_tuned_model
    assert model is not None
    second = ann.fine_tuning.jobs.create(model=model, training_file=file, method=TWO_EPOCHS)
    assert second.model == model
    assert second.model_extra is not None
    assert second.model_extra["graftax"]["method"] == []
    assert trained.ended(second.id).status == "succeeded"
    with pytest.raises(openai.BadRequestError, match="is a mix, and training goes on from one adapter"):
        ann.fine_tuning.jobs.create(model=f"0.5*{model}", training_file=file)


def test_a_head_for_classes_of_an_encoder(tmp_path: Path) -> None:
    encoder = load_backbone(write_backbone(tmp_path / "encoder"))
    rows = [
        {"review": f"the shop sells {word}", "kind": kind}
        for kind, words in (("fruit", FRUIT), ("metal", METAL))
        for word in words
    ]
    with training(encoder, tmp_path / "training", TrainingSettings(training_watts=72.0)) as there:
        client = there.served.openai()
        file = uploaded(client, rows)
        with pytest.raises(openai.BadRequestError, match=r"graftax: task 'sft' .* it can do classify"):
            client.fine_tuning.jobs.create(model="encoder", training_file=file)
        asked = {
            "task": "classify",
            "columns": {"text": "review", "label": "kind"},
            "recipe": {"epochs": 20, "lr": 0.01, "batch_size": 4},
        }
        job = client.fine_tuning.jobs.create(model="encoder", training_file=file, seed=1, extra_body={"graftax": asked})
        assert there.ended(job.id).status == "succeeded"
        told: Any = client.fine_tuning.jobs.retrieve(job.id)
        cost, model = told.graftax["cost"], told.fine_tuned_model
        assert cost["energy_wh"] == pytest.approx(cost["seconds"] / 50)  # 72 W for an hour are 72 Wh
        answer = there.served.post("/classify", model=model, input=["the shop sells plum", "the shop sells zinc"]).json()
        assert [one["label"] for one in answer["data"]] == ["fruit", "metal"]


def test_a_folder_is_one_servers(trained: Training, teller: Backbone) -> None:
    """A second one would train the same jobs, and take them from the first."""
    with pytest.raises(GraftaxError, match="another process is training into"), training(teller, trained.folder):
        raise AssertionError("it has begun")


def failed(there: Training, client: OpenAI, rows: Sequence[Mapping[str, Any]], **options: Any) -> FineTuningJob:
    job = client.fine_tuning.jobs.create(model="backbone", training_file=uploaded(client, rows), **options)
    assert there.ended(job.id).status == "failed"
    return client.fine_tuning.jobs.retrieve(job.id)


def test_what_was_made_is_asked_after_a_restart(teller: Backbone, tmp_path: Path) -> None:
    """It is read when somebody does, and not when the server starts: there may be thousands."""
    asked: Any = {"messages": [ASKED], "max_tokens": 4, "temperature": 0.0}
    with training(teller, tmp_path) as there:
        client = there.served.openai()
        job = client.fine_tuning.jobs.create(model="backbone", training_file=uploaded(client, CHATS), seed=5, method=TWO_EPOCHS)
        model = there.ended(job.id).model
        assert model is not None
        said = client.chat.completions.create(model=model, **asked).choices
        listed = {one.id: one for one in client.models.list()}
    with training(teller, tmp_path) as there:
        client, reads = there.served.openai(), there.served.service.residents.tiers
        assert {one.id: one.model_extra for one in client.models.list()}[model]["adapter_digest"] == (
            listed[model].model_extra or {}
        )["adapter_digest"]
        assert (reads().reads, reads().host) == (0, ())
        assert client.chat.completions.create(model=model, **asked).choices == said
        assert reads().reads == 1


def test_an_adapter_that_could_not_be_asked_is_not_trained(teller: Backbone, tmp_path: Path) -> None:
    with training(teller, tmp_path, limits=Limits(max_lora_rank=4)) as there:
        client = there.served.openai()
        for rank, status in ((8, "failed"), (4, "succeeded")):
            asked = {"graftax": {"method": {"name": "lora", "r": rank}, "recipe": {"epochs": 1}}}
            file = uploaded(client, CHATS)
            job = client.fine_tuning.jobs.create(model="backbone", training_file=file, extra_body=asked)
            assert (ended := there.ended(job.id)).status == status
            assert ended.error is None or "rank 8 is greater than max_lora_rank 4" in ended.error.message


def test_an_error_says_which_file_it_is_about(trained: Training, ann: OpenAI) -> None:
    bad = uploaded(ann, [CHATS[0], {"messages": [ASKED]}], "held.jsonl")
    job = failed(trained, ann, CHATS, validation_file=bad)
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_validation_file", "validation_file")
    assert f"held.jsonl ({bad}): row 2 has no message of the assistant" in job.error.message
    job = failed(trained, ann, CHATS, extra_body={"graftax": {"recipe": {"patience": 1}}})
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_job", None)
    assert "patience needs validation rows" in job.error.message


ANSWER = {"role": "assistant", "content": "b"}
ASKED = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [ASKED]}, "has no message of the assistant"),
        ({"messages": [ASKED, {**ANSWER, "weight": 0}]}, "has no message of the assistant that has a weight of 1"),
        ({"messages": [ASKED, {**ANSWER, "weight": 2}]}, "a message has weight 2, which may be 0 or 1"),
        ({"messages": [{**ASKED, "weight": 1}, ANSWER]}, "a message of the user has a weight"),
        ({"messages": [ASKED, ANSWER], "tools": [{"type": "function"}]}, "tools are not supported in training"),
        ({"messages": [ASKED, {"role": "tool", "content": "7"}, ANSWER]}, "is not supported in training"),
        ({"messages": [{"role": "user", "content": "a" * 100}, ANSWER]}, "more than the 96 of max_length"),
        ({"text": "a"}, "has nothing in column 'messages'"),
    ],
)
def test_a_row_that_does_not_fit_fails_its_job_by_its_line(
    trained: Training, ann: OpenAI, row: dict[str, Any], said: str
) -> None:
    job = failed(trained, ann, [CHATS[0], CHATS[1], row])
    assert job.error is not None
    assert re.search(rf"rows\.jsonl \({job.training_file}\): row 3.*{said}", job.error.message), job.error.message
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert not job.fine_tuned_model


def test_an_assistants_message_of_no_weight_is_read_and_not_learnt(teller: Backbone) -> None:
    from test_chats import chat, rows_of, texts

    turns = chat(("user", "1+1"), ("assistant", "2"), ("user", "2+2"), ("assistant", "4"))
    whole = "<user>1+1</s><assistant>2</s><user>2+2</s><assistant>4</s>"
    weighed = [
        [turns[0], {**turns[1], "weight": first}, turns[2], {**turns[3], "weight": last}] for first, last in ((1, 0), (0, 1))
    ]
    assert texts(teller, rows_of(teller, weighed, None)) == [(whole, "2</s>"), (whole, "4</s>")]


def test_rows_of_strangers_name_no_files_of_the_server(trained: Training, ann: OpenAI) -> None:
    def read(value: Any) -> Any:
        return rows_to_learn(Source("a.jsonl", [{"photo": value}]), "image-classify", Columns(image="photo"), Pictures.fields)

    assert read("data:image/png;base64,AAEC").rows == [{"photo": b"\x00\x01\x02"}]
    for path in ("/etc/passwd", {"bytes": None, "path": "/etc/passwd"}):
        with pytest.raises(GraftaxError, match=r"a.jsonl: row 1: a picture .* paths are not read \(column 'photo'\)"):
            read(path)
    with pytest.raises(GraftaxError, match="its data URL is not base64"):
        read("data:image/png;base64,AAE")


@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        ({"model": "nobody"}, "model", "there is no model 'nobody'"),
        ({"training_file": "file-none"}, "training_file", "training_file: there is no file 'file-none'"),
        ({"validation_file": "file-none"}, "validation_file", "validation_file: there is no file 'file-none'"),
        ({"suffix": "a b"}, "suffix", "suffix must be a text, 1 to 64 letters"),
        ({"suffix": "a" * 65}, "suffix", "suffix must be a text, 1 to 64 letters"),
        ({"seed": -1}, "seed", "seed must be a whole number"),
        ({"metadata": {"a": "b" * 513}}, "metadata", "metadata must be"),
        ({"metadata": {str(n): "b" for n in range(17)}}, "metadata", "at most 16"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "a"}}]}, "integrations", "none are supported"),
        ({"tune": 1}, "tune", "no such parameter: tune"),
        ({"method": {"type": "reinforcement"}}, "method", "reinforcement is not trained as a job here"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method", "of type 'supervised' and has settings of 'dpo'"),
        ({"method": {"type": "magic"}}, "method", "method: type must be"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"beta": 1.0}}}},
            "method",
            "method: supervised: hyperparameters: no such key: beta; there are n_epochs, batch_size, learning_rate_multiplier",
        ),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 0}}}},
            "method",
            'n_epochs must be "auto" or a whole number, at least 1',
        ),
        ({"hyperparameters": {"n_epochs": 2}, "method": TWO_EPOCHS}, "hyperparameters", "say them there alone"),
        ({"graftax": {"task": "dance"}}, "graftax", "graftax: unknown task 'dance'"),
        ({"graftax": {"task": "dpo"}, "method": TWO_EPOCHS}, "graftax", "task is 'dpo', and method is of type 'supervised'"),
        ({"graftax": {"task": "image-classify"}}, "graftax", "is about images, and"),
        ({"graftax": {"method": {"name": "lorra"}}}, "graftax", "its name is 'lorra', and must be one of"),
        ({"graftax": {"method": {"name": "lora", "rank": 8}}}, "graftax", "method lora: no such key: rank; there are"),
        ({"graftax": {"method": {"name": "lora", "r": 0}}}, "graftax", "r must be a whole number"),
        ({"graftax": {"method": [{"name": "lora"}, {"name": "lora", "r": 2}]}}, "graftax", "each is another one"),
        ({"graftax": {"recipe": {"rate": 1}}}, "graftax", "no such setting: rate"),
        ({"graftax": {"recipe": {"epochs": 3}}, "method": TWO_EPOCHS}, "graftax", "epochs is what n_epochs says already"),
        ({"graftax": {"recipe": {"chat_template": "{{ 9 ** 99 }}"}}}, "graftax", "chat_template must be one of"),
        ({"graftax": {"columns": {"label": "a"}, "task": "sft", "pack": 1}}, "graftax", "no such key: pack"),
        ({"graftax": {"columns": {"prompt": "a", "completion": "a"}}}, "graftax", "the column 'a' is named as"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(ann: OpenAI, asked: dict[str, Any], param: str, said: str) -> None:
    file = uploaded(ann, CHATS[:1])
    count = len(ann.fine_tuning.jobs.list().data)
    body = {"model": "backbone", "training_file": file, **asked}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        ann.fine_tuning.jobs.create(model=body.pop("model"), training_file=body.pop("training_file"), extra_body=body)
    assert said in refused.value.message, refused.value.message
    assert refused.value.param == param
    assert len(ann.fine_tuning.jobs.list().data) == count


def test_the_older_name_of_hyperparameters(trained: Training, ann: OpenAI) -> None:
    job = ann.fine_tuning.jobs.create(
        model="backbone", training_file=uploaded(ann, CHATS), hyperparameters={"n_epochs": 1, "batch_size": "auto"}
    )
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (1, 32)
    assert trained.ended(job.id).status == "succeeded"


def test_a_seed_that_nobody_says_is_drawn_and_told(ann: OpenAI) -> None:
    file = uploaded(ann, CHATS)
    jobs = [ann.fine_tuning.jobs.create(model="backbone", training_file=file, method=TWO_EPOCHS) for _ in range(2)]
    assert jobs[0].seed != jobs[1].seed


def test_jobs_are_listed_in_pages_by_tenant_and_metadata(trained: Training, bob: OpenAI, ann: OpenAI) -> None:
    with trained.holding():
        file, jobs = uploaded(bob, CHATS), list[str]()
        for metadata in ({"team": "a", "run": "1"}, {"team": "b"}, None, {"team": "a", "run": ""}):
            jobs.append(bob.fine_tuning.jobs.create(model="backbone", training_file=file, metadata=metadata).id)
        assert [job.id for job in bob.fine_tuning.jobs.list(limit=3)] == jobs[::-1]
        first = bob.fine_tuning.jobs.list(limit=3)
        assert (len(first.data), first.has_more) == (3, True)
        assert [job.id for job in bob.fine_tuning.jobs.list(metadata={"team": "a"})] == [jobs[3], jobs[0]]
        assert [job.id for job in bob.fine_tuning.jobs.list(metadata={"team": "a", "run": ""})] == [jobs[3]]
        assert [job.id for job in bob.fine_tuning.jobs.list(extra_query={"metadata": "null"})] == [jobs[2]]
        assert not {job.id for job in ann.fine_tuning.jobs.list(limit=100)} & {*jobs}
        for ask in (ann.fine_tuning.jobs.retrieve, ann.fine_tuning.jobs.cancel, ann.fine_tuning.jobs.checkpoints.list):
            with pytest.raises(openai.NotFoundError, match=f"there is no fine-tuning job '{jobs[0]}'"):
                ask(jobs[0])
        with pytest.raises(openai.BadRequestError, match="after: nothing in this list"):
            ann.fine_tuning.jobs.list(after=jobs[0])
        with pytest.raises(openai.BadRequestError, match="after: nothing in this list"):
            bob.fine_tuning.jobs.list_events(jobs[0], after="ftevent-none")
        for job in jobs:
            assert bob.fine_tuning.jobs.cancel(job).status == "cancelled"


def test_a_job_is_paused_resumed_and_cancelled(trained: Training, ann: OpenAI) -> None:
    with trained.holding():
        job = ann.fine_tuning.jobs.create(model="backbone", training_file=uploaded(ann, CHATS), method=TWO_EPOCHS)
        trained.checked(job.id)
        with pytest.raises(openai.BadRequestError, match=r"only a paused job can be resumed \(status: queued\)"):
            ann.fine_tuning.jobs.resume(job.id)
        assert ann.fine_tuning.jobs.pause(job.id).status == "paused"
        with pytest.raises(openai.BadRequestError, match=r"only a queued or running job can be paused \(status: paused\)"):
            ann.fine_tuning.jobs.pause(job.id)
        assert ann.fine_tuning.jobs.resume(job.id).status == "queued"
        assert ann.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        with pytest.raises(openai.BadRequestError, match=r"it is over \(status: cancelled\)") as refused:
            ann.fine_tuning.jobs.cancel(job.id)
        assert refused.value.code == "invalid_job_state"


def test_there_are_no_permissions_of_checkpoints(ann: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        ann.fine_tuning.checkpoints.permissions.list("ft:backbone:graftax::none")


def test_only_models_of_jobs_are_deleted(ann: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'backbone' that a job has made"):
        ann.models.delete("backbone")
