"""Weighted mixes as the model of a request: what `Average` makes of the adapters, and an answer that says all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from http_servers import Served, loaded, served, speaker
from openai import APIStatusError, OpenAI

from graftax import Adapter, Average, Generator, Hub, save_adapter
from graftax.models.backbone import Backbone
from graftax.store.store import Store

PROMPT, CHAT = "One day", [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def adapters(teller: Backbone) -> dict[str, Adapter]:
    return {name: speaker(teller, seed) for seed, name in enumerate(["sea", "law", "sky", "2*x"])}


@pytest.fixture(scope="module")
def generator(teller: Backbone, adapters: dict[str, Adapter]) -> Generator:
    return loaded(Generator(teller), adapters)


@pytest.fixture(scope="module")
def server(teller: Backbone, adapters: dict[str, Adapter], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("mixes")
    save_adapter(adapters["sky"], folder / "sky", teller)
    Hub(folder / "hub").push("tales/sky", folder / "sky", tags=["prod"])
    registered = {name: adapter for name, adapter in adapters.items() if name != "sky"}
    with served(teller, registered, store=Store(folder / "hub"), lanes=2, slots=3) as there:
        yield there


@pytest.fixture(scope="module")
def client(server: Served) -> OpenAI:
    return server.openai()


@pytest.mark.parametrize(
    ("model", "mix"),
    [
        ("0.7*tales/sky:prod+0.3*sea", {"sky": 0.7, "sea": 0.3}),
        (" 1.5 * sea + -0.5*law + .25*tales/sky ", {"sea": 1.5, "law": -0.5, "sky": 0.25}),
        ("0.5*law", {"law": 0.5}),
    ],
)
def test_a_mix_is_an_average(model: str, mix: dict[str, float], server: Served, client: OpenAI, generator: Generator) -> None:
    average = Average(*mix, weights=mix.values())
    asked: Any = {"model": model, "max_tokens": 12, "temperature": 0}
    answer = client.completions.create(prompt=PROMPT, **asked)
    chat = client.chat.completions.create(messages=CHAT, **asked)
    (text, said) = generator.generate([PROMPT, CHAT], average, max_new_tokens=12)
    assert (answer.choices[0].text, chat.choices[0].message.content) == (text.text, said.text)
    parts = [("tales/sky" if name == "sky" else name, weight) for name, weight in mix.items()]
    handles = [(server.service.residents.resolve(name), weight) for name, weight in parts]
    digest = "+".join(f"{weight:g}*sha256:{handle.digest}" for handle, weight in handles)
    assert answer.model_extra == {"adapter": "+".join(f"{w:g}*{handle}" for handle, w in handles), "adapter_digest": digest}
    assert server.post("/v1/completions", prompt=PROMPT, **asked).headers["x-adapter-digest"] == digest


def test_a_name_that_reads_as_a_mix(client: OpenAI, generator: Generator) -> None:
    answer = client.completions.create(model="2*x", prompt=PROMPT, max_tokens=12, temperature=0)
    assert answer.choices[0].text == generator.generate([PROMPT], "2*x", max_new_tokens=12)[0].text


@pytest.mark.parametrize(
    ("model", "status", "said"),
    [
        ("0.7*sea+law", 400, "'law' in '0.7*sea+law' is no part of a mix; that is a weight, * and a name, as in 0.7*sea"),
        ("x*sea", 400, "'x*sea' in 'x*sea' is no part of a mix"),
        ("0.7*", 400, "is no part of a mix"),
        ("nan*sea", 400, "is no part of a mix"),
        ("1e39*sea", 400, "is no part of a mix"),
        ("+".join(["0.2*sea"] * 5), 400, "a mix is of 4 adapters at most, got 5"),
        ("0.5*backbone+0.5*sea", 400, "'backbone' is the base, which every adapter changes; it is no part"),
        ("0.5*sea+0.5*none", 404, "there is no model 'none'"),
        ("sea+law", 404, "there is no model 'sea+law'"),
    ],
)
def test_what_is_no_mix(model: str, status: int, said: str, client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as refused:
        client.completions.create(model=model, prompt=PROMPT)
    assert (refused.value.status_code, refused.value.param) == (status, "model")
    assert said in refused.value.message


def test_more_adapters_than_slots(teller: Backbone, adapters: dict[str, Adapter]) -> None:
    with served(teller, lanes=1, slots=1) as server:
        for name in ("sea", "law"):
            server.service.residents.register(name, adapters[name])
        answer = server.post("/v1/completions", model="0.5*sea+0.5*law", prompt=PROMPT)
        assert answer.status_code == 400
        assert "2 adapters, and there are slots for 1 at once." in answer.json()["error"]["message"]
