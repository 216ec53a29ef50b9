"""What the server says to what it does not take: a status and one line in OpenAI's form, never a traceback, never a hang."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_servers import Served, served, speaker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import AuthenticationError, BadRequestError
from refusals import refused

from graftax import save_adapter
from graftax.models.backbone import Backbone
from graftax.serve.http.keys import Key, read_keys
from graftax.serve.http.limits import Limits

STATUSES = {400, 404, 413, 422, 429, 503}
ASKED = {"model": "backbone", "prompt": "a"}


@pytest.fixture(scope="module")
def root(teller: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where adapters may be loaded from: one, one that is damaged, and ways out."""
    made, outside = tmp_path_factory.mktemp("allowed"), tmp_path_factory.mktemp("forbidden") / "outside"
    save_adapter(speaker(teller, 1), made / "sea", teller)
    save_adapter(speaker(teller, 1), outside, teller)
    save_adapter(speaker(teller, 1), made / "damaged", teller)
    (made / "damaged" / "adapter_model.safetensors").write_bytes(b"no tensors")
    (made / "link").symlink_to(outside)
    (made / "within").mkdir()
    for file in outside.iterdir():
        (made / "within" / file.name).symlink_to(file)
    (made / "circle").symlink_to(made / "circle")
    return made


@pytest.fixture(scope="module")
def server(teller: Backbone, root: Path) -> Iterator[Served]:
    with served(teller, roots=[root], limits=Limits(max_body=20_000, max_prompt=50, max_texts=8, patience=2.0)) as there:
        yield there


def complaint(answer: Any, status: int) -> dict[str, Any]:
    """What an error says, which has OpenAI's form and one line."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["message"].isprintable()
    assert "Traceback" not in error["message"]
    return dict(error)


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"model": "x"}, "model", "there is no model 'x': the base is 'backbone', and no adapter named 'x' is loaded"),
        ({"model": None}, "model", "model is missing."),
        ({"model": 3}, "model", "model must be a text, not empty, got 3."),
        ({"prompt": None}, "prompt", "prompt is missing."),
        ({"prompt": 3}, "prompt", "prompt must be a text, a list of token ids, or a list of either."),
        ({"prompt": ["a", 3]}, "prompt", "prompt must be"),
        ({"prompt": [[True]]}, "prompt", "prompt must be"),
        ({"prompt": [1, 9999]}, None, "there is no token 9999"),
        ({"prompt": [1, -1]}, None, "the prompt must be"),
        ({"prompt": [1, 1 << 70]}, None, "the prompt must be"),
        ({"prompt": ""}, None, "the prompt is empty."),
        ({"prompt": "a" * 60}, None, "a prompt of 61 tokens, and this server takes 50 (--max-prompt)."),
        (
            {"prompt": "a" * 40, "max_tokens": 90},
            None,
            "a prompt of 41 tokens and 90 new ones are more than the 96 of the context.",
        ),
        ({"prompt": ["a"] * 9}, None, "9 prompts, 1 text each: more than 8 (--max-texts)."),
        ({"n": 9}, None, "1 prompt, 9 texts each: more than 8 (--max-texts)."),
        ({"n": 0}, "n", "n must be a whole number, at least 1 and at most 128, got 0."),
        ({"max_tokens": 0}, "max_tokens", "max_tokens must be a whole number"),
        ({"max_tokens": True}, "max_tokens", "max_tokens must be a whole number"),
        ({"temperature": -1}, "temperature", "temperature must be a number, at least 0"),
        ({"temperature": "hot"}, "temperature", "temperature must be a number"),
        ({"top_p": 0}, "top_p", "top_p must be a number, above 0 and at most 1, got 0."),
        ({"seed": 1.5}, "seed", "seed must be a whole number or null, got 1.5."),
        ({"stop": [""]}, "stop", "stop must be"),
        ({"stop": ""}, "stop", "stop must be a text, not empty or a list"),
        ({"stop": ["a"] * 17}, "stop", "at most 16 of them"),
        ({"stream": "yes"}, "stream", "stream must be true or false, got 'yes'."),
        ({"stream_options": {"x": 1}}, "stream_options", "stream_options: no such key: x; there are include_usage."),
        ({"user": 3}, "user", "user must be a text or null, got 3."),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "frequency_penalty: not supported; repetition_penalty is."),
        ({"presence_penalty": 1}, "presence_penalty", "presence_penalty: not supported; repetition_penalty is."),
        ({"prompt_logprobs": 1}, "prompt_logprobs", "prompt_logprobs: log probabilities are told of what is written, not of"),
        ({"echo": True}, "echo", "echo: the prompt is not repeated."),
        ({"wisdom": 1}, "wisdom", "no such parameter: wisdom; there are model, user, n, max_tokens"),
    ],
)
def test_what_is_not_taken(change: dict[str, Any], param: str | None, said: str, server: Served) -> None:
    error = complaint(server.post("/v1/completions", **(ASKED | change)), 404 if change == {"model": "x"} else 400)
    assert said in error["message"]
    assert error["param"] == param


@pytest.mark.parametrize(
    "harmless",
    [
        {"user": "me", "metadata": {"a": "b"}, "store": True},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "best_of": 1, "echo": False, "suffix": ""},
        {"response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "logprobs": False, "seed": -5},
    ],
)
def test_what_changes_nothing_is_taken(harmless: dict[str, Any], server: Served) -> None:
    assert server.post("/v1/completions", **ASKED, max_tokens=1, temperature=0, **harmless).status_code == 200


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "the prompt is empty."),
        (["hello"], "a message is not an object with role and content"),
        ([{"role": "user"}], "a message is not an object with role and content"),
        ([{"role": "user", "content": 3}], "messages[0]: content must be a text or a list of parts, got 3."),
        ([{"role": "user", "content": "a"}, {"role": 3, "content": "b"}], "messages[1]: role must be a text, got 3."),
        ([{"role": "user", "content": None}], "the prompt: a message has no content, which is null."),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "a message has a part that is no text",
        ),
        ("hello", "messages must be a list"),
    ],
)
def test_chats_that_are_none(messages: Any, said: str, server: Served) -> None:
    answer = server.post("/v1/chat/completions", model="backbone", messages=messages, max_tokens=1)
    assert said in complaint(answer, 400)["message"]


CALL = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
CALLING = [{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "call_1", "content": "noon"}]


@pytest.mark.parametrize(
    ("messages", "same"),
    [
        ([{"role": "user", "content": [{"type": "text", "text": "he"}, {"type": "text", "text": "y"}]}], [("user", "hey")]),
        ([{"role": "user", "content": []}], [("user", "")]),
        ([{"role": "system", "content": "Be brief."}], [("system", "Be brief.")]),
        ([{"role": "user", "content": "hey", "name": "me"}], [("user", "hey")]),
        ([{"role": "user", "content": "hey"}, *CALLING], [("user", "hey"), ("assistant", ""), ("tool", "noon")]),
    ],
)
def test_unusual_chats(messages: Any, same: list[tuple[str, str]], server: Served) -> None:
    """Content in parts, none at all, and what OpenAI's client sends of an earlier call: without a content."""
    plain = [{"role": role, "content": content} for role, content in same]
    asked = {"model": "backbone", "max_tokens": 4, "temperature": 0, "logprobs": True}
    one, other = (server.post("/v1/chat/completions", messages=chat, **asked) for chat in (messages, plain))
    assert one.status_code == other.status_code == 200, one.text
    assert one.json()["usage"]["prompt_tokens"] == other.json()["usage"]["prompt_tokens"]
    told, expected = (
        [token["logprob"] for token in answer.json()["choices"][0]["logprobs"]["content"]] for answer in (one, other)
    )
    assert told == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "the body: not valid JSON"),
        (b'{"model": ', 400, "the body: not valid JSON"),
        (b'{"model": "\xff"}', 400, "the body is not UTF-8 text"),
        (b'{"model": "\\ud800"}', 400, "half of a surrogate pair"),
        (b'{"temperature": NaN}', 400, "NaN is not a number"),
        (b'{"temperature": 1e999}', 400, "is too large a number"),
        (b'{"seed": ' + b"9" * 5000 + b"}", 400, "the body: not valid JSON"),
        (b'{"model": "a", "model": "b"}', 400, "the key 'model' is there twice"),
        (b"[" * 9000, 400, "the body: not valid JSON"),
        (b"[]", 400, "the body must be a JSON object."),
        (b'"text"', 400, "the body must be a JSON object."),
        (b" " * 20_001, 413, "the body has more than the 20,000 bytes that this server takes (--max-body)."),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/classify"])
def test_bodies_that_are_no_json(path: str, body: bytes, status: int, said: str, server: Served) -> None:
    assert said in complaint(server.ask("POST", path, content=body), status)["message"]
    pieces = iter([body[:100], body[100:]])  # without a length that is known before
    assert said in complaint(server.ask("POST", path, content=pieces), status)["message"]


def test_paths_and_methods_that_are_not_there(server: Served) -> None:
    assert complaint(server.ask("GET", "/v2"), 404)["type"] == "not_found_error"
    assert complaint(server.ask("GET", "/v1/completions"), 405)["message"] == "GET /v1/completions: Method Not Allowed."
    assert complaint(server.ask("GET", "/v1/models/../../etc/passwd"), 404)
    assert complaint(server.ask("GET", "/v1/models/%00%0a"), 404)


def test_a_client_that_sends_no_more(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=20) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        assert raw.recv(100).startswith(b"HTTP/1.1 408")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    "model",
    "prompt",
    "messages",
    "input",
    "n",
    "stop",
    "seed",
    "temperature",
    "top_p",
    "stream",
    "stream_options",
    "user",
]
NAMES += ["max_tokens", "logprobs", "tools", "encoding_format", "dimensions", "lora_name", "lora_path", "load_inplace", "x"]
PATHS = ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/classify", "/v1/tag", "/v1/load_lora_adapter"]


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), body=st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=6), real=st.booleans())
def test_whatever_is_sent(path: str, body: dict[str, Any], real: bool, server: Served) -> None:
    """An answer, or an error in its form; `real`: a model that there is."""
    answer = server.ask("POST", path, content=json.dumps(body | ({"model": "backbone", "max_tokens": 1} if real else {})))
    if answer.status_code != 200:
        assert answer.status_code in STATUSES
        complaint(answer, answer.status_code)


# -- adapters that are loaded ---------------------------------------------------------------------------------------------


def test_adapters_are_loaded_and_unloaded_as_in_vllm(server: Served, root: Path) -> None:
    load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
    assert server.post(load, lora_name="a", lora_path=str(root / "sea")).text == "Success: LoRA adapter 'a' added successfully."
    again = complaint(server.post(load, lora_name="a", lora_path=str(root / "sea")), 400)
    assert again == {
        "message": "The lora adapter 'a' has already been loaded. If you want to load the adapter in place, "
        "set 'load_inplace' to True.",
        "type": "InvalidUserInput",
        "param": None,
        "code": 400,
    }
    in_place = server.post(load, lora_name="a", lora_path=str(root / "sea"), load_inplace=True)
    assert in_place.text == "Success: LoRA adapter 'a' added successfully."
    assert complaint(server.post(load, lora_name="a"), 400)["message"] == "Both 'lora_name' and 'lora_path' must be provided."
    damaged = complaint(server.post(load, lora_name="a", lora_path=str(root / "damaged"), load_inplace=True), 400)
    assert damaged["type"] == "BadRequestError"
    assert {"a"} == {card["id"] for card in server.ask("GET", "/v1/models").json()["data"]} - {"backbone"}
    assert server.post(unload, lora_name="a").text == "Success: LoRA adapter 'a' removed successfully."
    gone = complaint(server.post(unload, lora_name="a"), 404)
    assert (gone["message"], gone["type"]) == ("The lora adapter 'a' cannot be found.", "NotFoundError")


@pytest.mark.parametrize("name", [" ", "a\nb", "\x1b[31m", "n" * 256])
def test_names_that_no_list_could_show(name: str, server: Served, root: Path) -> None:
    error = complaint(server.post("/v1/load_lora_adapter", lora_name=name, lora_path=str(root / "sea")), 400)
    assert error["type"] == "InvalidUserInput"
    assert error["message"].startswith("'lora_name' must be at most 255 characters that can be seen, got '")


@pytest.mark.parametrize(
    "path", ["/etc", "{root}/../outside", "{root}/link", "{root}/within", "{root}/circle", "{root}/none", "a\0b"]
)
def test_nothing_is_loaded_from_elsewhere(path: str, server: Served, root: Path) -> None:
    """Not by the path, not by a link to a folder, not by links to files; and nobody learns whether it is there."""
    given = path.format(root=root)
    error = complaint(server.post("/v1/load_lora_adapter", lora_name="a", lora_path=given), 404)
    assert error["type"] == "NotFoundError"
    assert error["message"].endswith(": nothing there below --allow-path.")


# -- keys -----------------------------------------------------------------------------------------------------------------


def test_who_has_no_key_is_answered_nothing(teller: Backbone) -> None:
    keys = tuple(Key(hashlib.sha256(key.encode()).digest(), key == "boss") for key in ("mine", "boss"))
    with served(teller, keys=keys) as server:
        assert [card.id for card in server.openai("mine").models.list()] == ["backbone"]
        with pytest.raises(AuthenticationError):
            server.openai("min").models.list()
        for path in ("/v1/models", "/metrics", "/nowhere"):
            answer = server.ask("GET", path)
            assert complaint(answer, 401)["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
        assert [server.ask("GET", path).status_code for path in ("/health", "/ready")] == [200, 200]
        bearers = [{"Authorization": f"Bearer {key}"} for key in ("mine", "boss")]
        said = [complaint(server.ask("POST", "/v1/unload_lora_adapter", headers=own, json={}), 403) for own in bearers]
        assert [error["code"] for error in said] == ["insufficient_permissions", None]
        with pytest.raises(BadRequestError):
            server.openai("mine").completions.create(model="backbone", prompt="")


def test_a_file_of_keys(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"mine").hexdigest()
    file = tmp_path / "keys"
    file.write_text(f"# who asks\n{digest}  # me\n\n{digest.upper()} admin\n")
    assert read_keys(file) == (Key(bytes.fromhex(digest), False), Key(bytes.fromhex(digest), True))
    for text, said in (("mine\n", "line 1 is no key"), (f"{digest} boss", "line 1 is no key"), ("# none\n", "has no keys")):
        file.write_text(text)
        assert said in (refused(lambda: read_keys(file)) or "")
    assert "no such file of API keys" in (refused(lambda: read_keys(tmp_path / "none")) or "")
