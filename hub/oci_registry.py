"""OCI artefacts in a registry: the few requests of its HTTP protocol that fetch an artefact and put one.

    GET  /v2/REPOSITORY/manifests/TAG            POST /v2/REPOSITORY/blobs/uploads/, PUT (its Location)?digest=...
    GET  /v2/REPOSITORY/blobs/DIGEST             PUT  /v2/REPOSITORY/manifests/TAG

Who asks is said by what `docker login` has left in `~/.docker/config.json` (or `DOCKER_CONFIG`): a name and a password, given
to the registry itself or, where it asks for that, to its server of tokens. Only a registry on this very machine is talked to
without encryption.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from ..errors import GraftaxError
from ..json_files import read_object
from .oci import IMAGE_MANIFEST, MOST_OF_JSON, Artefact, Descriptor, json_object

_HERE = ("localhost", "127.0.0.1", "::1")
_TIMEOUT = 30  # seconds in which a server says something
_SHORT = 1 << 16  # bytes of an answer that is no content
_CHALLENGE = re.compile(r'(?P<key>[a-z_]+)="(?P<value>[^"]*)"')


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Registry:
    """A repository of a registry, and of it the artefact that a tag means."""

    def __init__(self, host: str, repository: str, tag: str):
        self.address = f"oci://{host}/{repository}:{tag}"
        scheme = "http" if urlsplit(f"//{host}").hostname in _HERE else "https"
        self._server, self._repository, self._host, self._tag = f"{scheme}://{host}", f"/v2/{repository}", host, tag
        self._challenge = ""  # the last by which the registry asked who we are,
        self._permission: str | None = None  # and what is answered, in the header Authorization

    def manifest(self) -> bytes:
        answer = self._ask("GET", f"{self._repository}/manifests/{self._tag}", most=MOST_OF_JSON, accept=IMAGE_MANIFEST)
        if answer.status == 404:
            raise GraftaxError(f"{self.address}: there is no such artefact.")
        return self._expect(answer, 200).body

    def blob(self, descriptor: Descriptor) -> bytes:
        answer = self._ask("GET", f"{self._repository}/blobs/{descriptor.digest}", most=descriptor.size)
        if answer.status == 404:
            raise GraftaxError(f"{self.address}: the blob {descriptor.digest} is missing.")
        return self._expect(answer, 200).body

    def put(self, artefact: Artefact, *, overwrite: bool = False) -> None:
        """Put an artefact under the tag; blobs that are there are not sent again.

        Raises GraftaxError where the tag is another artefact's and `overwrite` is not given.
        """
        path = f"{self._repository}/manifests/{self._tag}"
        there = self._ask("GET", path, most=MOST_OF_JSON, accept=IMAGE_MANIFEST)
        if not overwrite and there.status == 200 and there.body != artefact.manifest:
            raise GraftaxError(f"{self.address} is another artefact; choose another tag or pass --overwrite.")
        for digest, content in artefact.blobs.items():
            if self._ask("HEAD", f"{self._repository}/blobs/{digest}").status == 200:
                continue
            begun = self._expect(self._ask("POST", f"{self._repository}/blobs/uploads/", content=b""), 202)
            where = urljoin(self._server, begun.headers.get("location", ""))
            joint = "&" if urlsplit(where).query else "?"
            put = self._ask("PUT", f"{where}{joint}digest={quote(digest)}", content=content, kind="application/octet-stream")
            self._expect(put, 201)
        self._expect(self._ask("PUT", path, content=artefact.manifest, kind=IMAGE_MANIFEST), 201)

    def _expect(self, answer: _Answer, status: int) -> _Answer:
        """The answer, if it is of a status; else an error with what the registry says."""
        if answer.status == status:
            return answer
        if answer.status in (401, 403):
            raise GraftaxError(
                f"{self.address}: the registry refuses ({answer.status}); `docker login {self._host}` says who you are."
            )
        said = answer.body[:200].decode(errors="replace")
        raise GraftaxError(f"{self.address}: the registry answers {answer.status}, where {status} was expected: {said}")

    def _ask(
        self, method: str, path: str, *, content: bytes | None = None, kind: str = "", accept: str = "*/*", most: int = _SHORT
    ) -> _Answer:
        """One request; where the registry wants to know who asks, once more with that."""
        headers = {"Accept": accept} | ({"Content-Type": kind} if kind else {})
        url = urljoin(self._server, path)
        if urlsplit(url).scheme not in ("http", "https"):
            raise GraftaxError(f"{self.address}: the registry sends us to {url}, which is no place on the web.")
        ours = urlsplit(url).netloc == self._host  # blobs may be taken by another server, which is told nothing
        answer = self._send(method, url, headers, self._permission if ours else None, content, most)
        challenge = answer.headers.get("www-authenticate", "")
        if answer.status == 401 and ours and challenge != self._challenge:  # to write more may be asked than to read
            self._challenge, self._permission = challenge, self._permit(challenge)
            answer = self._send(method, url, headers, self._permission, content, most)
        return answer

    def _permit(self, challenge: str) -> str | None:
        """What the header Authorization must be by the challenge of a registry; None where nothing can be said."""
        scheme, _, rest = challenge.partition(" ")
        password = _password(self._host)
        if scheme.lower() == "basic":
            return password
        said = {match["key"]: match["value"] for match in _CHALLENGE.finditer(rest)}
        realm = said.pop("realm", "")
        if scheme.lower() != "bearer" or urlsplit(realm).scheme not in ("http", "https"):
            return None
        if urlsplit(realm).scheme == "http" and urlsplit(self._server).scheme == "https":
            raise GraftaxError(f"{self.address}: the registry wants a password to be sent without encryption, to {realm}.")
        asked = {key: said[key] for key in ("service", "scope") if key in said}
        answer = self._send("GET", f"{realm}?{urlencode(asked)}", {}, password, None, _SHORT)
        if answer.status != 200:
            return None
        tokens = json_object(answer.body, realm)
        return f"Bearer {tokens.get('token') or tokens.get('access_token')}"

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], permission: str | None, content: bytes | None, most: int
    ) -> _Answer:
        request = urllib.request.Request(url, content, dict(headers), method=method)
        if permission is not None:
            request.add_unredirected_header("Authorization", permission)  # blobs may lie elsewhere, where nobody need know it
        try:
            with _answer_to(request) as answer:
                body = answer.read(most + 1)
        except urllib.error.URLError as error:
            raise GraftaxError(f"{self.address}: the registry cannot be reached ({error.reason}).") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise GraftaxError(f"{self.address}: the registry does not answer as one ({error!r}).") from error
        if answer.status == 200 and len(body) > most:
            raise GraftaxError(f"{self.address}: the registry sends more than the {most:,} bytes that were to come.")
        return _Answer(answer.status, {key.lower(): value for key, value in answer.headers.items()}, body)


def _answer_to(request: urllib.request.Request) -> Any:
    """The answer, be it good or bad."""
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        return error


def _password(host: str) -> str | None:
    """What `docker login` has kept for a registry, as the header Authorization; None: nothing."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    if not (folder / "config.json").is_file():
        return None
    kept = read_object(folder / "config.json").get("auths")
    entry = kept.get(host) if isinstance(kept, dict) else None
    if not isinstance(entry, dict) or not isinstance(entry.get("auth"), str) or not entry["auth"]:
        return None
    return f"Basic {entry['auth']}"
