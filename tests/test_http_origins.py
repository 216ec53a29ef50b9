"""Pages of other hosts: what a browser is made to ask for them is refused, unless their origin is allowed; programs may ask."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from cases import random_adapter
from conftest import Graftax
from http_servers import Served, served

from graftax import GraftaxError, LoRA
from graftax.models.backbone import Backbone
from graftax.serve.http.keys import Key
from graftax.serve.http.origins import origins_of

CHAT, EVIL = "https://chat.example.org", "http://evil.example.org"
ASKED = {"model": "fruit", "input": "a red apple"}


@pytest.fixture(scope="module")
def server(tiny: Backbone) -> Iterator[Served]:
    """Which the pages of one origin may ask."""
    with served(tiny, {"fruit": random_adapter(tiny, (LoRA(r=2),))}, origins=(CHAT,)) as there:
        yield there


def asked(server: Served, **headers: str) -> int:
    """The status of an answer to somebody whose browser sends these; a dash stands for an underscore."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.ask("POST", "/classify", json=ASKED, headers=names).status_code


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program
        ({"Sec_Fetch_Site": "same-origin", "Origin": "http://whatever"}, 200),  # the page itself, behind whatever proxy
        ({"Sec_Fetch_Site": "cross-site", "Origin": CHAT}, 200),
        ({"Sec_Fetch_Site": "cross-site", "Origin": EVIL}, 403),
        ({"Sec_Fetch_Site": "same-site", "Origin": EVIL}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Origin": EVIL}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "{own}"}, 200),
    ],
)
def test_who_may_ask(headers: dict[str, str], status: int, server: Served) -> None:
    own = {name: value.format(own=server.url) for name, value in headers.items()}
    assert asked(server, **own) == status


def test_what_a_page_is_told(server: Served) -> None:
    """One line; nothing is done for it. To look on is free, and its browser keeps that from it."""
    before = server.service.counts.prompt_tokens
    answer = server.ask("POST", "/classify", json=ASKED, headers={"Origin": EVIL})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (403, "origin_not_allowed")
    assert error["message"] == f"a page of {EVIL!r} asks, and may not (--allowed-origins)."
    assert server.service.counts.prompt_tokens == before
    for origin, told in ((CHAT, CHAT), (EVIL, None)):
        looked = server.ask("GET", "/v1/models", headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})
        assert (looked.status_code, looked.headers.get("access-control-allow-origin")) == (200, told)


def test_what_a_browser_asks_first(tiny: Backbone) -> None:
    """May it ask with JSON and a key? It may for an allowed page; a key is asked for then, and not before."""
    first = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    key = Key(hashlib.sha256(b"sesame").digest(), admin=False)
    with served(tiny, keys=(key,), origins=(CHAT,)) as server:
        answer = server.ask("OPTIONS", "/v1/embeddings", headers={"Origin": CHAT, **first})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, CHAT)
        assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
        assert server.ask("OPTIONS", "/v1/embeddings", headers={"Origin": EVIL, **first}).status_code == 400
        for given, status in (({}, 401), ({"Authorization": "Bearer sesame"}, 200)):
            body = {"model": "backbone", "input": "a"}
            answer = server.ask("POST", "/v1/embeddings", json=body, headers={"Origin": CHAT, **given})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, CHAT)
    with served(tiny) as server:
        assert server.ask("OPTIONS", "/v1/embeddings", headers={"Origin": CHAT, **first}).status_code == 405
    with served(tiny, origins=("*",)) as server:
        answer = server.ask("POST", "/v1/embeddings", json=body, headers={"Origin": EVIL})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")


def test_what_an_origin_is(graftax: Graftax, tiny_dir: str) -> None:
    assert origins_of(["https://Chat.example.org", "*", "null", "app://ui"]) == (CHAT, "*", "null", "app://ui")
    for wrong in ("chat.example.org", "https://chat.example.org/", "https://", "", "http://[", "a://b?c"):
        with pytest.raises(GraftaxError, match="an origin is such as"):
            origins_of([wrong])
    done = graftax("serve", "-b", tiny_dir, "--allowed-origins", "chat.example.org")
    assert (done.code, done.err.count("\n")) == (2, 1)
