"""A language model's server, asked by OpenAI's own client: what it writes is what `Generator` writes, whatever else happens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from http_servers import Served, connected, loaded, request_of, served, speaker, until
from openai import NotFoundError, OpenAI

from graftax import Adapter, Generator, Hub, save_adapter
from graftax.models.backbone import Backbone
from graftax.serve.handles import digest_of
from graftax.serve.http.limits import Limits
from graftax.serve.http.written import drawn_seed
from graftax.store.store import Store

PROMPT, CHAT = "One day", [{"role": "user", "content": "hello"}]
LONG = 70  # tokens: several rounds


@pytest.fixture(scope="module")
def adapters(teller: Backbone) -> dict[str, Adapter]:
    return {name: speaker(teller, seed) for seed, name in enumerate(["sea", "law", "sky", "ice"])}


@pytest.fixture(scope="module")
def generator(teller: Backbone, adapters: dict[str, Adapter]) -> Generator:
    return loaded(Generator(teller), adapters)


@pytest.fixture(scope="module")
def folder(teller: Backbone, adapters: dict[str, Adapter], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tellers")
    for name, adapter in adapters.items():
        save_adapter(adapter, made / name, teller)
    return made


@pytest.fixture(scope="module")
def server(teller: Backbone, adapters: dict[str, Adapter], folder: Path) -> Iterator[Served]:
    Hub(folder / "hub").push("tales/sky", folder / "sky", tags=["prod"])
    registered = {name: adapters[name] for name in ("sea", "law")}
    with served(teller, registered, store=Store(folder / "hub"), lanes=2, slots=2, roots=[folder]) as there:
        yield there


@pytest.fixture(scope="module")
def client(server: Served) -> OpenAI:
    return server.openai()


def written(generator: Generator, model: str, prompt: Any = PROMPT, **how: Any) -> str:
    (end,) = generator.generate([prompt], None if model == "backbone" else model, **how)
    return end.text


# -- what is written ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"temperature": 0.9, "seed": 3, "top_p": 0.9}])
def test_what_is_written_is_the_generators(how: Any, client: OpenAI, generator: Generator) -> None:
    """Behind a prompt and in a chat, greedy and drawn, whole and in pieces."""
    for model in ("backbone", "sea"):
        asked: Any = {"model": model, "max_tokens": 12, **how}
        text = written(generator, model, max_new_tokens=12, **how)
        said = written(generator, model, CHAT, max_new_tokens=12, **how)
        completion = client.completions.create(prompt=PROMPT, **asked)
        assert (completion.choices[0].text, completion.choices[0].finish_reason) == (text, "length")
        chat = client.chat.completions.create(messages=CHAT, **asked)
        assert (chat.choices[0].message.content, chat.choices[0].message.role) == (said, "assistant")
        pieces = [piece.choices[0].text for piece in client.completions.create(prompt=PROMPT, stream=True, **asked)]
        assert "".join(pieces) == text
        choices = [piece.choices[0] for piece in client.chat.completions.create(messages=CHAT, stream=True, **asked)]
        assert (choices[0].delta.role, choices[-1].finish_reason) == ("assistant", "length")
        assert "".join(choice.delta.content or "" for choice in choices) == said


def test_several_texts_and_where_they_stop(client: OpenAI, generator: Generator) -> None:
    """`n` of each prompt draw from seeds that follow; a stop text ends one and is not said; tokens are counted."""
    how: Any = {"temperature": 0.9, "top_p": 0.9}
    ends = [generator.generate([PROMPT], "sea", max_new_tokens=12, seed=8 + i, **how)[0] for i in range(4)]
    prompts: Any = [PROMPT, generator.tokens(PROMPT).tolist()]
    answer = client.completions.create(model="sea", prompt=prompts, n=2, max_tokens=12, seed=8, **how)
    assert [choice.text for choice in answer.choices] == [end.text for end in ends]
    assert answer.usage.prompt_tokens == 2 * len(generator.tokens(PROMPT))
    assert answer.usage.completion_tokens == sum(len(end.tokens) for end in ends)

    whole = written(generator, "sea", max_new_tokens=12)
    stop = whole[3:5]
    for given in (stop, ["no such text", stop]):
        answer = client.completions.create(model="sea", prompt=PROMPT, max_tokens=12, temperature=0, stop=given)
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (whole[: whole.index(stop)], "stop")


def test_requests_without_a_seed_are_sampled_differently() -> None:
    """Of a server in these tests that cannot be seen: it always draws the same seed (tests/http_servers.py)."""
    assert len({drawn_seed() for _ in range(100)}) > 90


def test_a_stream_is_lines_of_events(server: Served) -> None:
    body = {"model": "sea", "prompt": PROMPT, "max_tokens": 4, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    answer = server.post("/v1/completions", **body)
    events = answer.text.split("\n\n")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (events[-2:], all(event.startswith("data: ") for event in events[:-1])) == (["data: [DONE]", ""], True)
    *pieces, last = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert all(piece["usage"] is None and len(piece["choices"]) == 1 for piece in pieces)
    prompt_tokens = 1 + len(PROMPT)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": prompt_tokens, "completion_tokens": 4, "total_tokens": prompt_tokens + 4}


def test_a_chat_may_fill_the_context(client: OpenAI, generator: Generator) -> None:
    """Where nobody says how much is to be written, as much as there is room for."""
    answer = client.chat.completions.create(model="backbone", messages=CHAT, temperature=0)
    room = generator.backbone.config.max_tokens - len(generator.tokens(CHAT))
    assert answer.choices[0].message.content == written(generator, "backbone", CHAT, max_new_tokens=room)


# -- which adapter wrote it -----------------------------------------------------------------------------------------------


def test_adapters_asked_at_once(server: Served, generator: Generator, adapters: dict[str, Adapter]) -> None:
    """More adapters than slots and more texts than lanes: each has its own adapter's words, and says so."""
    models = ["sea", "law", "tales/sky", "backbone"] * 4
    with ThreadPoolExecutor(len(models)) as threads:
        asked = [
            threads.submit(server.post, "/v1/completions", model=model, prompt=PROMPT, max_tokens=12 + i, temperature=0)
            for i, model in enumerate(models)
        ]
    for i, (model, future) in enumerate(zip(models, asked, strict=True)):
        answer, name = future.result(), model.removeprefix("tales/")
        assert answer.json()["choices"][0]["text"] == written(generator, name, max_new_tokens=12 + i), model
        digest = None if model == "backbone" else f"sha256:{server.service.residents.resolve(model).digest}"
        assert answer.headers.get("x-adapter-digest") == answer.json()["adapter_digest"] == digest
    assert server.service.residents.resolve("sea").digest == digest_of(adapters["sea"])
    assert server.service.residents.tiers().evictions > 0


@pytest.mark.parametrize("change", ["load", "unload"])
def test_what_is_being_written_keeps_its_adapter(change: str, server: Served, generator: Generator, folder: Path) -> None:
    assert server.post("/v1/load_lora_adapter", lora_name="mine", lora_path=str(folder / "law")).text == (
        "Success: LoRA adapter 'mine' added successfully."
    )
    before = server.service.residents.resolve("mine").digest
    body = {"model": "mine", "prompt": PROMPT, "max_tokens": LONG, "temperature": 0, "stream": True}
    with httpx2.stream("POST", f"{server.url}/v1/completions", json=body, timeout=120) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        if change == "load":
            again = {"lora_name": "mine", "lora_path": str(folder / "ice"), "load_inplace": True}
            assert server.post("/v1/load_lora_adapter", **again).status_code == 200
            said = server.post("/v1/completions", model="mine", prompt=PROMPT, max_tokens=12, temperature=0).json()
            assert said["choices"][0]["text"] == written(generator, "ice", max_new_tokens=12)
        removed = server.post("/v1/unload_lora_adapter", lora_name="mine")
        assert removed.text == "Success: LoRA adapter 'mine' removed successfully."
        pieces = [json.loads(line.removeprefix("data: ")) for line in [first, *lines] if line and "[DONE]" not in line]
    assert answer.headers["x-adapter-digest"] == f"sha256:{before}"
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == written(generator, "law", max_new_tokens=LONG)
    assert server.post("/v1/completions", model="mine", prompt=PROMPT).status_code == 404


def test_what_is_pushed_while_it_runs_can_be_asked(server: Served, client: OpenAI, generator: Generator, folder: Path) -> None:
    """By its name; a tag that is moved means another version from then on, and one can go back."""
    asked: Any = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    with pytest.raises(NotFoundError, match="there is no model 'tales/ice'"):
        client.completions.create(model="tales/ice", **asked)
    hub = Hub(folder / "hub")
    version = hub.push("tales/ice", folder / "ice", tags=["prod"])
    answer = client.completions.create(model="tales/ice:prod", **asked)
    assert answer.choices[0].text == written(generator, "ice", max_new_tokens=12)
    assert answer.model_extra == {"adapter": "tales/ice:1", "adapter_digest": f"sha256:{version.digest}"}
    hub.push("tales/ice", folder / "law", tags=["prod"])
    until(lambda: adapter_of(client.completions.create(model="tales/ice:prod", **asked)) == "tales/ice:2")  # within a second
    for model, name in (("tales/ice:prod", "law"), ("tales/ice:1", "ice")):
        assert client.completions.create(model=model, **asked).choices[0].text == written(generator, name, max_new_tokens=12)
    hub.tag("tales/ice", "prod", 1)
    until(lambda: adapter_of(client.completions.create(model="tales/ice:prod", **asked)) == "tales/ice:1")
    assert client.completions.create(model="tales/ice:prod", **asked).choices[0].text == answer.choices[0].text


def test_a_tag_that_shares_its_traffic_goes_by_the_user(server: Served, client: OpenAI, folder: Path) -> None:
    hub = Hub(folder / "hub")
    for name in ("sea", "law"):
        hub.push("tales/shared", folder / name)
    hub.tag("tales/shared", "prod", {1: 0.5, 2: 0.5})
    until(lambda: hub_says(server, {"tales/shared:1", "tales/shared:2"}))
    asked: Any = {"model": "tales/shared:prod", "prompt": PROMPT, "max_tokens": 1, "temperature": 0}
    users = [f"user-{i}" for i in range(8)]
    first, second = ([adapter_of(client.completions.create(user=user, **asked)) for user in users] for _ in range(2))
    assert {*first} == {"tales/shared:1", "tales/shared:2"}
    assert second == first


def hub_says(server: Served, versions: set[str]) -> bool:
    """Whether the server knows that a tag is shared by these."""
    return {str(server.service.residents.resolve("tales/shared:prod", f"user-{i}")) for i in range(20)} == versions


def adapter_of(answer: Any) -> str:
    return str(answer.model_extra["adapter"])


def test_models_are_listed(client: OpenAI, server: Served) -> None:
    cards = {card.id: card.model_dump() for card in client.models.list()}
    assert {"backbone", "sea", "law", "tales/sky"} <= cards.keys()
    base, sky = cards["backbone"], cards["tales/sky"]
    assert (base["parent"], base["max_model_len"], base["object"]) == (None, 96, "model")
    assert (sky["parent"], sky["adapter"], sky["root"]) == ("backbone", "tales/sky:1", "tales/sky:1")
    for name in ("tales/sky", "tales/sky:prod", "tales/sky:1"):
        assert client.models.retrieve(name).model_dump()["adapter_digest"] == sky["adapter_digest"]
    with pytest.raises(NotFoundError):
        client.models.retrieve("tales/sea")


# -- clients that go, and a server that ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_frees_its_lane(stream: bool, server: Served) -> None:
    body = {"model": "backbone", "prompt": PROMPT, "max_tokens": LONG, "temperature": 0, "stream": stream}
    with server.engine._lock:  # no round until it has gone
        with connected(server) as client:
            client.sendall(request_of("/v1/completions", **body))
            until(lambda: server.engine.waiting)
            (request,) = server.engine.waiting
        until(lambda: request.cancelled)
    until(lambda: request.done)
    assert (request.count, server.engine.running, server.engine.waiting) == (0, [], [])


def test_a_server_that_is_told_to_end_finishes_what_it_began(teller: Backbone, generator: Generator) -> None:
    body = {"model": "backbone", "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    with served(teller, lanes=2) as server, ThreadPoolExecutor(1) as threads:
        with server.engine._lock:
            asked = threads.submit(server.post, "/v1/completions", **body)
            until(lambda: server.engine.waiting)
            server.server.should_exit = True
            until(lambda: refuses(server))
        assert asked.result().json()["choices"][0]["text"] == written(generator, "backbone", max_new_tokens=12)


def refuses(server: Served) -> bool:
    try:
        server.ask("GET", "/health")
    except httpx2.TransportError:
        return True
    return False


def test_too_much_and_too_long(teller: Backbone) -> None:

    body = {"model": "backbone", "prompt": PROMPT, "max_tokens": 4}
    with served(teller, limits=Limits(max_queue=1, timeout=3.0), lanes=1) as server:
        with server.engine._lock, ThreadPoolExecutor(1) as threads:
            asked = threads.submit(server.post, "/v1/completions", **body)
            until(lambda: server.engine.waiting)
            refused = server.post("/v1/completions", **body)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            late = asked.result()
        assert (late.status_code, late.json()["error"]["code"]) == (503, "timeout")
        until(lambda: not server.engine.waiting and not server.engine.running)


def test_numbers_for_prometheus(server: Served) -> None:
    before = server.ask("GET", "/metrics").text
    body = {"model": "sea", "prompt": PROMPT, "temperature": 0}
    with server.engine._lock:
        thread = threading.Thread(target=server.post, args=("/v1/completions",), kwargs=body)
        thread.start()
        until(lambda: server.engine.waiting)
        during = server.ask("GET", "/metrics").text
    thread.join()
    until(lambda: not server.engine.running)
    after = server.ask("GET", "/metrics").text
    assert value(before, "vllm:num_requests_waiting") == value(after, "vllm:num_requests_waiting") == 0
    assert value(during, "vllm:num_requests_waiting") == 1
    assert 'max_lora="2",running_lora_adapters="",waiting_lora_adapters="sea"' in during
    for name, more in (("vllm:prompt_tokens_total", 1 + len(PROMPT)), ("vllm:generation_tokens_total", 16)):
        assert value(after, name) - value(before, name) == more
    assert value(after, "vllm:e2e_request_latency_seconds_count") - value(before, "vllm:e2e_request_latency_seconds_count") == 1


def value(metrics: str, name: str) -> float:
    (line,) = (line for line in metrics.splitlines() if line.startswith(f"{name}{{"))
    return float(line.rpartition(" ")[2])
