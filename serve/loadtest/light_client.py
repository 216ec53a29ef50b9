"""HTTP/1.1 by asyncio's streams alone: who measures a server often shares its cores, and clients with more to them take as much
time for a request as the server does.

    async with LightClient("http://127.0.0.1:8000").asked("POST", "/v1/completions", {...}) as answer:
        async for piece in answer.pieces():
            ...

Connections are kept and used again. Whoever leaves the block before the answer has ended closes its connection, by which a
server sees that nobody listens.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ...errors import GraftaxError

_BROKEN = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)  # what reading ends with where a server breaks off


class NoAnswer(Exception):
    """A server that cannot be reached, breaks off, or says what is no HTTP."""


@dataclass(frozen=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass
class Answer:
    """An answer that has begun."""

    status: int
    headers: Mapping[str, str]  # by their names in lower case
    _reader: asyncio.StreamReader
    ended: bool = False  # whether all of it was read, and the connection is free for the next

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body in the pieces in which it comes; NoAnswer where it breaks off."""
        try:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                while size := int((await self._reader.readline()).partition(b";")[0], 16):
                    yield (await self._reader.readexactly(size + 2))[:-2]
                while (await self._reader.readline()).strip():  # headers behind the body
                    pass
            elif "content-length" in self.headers:
                yield await self._reader.readexactly(int(self.headers["content-length"]))
            else:
                yield await self._reader.read()
                return
        except _BROKEN as error:
            raise NoAnswer(f"the answer broke off ({error})") from error
        self.ended = self.headers.get("connection", "").lower() != "close"

    async def whole(self) -> bytes:
        """All of the body."""
        return b"".join([piece async for piece in self.pieces()])


class LightClient:
    """Asks one server, over as many connections as it has questions at once. It belongs to one event loop."""

    def __init__(self, url: str, key: str | None = None):
        """`url`: the server's, with or without the /v1 at its end; `key`: what it asks for. GraftaxError for what is no URL."""
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        except ValueError as error:
            raise GraftaxError(f"{url}: no URL ({error}).") from error
        if not self._host or self._port is None or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
            raise GraftaxError(f"{url}: no URL of a server, such as http://127.0.0.1:8000.")
        self._root = parts.path.rstrip("/").removesuffix("/v1")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = f"host: {parts.netloc.rpartition('@')[2]}\r\n" + (f"authorization: Bearer {key}\r\n" if key else "")
        if not (self._headers.isascii() and self._headers.replace("\r\n", "").isprintable() and " " not in self._root):
            raise GraftaxError("a URL or key with letters that no header can hold.")
        self._idle: list[_Connection] = []

    @asynccontextmanager
    async def asked(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> AsyncIterator[Answer]:
        """The answer to a request, as soon as it has begun; NoAnswer where there is none."""
        connection, answer = await self._begun(self._written(method, path, content))
        try:
            yield answer
        finally:
            if answer.ended:
                self._idle.append(connection)
            else:
                connection.writer.close()

    async def ask(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        async with self.asked(method, path, content) as answer:
            return answer.status, await answer.whole()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().writer.close()

    def _written(self, method: str, path: str, content: Mapping[str, Any] | None) -> bytes:
        body = b"" if content is None else json.dumps(content).encode()
        head = f"{method} {self._root}{path} HTTP/1.1\r\n{self._headers}content-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def _begun(self, request: bytes) -> tuple[_Connection, Answer]:
        """A request sent, and the beginning of its answer; once more where a kept connection turns out to be closed."""
        while self._idle:
            connection = self._idle.pop()
            try:
                return connection, await _beginning(connection, request)
            except NoAnswer:
                pass
        try:
            connection = _Connection(*await asyncio.open_connection(self._host, self._port, ssl=self._tls))
        except OSError as error:
            raise NoAnswer(f"{self._host}:{self._port} does not answer ({error})") from error
        return connection, await _beginning(connection, request)


async def _beginning(connection: _Connection, request: bytes) -> Answer:
    """The status and the headers of the answer to a request; the connection is closed where there is none."""
    try:
        connection.writer.write(request)
        head = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        return Answer(int(first.split()[1]), headers, connection.reader)
    except (*_BROKEN, IndexError) as error:
        connection.writer.close()
        raise NoAnswer(f"the server broke off ({error})") from error
    except BaseException:
        connection.writer.close()
        raise
