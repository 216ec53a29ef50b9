"""A server of an encoder-decoder: it reads a prompt and writes a text of its own, under an adapter or none."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cases import randomised
from http_servers import Served, loaded, served, until
from test_generation_config import write_bart

from graftax import Adapter, Generator, LoRA
from graftax.models.backbone import Backbone
from graftax.models.load import load_backbone

PROMPTS = ["One day", "the sea", "a red apple and an old pear"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_bart(tmp_path_factory.mktemp("bart") / "bart"))


@pytest.fixture(scope="module")
def adapters(backbone: Backbone) -> dict[str, Adapter]:
    made = Adapter.create((LoRA(r=2, alpha=3.0),), backbone.sites, task="seq2seq", fingerprint=backbone.fingerprint)
    return {name: randomised(made, seed) for seed, name in enumerate(["sea", "sky"])}


@pytest.fixture(scope="module")
def expected(backbone: Backbone, adapters: dict[str, Adapter]) -> dict[tuple[str, str], tuple[str, str]]:
    """Of each model and prompt what is written, and what ends it."""
    generator = loaded(Generator(backbone), adapters)
    found = {}
    for model in ("bart", *adapters):
        for prompt, end in zip(
            PROMPTS, generator.generate(PROMPTS, None if model == "bart" else model, max_new_tokens=20), strict=True
        ):
            found[model, prompt] = end.text, "length" if end.finished == "length" else "stop"
    assert len({text for text, _ in found.values()}) > 3
    return found


@pytest.fixture(scope="module")
def server(backbone: Backbone, adapters: dict[str, Adapter]) -> Iterator[Served]:
    with served(backbone, adapters, slots=1) as there:
        yield there


def test_many_at_once(server: Served, expected: dict[tuple[str, str], tuple[str, str]]) -> None:
    """With one slot for two adapters; whole, and in pieces. Behind that the slot and the batch are free."""
    client = server.openai()

    def whole(asked: tuple[str, str]) -> tuple[str, str | None]:
        answer = client.completions.create(model=asked[0], prompt=asked[1], max_tokens=20, temperature=0)
        return answer.choices[0].text, answer.choices[0].finish_reason

    def in_pieces(asked: tuple[str, str]) -> tuple[str, str | None]:
        pieces = [*client.completions.create(model=asked[0], prompt=asked[1], max_tokens=20, temperature=0, stream=True)]
        return "".join(piece.choices[0].text for piece in pieces), pieces[-1].choices[0].finish_reason

    asked = [*expected]
    with ThreadPoolExecutor(6) as threads:
        assert [*threads.map(whole, asked)] == [expected[one] for one in asked]
        assert [*threads.map(in_pieces, asked)] == [expected[one] for one in asked]
    until(lambda: not server.engine.running and server.engine.idle)
    assert set(server.service.residents.tiers().device.values()) == {0}


def test_what_it_cannot_do(server: Served) -> None:
    """It makes no vectors."""
    answer = server.post("/v1/embeddings", model="sea", input="a")
    assert (answer.status_code, "is an encoder-decoder" in answer.json()["error"]["message"]) == (422, True)
