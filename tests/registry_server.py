"""A registry of OCI artefacts on loopback: as much of the distribution protocol as images need, with or without passwords."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

NAME, PASSWORD = "ada", "secret"
TO_READ, TO_WRITE = "repository:team/bank:pull", "repository:team/bank:pull,push"


class Registry(ThreadingHTTPServer):
    """Its content, and what is asked of who comes: "none", "basic" or "bearer"."""

    daemon_threads = True

    def __init__(self, asks: str):
        super().__init__(("127.0.0.1", 0), _Requests)
        self.asks = asks
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.uploads = 0  # of blobs
        self.location = "/v2/team/bank/blobs/uploads/1?state=x"  # where they are to be sent
        self.redirected: str | None = None  # the host that has the blobs, if it is another
        self.given: set[str | None] = set()  # with what people came, in the header Authorization

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Requests(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        given = self.headers.get("Authorization")
        self.server.given.add(given)
        basic = "Basic " + base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()
        wanted = TO_READ if self.command in ("GET", "HEAD") else TO_WRITE
        if url.path == "/token":
            asked = parse_qs(url.query)
            sound = given == basic and asked["service"] == ["here"] and asked["scope"][0] in (TO_READ, TO_WRITE)
            self._answer(200 if sound else 401, json.dumps({"token": f"for {asked['scope'][0]}"}).encode())
        elif self.server.asks == "basic" and given != basic:
            self._answer(401, WWW_Authenticate='Basic realm="here"')
        elif self.server.asks == "bearer" and given not in (f"Bearer for {wanted}", f"Bearer for {TO_WRITE}"):
            realm = f'realm="http://{self.server.host}/token",service="here",scope="{wanted}"'
            self._answer(401, WWW_Authenticate=f"Bearer {realm}")
        else:
            self._serve(url.path.removeprefix("/v2/team/bank/"), parse_qs(url.query), body)

    def _serve(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        kind, _, name = path.partition("/")
        if self.command == "POST" and path == "blobs/uploads/":
            self._answer(202, Location=self.server.location)
        elif self.command == "PUT" and kind == "blobs" and query["state"] == ["x"]:
            (digest,) = query["digest"]
            sound = digest == f"sha256:{hashlib.sha256(body).hexdigest()}"
            self.server.blobs[digest] = body
            self.server.uploads += 1
            self._answer(201 if sound else 400)
        elif self.command == "PUT":
            named = [json.loads(body)["config"], *json.loads(body)["layers"]]
            self.server.manifests[name] = (body, self.headers["Content-Type"])
            self._answer(201 if all(one["digest"] in self.server.blobs for one in named) else 400)
        elif kind == "manifests" and name in self.server.manifests:
            content, media_type = self.server.manifests[name]
            self._answer(200, content, Content_Type=media_type)
        elif kind == "blobs" and self.server.redirected is not None:
            self._answer(307, Location=f"http://{self.server.redirected}/v2/team/bank/{path}")
        elif kind == "blobs" and name in self.server.blobs:
            self._answer(200, self.server.blobs[name])
        else:
            self._answer(404, b'{"errors": [{"code": "UNKNOWN"}]}')

    do_GET = do_HEAD = do_POST = do_PUT = _handle


@contextmanager
def running(asks: str = "none") -> Iterator[Registry]:
    with Registry(asks) as registry:
        threading.Thread(target=registry.serve_forever, daemon=True).start()
        try:
            yield registry
        finally:
            registry.shutdown()
