"""Quotas: what a key may ask in a minute and at once, under a clock that the test turns."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any, cast

import pytest
from refusals import refused

from graftax.serve.http.keys import Guarded, Key, read_keys
from graftax.serve.http.quotas import Quota, spend
from graftax.serve.turns import TENANT

HASHES = {name: hashlib.sha256(name.encode()).digest() for name in ("mine", "yours", "boss")}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class App:
    """One that reads and writes so many tokens for each request, and says who has asked."""

    def __init__(self, quota: Quota, tokens: int = 0):
        self.clock, self.tokens = Clock(), tokens
        self.gate: asyncio.Event | None = None
        self.tenants: list[str | None] = []
        keys = (Key(HASHES["mine"], False, quota), Key(HASHES["yours"], False))
        self.guarded = Guarded(self._answer, keys, self.clock)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.tenants.append(TENANT.get())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if self.gate is not None:
            await self.gate.wait()
        spend(self.tokens)
        await send({"type": "http.response.body", "body": b""})

    async def asked(self, key: str = "mine", method: str = "POST") -> tuple[int, dict[str, str], Any]:
        """The status, headers and content of an answer."""
        sent: list[Any] = []
        headers = [(b"authorization", f"Bearer {key}".encode())]
        scope = {"type": "http", "method": method, "path": "/v1/completions", "headers": headers}

        async def send(message: Any) -> None:
            sent.append(message)

        await asyncio.create_task(self.guarded(scope, cast(Any, None), send))
        said = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], said, json.loads(sent[1]["body"] or b"null")

    def ask(self, *args: Any) -> tuple[int, dict[str, str], Any]:
        return asyncio.run(self.asked(*args))


def test_requests_in_a_minute() -> None:
    """As many as are allowed, at once; then one with every sixtieth of the minute."""
    app = App(Quota(rpm=3))
    found = [app.ask() for _ in range(4)]
    assert [status for status, _, _ in found] == [200, 200, 200, 429]
    assert [said["x-ratelimit-remaining-requests"] for _, said, _ in found] == ["2", "1", "0", "0"]
    assert (found[0][1]["x-ratelimit-limit-requests"], found[0][1]["x-ratelimit-reset-requests"]) == ("3", "20.000s")
    assert "x-ratelimit-limit-tokens" not in found[0][1]
    assert found[3][1]["retry-after"] == "20"
    assert found[3][2]["error"] == {
        "message": "this key may send 3 requests a minute (rpm); try again in 20 s.",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    app.clock.now += 19
    assert app.ask()[0] == 429  # and what is refused is not counted
    app.clock.now += 1.5
    assert [app.ask()[0] for _ in range(2)] == [200, 429]
    app.clock.now += 3600  # nobody saves up more than a minute
    assert [app.ask()[0] for _ in range(4)] == [200, 200, 200, 429]


def test_other_keys_and_looks_are_not_counted() -> None:
    app = App(Quota(rpm=1))
    assert [app.ask(*who)[0] for who in [("mine",), ("mine",), ("yours",), ("mine", "GET"), ("other",)]] == [
        *(200, 429, 200, 200, 401)
    ]
    assert app.tenants == [HASHES["mine"].hex(), HASHES["yours"].hex(), HASHES["mine"].hex()]
    assert "x-ratelimit-limit-requests" not in app.ask("yours")[1]


def test_tokens_in_a_minute() -> None:
    """An answer may come to more than was left; then the key waits until it owes nothing."""
    app = App(Quota(tpm=600), tokens=700)
    assert app.ask()[0] == 200
    status, said, content = app.ask()
    assert (status, said["retry-after"], content["error"]["type"]) == (429, "11", "tokens")
    assert (said["x-ratelimit-limit-tokens"], said["x-ratelimit-remaining-tokens"]) == ("600", "0")
    assert said["x-ratelimit-reset-tokens"] == "70.000s"
    app.clock.now += 10.2
    assert app.ask()[0] == 200


def test_requests_at_once() -> None:
    app = App(Quota(max_parallel_requests=2))

    async def many() -> list[int]:
        app.gate = asyncio.Event()
        first = [asyncio.create_task(app.asked()) for _ in range(2)]
        await asyncio.sleep(0.01)
        status, said, _ = await app.asked()
        assert said["retry-after"] == "1"
        given_up = first.pop()
        given_up.cancel()
        await asyncio.sleep(0.01)
        app.gate.set()
        return [status, (await first[0])[0], (await app.asked())[0]]

    assert asyncio.run(many()) == [429, 200, 200]


@pytest.mark.parametrize(
    ("behind", "said"),
    [
        ("rpm=0", "got 'rpm=0'"),
        ("rpm=-1", "got 'rpm=-1'"),
        ("rpm=1.5", "got 'rpm=1.5'"),
        ("rpm", "got 'rpm'"),
        ("rpd=5", "behind it may stand admin, and NAME=NUMBER of rpm, tpm, max_parallel_requests"),
        ("rpm=5 rpm=6", "it says something twice"),
        ("admin admin", "it says something twice"),
        (f"tpm={'9' * 400}", "got 'tpm=999"),
    ],
)
def test_a_line_that_is_no_quota(behind: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{HASHES['mine'].hex()} {behind}\n")
    line = refused(lambda: read_keys(file)) or ""
    assert "line 1 is no key: " in line
    assert said in line


def test_quotas_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(
        f"{HASHES['mine'].hex()} rpm=60 max_parallel_requests=4 # me\n{HASHES['boss'].hex()}\ttpm=20000 admin\n", "ascii"
    )
    assert read_keys(file) == (
        Key(HASHES["mine"], False, Quota(rpm=60, max_parallel_requests=4)),
        Key(HASHES["boss"], True, Quota(tpm=20000)),
    )
