"""Texts that are held to a form: whatever a random model would rather say, they parse, and are what the schema takes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from http_servers import Served, served, speaker
from openai import BadRequestError, OpenAI
from openai.types.chat import ChatCompletion

from graftax import Generator
from graftax.models.backbone import Backbone

pytest.importorskip("llguidance")

CHAT: Any = [{"role": "user", "content": "hello"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["sea", "law"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "card", "strict": True, "schema": SCHEMA}}


@pytest.fixture(scope="module")
def server(teller: Backbone) -> Iterator[Served]:
    with served(teller, {"sea": speaker(teller, 3)}, lanes=4, slots=2) as there:
        yield there


@pytest.fixture(scope="module")
def client(server: Served) -> OpenAI:
    return server.openai()


def fits(text: str) -> bool:
    card = json.loads(text)
    return (
        list(card) == ["name", "age", "kind"]
        and len(card["name"]) <= 5
        and card["kind"] in ("sea", "law")
        and 0 <= card["age"] <= 150
    )


def test_answers_are_what_the_schema_takes(server: Served, client: OpenAI, teller: Backbone) -> None:
    """Drawn and greedy, under an adapter and none, whole and in pieces; texts beside them are what they are alone."""
    asked: Any = {"messages": CHAT, "max_tokens": 70, "response_format": FORMAT, "temperature": 1.0, "seed": 5}
    free: Any = {"model": "backbone", "prompt": "One day", "max_tokens": 60, "temperature": 0}
    with ThreadPoolExecutor(3) as threads:
        beside = [threads.submit(client.completions.create, **free) for _ in range(2)]
        whole = client.chat.completions.create(model="sea", n=2, logprobs=True, **asked)
        texts = {future.result().choices[0].text for future in beside}
    assert texts == {Generator(teller).generate(["One day"], None, max_new_tokens=60)[0].text}
    for choice in whole.choices:
        assert choice.finish_reason == "stop"
        assert fits(choice.message.content)
        assert b"".join(bytes(one.bytes) for one in choice.logprobs.content).decode() == choice.message.content
    pieces = client.chat.completions.create(model="sea", stream=True, **asked)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole.choices[0].message.content
    greedy = client.chat.completions.create(model="backbone", **(asked | {"temperature": 0}))
    assert fits(greedy.choices[0].message.content)
    assert not server.engine.running


def test_a_text_that_is_cut_says_so(client: OpenAI) -> None:
    asked: Any = {"model": "sea", "messages": CHAT, "response_format": FORMAT, "seed": 1}
    cut: ChatCompletion = client.chat.completions.create(max_tokens=7, **asked)
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 7)
    assert cut.choices[0].message.content == '{"name"'


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ({"choice": ["yes", "no way"]}, "yes|no way"),
        ({"regex": "[a-c]{3}-[0-9]"}, "[a-c]{3}-[0-9]"),
        (
            {"json": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}},
            r"\[(true|false), ?(true|false)]",
        ),
    ],
)
def test_what_vllm_asks_for(given: Any, pattern: str, client: OpenAI) -> None:
    extra = {"structured_outputs": given}
    answer = client.completions.create(model="sea", prompt="One day", max_tokens=40, seed=3, extra_body=extra)
    assert (answer.choices[0].finish_reason, bool(re.fullmatch(pattern, answer.choices[0].text))) == ("stop", True)


def test_an_object_of_json(client: OpenAI) -> None:
    """Any: what a random model says has no end, but a beginning."""
    answer = client.chat.completions.create(
        model="sea", messages=CHAT, max_tokens=20, response_format={"type": "json_object"}, temperature=0
    )
    assert answer.choices[0].message.content[0] == "{"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format: json_schema.schema is missing."),
        ({"response_format": {"type": "yaml"}}, 'response_format: type must be "text" or "json_object" or "json_schema"'),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "wat"}}}}, "Invalid type: wat"),
        ({"structured_outputs": {"regex": "(?=a)b"}}, "look-around"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "regex and choice: only one of them can be obeyed."),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "only one of them can be obeyed."),
    ],
)
def test_what_cannot_be_obeyed(given: Any, said: str, client: OpenAI, server: Served) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.post("/chat/completions", body={"model": "sea", "messages": CHAT, **given}, cast_to=object)
    assert said in refused.value.message
    assert "\n" not in refused.value.body["message"]
    assert not server.engine.waiting


def test_without_the_library(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(BadRequestError, match=r"need llguidance: pip install 'graftax\[structured\]'"):
        client.chat.completions.create(model="sea", messages=CHAT, response_format=FORMAT)
