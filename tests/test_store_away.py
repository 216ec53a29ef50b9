"""A store that cannot be reached, or not by this user: one line that says so, and soon."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3_server
from refusals import refused
from stores import FILES, NOTHING, store_of


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    pytest.importorskip("moto")
    with s3_server.running() as environment:
        yield environment


@pytest.mark.parametrize("url", ["s3:/bucket/hub", "s3:bucket", "gs:/bucket", "nothing://bucket/hub", "s3://", "https://"])
def test_no_url(url: str, tmp_path: Path) -> None:
    assert url in str(refused(lambda: store_of(url, tmp_path).resolve("x")))
    assert not Path(url).exists()


def test_strangers_and_buckets_that_are_not_there(s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    line = str(refused(lambda: store_of("s3://no-such-bucket/hub", tmp_path).push("x", NOTHING, FILES)))
    assert "s3://no-such-bucket/hub: there is no such bucket" in line
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.STRANGER)
    began = time.monotonic()
    store = store_of("s3://hub/x", tmp_path)
    for line in (refused(lambda: store.resolve("x")), refused(lambda: store.push("x", NOTHING, FILES))):
        assert "s3://hub/x: these credentials may not do that" in str(line)
    assert time.monotonic() - began < 10


def test_a_store_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: a line within seconds."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for name, value in s3_server.environment(nobody.getsockname()[1]).items():
            monkeypatch.setenv(name, value)
        began = time.monotonic()
        line = str(refused(lambda: store_of("s3://hub/x", tmp_path).resolve("x")))
    assert "s3://hub/x" in line
    assert "cannot be reached" in line
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_store_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody listens and says nothing: a line within two minutes."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        for name, value in s3_server.environment(silent.getsockname()[1]).items():
            monkeypatch.setenv(name, value)
        began = time.monotonic()
        line = str(refused(lambda: store_of("s3://hub/x", tmp_path).resolve("x")))
    assert "cannot be reached" in line
    assert time.monotonic() - began < 120
