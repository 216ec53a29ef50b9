"""The front of several replicas: what they answer comes through as it is, and one that is gone is not missed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graftax.serve.http.limits import Limits
from graftax.serve.http.prometheus import with_label
from graftax.serve.http.replicas.front import ReplicaGone, make_front
from graftax.serve.http.replicas.whole_request import WholeRequest, answer_of

BODY = json.dumps({"model": "sea", "prompt": "the boat"}).encode()


def post(body: bytes = BODY, path: str = "/v1/completions", query: bytes = b"") -> WholeRequest:
    return WholeRequest("POST", path, query, [(b"x-request-id", b"a7"), (b"content-type", b"application/json")], body)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that says in two pieces what it was asked."""
    body = (await receive())["body"]
    said = [scope["method"], scope["path"], scope["query_string"].decode(), dict(scope["headers"])[b"x-request-id"].decode()]
    await send({"type": "http.response.start", "status": 207, "headers": [(b"x-made-by", b"echo")]})
    await send({"type": "http.response.body", "body": json.dumps(said).encode(), "more_body": True})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class Replicas:
    """Replicas of an app, of which so many are gone; and the names by which they were asked."""

    def __init__(self, app: ASGIApp, gone: int = 0, all_say: Mapping[str, tuple[int, str]] | None = None):
        self.app, self.gone, self.all_say = app, gone, all_say or {}
        self.names: list[str] = []

    async def ask(self, name: str, asked: WholeRequest) -> AsyncIterator[Message]:
        self.names.append(name)
        if self.gone:
            self.gone -= 1
            raise ReplicaGone
        async for message in answer_of(self.app, asked):
            yield message

    async def ask_all(self, asked: WholeRequest) -> Mapping[str, tuple[int, str]]:
        return self.all_say


def through(replicas: Replicas, asked: WholeRequest, limits: Limits = Limits()) -> tuple[list[Message], str]:
    """What the front of these replicas answers: its messages, and the text in them."""

    async def run() -> list[Message]:
        front = make_front("base", limits, replicas.ask, replicas.ask_all)
        return [message async for message in answer_of(front, asked)]

    messages = asyncio.run(run())
    return messages, b"".join(message.get("body", b"") for message in messages).decode(errors="replace")


def test_a_replica_is_asked_and_answers_as_if_there_were_no_front() -> None:
    messages, text = through(Replicas(echo), post(query=b"a=b"))
    assert [message["type"].rpartition(".")[2] for message in messages] == ["start", "body", "body"]
    assert messages[0]["status"] == 207
    assert messages[0]["headers"] == [(b"x-made-by", b"echo")]
    assert text == json.dumps(["POST", "/v1/completions", "a=b", "a7"]) + BODY.decode()


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (BODY, "sea"),
        (b'{"model": "base"}', ""),
        (b'{"model": 3}', ""),
        (b'["model"]', ""),
        (b"no json", ""),
        (b"\xff", ""),
        (b"", ""),
    ],
)
def test_the_model_of_a_request_says_where_it_goes(body: bytes, name: str) -> None:
    """What is no request goes somewhere, too: a replica says what is wrong with it."""
    replicas = Replicas(echo)
    assert through(replicas, post(body))[0][0]["status"] == 207
    assert replicas.names == [name]


def test_a_replica_that_is_gone_is_not_missed() -> None:
    replicas = Replicas(echo, gone=2)
    assert through(replicas, post())[0][0]["status"] == 207
    assert replicas.names == ["sea"] * 3
    messages, text = through(Replicas(echo, gone=3), post())
    assert messages[0]["status"] == 503
    assert (b"retry-after", b"1") in messages[0]["headers"]
    assert json.loads(text)["error"]["type"] == "server_error"


def test_too_large_a_body_reaches_no_replica() -> None:
    replicas = Replicas(echo)
    messages, text = through(replicas, post(), Limits(max_body=len(BODY) - 1))
    assert messages[0]["status"] == 413
    assert "--max-body" in text
    assert not replicas.names


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"])
def test_adapters_are_not_loaded_into_one_of_several(path: str) -> None:
    replicas = Replicas(echo)
    messages, text = through(replicas, post(path=path))
    assert messages[0]["status"] == 501
    assert "--hub" in text
    assert not replicas.names


METRICS = '# HELP a Things.\n# TYPE a counter\na{kind="x"} 1\na{kind="y"} 2\n# HELP b More.\n# TYPE b gauge\nb{} 3\n'


def test_metrics_are_those_of_all() -> None:
    replicas = Replicas(echo, all_say={"r1": (200, METRICS), 'r"2': (200, METRICS.replace("2\n", "5\n"))})
    messages, text = through(replicas, post()._replace(method="GET", path="/metrics"))
    assert messages[0]["status"] == 200
    assert text.splitlines() == [
        "# HELP a Things.",
        "# TYPE a counter",
        'a{replica="r1",kind="x"} 1',
        'a{replica="r1",kind="y"} 2',
        'a{replica="r\\"2",kind="x"} 1',
        'a{replica="r\\"2",kind="y"} 5',
        "# HELP b More.",
        "# TYPE b gauge",
        'b{replica="r1",} 3',
        'b{replica="r\\"2",} 3',
    ]
    assert with_label("replica", {}) == ""
    replicas.all_say = {"r1": (401, '{"error": {}}'), "r2": (401, '{"error": {}}')}
    messages, text = through(replicas, post()._replace(method="GET", path="/metrics"))
    assert (messages[0]["status"], text) == (401, '{"error": {}}')


def test_who_stops_reading_has_gone_away() -> None:
    told: list[Message] = []

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        told.append(await receive())

    async def run() -> None:
        answer: Any = answer_of(endless, post())
        assert (await anext(answer))["status"] == 200
        assert not told
        await answer.aclose()

    asyncio.run(run())
    assert told == [{"type": "http.disconnect"}]


def test_what_an_app_raises_comes_behind_what_it_has_said() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("broken")

    async def run(seen: Callable[[Message], None]) -> None:
        async for message in answer_of(broken, post()):
            seen(message)

    seen: list[Message] = []
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(run(seen.append))
    assert len(seen) == 1
