"""A store that cannot be reached, or not by this user: one line that says so, and soon."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path

import pytest
import s3_server
from refusals import refused
from stores import FILES, NOTHING, about, store_of

from graftax.errors import GraftaxError
from graftax.store.objects import _in_one_line


@pytest.mark.parametrize("url", ["s3:/bucket/hub", "s3:bucket", "gs:/bucket", "nothing://bucket/hub", "s3://", "https://"])
def test_no_url(url: str, tmp_path: Path) -> None:
    assert url in str(refused(lambda: store_of(url, tmp_path).resolve("x")))
    assert not Path(url).exists()


@pytest.mark.parametrize("url", ["http://host/hub", "https://host/hub", "ftp://host/hub", "s3://", "gs:///hub"])
def test_places_in_which_no_hub_can_be(url: str, tmp_path: Path) -> None:
    began = time.monotonic()
    line = str(refused(lambda: store_of(url, tmp_path).resolve("x")))
    assert line.startswith(url)
    assert "a folder, s3://bucket/hub, gs://bucket/hub, az://container/hub, hf://user/hub" in line
    assert time.monotonic() - began < 10  # one that is asked over the network is given up after minutes


@pytest.mark.parametrize(
    ("url", "said", "variable"),
    [
        ("s3://bucket/hub", "PUT http://169.254.169.254/latest/api/token - 403 Forbidden", "AWS_SECRET_ACCESS_KEY"),
        ("gs://bucket/hub", "GET http://169.254.169.254/computeMetadata", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("gs://bucket/hub", "GET http://metadata.google.internal/x: error sending request", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://container/hub", "Generic MicrosoftAzure error: Account must be specified", "AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_nobody_says_who_asks(url: str, said: str, variable: str) -> None:
    """What obstore says where it finds no credentials, which takes it a while, and what is said of that."""
    with pytest.raises(GraftaxError) as refusal, _in_one_line(url):
        raise OSError(said)
    assert str(refusal.value).startswith(f"{url}: no credentials are set ({variable[:3]}")
    assert variable in str(refusal.value)
    assert str(refusal.value).endswith(said)


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
    assert time.monotonic() - began < 60


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
    assert time.monotonic() - began < 60


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


@pytest.mark.parametrize("before", ["blobs/", "ledger/"])
@pytest.mark.parametrize("removed", [True, False])
def test_a_folder_that_goes_away_while_it_is_pushed_to(
    before: str, removed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether renamed or removed, and whatever is about to be written: it is said, and no other hub is made in its place."""
    hub, elsewhere = tmp_path / "hub", tmp_path / "elsewhere"
    store = store_of(hub, tmp_path / "machine")
    store.push("bank/intent", about("first"), FILES)
    create = store.objects.create

    def going(key: str, content: bytes) -> bool:
        if key.startswith(before) and hub.exists():
            hub.rename(elsewhere)
            if removed:
                shutil.rmtree(elsewhere)
        return create(key, content)

    monkeypatch.setattr(store.objects, "create", going)
    line = refused(lambda: store.push("bank/intent", about("second"), {"weights.bin": b"others"}))
    assert line == f"{hub}: the folder is there no more; nothing was put there. Was it moved or removed?"
    assert not hub.exists()
    if not removed:
        there = store_of(elsewhere, tmp_path / "machine")
        assert [one.version for one in there.index().versions("bank/intent")] == [1]
        assert there.verify() == []


def test_a_folder_that_is_gone_when_another_was_quicker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has to look once more makes no hub where there was one."""
    hub = tmp_path / "hub"
    store = store_of(hub, tmp_path / "machine")
    store.push("bank/intent", about("first"), FILES)

    def slower(*event: object) -> bool:
        hub.rename(tmp_path / "elsewhere")
        return False

    monkeypatch.setattr(store._ledger, "append", slower)
    assert refused(lambda: store.push("bank/intent", about("second"), FILES)) is not None
    assert not hub.exists()
