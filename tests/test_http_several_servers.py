"""Several servers over one hub: what is pushed, and where a tag points, is the same at all of them a moment later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cases import fresh, randomised
from http_servers import Served, served, until

from graftax import Hub, LoRA, save_adapter
from graftax.models.backbone import Backbone
from graftax.store.store import Store


@pytest.fixture(scope="module")
def folder(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub, and adapters that are not on it yet."""
    made = tmp_path_factory.mktemp("several")
    for seed in range(3):
        save_adapter(randomised(fresh(tiny, (LoRA(r=2, alpha=3.0),), seed=seed), seed), made / str(seed), tiny)
    Hub(made / "hub").push("shop/fruit", made / "0", tags=["prod"])
    return made


@pytest.fixture(scope="module")
def servers(tiny: Backbone, folder: Path) -> Iterator[list[Served]]:
    with ExitStack() as stack:
        yield [stack.enter_context(served(tiny, store=Store(folder / "hub"), slots=2)) for _ in range(2)]


def answered_by(server: Served, model: str) -> str | None:
    """Name and version of the adapter that answers to a model's name; None where there is no such."""
    answer = server.post("/classify", model=model, input="a red apple")
    return answer.json()["adapter"] if answer.status_code == 200 else None


def test_all_servers_mean_the_same_by_a_name(servers: list[Served], folder: Path) -> None:
    hub = Hub(folder / "hub")
    assert [answered_by(server, "shop/fruit:prod") for server in servers] == ["shop/fruit:1"] * 2
    assert [answered_by(server, "shop/metal") for server in servers] == [None, None]
    hub.push("shop/fruit", folder / "1", tags=["prod"])
    hub.push("shop/metal", folder / "2")
    for model, version in (("shop/fruit:prod", "shop/fruit:2"), ("shop/metal", "shop/metal:1")):
        for server in servers:
            until(lambda server=server, model=model, version=version: answered_by(server, model) == version)
    hub.tag("shop/fruit", "prod", 1)  # rolled back
    for server in servers:
        until(lambda server=server: answered_by(server, "shop/fruit:prod") == "shop/fruit:1")
    answers = [server.post("/classify", model="shop/fruit:prod", input="a red apple").json() for server in servers]
    assert answers[0]["adapter_digest"] == answers[1]["adapter_digest"]
    assert answers[0]["data"] == answers[1]["data"]
