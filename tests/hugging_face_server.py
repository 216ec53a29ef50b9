"""A Hugging Face Hub on loopback: as much of its protocol as huggingface_hub needs to make, read and change a repository."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_right"


class HuggingFace(ThreadingHTTPServer):
    """Its repositories: files by path, all on `main`; whoever changes one says TOKEN."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()  # those of them that not everybody sees
        self.commits: list[str] = []  # their messages
        self.committing = threading.Lock()
        self.revisions: set[str] = set()  # that there were; what is read of one is what is there now

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def revision(self, name: str) -> str:
        """What stands for a commit: a digest of what is there."""
        files = sorted((path, hashlib.sha256(content).hexdigest()) for path, content in self.repositories[name].items())
        revision = hashlib.sha1(json.dumps([files, len(self.commits)]).encode()).hexdigest()
        self.revisions.add(revision)
        return revision


class _Requests(BaseHTTPRequestHandler):
    server: HuggingFace
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, content: Any = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.command == "POST" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            kind = "" if asked.get("type") in (None, "model") else f"{asked['type']}s/"
            name = f"{kind}{asked['organization']}/{asked['name']}"
            known = name in self.server.repositories
            if not known and asked.get("visibility") == "private":
                self.server.private.add(name)
            self.server.repositories.setdefault(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
            self._answer(409 if known else 200, {"url": f"{self.server.url}/{name}"})
        elif parts == ["api", "validate-yaml"]:
            self._answer(200, {"errors": [], "warnings": []})
        elif parts[:2] == ["api", "models"] and "/".join(parts[2:4]) in self.server.repositories:
            self._repository("/".join(parts[2:4]), parts[4:], body)
        elif parts[:2] == ["api", "datasets"] and "/".join(parts[1:4]) in self.server.repositories:
            self._repository("/".join(parts[1:4]), parts[4:], body)
        elif parts[:1] == ["datasets"] and parts[3:4] == ["resolve"] and "/".join(parts[:3]) in self.server.repositories:
            self._file("/".join(parts[:3]), "/".join(parts[5:]))
        elif parts[2:3] == ["resolve"] and "/".join(parts[:2]) in self.server.repositories:
            self._file("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")

    def _repository(self, name: str, asked: list[str], body: bytes) -> None:
        files, revision = self.server.repositories[name], self.server.revision(name)
        if asked[1:2] and asked[1] not in {"main", *self.server.revisions}:
            self._answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        elif asked[:1] in ([], ["revision"]):
            siblings = [{"rfilename": path} for path in files]
            self._answer(200, {"id": name, "modelId": name, "sha": revision, "siblings": siblings, "tags": []})
        elif asked[0] == "tree":
            folder = "/".join(asked[2:])
            there = {path: content for path, content in files.items() if not folder or path.startswith(f"{folder}/")}
            if folder and not there:
                self._answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            else:
                self._answer(200, _listed(there))
        elif asked[0] == "paths-info":
            wanted = parse_qs(body.decode())["paths"]
            self._answer(200, _listed({path: files[path] for path in wanted if path in files}))
        elif asked[0] == "preupload":
            paths = [one["path"] for one in json.loads(body)["files"]]
            told = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            self._answer(200, {"files": told})
        else:
            with self.server.committing:
                self._commit(name, [json.loads(line) for line in body.splitlines()])

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self.server.repositories[name]
        parents = [line["value"].get("parentCommit") for line in lines if line["key"] == "header"]
        if parents[0] not in (None, self.server.revision(name)):
            self._answer(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        for line in lines:
            if line["key"] == "header":
                self.server.commits.append(line["value"]["summary"])
            elif line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            else:
                del files[line["value"]["path"]]
        revision = self.server.revision(name)
        self._answer(200, {"commitUrl": f"{self.server.url}/{name}/commit/{revision}", "commitOid": revision})

    def _file(self, name: str, path: str) -> None:
        content = self.server.repositories[name].get(path)
        if content is None:
            self._answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        else:
            self._answer(200, content, ETag=f'"{_oid(content)}"', X_Repo_Commit=self.server.revision(name))

    do_GET = do_HEAD = do_POST = _handle


def _listed(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [{"type": "file", "path": path, "size": len(content), "oid": _oid(content)} for path, content in files.items()]


def _oid(content: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running() -> Iterator[HuggingFace]:
    with HuggingFace() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
