"""Names that a server looks up on a hub: what they mean now, who is asked how often, and what holds while the hub is away."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cases import random_adapter
from refusals import refused
from slots import settled
from stores import store_of
from tiny import write_backbone

from graftax import GraftaxError, Hub, LoRA, save_adapter
from graftax.models.backbone import Backbone
from graftax.models.load import load_backbone
from graftax.serve.on_hub import OnHub
from graftax.serve.residents import Residents
from graftax.store.version import Version


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_backbone(tmp_path_factory.mktemp("on-hub") / "backbone"))


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path / "hub")


def push(hub: Hub, name: str, backbone: Backbone, folder: Path, seed: int) -> Version:
    adapter = random_adapter(backbone, (LoRA(r=2),), seed=seed)
    return hub.push(name, save_adapter(adapter, folder / f"{name}-{seed}", backbone))


def test_what_a_reference_means_now(hub: Hub, backbone: Backbone, tmp_path: Path) -> None:
    """A name the newest version, a tag what it points to, by whom it is asked where it shares; what is held stays."""
    pushed = [push(hub, "team/x", backbone, tmp_path, seed) for seed in (1, 2)]
    residents = Residents(backbone, slots=2, source=OnHub(hub.store, backbone, seconds=0))
    first, newest = residents.resolve("team/x:1"), residents.resolve("team/x")
    assert [(h.name, h.version, h.digest, str(h)) for h in (first, newest)] == [
        ("team/x", one.version, one.digest, str(one)) for one in pushed
    ]
    residents.adapter(newest)
    assert residents.hold(newest) == 1
    push(hub, "team/x", backbone, tmp_path, 3)
    assert residents.resolve("team/x").version == 3
    hub.tag("team/x", "prod", {1: 0.5, 2: 0.5})
    drawn = {route: residents.resolve("team/x:prod", route).version for route in "abcdefgh"}
    assert Counter(drawn.values()).keys() == {1, 2}
    assert drawn == {route: residents.resolve("team/x:prod", route).version for route in "abcdefgh"}
    slot = jax.tree.map(np.asarray, residents.bank.state)
    hub.remove("team/x:2", force=True)
    residents.prefetch(newest)
    assert residents.hold(newest) == 1
    jax.tree.map(np.testing.assert_array_equal, slot, residents.bank.state)
    assert refused(lambda: residents.resolve("team/y")) == f"team/y is not on {hub.store.url}."


def test_one_of_another_backbone_is_told_by_its_name(hub: Hub, backbone: Backbone, tmp_path: Path) -> None:
    narrow = load_backbone(write_backbone(tmp_path / "narrow", hidden_size=16))
    push(hub, "team/x", narrow, tmp_path, 1)
    residents = Residents(backbone, source=OnHub(hub.store, backbone))
    handle = residents.resolve("team/x")
    residents.prefetch(handle)
    settled(residents)
    with pytest.raises(GraftaxError, match=r"^team/x:1: made for another backbone"):
        residents.hold(handle)


def test_the_hub_is_asked_once_in_a_while(
    hub: Hub, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And at once about what is not known here."""
    another = Hub(tmp_path / "hub")
    another.store = store_of(tmp_path / "hub", tmp_path / "another machine")
    push(hub, "team/x", backbone, tmp_path, 1)
    clock, asked = [100.0], Counter[str]()
    monkeypatch.setattr("graftax.serve.on_hub.time.monotonic", lambda: clock[0])
    source = OnHub(hub.store, backbone, seconds=5)
    objects = hub.store.objects
    after = objects.after

    def counted(*of: Any) -> Any:
        asked["times"] += 1
        return after(*of)

    monkeypatch.setattr(objects, "after", counted)
    assert source.resolve("team/x").version == 1
    begun = asked["times"]
    push(another, "team/x", backbone, tmp_path, 2)
    clock[0] += 4.9
    assert [source.resolve("team/x").version for _ in range(50)] == [1] * 50
    assert asked["times"] == begun
    clock[0] += 0.2
    assert [source.resolve("team/x").version for _ in range(50)] == [2] * 50
    push(another, "team/y", backbone, tmp_path, 1)
    assert source.resolve("team/y").version == 1
    assert asked["times"] < 20  # for a hundred and two


@pytest.mark.parametrize("how", ["its folder is gone", "it does not answer"])
def test_a_hub_that_is_away(how: str, hub: Hub, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it said last holds, what is in memory answers, what is not known is refused in a line; then it is there again."""
    push(hub, "team/x", backbone, tmp_path, 1)
    source = OnHub(hub.store, backbone, seconds=0)
    residents = Residents(backbone, slots=1, source=source)
    x = residents.resolve("team/x")
    residents.adapter(x)

    def silent(*of: Any, **settings: Any) -> Any:
        raise GraftaxError(f"{hub.store.url}: it does not answer.")

    with monkeypatch.context() as patched:
        if how == "it does not answer":
            for verb in ("after", "get", "get_all", "get_stamped", "size", "sizes"):
                patched.setattr(hub.store.objects, verb, silent)
            why = f"{hub.store.url}: it does not answer."
        else:
            (tmp_path / "hub").rename(tmp_path / "elsewhere")
            why = f"there is no hub at {hub.store.url}"
        assert residents.resolve("team/x") == x
        assert residents.hold(x) == 1
        assert source.away == why
        line = refused(lambda: residents.resolve("team/y"))
        assert line == f"team/y is not known here, and the hub is away: {why}"
    if how != "it does not answer":
        (tmp_path / "elsewhere").rename(tmp_path / "hub")
    push(hub, "team/y", backbone, tmp_path, 1)
    assert residents.resolve("team/y").version == 1
    assert (residents.resolve("team/x"), source.away) == (x, None)


def test_a_folder_that_is_gone_for_a_while_takes_no_name_with_it(hub: Hub, backbone: Backbone, tmp_path: Path) -> None:
    """Its disk was away: names were asked, found nowhere, and forgotten, whatever this machine had known; by a push, too."""
    version = push(hub, "team/x", backbone, tmp_path, 1)
    source = OnHub(hub.store, backbone, seconds=0)
    assert source.resolve("team/x", None).digest == version.digest
    (tmp_path / "hub").rename(tmp_path / "away")
    assert "there is no hub" in (refused(lambda: hub.store.resolve("team/x")) or "")
    (tmp_path / "hub").touch()  # nor can one be made there: a push is refused
    assert "no directory can be made there" in (refused(lambda: push(hub, "team/z", backbone, tmp_path, 3)) or "")
    assert hub.store.find("team/x") is None
    assert hub.store.count() == (0, 0)
    assert hub.store.recall("team/x") == version
    assert source.resolve("team/x", None).digest == version.digest
    assert source.away is not None
    (tmp_path / "hub").unlink()
    (tmp_path / "away").rename(tmp_path / "hub")
    assert hub.store.resolve("team/x") == version
    for file in sorted((tmp_path / "hub").rglob("*"), reverse=True):  # a hub that was deleted, in whose place another is made
        file.rmdir() if file.is_dir() else file.unlink()
    other = push(hub, "team/y", backbone, tmp_path, 2)
    assert hub.list() == [other]
