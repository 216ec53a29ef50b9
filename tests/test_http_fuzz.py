"""The server is asked what its own description says, and what that rules out: it neither fails nor takes what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cases import fresh, randomised
from http_servers import Served, served, speaker
from hypothesis import HealthCheck, Phase, given, settings
from job_servers import training

from graftax import LoRA
from graftax.models.backbone import Backbone
from graftax.serve.http.limits import Limits
from graftax.serve.http.openapi import BODIES
from graftax.tuning.jobs.asked_job import AskedJob
from graftax.typed import kinds_of

schemathesis = pytest.importorskip("schemathesis")

READS = ["/v1/embeddings", "/classify", "/v1/tag", "/score"]
WRITES = ["/v1/completions", "/v1/chat/completions", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"]
#: Where training is asked for, and what the schemas there are called.
TRAINS = {
    "/v1/fine_tuning/jobs": "AskedJob",
    "/api/v1/create_session": "ToOpen",
    "/api/v1/create_model": "ToCreate",
    "/api/v1/optim_step": "ToStep",
    "/api/v1/asample": "ToSample",
    "/api/v1/load_weights": "ToLoadWeights",
}
STATUSES = {200, 400, 401, 403, 404, 413, 422, 429, 503}


@pytest.fixture(scope="module")
def writer(teller: Backbone) -> Iterator[Served]:
    with served(teller, lanes=4, slots=2, limits=Limits(max_texts=4, max_body=1 << 16)) as there:
        there.service.residents.register("sea", speaker(teller, 1))
        yield there


@pytest.fixture(scope="module")
def reader(tiny: Backbone) -> Iterator[Served]:
    with served(tiny, slots=2, limits=Limits(max_texts=4, max_body=1 << 16)) as there:
        there.service.residents.register("fruit", randomised(fresh(tiny, (LoRA(r=2),), seed=1), 1))
        yield there


@pytest.fixture(scope="module")
def trainer(teller: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with training(teller, tmp_path_factory.mktemp("training"), lanes=4, slots=2, limits=Limits(max_body=1 << 16)) as there:
        yield there.served


def description(server: Served) -> Any:
    return schemathesis.openapi.from_dict(server.ask("GET", "/openapi.json").json())


def test_it_says_what_the_checks_say(writer: Served) -> None:
    """Every path, and of every parameter that there is a schema."""
    said = writer.ask("GET", "/openapi.json").json()
    for path, cls in BODIES.items():
        assert isinstance(cls, type)
        name = said["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
        schema = said["components"]["schemas"][name]
        assert {*kinds_of(cls)} <= schema["properties"].keys()
    completion = said["components"]["schemas"]["Completion"]
    assert completion["required"] == ["model", "prompt"]
    assert completion["properties"]["n"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 128, "default": 1}
    assert completion["properties"]["echo"] == {"enum": [False, None]}
    assert said["paths"]["/v1/completions"]["post"]["summary"] == "A text for each prompt, or `n`; whole, or in pieces."
    assert "/v1/files" not in said["paths"]


def test_it_says_what_a_server_that_trains_says_besides(trainer: Served) -> None:
    said = trainer.ask("GET", "/openapi.json").json()
    paths, schemas = said["paths"], said["components"]["schemas"]
    assert paths["/v1/models/{name}"].keys() == {"parameters", "get", "delete"}
    assert paths["/v1/fine_tuning/jobs"].keys() == {"get", "post"}
    assert paths["/v1/fine_tuning/jobs/{job}/cancel"]["post"]["summary"] == "End a job before its end."
    (form,) = paths["/v1/files"]["post"]["requestBody"]["content"].items()
    assert form[0] == "multipart/form-data"
    assert form[1]["schema"]["required"] == ["file", "purpose"]
    for path, name in TRAINS.items():
        content = paths[path]["post"]["requestBody"]["content"]
        assert content["application/json"] == {"schema": {"$ref": f"#/components/schemas/{name}"}}
    assert {*kinds_of(AskedJob)} <= schemas["AskedJob"]["properties"].keys()
    assert schemas["AskedJob"]["required"] == ["model", "training_file"]
    assert paths["/api/v1/forward_backward"]["post"]["requestBody"]["content"].keys() == {
        "application/json",
        "application/x-protobuf",
    }
    checkpoint = "/api/v1/training_runs/{run}/checkpoints/{folder}/{name}/ttl"
    assert [one["name"] for one in paths[checkpoint]["parameters"]] == ["run", "folder", "name"]
    assert paths["/api/v1/files/{ticket}/{file}"]["get"]["security"] == []


def fuzzed(server: Served, path: str, mode: Any, examples: int) -> None:
    """Ask a path again and again; what is within its schema is answered or refused, what is not is refused."""
    operation = description(server)[path]["POST"]
    phases = (Phase.generate,)
    checks = list(HealthCheck)

    @settings(max_examples=examples, derandomize=True, deadline=None, phases=phases, suppress_health_check=checks)
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        body = case.body
        if isinstance(body, dict) and mode is schemathesis.GenerationMode.POSITIVE:
            body = body | ({"max_tokens": 3} if "completions" in path else {})
            body = body | ({"model": "backbone"} if "model" in body else {})
        answer = server.ask("POST", path, content=written(body), headers={"Content-Type": "application/json"})
        assert answer.status_code in STATUSES, (answer.status_code, body, answer.text)
        if answer.status_code != 200:
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
        elif mode is schemathesis.GenerationMode.NEGATIVE:
            raise AssertionError(f"{path} took {body!r}")

    ask()


def written(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
@pytest.mark.parametrize("path", [*WRITES, *READS])
def test_a_few_of_all_that_can_be_asked(path: str, mode: str, writer: Served, reader: Served) -> None:
    fuzzed(writer if path in WRITES else reader, path, schemathesis.GenerationMode[mode], 15)


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
@pytest.mark.parametrize("path", [*TRAINS])
def test_a_few_of_all_that_can_be_asked_of_training(path: str, mode: str, trainer: Served) -> None:
    fuzzed(trainer, path, schemathesis.GenerationMode[mode], 10)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
@pytest.mark.parametrize("path", [*WRITES, *READS])
def test_many_of_all_that_can_be_asked(path: str, mode: str, writer: Served, reader: Served) -> None:
    fuzzed(writer if path in WRITES else reader, path, schemathesis.GenerationMode[mode], 500)
