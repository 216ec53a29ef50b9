"""Training loops through the public `tinker` client, unmodified, against a server on loopback."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import tinker
import zstandard
from http_servers import Served, until
from job_servers import training
from peft_loops import PeftLoop
from tinker import types
from tinker.cli.commands.checkpoint import _download_checkpoint
from tinker_clients import client_of, datum, prompt, training_server

from graftax import Adapter, Sampling, load_adapter, save_adapter
from graftax.models.backbone import Backbone
from graftax.serve.http.keys import Key
from graftax.serve.http.limits import Limits
from graftax.serve.http.quotas import TrainingQuota
from graftax.tuning.jobs.job_table import JobTable
from graftax.tuning.tinker.tinker_api import TinkerApi

TEXTS = [[1, 5, 6, 7, 8, 9], [1, 20, 21, 22]]
ATTENTION: Any = {"train_mlp": False, "train_unembed": False}
ADAM = types.AdamParams(learning_rate=2e-2)


@pytest.fixture(autouse=True)
def without_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_TELEMETRY", "0")


@pytest.fixture(scope="module")
def running(teller: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, TinkerApi]]:
    limits = Limits(max_body=60_000, max_texts=8)
    with training_server(teller, tmp_path_factory.mktemp("kept"), lanes=4, slots=4, limits=limits) as there:
        yield there


@pytest.fixture(scope="module")
def server(running: tuple[Served, TinkerApi]) -> Served:
    return running[0]


@pytest.fixture(scope="module")
def api(running: tuple[Served, TinkerApi]) -> TinkerApi:
    return running[1]


@pytest.fixture
def client(server: Served) -> Iterator[tinker.ServiceClient]:
    made = client_of(server)
    yield made
    made.close("success").result()


@pytest.fixture
def rest(server: Served) -> tinker.RestClient:
    return tinker.RestClient(base_url=server.url, api_key="tml-none")


def learn(model: tinker.TrainingClient, texts: Sequence[Sequence[int]] = TEXTS) -> Any:
    """One step as loops are written: both calls are sent before either is waited for."""
    gradient = model.forward_backward([datum(text) for text in texts], "cross_entropy")
    step = model.optim_step(ADAM)
    step.result()
    return gradient.result()


def by_peft(teller_dir: Path, adapter: Path, texts: Sequence[Sequence[int]], steps: int) -> list[float]:
    """The losses of the same loop in torch, of an adapter's files as PEFT reads them."""
    loop, data = PeftLoop(teller_dir, adapter), [datum(text) for text in texts]
    return [loop.learn(data, "cross_entropy", ADAM.learning_rate) for _ in range(steps)]


def greedy(server: Served, adapter: Adapter, ids: Sequence[int], count: int) -> list[int]:
    """What an adapter writes behind a prompt, asked without Tinker's API."""
    handle, _ = server.service.residents.handle("own", adapter)
    assert server.service.generator is not None
    writing = server.service.generator.begin(list(ids), handle, Sampling(max_new_tokens=count))
    server.service.rounds.wake()
    until(lambda: writing.hear()[1] is not None)
    return list(writing.tokens)


def test_two_loops_of_different_ranks_train_and_sample_at_once(
    client: tinker.ServiceClient, server: Served, api: TinkerApi, teller: Backbone, teller_dir: Path, tmp_path: Path
) -> None:
    """Each to the losses of a loop in torch and PEFT; and each samples what its own adapter says, as likely as that says."""
    first = client.create_lora_training_client("backbone", rank=2, seed=3, **ATTENTION)
    second = client.create_lora_training_client("backbone", rank=16, seed=5, train_attn=False, train_unembed=False)
    models = [first.result(), second.result()]
    texts = (TEXTS, TEXTS[:1])
    begun = [tmp_path / "thin", tmp_path / "wide"]
    for model, directory in zip(models, begun, strict=True):
        save_adapter(api.tinker.loops.adapter(model.model_id), directory, teller)
    losses: list[list[float]] = [[], []]
    for _ in range(3):
        futures = [
            (model.forward_backward([datum(text) for text in own], "cross_entropy"), model.optim_step(ADAM))
            for model, own in zip(models, texts, strict=True)
        ]
        for told, (gradient, step) in zip(losses, futures, strict=True):
            told.append(gradient.result().metrics["loss:sum"])
            assert step.result().metrics["grad_norm"] > 0
    for told, directory, own in zip(losses, begun, texts, strict=True):
        assert told == pytest.approx(by_peft(teller_dir, directory, own, 3), abs=1e-4)
    assert losses[0][2] < losses[0][0] - 5

    samplers = [model.save_weights_and_get_sampling_client().result() for model in models]
    how = types.SamplingParams(max_tokens=6, temperature=0.0)
    asked = [sampler.sample(prompt([1, 5, 6]), 1, how) for sampler in (*samplers, *samplers)]
    said = [future.result().sequences[0] for future in asked]
    assert said[0].tokens != said[1].tokens
    for model, own in zip(models, said, strict=False):
        adapter = api.tinker.loops.adapter(model.model_id)
        assert own.tokens == greedy(server, adapter, [1, 5, 6], 6)
        text = [1, 5, 6, *own.tokens]
        read = model.forward([datum(text)], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].data
        assert own.logprobs == pytest.approx(read[2:], abs=1e-4)


def test_what_is_saved_goes_on_where_it_was(client: tinker.ServiceClient, rest: tinker.RestClient, api: TinkerApi) -> None:
    """With what the optimizer remembers to the same losses, without it to others."""
    model = client.create_lora_training_client("backbone", rank=4, seed=1, user_metadata={"of": "me"}, **ATTENTION).result()
    learn(model)
    path = model.save_state("one", user_metadata={"at": "1"}, ttl_seconds=3600).result().path
    assert path == f"tinker://{model.model_id}/weights/one"
    losses = [learn(model).metrics["loss:sum"] for _ in range(2)]
    again = client.create_training_client_from_state_with_optimizer(path).result()
    assert (again.get_info().lora_rank, again.model_id != model.model_id) == (4, True)
    assert [learn(again).metrics["loss:sum"] for _ in range(2)] == pytest.approx(losses, abs=1e-5)
    fresh = client.create_training_client_from_state(path).result()
    begun = [learn(fresh).metrics["loss:sum"] for _ in range(2)]
    assert begun[0] == pytest.approx(losses[0], abs=1e-5)
    assert abs(begun[1] - losses[1]) > 1e-3
    with pytest.warns(FutureWarning, match="DEPRECATED"):
        model.load_state_with_optimizer(path).result()
    assert learn(model).metrics["loss:sum"] == pytest.approx(losses[0], abs=1e-5)

    with pytest.raises(tinker.RequestFailedError, match="weights/one exists already"):
        model.save_state("one").result()
    model.save_state("one", overwrite=True).result()
    model.save_weights_for_sampler("two").result()
    kept = rest.list_checkpoints(model.model_id).result().checkpoints
    assert [one.checkpoint_id for one in kept] == ["sampler_weights/two", "weights/one"]
    assert [(one.checkpoint_type, one.expires_at, one.user_metadata) for one in kept] == [
        ("sampler", None, None),
        ("training", None, None),
    ]
    run = rest.get_training_run(model.model_id).result()
    assert (run.lora_rank, run.user_metadata, run.base_model) == (4, {"of": "me"}, "backbone")
    assert (run.last_checkpoint, run.last_sampler_checkpoint) == (kept[1], kept[0])
    info = rest.get_weights_info_by_tinker_path(path).result()
    assert (info.base_model, info.lora_rank, info.train_mlp, info.train_attn) == ("backbone", 4, False, True)
    with pytest.raises(tinker.RequestFailedError, match="sampler_weights/two has no state of an optimizer"):
        client.create_training_client_from_state_with_optimizer(kept[0].tinker_path).result()


def test_checkpoints_are_handed_out_kept_and_removed(
    client: tinker.ServiceClient, rest: tinker.RestClient, server: Served, api: TinkerApi, teller: Backbone, tmp_path: Path
) -> None:
    model = client.create_lora_training_client("backbone", rank=2, **ATTENTION).result()
    learn(model)
    path = model.save_weights_for_sampler("two", ttl_seconds=7200).result().path
    (kept,) = rest.list_checkpoints(model.model_id).result().checkpoints
    assert kept.expires_at is not None
    assert (kept.expires_at - kept.time).total_seconds() == pytest.approx(7200, abs=2)

    where = f"/api/v1/training_runs/{model.model_id}/checkpoints/sampler_weights/two"
    redirect = server.ask("GET", f"{where}/archive")
    assert (redirect.status_code, "GMT" in redirect.headers["expires"]) == (302, True)
    with tarfile.open(fileobj=io.BytesIO(server.ask("GET", redirect.headers["location"]).content)) as tar:
        tar.extractall(tmp_path / "two", filter="data")
    assert (tmp_path / "two" / "adapter_config.json").is_file()
    got, own = load_adapter(tmp_path / "two", teller), api.tinker.loops.adapter(model.model_id)
    for site, (trainable, _) in own.states["lora"].items():
        np.testing.assert_array_equal(got.states["lora"][site][0]["b"], trainable["b"])

    with pytest.raises(tinker.PermissionDeniedError, match="its tenant's alone"):
        rest.publish_checkpoint_from_tinker_path(path).result()
    rest.set_checkpoint_ttl_from_tinker_path(path, None).result()
    assert rest.list_checkpoints(model.model_id).result().checkpoints[0].expires_at is None
    assert path in [one.tinker_path for one in rest.list_user_checkpoints().result().checkpoints]
    sampler = client.create_sampling_client(model_path=path).result()
    assert sampler.get_base_model() == "backbone"
    rest.delete_checkpoint_from_tinker_path(path).result()
    assert rest.list_checkpoints(model.model_id).result().checkpoints == []
    with pytest.raises(tinker.NotFoundError, match="there is no checkpoint"):
        client.create_sampling_client(model_path=path).result()
    with pytest.raises(tinker.NotFoundError, match="is no checkpoint's address"):
        client.create_sampling_client(model_path="tinker://../weights/two").result()


def test_texts_end_where_they_are_to(client: tinker.ServiceClient, server: Served) -> None:
    """At a stop token or text, which belong to them; texts of one call draw from seeds that follow."""
    sampler = client.create_sampling_client(base_model="backbone").result()
    how = {"max_tokens": 8, "temperature": 0.0}

    def sample(count: int = 1, told: int = 0, **more: Any) -> Any:
        given: Any = how | more
        return sampler.sample(prompt([1, 40, 41]), count, types.SamplingParams(**given), topk_sample_logprobs=told).result()

    (whole,) = sample(told=3).sequences
    assert (whole.stop_reason, len(whole.tokens), len(whole.logprobs)) == ("length", 8, 8)
    assert [row[0][0] for row in whole.topk_logprobs] == whole.tokens  # the likeliest are what greedy search takes
    assert [row[0][1] for row in whole.topk_logprobs] == pytest.approx(whole.logprobs, abs=1e-6)
    stop = whole.tokens[2]
    (cut,) = sample(stop=[stop]).sequences
    assert (cut.stop_reason, cut.tokens) == ("stop", whole.tokens[: whole.tokens.index(stop) + 1])
    assert cut.logprobs == pytest.approx(whole.logprobs[: len(cut.tokens)], abs=1e-5)
    drawn = {"temperature": 1.0, "top_p": 0.95, "top_k": 50}
    both = [one.tokens for one in sample(2, seed=8, **drawn).sequences]
    assert [both[1]] == [one.tokens for one in sample(1, seed=9, **drawn).sequences]
    assert both[0] != both[1]
    assert sample(seed=-(1 << 62), **drawn).sequences[0].tokens  # any whole number is a seed
    assert sample(2).sequences[0].sequence_id != whole.sequence_id
    for wrong, said in [({"stop": []}, "would go on behind"), ({"max_tokens": 200}, "more than the 96 of the context")]:
        with pytest.raises(tinker.BadRequestError, match=said):
            sample(**wrong)
    with pytest.raises(tinker.BadRequestError, match=r"num_samples: more than 8"):
        sample(9)


def test_how_likely_a_prompt_was(client: tinker.ServiceClient) -> None:
    """As a gradient's `logprobs` say it of the same text, of the sampler's adapter and of the base; and only of its end."""
    model = client.create_lora_training_client("backbone", rank=2, seed=4, **ATTENTION).result()
    begun = model.forward([datum(TEXTS[0])], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].data
    learn(model)
    learnt = model.forward([datum(TEXTS[0])], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].data
    sampler = model.save_weights_and_get_sampling_client().result()
    base = client.create_sampling_client(base_model="backbone").result()
    asked = [one.compute_logprobs(prompt(TEXTS[0])) for one in (sampler, base)]
    for future, expected in zip(asked, (learnt, begun), strict=True):
        first, *others = future.result()
        assert (first, others) == (None, pytest.approx(expected, abs=1e-4))
    end = base.compute_logprobs(prompt(TEXTS[0]), prompt_logprobs_last_n=2).result()
    assert end == [None, None, None, None, *[pytest.approx(one, abs=1e-4) for one in begun[-2:]]]
    how = types.SamplingParams(max_tokens=1, temperature=0.0)
    told = base.sample(prompt(TEXTS[0]), 1, how, include_prompt_logprobs=True, topk_prompt_logprobs=3, topk_sample_logprobs=3)
    rows = told.result().topk_prompt_logprobs
    assert (rows[0], [len(row) for row in rows[1:]]) == (None, [3] * 5)
    assert all(row == sorted(row, key=lambda pair: -pair[1]) for row in rows[1:])
    # what comes behind a part of the text is told of that part's end as of the whole's middle
    part = base.sample(prompt(TEXTS[0][:3]), 1, how, topk_sample_logprobs=3).result().sequences[0].topk_logprobs[0]
    assert [token for token, _ in part] == [token for token, _ in rows[3]]
    assert [one for _, one in part] == pytest.approx([one for _, one in rows[3]], abs=1e-4)
    with pytest.raises(tinker.BadRequestError, match="fewer than the prompt has tokens"):
        base.compute_logprobs(prompt(TEXTS[0]), prompt_logprobs_last_n=6).result()


def test_losses_of_ones_own_and_of_rl(client: tinker.ServiceClient) -> None:
    """What a client differentiates itself is the gradient: the same loss as cross entropy moves a model alike."""
    twins = [client.create_lora_training_client("backbone", rank=2, seed=4, **ATTENTION).result() for _ in range(2)]
    data = [datum(text) for text in TEXTS]

    def nll(data: Any, logprobs: Any) -> Any:
        return -sum(one.sum() for one in logprobs), {"seen": float(len(logprobs))}

    said = twins[0].forward_backward_custom(data, nll)
    steps = [
        twins[0].optim_step(ADAM),
        (plain := twins[1].forward_backward(data, "cross_entropy")) and twins[1].optim_step(ADAM),
    ]
    for step in steps:
        step.result()
    assert said.result().metrics["loss:sum"] == pytest.approx(plain.result().metrics["loss:sum"], abs=1e-4)
    after = [twin.forward(data, "cross_entropy").result() for twin in twins]
    assert after[0].metrics["loss:sum"] == pytest.approx(after[1].metrics["loss:sum"], abs=1e-4)
    assert after[0].metrics["loss:sum"] < plain.result().metrics["loss:sum"]

    advantages = [np.full(len(text) - 1, sign, np.float32) for text, sign in zip(TEXTS, (1.0, -0.5), strict=True)]
    told = [np.asarray(one["logprobs"].data, np.float32) for one in after[0].loss_fn_outputs]
    rl = [
        types.Datum(
            model_input=one.model_input,
            loss_fn_inputs={"target_tokens": one.loss_fn_inputs["target_tokens"], "logprobs": old, "advantages": good},
        )
        for one, old, good in zip(data, told, advantages, strict=True)
    ]
    for loss in ("importance_sampling", "ppo", "cispo"):  # behind no step the ratio is 1
        expected = {"cispo": -sum((old * good).sum() for old, good in zip(told, advantages, strict=True))}
        plainly_said = expected.get(loss, -sum(float(good.sum()) for good in advantages))
        assert twins[0].forward(rl, loss).result().metrics["loss:sum"] == pytest.approx(plainly_said, abs=1e-3)


def test_what_is_wrong_is_said_and_the_loop_goes_on(client: tinker.ServiceClient, server: Served) -> None:
    with pytest.raises(tinker.BadRequestError, match="this server has 'backbone', and no 'other'"):
        client.create_lora_training_client("other").result()
    with pytest.raises(tinker.BadRequestError, match=r"graftax_method: .*nonsense"):
        client.create_lora_training_client("backbone", user_metadata={"graftax_method": "nonsense"}).result()
    model = client.create_lora_training_client("backbone", rank=2, seed=4, **ATTENTION).result()
    learn(model)
    before = model.forward([datum(TEXTS[0])], "cross_entropy").result().metrics["loss:sum"]
    refused: list[tuple[types.Datum, Any, str]] = [
        (datum(TEXTS[0], weights=np.full(5, np.nan, np.float32)), "cross_entropy", "finite|nan|NaN"),
        (datum([1, 5000, 3]), "cross_entropy", "5,?000"),
        (datum(TEXTS[0], weights=np.ones(4, np.float32)), "cross_entropy", "weights"),
        (datum(TEXTS[0]), "gspo", "gspo"),
    ]
    for wrong, loss, said in refused:
        with pytest.raises(tinker.RequestFailedError, match=said) as failed:
            model.forward_backward([wrong], loss).result()
        assert failed.value.category == types.RequestErrorCategory.User
    with pytest.raises(tinker.RequestFailedError, match="beta1"):
        model.optim_step(types.AdamParams(beta1=2.0)).result()
    with pytest.raises(tinker.RequestFailedError, match="is no checkpoint's address"):
        model.save_state("../up").result()
    with pytest.raises(tinker.BadRequestError, match="kind: samplers here are snapshots"):  # what follows does not wait for it
        model.save_weights_and_get_sampling_client(kind="inflight").result()
    with pytest.raises(tinker.BadRequestError, match="learning_rate"):
        model.optim_step(types.AdamParams(learning_rate=float("nan"))).result()
    assert model.forward([datum(TEXTS[0])], "cross_entropy").result().metrics["loss:sum"] == pytest.approx(before, abs=1e-6)


def test_a_model_that_cannot_be_made_leaves_nothing(client: tinker.ServiceClient, server: Served, api: TinkerApi) -> None:
    """The call sent again is the same promise; another number is another model."""
    session = client.holder.get_session_id()
    body: dict[str, Any] = {"session_id": session, "model_seq_id": 7, "base_model": "backbone"}
    body |= {"user_metadata": {"graftax_method": "adalora"}}  # which no loop can train
    names = set(api.tinker.loops.names)
    answers = [asked(server, "create_model", **body).json() for _ in range(2)]
    assert answers[0] == answers[1]
    failed = asked(server, "retrieve_future", request_id=answers[0]["request_id"]).json()
    assert (failed["category"], "adalora" in failed["error"]) == ("user", True)
    assert asked(server, "create_model", **body).json() == answers[0]
    assert asked(server, "get_info", model_id=f"{session}:train:7").status_code == 404
    assert set(api.tinker.loops.names) == names


def asked(server: Served, path: str, **body: Any) -> Any:
    return server.post(f"/api/v1/{path}", **body)


def test_a_call_that_is_sent_again_is_done_once(client: tinker.ServiceClient, server: Served) -> None:
    """And calls that come in another order are done in their own."""
    model = client.create_lora_training_client("backbone", rank=2, seed=4, **ATTENTION).result()
    (whole,) = [learn(model).metrics["loss:sum"]]
    other = client.create_lora_training_client("backbone", rank=2, seed=4, **ATTENTION).result()
    name = other.model_id
    text = {"chunks": [{"type": "encoded_text", "tokens": TEXTS[0][:-1]}]}
    targets = {"data": TEXTS[0][1:], "dtype": "int64", "shape": [5]}
    second = {"chunks": [{"type": "encoded_text", "tokens": TEXTS[1][:-1]}]}
    second_targets = {"data": TEXTS[1][1:], "dtype": "int64", "shape": [3]}
    step = asked(server, "optim_step", model_id=name, seq_id=2, adam_params={"learning_rate": 2e-2}).json()["request_id"]
    after = asked(
        server,
        "forward",
        model_id=name,
        seq_id=3,
        forward_input={
            "data": [{"model_input": text, "loss_fn_inputs": {"target_tokens": targets}}],
            "loss_fn": "cross_entropy",
        },
    ).json()["request_id"]
    data = [
        {"model_input": text, "loss_fn_inputs": {"target_tokens": targets}},
        {"model_input": second, "loss_fn_inputs": {"target_tokens": second_targets}},
    ]
    sent: dict[str, Any] = {"model_id": name, "seq_id": 1, "forward_backward_input": {"data": data, "loss_fn": "cross_entropy"}}
    answers = [asked(server, "forward_backward", **sent).json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2] == {"request_id": answers[0]["request_id"], "model_id": name}
    gradient = asked(server, "retrieve_future", request_id=answers[0]["request_id"]).json()  # as JSON, which older clients read
    assert gradient["metrics"]["loss:sum"] == pytest.approx(whole, abs=1e-4)
    assert asked(server, "retrieve_future", request_id=step).json()["metrics"]["calls"] == 1.0
    expected = model.forward([datum(TEXTS[0])], "cross_entropy").result().metrics["loss:sum"]
    said = asked(server, "retrieve_future", request_id=after).json()
    assert said["metrics"]["loss:sum"] == pytest.approx(expected, abs=1e-4)
    assert asked(server, "forward_backward", **sent).json() == answers[0]


def test_bodies_that_are_none_or_too_large(client: tinker.ServiceClient, server: Served) -> None:
    """What is packed counts as it is unpacked, and no more of it is unpacked than may be sent."""
    model = client.create_lora_training_client("backbone", rank=2, **ATTENTION).result()
    packed = {"content-type": "application/x-protobuf", "content-encoding": "zstd"}
    huge = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    for data, headers, status, said in [
        (huge, packed, 413, "60,000 bytes, unpacked"),
        (b"nothing packed", packed, 400, "not compressed by zstd"),
        (b"\x0a\xff", {"content-type": "application/x-protobuf"}, 400, "no ForwardBackwardRequest"),
        (bytes(60_001), {"content-type": "application/x-protobuf"}, 413, "60,000 bytes that this server takes"),
        (b"{}", {"content-encoding": "gzip"}, 415, "zstd is taken"),
        (b"{}", {}, 400, "model_id is missing"),
    ]:
        answer = server.ask("POST", "/api/v1/forward_backward", content=data, headers=headers)
        assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True), answer.text
    many = [datum([1, *range(5, 85)]) for _ in range(45)]  # more than one body takes: the client cuts it, as it was told
    assert len(model.forward(many, "cross_entropy").result().loss_fn_outputs) == 45


def test_nonsense_is_refused_everywhere(server: Served, api: TinkerApi) -> None:
    """In one line, whatever is sent where."""
    deep: Any = {"chunks": [{"tokens": [1 << 70], "type": "encoded_text"}]}
    bodies: list[Any] = [
        {},
        [],
        {"model_id": 3},
        {"model_id": "x", "seq_id": -1, "path": "../..", "adam_params": {"learning_rate": "fast"}, "optimizer": 1},
        {"session_id": "x", "base_model": "backbone", "model_seq_id": 1 << 80, "lora_config": {"rank": 0}},
        {"prompt": deep, "sampling_params": {"max_tokens": 1}, "base_model": "backbone"},
        {"prompt": {"chunks": [{"tokens": [], "type": "image"}]}, "sampling_params": {}, "base_model": "backbone"},
        {"prompt": {"chunks": []}, "sampling_params": {"stop": [1, "a"]}, "base_model": "backbone"},
        {"request_id": "x"},
    ]
    answered = {"telemetry", "client/config", "client/dynamic_config", "create_session"}
    for route in api.routes:
        for method in {"GET", "POST", "PUT", "DELETE"} & (route.methods or set()):
            path = route.path.format(run="x", folder="weights", name="x", session="x", sampler="x", ticket="x", file="x")
            for body in bodies if method in ("POST", "PUT") else [None]:
                answer = server.ask(method, path, json=body) if body is not None else server.ask(method, path)
                assert answer.status_code < 500, (path, body, answer.text)
                if method == "POST" and path.removeprefix("/api/v1/") not in answered:
                    assert answer.status_code >= 400, (path, body)
                    message = answer.json()["error"]["message"]
                    assert message.isprintable(), message
                    assert len(message) < 500, message


def test_a_session_that_ends_leaves_nothing(server: Served, api: TinkerApi) -> None:
    client = client_of(server)
    model = client.create_lora_training_client("backbone", rank=2, **ATTENTION).result()
    sampler = model.save_weights_and_get_sampling_client().result()
    directory = api.tinker.kept._directory / model.model_id
    assert directory.is_dir()
    session = model.holder.get_session_id()
    assert asked(server, "session_heartbeat", session_id=session).status_code == 200
    client.close("success").result()
    until(lambda: model.model_id not in api.tinker.loops.names and not directory.exists())
    assert asked(server, "session_heartbeat", session_id=session).status_code == 410
    gone = asked(server, "optim_step", model_id=model.model_id, seq_id=9, adam_params={})
    assert (gone.status_code, "go on from a checkpoint" in gone.json()["error"]["message"]) == (404, True)
    body = {"sampling_session_id": sampler._sampling_session_id, "seq_id": 0, "sampling_params": {}}
    assert asked(server, "asample", prompt={"chunks": []}, **body).status_code == 404


def test_a_silent_client_is_missed(server: Served, api: TinkerApi, monkeypatch: pytest.MonkeyPatch) -> None:
    session = api.tinker.sessions.open(None, {}, None)
    api.tinker.sessions.close_silent()
    assert session in list(api.tinker.sessions)
    session.heard -= api.tinker.sessions.most.silence + 1
    api.tinker.sessions.close_silent()
    assert session not in list(api.tinker.sessions)


def key_of(text: str) -> Key:
    return Key(hashlib.sha256(text.encode()).digest(), admin=False)


def test_the_clients_own_program_downloads(teller: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint with its state becomes a directory of adapter files; an address needs no key, and no other has it."""
    with training_server(teller, tmp_path / "kept", keys=(key_of("tml-ann"),), lanes=4, slots=2) as (server, api):
        monkeypatch.setenv("TINKER_BASE_URL", server.url)
        monkeypatch.setenv("TINKER_API_KEY", "tml-ann")
        model = client_of(server, "tml-ann").create_lora_training_client("backbone", rank=2, **ATTENTION).result()
        learn(model)
        path = model.save_state("one").result().path
        rest = tinker.RestClient(base_url=server.url, api_key="tml-ann")
        count = _download_checkpoint(rest, path, tmp_path / "got", show_progress=False, format="json")
        got, own = load_adapter(tmp_path / "got", teller), api.tinker.loops.adapter(model.model_id)
        for site, (trainable, _) in own.states["lora"].items():
            np.testing.assert_array_equal(got.states["lora"][site][0]["b"], trainable["b"])
        assert count == sum(file.stat().st_size for file in (tmp_path / "got").iterdir())
        assert [one.tinker_path for one in rest.list_user_checkpoints().result().checkpoints] == [path]  # no other is left
        kept = model.save_weights_external("two").result().path
        url = rest.get_external_weights_urls(kept).result().urls["graftax.json"]
        assert httpx2.get(url).json()["task"] == "lm"
        other = "y" if url[-20] == "x" else "x"  # than the character of the ticket that is replaced
        for wrong in (url.replace("graftax.json", "..%2Fcheckpoint.json"), url[:-20] + other + url[-19:]):
            assert httpx2.get(wrong).status_code in (401, 404)


def test_tenants_see_their_own(teller: Backbone, tmp_path: Path) -> None:
    """Models, samplers, checkpoints and results; and what is kept is there when the server is started anew."""
    keys = (key_of("tml-ann"), key_of("tml-ben"))
    with training_server(teller, tmp_path, keys=keys, lanes=4, slots=2) as (server, _):
        ann, ben = client_of(server, "tml-ann"), client_of(server, "tml-ben")
        model = ann.create_lora_training_client("backbone", rank=2, **ATTENTION).result()
        path = model.save_state("one").result().path
        foreign = ben.create_lora_training_client("backbone", rank=2, **ATTENTION).result()
        of_ben = {"X-API-Key": "tml-ben"}
        for asked_for, body in [
            ("optim_step", {"model_id": model.model_id, "seq_id": 5, "adam_params": {}}),
            ("get_info", {"model_id": model.model_id}),
            ("session_heartbeat", {"session_id": model.holder.get_session_id()}),
            ("weights_info", {"tinker_path": path}),
            (
                "load_weights",
                {"session_id": foreign.holder.get_session_id(), "model_seq_id": 7, "path": path, "optimizer": False},
            ),
        ]:
            answer = server.ask("POST", f"/api/v1/{asked_for}", json=body, headers=of_ben)
            assert (asked_for, answer.status_code) == (asked_for, 404)
        with pytest.raises(tinker.RequestFailedError, match="there is no training run"):
            foreign._load_state_impl(path, optimizer=False, weights_access_token=None).result()
        rest = tinker.RestClient(base_url=server.url, api_key="tml-ben")
        assert [run.training_run_id for run in rest.list_training_runs().result().training_runs] == [foreign.model_id]
        assert rest.list_user_checkpoints().result().checkpoints == []
        with pytest.raises(tinker.AuthenticationError):
            tinker.RestClient(base_url=server.url, api_key="tml-cid").list_training_runs().result()
        said = model.forward([datum(TEXTS[0])], "cross_entropy").result().metrics["loss:sum"]
    with training_server(teller, tmp_path, keys=keys, lanes=4, slots=2) as (server, _):
        rest = tinker.RestClient(base_url=server.url, api_key="tml-ann")
        assert [one.tinker_path for one in rest.list_user_checkpoints().result().checkpoints] == [path]
        answer = server.ask("POST", "/api/v1/get_info", json={"model_id": model.model_id}, headers={"X-API-Key": "tml-ann"})
        assert answer.status_code == 404
        again = client_of(server, "tml-ann").create_training_client_from_state(path).result()
        assert again.forward([datum(TEXTS[0])], "cross_entropy").result().metrics["loss:sum"] == pytest.approx(said, abs=1e-5)


def test_a_key_has_so_much_training(teller: Backbone, tmp_path: Path) -> None:
    """Then its loops get no gradient and no step, and can be saved and sampled; others go on. What they cost is told."""
    bounded = replace(key_of("tml-ann"), training=TrainingQuota(training_steps=2))
    with training(teller, tmp_path, keys=(bounded, key_of("tml-ben")), lanes=4, slots=2) as there:
        server = there.served
        ann, ben = (client_of(server, key) for key in ("tml-ann", "tml-ben"))
        model = ann.create_lora_training_client("backbone", rank=2, **ATTENTION).result()
        for _ in range(2):
            told = learn(model).metrics
        assert told["tokens:sum"] == 8
        assert 0.0 < told["device_seconds:sum"] < 60.0
        said = r"may have 2 steps of training in all \(training_steps\), and has had 2\."
        for refused in (model.forward_backward([datum(TEXTS[0])], "cross_entropy"), model.optim_step(ADAM)):
            with pytest.raises(tinker.RequestFailedError, match=said):
                refused.result()
        path = model.save_state("end").result().path
        assert model.save_weights_and_get_sampling_client().result().compute_logprobs(prompt(TEXTS[0])).result()
        with pytest.raises(tinker.RequestFailedError, match=said):  # another loop of the key is no way around it
            learn(ann.create_training_client_from_state(path).result())
        other = ben.create_lora_training_client("backbone", rank=2, **ATTENTION).result()
        assert other.forward([datum(TEXTS[0])], "cross_entropy").result().metrics["tokens:sum"] == 0  # nothing is learnt
        for _ in range(3):
            learn(other)
        begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
        usage = tinker.AdminClient(base_url=server.url, api_key="tml-ben").get_billing_usage(begin, begin + timedelta(hours=3))
        events = usage.result().data
        assert sum(event.event_info.token_count for event in events) == 3 * 8
        assert {event.session_id for event in events} == {other.model_id.partition(":")[0]}
        answer = server.ask("GET", "/api/v1/billing/usage/events?starting_on=x", headers={"X-API-Key": "tml-ben"})
        assert answer.json()["error"]["param"] == "starting_on"
    table = JobTable(tmp_path / "jobs.sqlite")  # nothing is lost when a server ends
    assert [table.spent(key.hash.hex()).steps for key in (bounded, key_of("tml-ben"))] == [2, 3]


@pytest.mark.slow
def test_many_tenants_at_once_are_each_as_if_alone(teller: Backbone, tmp_path: Path) -> None:
    """Ranks, parts and methods differ; some send what is no number, ask for what is not there, or never fetch a result."""
    kinds: list[dict[str, Any]] = [
        {"rank": 2, "train_unembed": False},
        {"rank": 16, "train_mlp": False},
        {"rank": 8, "train_mlp": False, "train_unembed": False, "user_metadata": {"graftax_method": "dora"}},
        {"rank": 4, "user_metadata": {"graftax_method": "ia3"}},
        {"rank": 5, "train_attn": False},
    ]
    random = np.random.default_rng(0)
    texts = [[random.integers(3, 200, random.integers(4, 30)).tolist() for _ in range(3)] for _ in kinds]

    def loop(client: tinker.ServiceClient, number: int, steps: int = 5) -> tuple[list[float], list[int]]:
        model = client.create_lora_training_client("backbone", seed=number, **kinds[number]).result()
        losses = [learn(model, texts[number]).metrics["loss:sum"] for _ in range(steps)]
        sampler = model.save_weights_and_get_sampling_client().result()
        how = types.SamplingParams(max_tokens=10, temperature=0.0)
        return losses, sampler.sample(prompt(texts[number][0][:4]), 1, how).result().sequences[0].tokens

    def poisoned(client: tinker.ServiceClient) -> int:
        model = client.create_lora_training_client("backbone", rank=8, seed=9).result()
        failed = 0
        for _ in range(8):
            nothing = datum(TEXTS[0], weights=np.full(5, np.nan, np.float32))
            huge = datum(TEXTS[0], weights=np.full(5, 3e38, np.float32))
            for one in (nothing, huge):
                with pytest.raises(tinker.RequestFailedError):
                    model.forward_backward([one], "cross_entropy").result()
                failed += 1
        return failed

    with training_server(teller, tmp_path, lanes=4, slots=2) as (server, api), ThreadPoolExecutor(8) as threads:
        client = client_of(server)
        silent = client.create_lora_training_client("backbone", rank=3, **ATTENTION).result().model_id
        for number in range(1, 30):
            asked(server, "optim_step", model_id=silent, seq_id=number, adam_params={})
        together = [threads.submit(loop, client, number) for number in range(len(kinds))]
        failed = threads.submit(poisoned, client)
        said = [future.result() for future in together]
        assert failed.result() == 16
        for number, (losses, tokens) in enumerate(said):
            alone, alone_said = loop(client, number)
            assert losses == pytest.approx(alone, rel=1e-5, abs=1e-4)
            assert tokens == alone_said
        client.close("success").result()
        until(lambda: not api.tinker.loops.names)
