"""Log probabilities as OpenAI's client reads them: transformers', token by token, whole and in pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers
from http_servers import Served, served, speaker
from openai import BadRequestError, OpenAI
from tiny import write_decoder

from graftax.models.backbone import Backbone
from graftax.models.inputs import TextInputs
from graftax.models.load import load_backbone
from graftax.serve.bank import Bank

PROMPT, CHAT = "One day", [{"role": "user", "content": "hello"}]
DRAWN: dict[str, Any] = {"temperature": 0.7, "seed": 5, "extra_body": {"repetition_penalty": 1.3, "top_k": 50}}


@pytest.fixture(scope="module")
def speller_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model whose every token is a byte, or special: so answers say which tokens were drawn."""
    return write_decoder(tmp_path_factory.mktemp("speller") / "backbone", vocab_size=259)


@pytest.fixture(scope="module")
def speller(speller_dir: Path) -> Backbone:
    return load_backbone(speller_dir)


@pytest.fixture(scope="module")
def server(speller: Backbone) -> Iterator[Served]:
    with served(speller, {"sea": speaker(speller, 3)}, lanes=4, slots=2) as there:
        yield there


@pytest.fixture(scope="module")
def client(server: Served) -> OpenAI:
    return server.openai()


def by_transformers(directory: Path, ids: list[int]) -> np.ndarray:
    """log p of every token that may come behind each beginning of a text."""
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0], -1).numpy()


def ids_of(server: Served, logprobs: Any) -> list[int]:
    """The tokens of an answer, whose tokenizer has one for each byte."""
    names = {server.service.tokenizer.bytes_of(token): token for token in range(259)}
    return [names[bytes(one.bytes)] for one in logprobs.content]


def test_they_are_the_models_own(server: Served, client: OpenAI, speller: Backbone, speller_dir: Path) -> None:
    """Whatever is drawn from: of the token that was drawn, and of the likeliest in its place. Under an adapter, its own."""
    prompt = server.service.tokenizer.chat(CHAT, "", answer=True).tolist()
    for model in ("backbone", "sea"):
        asked: Any = {"messages": CHAT, "logprobs": True, "top_logprobs": 4, "max_tokens": 20, **DRAWN}
        (choice,) = client.chat.completions.create(model=model, **asked).choices
        own = ids_of(server, choice.logprobs)
        whole = [*prompt, *own]
        expected = by_transformers(speller_dir, whole) if model == "backbone" else under(server, speller, whole)
        for place, (token, one) in enumerate(zip(own, choice.logprobs.content, strict=True), len(prompt) - 1):
            assert one.logprob == pytest.approx(float(expected[place, token]), abs=1e-4)
            assert [top.logprob for top in one.top_logprobs] == pytest.approx(sorted(expected[place])[:-5:-1], abs=1e-4)
        assert any(one.token != one.top_logprobs[0].token for one in choice.logprobs.content)


def under(server: Served, speller: Backbone, ids: list[int]) -> np.ndarray:
    """The same of a forward pass of the whole text under the adapter."""
    bank = Bank(speller)
    bank.put("sea", server.service.residents.adapter(server.service.residents.resolve("sea")))
    inputs = TextInputs(np.array([ids], np.int32), np.ones((1, len(ids)), bool), np.zeros((1, len(ids)), np.int32))
    slots = np.array([bank.slot("sea")], np.int32)
    hidden = speller.encode(speller.params, bank.state, inputs, slots).hidden
    return np.asarray(jax.nn.log_softmax(speller.next_token(speller.params, bank.state, hidden, slots)[0], axis=-1))


def test_pieces_have_what_the_whole_has(server: Served, client: OpenAI) -> None:
    """In both forms, beside texts whose tokens are not told, and with no further program."""
    asked: Any = {"model": "sea", "max_tokens": 40, **DRAWN}
    plain = client.completions.create(prompt=PROMPT, **asked).choices[0]
    counted = server.service.generator.compilations
    assert client.completions.create(prompt=PROMPT, logprobs=2, **asked).choices[0].text == plain.text
    assert server.service.generator.compilations == counted
    with ThreadPoolExecutor(4) as threads:
        others = [threads.submit(client.completions.create, prompt=PROMPT, **asked) for _ in range(2)]
        whole = client.completions.create(prompt=PROMPT, logprobs=2, **asked).choices[0]
        pieces = [one.choices[0] for one in client.completions.create(prompt=PROMPT, logprobs=2, stream=True, **asked)]
        assert {other.result().choices[0].text for other in others} == {plain.text}
    assert (whole.text, plain.logprobs) == (plain.text, None)
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        told = [entry for piece in pieces for entry in getattr(piece.logprobs, name)]
        if name in ("token_logprobs", "top_logprobs"):
            assert flat(told) == pytest.approx(flat(getattr(whole.logprobs, name)), abs=1e-5)
        else:
            assert told == getattr(whole.logprobs, name)
    assert len(whole.logprobs.tokens) == 40
    for token, at, likeliest in zip(
        whole.logprobs.tokens, whole.logprobs.text_offset, whole.logprobs.top_logprobs, strict=True
    ):
        assert token.startswith("bytes:\\x") or whole.text[at : at + 1] == token
        assert len(likeliest) in (2, 3)
        assert token in likeliest


def flat(told: list[Any]) -> list[float]:
    return [number for one in told for number in (one.values() if isinstance(one, dict) else [one])]


def test_a_chats_bytes_are_its_text(client: OpenAI) -> None:
    """Also where a character is several tokens, and where a token is no character."""
    asked: Any = {"model": "sea", "messages": CHAT, "logprobs": True, "max_tokens": 40, "temperature": 1.0, "seed": 1}
    (choice,) = client.chat.completions.create(**asked).choices
    assert b"".join(bytes(one.bytes) for one in choice.logprobs.content).decode("utf-8", "replace") == choice.message.content
    assert any(one.token.startswith("\\x") for one in choice.logprobs.content)
    pieces = [piece.choices[0] for piece in client.chat.completions.create(stream=True, **asked)]
    told = [one.bytes for piece in pieces if piece.logprobs for one in piece.logprobs.content]
    assert told == [one.bytes for one in choice.logprobs.content]
    assert all(one.top_logprobs == [] for one in choice.logprobs.content)


def test_tokens_of_a_stop_text_are_not_told(client: OpenAI) -> None:
    asked: Any = {"model": "sea", "prompt": PROMPT, "temperature": 0, "max_tokens": 20, "logprobs": 0}
    whole = client.completions.create(**asked).choices[0]
    stop = whole.text[5:7]
    cut = whole.text.index(stop)
    stopped = client.completions.create(stop=stop, **asked)
    told = stopped.choices[0].logprobs
    assert told.tokens == [
        token for token, at in zip(whole.logprobs.tokens, whole.logprobs.text_offset, strict=True) if at < cut
    ]
    assert told.top_logprobs == [dict([pair]) for pair in zip(told.tokens, told.token_logprobs, strict=True)]
    assert stopped.usage.completion_tokens == sum(at < cut + len(stop) for at in whole.logprobs.text_offset)  # and none behind
    assert all(math.isfinite(one) and one < 0 for one in told.token_logprobs)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("completions", {"prompt": PROMPT, "logprobs": 21}, "logprobs must be .*at most 20.*, got 21"),
        ("completions", {"prompt": PROMPT, "logprobs": True}, "logprobs must be .*, got True"),
        ("chat/completions", {"messages": CHAT, "top_logprobs": 2}, "top_logprobs: only together with logprobs true"),
        ("chat/completions", {"messages": CHAT, "logprobs": 3}, "logprobs must be true or false"),
    ],
)
def test_what_is_refused(path: str, body: Any, said: str, client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match=said):
        client.post(f"/{path}", body={"model": "backbone", **body}, cast_to=object)
