"""A store in a repository of the Hugging Face Hub (on loopback): made, written by several at once, read, emptied."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hugging_face_server
import pytest
from hugging_face_server import TOKEN, HuggingFace
from huggingface_hub import constants
from refusals import refused
from stores import FILES, NOTHING, about, store_of

from graftax.store import repository
from graftax.store.places import objects_at


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HuggingFace]:
    """The Hub, and somebody who may write there; huggingface_hub reads its environment when it is imported."""
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(repository, "_PAUSE", 0.05)
    with hugging_face_server.running() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}")
        yield running


@pytest.mark.parametrize("url", ["hf://datasets/team/hub", "hf://team/hub"])
def test_a_store_in_a_repository(url: str, server: HuggingFace, tmp_path: Path) -> None:
    one, other = store_of(url, tmp_path / "one"), store_of(url, tmp_path / "other")
    assert not one.exists()
    assert "there is no hub at" in (refused(lambda: one.resolve("bank/intent")) or "")
    assert server.repositories == {}  # reading makes nothing
    first, new = one.push("bank/intent", NOTHING, FILES, tags=["prod"])
    assert (str(first), new) == ("bank/intent:1", True)
    second, _ = other.push("bank/intent", about("better"), FILES | {"more.txt": b"more"})
    assert str(second) == "bank/intent:2"
    assert one.files(one.resolve("bank/intent")) == FILES | {"more.txt": b"more"}
    assert one.files(one.resolve("bank/intent:prod")) == FILES
    one.remove("bank/intent", 2)
    assert other.collect().blobs == 1
    assert other.verify() == []
    (name,) = server.repositories
    assert sum(path.startswith("blobs/") for path in server.repositories[name]) == len(FILES)


def test_who_is_slower_comes_after(server: HuggingFace, tmp_path: Path) -> None:
    """Four writers at once: all versions are there, numbered without a gap."""

    def push(writer: int) -> list[int]:
        store = store_of("hf://team/hub", tmp_path / str(writer))
        return [store.push("x", about(f"{writer} {i}"), {"w": b"%d %d" % (writer, i)})[0].version for i in range(3)]

    store_of("hf://team/hub", tmp_path / "maker").push("x", NOTHING, FILES)
    with ThreadPoolExecutor(4) as pool:
        numbers = sorted(number for pushed in pool.map(push, range(4)) for number in pushed)
    assert numbers == list(range(2, 14))
    reader = store_of("hf://team/hub", tmp_path / "reader")
    assert reader.verify() == []
    assert len(reader.expect_versions("x")) == 13


def test_what_the_hub_refuses_is_one_line(server: HuggingFace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    line = refused(lambda: store_of("hf://team/hub", tmp_path).push("x", NOTHING, FILES))
    assert line is not None
    assert line.startswith("hf://team/hub: ")
    for url in ("hf://hub", "hf://spaces/team/hub", "hf://a/b/c", "hf:team/hub"):
        assert refused(lambda url=url: objects_at(url)) is not None
