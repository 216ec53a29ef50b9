"""Connections: who does nothing is given up, and harms nobody; and TLS."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from certificates import self_signed
from conftest import Graftax
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from http_servers import Served, connected, request_of, served, until
from refusals import refused

from graftax.models.backbone import Backbone
from graftax.serve.http.limits import Limits
from graftax.serve.http.tls import Certificate

PROMPT = "One day"
LONG: dict[str, Any] = {"model": "backbone", "messages": [{"role": "user", "content": "hello"}], "temperature": 1}
LONG |= {"logprobs": True, "top_logprobs": 20, "max_tokens": 60, "seed": 1}
PLAIN = PrivateFormat.PKCS8, NoEncryption()


@pytest.fixture(scope="module")
def server(teller: Backbone) -> Iterator[Served]:
    with served(teller, lanes=4, send_buffer=4096, limits=Limits(patience=2.0)) as there:
        yield there


def all_from(other: socket.socket) -> bytes:
    """What comes until the other side has gone."""
    said = b""
    with suppress(ConnectionResetError):
        while piece := other.recv(1 << 16):
            said += piece
    return said


@pytest.mark.parametrize("stream", [True, False])
def test_who_does_not_read_is_given_up(stream: bool, server: Served) -> None:
    """Its lanes are free, and what was kept for it is gone: more than a system has room for. Others are answered meanwhile."""
    with connected(server) as silent:
        silent.sendall(request_of("/v1/chat/completions", n=4, stream=stream, **LONG))
        until(lambda: server.engine.running)
        answer = server.post("/v1/completions", model="backbone", prompt=PROMPT, max_tokens=4, temperature=0)
        assert answer.json()["usage"]["completion_tokens"] == 4
        until(lambda: not server.engine.running and not server.engine.waiting)
        port = silent.getsockname()[1]
        until(lambda: all(one.client[1] != port for one in [*server.server.server_state.connections] if one.client))
        head, _, body = all_from(silent).partition(b"\r\n\r\n")
    whole = body.endswith(b"[DONE]\n\n\r\n0\r\n\r\n") if stream else f"content-length: {len(body)}\r".encode() in head + b"\r"
    assert not whole


@pytest.mark.parametrize("begun", [b"", b"POST /v1/completions HTT", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea"])
def test_who_does_not_ask_is_given_up(begun: bytes, server: Served) -> None:
    """Nothing at all, a part of a request, a part of a second one."""
    with connected(server) as silent:
        silent.sendall(begun)
        said = all_from(silent)
        assert said.startswith(b"HTTP/1.1 200 OK" if b"\r\n\r\n" in begun else b"")
        assert len(said) < 1000


def test_who_reads_slowly_gets_all(server: Served) -> None:
    """Longer than the patience, but without a rest that is as long."""
    with connected(server) as slow:
        slow.sendall(request_of("/v1/chat/completions", n=4, stream=True, **LONG))
        said = b""
        while not said.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            piece = slow.recv(1 << 10)
            assert piece, "it is given up"
            said += piece
            time.sleep(0.005)
    assert said.count(b'"finish_reason": "') == 4


# -- TLS ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """One that vouches for itself."""
    return self_signed(tmp_path_factory.mktemp("tls"))


def test_it_speaks_tls(teller: Backbone, certificate: Certificate) -> None:
    with served(teller, lanes=2, certificate=certificate) as server:
        assert server.url.startswith("https://")
        pieces = server.openai().completions.create(model="backbone", prompt=PROMPT, max_tokens=4, temperature=0, stream=True)
        assert [piece.choices[0].finish_reason for piece in pieces][-1] == "length"
        with pytest.raises(httpx2.ConnectError, match="certificate verify failed"):
            httpx2.get(f"{server.url}/health")
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"{server.url}/health".replace("https", "http"))


def test_what_is_no_certificate(certificate: Certificate, graftax: Graftax, teller_dir: Path, tmp_path: Path) -> None:
    key, other = certificate.key, tmp_path / "other.pem"
    assert key is not None
    other.write_text(ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, *PLAIN).decode())
    assert "no certificate and key for TLS" in (refused(lambda: Certificate(tmp_path / "none", key)) or "")
    assert "no certificate and key for TLS" in (refused(lambda: Certificate(certificate.file)) or "")
    assert "KEY_VALUES_MISMATCH" in (refused(lambda: Certificate(certificate.file, other)) or "").upper().replace(" ", "_")
    assert "the key has a password" in (refused(lambda: Certificate(certificate.file, key.with_name("locked.pem"))) or "")
    for given, said in (
        (["--ssl-keyfile", key], "give --ssl-certfile, too."),
        (["--ssl-certfile", key], "no certificate and key"),
    ):
        done = graftax("serve", "-b", teller_dir, *given)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert said in done.err
