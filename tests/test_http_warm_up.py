"""A server that compiles its programs before it is asked: it says how far it is, and answers meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from http_servers import served, speaker, until
from test_warm_up import compiled

from graftax import Adapter, LoRA
from graftax.models.backbone import Backbone
from graftax.serve.engine import Engine
from graftax.serve.warm_up import WarmUp


class Held:
    """A program whose compilation lasts until the gate is open."""

    def __init__(self, gate: threading.Event):
        self.gate = gate

    def traced(self) -> Held:
        return self

    def compile(self) -> None:
        assert self.gate.wait(120)


def test_ready_says_how_far_it_is(teller: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, said = threading.Event(), list[str]()
    monkeypatch.setattr("graftax.serve.warm_up.groups_of", lambda _: {"that wait": [Held(gate)] * 3})
    with served(teller, warm_up=said.append) as server:
        until(lambda: server.ask("GET", "/ready").json()["programs"] == {"compiled": 0, "in_all": 3})
        ready = server.ask("GET", "/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "warming up")
        assert server.ask("GET", "/health").status_code == 200
        assert server.post("/v1/completions", model=server.service.name, prompt="One", max_tokens=1).status_code == 200
        gate.set()
        until(lambda: server.ask("GET", "/ready").status_code == 200)
        assert server.ask("GET", "/ready").json()["programs"] == {"compiled": 3, "in_all": 3}
    assert [line.partition(" in ")[0].partition(" after ")[0] for line in said] == ["compiled 3 programs that wait", "warm"]


def test_a_warm_up_that_fails_is_told(teller: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftax.serve.warm_up.groups_of", lambda _: 1 / 0)
    with served(teller, warm_up=print) as server:
        until(lambda: server.ask("GET", "/ready").status_code == 200)
        (degraded,) = server.ask("GET", "/ready").json()["degraded"]
        assert "ZeroDivisionError" in degraded


def test_who_ends_the_server_waits_for_what_is_being_compiled_alone(teller: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, begun = threading.Event(), list[Held]()

    class Last(Held):
        def compile(self) -> None:
            begun.append(self)
            super().compile()

    monkeypatch.setattr("graftax.serve.warm_up.groups_of", lambda _: {"that wait": [Last(gate)] * 100})
    monkeypatch.setattr("graftax.serve.warm_up._MOST_COMPILERS", 1)
    warm = WarmUp(cast(Engine, None), print)
    warm.start()
    until(lambda: begun)
    threading.Timer(0.2, gate.set).start()
    warm.stop()
    assert len(begun) < 100


@pytest.mark.slow
def test_a_load_of_unlike_requests_compiles_nothing(teller: Backbone) -> None:
    adapters: dict[str, Any] = {name: speaker(teller, seed) for seed, name in enumerate(["sea", "law", "sky"])}
    adapters["large"] = Adapter.create((LoRA(r=20),), teller.sites, task="lm", fingerprint=teller.fingerprint)
    handles = []
    with served(teller, lanes=4, slots=3, warm_up=None) as server, ThreadPoolExecutor(6) as threads:
        handles = [server.service.residents.register(name, adapter) for name, adapter in adapters.items()]
        server.service.residents.reserve(handles)
        WarmUp(server.engine, print).run()
        hows = [{"temperature": 0}, {}, {"temperature": 0.8, "top_p": 0.9}, {"repetition_penalty": 1.3}, {"logprobs": 3}]

        def ask(number: int) -> int:
            prompt = "A ship. " * (1 + number % 5) + str(number)
            model = [server.service.name, *adapters][number % 5]
            body = {"model": model, "prompt": prompt, "max_tokens": 3 + number % 32, **hows[number * 7 % 5]}
            return server.post("/v1/completions", **body).status_code

        assert [*threads.map(ask, range(5))] == [200] * 5  # the tokenizer and so on
        with compiled() as events:
            assert [*threads.map(ask, range(40))] == [200] * 40
        assert not events
