"""A server as people have it, on loopback: uvicorn in a thread, asked by OpenAI's own client or by anything else."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar
from unittest.mock import patch

import httpx2
import uvicorn
from cases import randomised
from openai import OpenAI
from starlette.types import ASGIApp

from graftax import Adapter, Generator, LoRA, Predictor
from graftax.models.backbone import Backbone
from graftax.serve.engine import Engine
from graftax.serve.http.app import make_app
from graftax.serve.http.further import Further
from graftax.serve.http.keys import Key
from graftax.serve.http.service import Service
from graftax.serve.http.serving import listening, make_service, server_of
from graftax.serve.http.tls import Certificate

T = TypeVar("T", Predictor, Generator)

_PATIENCE = 120.0  # seconds: a program may be compiled on a busy machine


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    service: Service
    url: str  # without /v1
    server: uvicorn.Server
    _client: httpx2.Client

    def openai(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=_PATIENCE, http_client=self._client)

    def ask(self, method: str, path: str, **content: Any) -> httpx2.Response:
        return self._client.request(method, f"{self.url}{path}", **content)

    @property
    def engine(self) -> Engine:
        return self.service.engine

    def post(self, path: str, **body: Any) -> httpx2.Response:
        return self.ask("POST", path, json=body)


@contextmanager
def served(
    backbone: Backbone,
    adapters: Mapping[str, Adapter] = MappingProxyType({}),
    *,
    keys: tuple[Key, ...] = (),
    origins: tuple[str, ...] = (),
    certificate: Certificate | None = None,
    send_buffer: int | None = None,
    within: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    further: Callable[[Service], Sequence[Further]] = lambda service: (),
    **options: Any,
) -> Iterator[Served]:
    """A server of a backbone and some adapters while the block runs; options are those of `make_service`.

    Requests that name no seed are all sampled with the same one, so that no test fails once in a hundred times.
    `send_buffer`: bytes that the system keeps of what a client has not read; `within`: what the app is put in;
    `further`: what is answered besides.
    """
    service = make_service(backbone, **options)
    for name, adapter in adapters.items():
        service.residents.register(name, adapter)
    server = server_of(within(make_app(service, keys, origins, further(service))), service.limits, certificate)
    trust = ssl.create_default_context(cafile=None if certificate is None else certificate.file)
    scheme = "http" if certificate is None else "https"
    with listening("127.0.0.1", 0) as there, patch("graftax.serve.http.written.drawn_seed", return_value=0):
        if send_buffer is not None:
            there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [there]}, daemon=True)
        thread.start()
        until(lambda: server.started or not thread.is_alive())
        with httpx2.Client(timeout=_PATIENCE, verify=trust) as client:
            yield Served(service, f"{scheme}://127.0.0.1:{there.getsockname()[1]}", server, client)
        server.should_exit = True
        thread.join(_PATIENCE)
        assert not thread.is_alive(), "the server does not end"


def connected(server: Served) -> socket.socket:
    """A raw connection, of which the system takes little that is not read."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(60)
    made.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    return made


def request_of(path: str, **body: object) -> bytes:
    """A request as it is sent over such a connection."""
    content = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def loaded(asked: T, adapters: Mapping[str, Adapter]) -> T:
    """A predictor or a generator, when it has loaded some adapters."""
    for name, adapter in adapters.items():
        asked.load(name, adapter)
    return asked


def until(true: Any) -> None:
    """Return when something has become true."""
    end = time.monotonic() + _PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def speaker(teller: Backbone, seed: int) -> Adapter:
    """An adapter of a language model that says something else than the backbone, and than others."""
    method = LoRA(r=2, alpha=3.0, targets=("q_proj", "v_proj", "down_proj"))
    made = Adapter.create((method,), teller.sites, task="lm", fingerprint=teller.fingerprint)
    return randomised(made, seed)
