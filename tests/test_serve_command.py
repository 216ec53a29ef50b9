"""`graftax serve` as a process: it says where it is, answers, and ends when it is told to; what it cannot begin is one line."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import uvicorn
from conftest import Graftax
from http_servers import speaker
from starlette.types import Receive, Scope, Send
from tiny import command_line

from graftax import save_adapter
from graftax.models.backbone import Backbone
from graftax.serve.http import serving
from graftax.serve.http.limits import Limits


@pytest.mark.parametrize(("number", "warm_up"), [(signal.SIGTERM, "--no-warm-up"), (signal.SIGINT, "--warm-up")])
def test_it_serves_until_it_is_told_to_end(
    number: signal.Signals, warm_up: str, teller: Backbone, teller_dir: Path, tmp_path: Path
) -> None:
    directory = save_adapter(speaker(teller, 1), tmp_path / "sea", teller)
    command = command_line("serve", "-b", teller_dir, "-a", f"ocean={directory}", "--port", 0, warm_up)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("graftax: backbone at http://127.0.0.1:")
            models = httpx2.get(f"{said.split()[-1]}/models", timeout=300).json()["data"]
            assert [card["id"] for card in models] == ["backbone", "ocean"]
            process.send_signal(number)
            rest = process.communicate(timeout=300)
        finally:
            process.kill()
    assert (process.returncode, rest[1]) == (0, "")
    assert all(line.startswith("graftax: compiled ") for line in rest[0].splitlines()), rest[0]
    assert not rest[0] or warm_up == "--warm-up"


def test_who_ends_it_before_it_has_begun_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the line that says where it is and the moment when uvicorn hears signals."""

    asked_to_end: list[bool] = []

    class Slow(uvicorn.Server):
        def run(self, sockets: list[socket.socket] | None = None) -> None:
            signal.raise_signal(signal.SIGTERM)
            asked_to_end.append(self.should_exit)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nobody asks")

    heard = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(serving, "server_of", lambda *_: Slow(uvicorn.Config(app)))
    try:
        with serving.listening("127.0.0.1", 0) as there:
            serving.run(app, there, Limits(), None)
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
    assert asked_to_end == [True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--allow-path", "nowhere"], "--allow-path nowhere: no such folder."),
        (["--api-key-file", "nowhere"], "nowhere: no such file of API keys."),
        (["--port", "{port}"], "127.0.0.1:{port}: cannot be listened at"),
        (["--host", "300.0.0.1"], "300.0.0.1:8000: cannot be listened at"),
        (["--timeout", "0"], "timeout must be a number, above 0"),
        (["-a", "nowhere/at/all"], "nowhere/at/all: no such adapter directory"),
    ],
)
def test_what_cannot_be_served(options: list[str], said: str, graftax: Graftax, teller_dir: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = graftax("serve", "-b", teller_dir, *(option.format(port=port) for option in options))
    assert done.code == 2
    assert done.err.startswith(f"graftax: {said.format(port=port)}")
    assert done.err.count("\n") == 1


def test_without_the_extra(teller_dir: Path) -> None:
    code = "import sys; sys.modules['starlette'] = None; from graftax.__main__ import main; main()"
    words = [sys.executable, "-c", code, "serve", "-b", str(teller_dir)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "graftax: graftax serve needs starlette: pip install 'graftax[serve]'.\n"
