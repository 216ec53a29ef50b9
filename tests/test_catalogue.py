"""What the page asks for: the catalogue of a server, cards, leaderboards and traffic; and the files of the page itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases import LABELS, fresh, randomised
from http_servers import Served, served
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import write_backbone

from graftax import Hub, LoRA, load_backbone, save_adapter
from graftax.hub.told import Told
from graftax.models.backbone import Backbone
from graftax.serve.http.keys import Key
from graftax.serve.http.markdown import tree_of
from graftax.serve.http.web_page import PAGES
from graftax.store.events import Measure
from graftax.store.manifest import DataFacts
from graftax.store.store import Store

WEB = Path(__file__).resolve().parent.parent / "serve" / "http" / "web"


@pytest.fixture(scope="module")
def hub(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """shop/fruit in two versions, the first measured and tagged; shop/words, of tags; other/fruit, of other weights."""
    made = tmp_path_factory.mktemp("catalogue")
    hub, lora = Hub(made / "hub"), (LoRA(r=2, alpha=3.0),)
    one, two = (randomised(fresh(tiny, lora, seed=seed), seed) for seed in (1, 2))
    card = save_adapter(one, made / "one", tiny) / "README.md"
    card.write_text("---\nlicense: mit\n---\n# Fruit\n\nTells *fruit* from <b>metal</b>.\n")
    hub.push("shop/fruit", made / "one", tags=["prod"])
    version = hub.resolve("shop/fruit")
    hub.store.add_evaluation(version, "classify", "a" * 64, 12, {"accuracy": Measure(0.5, 0.3, 0.7)}, "rows.csv")
    hub.push("shop/fruit", save_adapter(two, made / "two", tiny))
    hub.push("shop/words", save_adapter(randomised(fresh(tiny, lora, tokens=True), 3), made / "three", tiny))
    other = load_backbone(write_backbone(made / "backbone", seed=8))
    hub.push("other/fruit", save_adapter(fresh(other, lora), made / "four", other))
    return hub


@pytest.fixture(scope="module")
def server(tiny: Backbone, hub: Hub) -> Iterator[Served]:
    store = Store(hub.store.url)
    with served(tiny, store=store, telling=Told(store), slots=2) as there:
        there.service.residents.register("mine", randomised(fresh(tiny, (LoRA(r=4, alpha=3.0),), seed=5), 5))
        yield there


def names(server: Served, **query: Any) -> list[str]:
    return [one["name"] for one in server.ask("GET", "/catalogue", params=query).json()["adapters"]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["mine", "shop/words", "shop/fruit"]),
        ({"q": "fruit"}, ["shop/fruit"]),
        ({"q": "MINE lora"}, ["mine"]),
        ({"q": "nothing of the kind"}, []),
        ({"task": "tag"}, ["shop/words"]),
        ({"label": "good", "method": "lora"}, ["mine", "shop/words", "shop/fruit"]),
        ({"metric": "accuracy>=0"}, []),  # what was measured is version 1, and the name means 2
        ({"limit": "1"}, ["mine"]),
    ],
)
def test_what_fits_is_found(query: Any, found: list[str], server: Served) -> None:
    """Of names on the hub what each means now, the last pushed first; what is for other weights is not there."""
    assert names(server, **query) == found


@pytest.mark.parametrize(
    ("query", "said"), [({"limit": "0"}, "limit must be"), ({"metric": "good"}, "by a bound"), ({"q": "!"}, "no word")]
)
def test_what_cannot_be_looked_for(query: Any, said: str, server: Served) -> None:
    answer = server.ask("GET", "/catalogue", params=query)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (400, True)


def test_an_entry_says_what_one_asks_with(server: Served, hub: Hub) -> None:
    first, *_, last = server.ask("GET", "/catalogue").json()["adapters"]
    handle = server.service.residents.resolve("mine")
    assert (first["from"], first["digest"], first["answers"], first["label_count"]) == ("loaded", handle.digest, "classes", 3)
    newest = hub.resolve("shop/fruit")
    assert (last["version"], last["digest"], last["tags"]) == (2, newest.digest, {"prod": {"1": 1.0}})
    server.post("/classify", model="shop/fruit", input="pear")
    assert server.ask("GET", "/catalogue").json()["adapters"][-1]["where"] in ("memory", "device")


def test_one_by_its_name(server: Served) -> None:
    """Its versions, the newest first, how they did, and the card of one of them."""
    shown = server.ask("GET", "/catalogue/shop/fruit", params={"version": 1}).json()
    assert (shown["adapter"]["version"], [one["version"] for one in shown["versions"]]) == (1, [2, 1])
    assert shown["versions"][1]["tags"] == {"prod": 1.0}
    assert "accuracy" in [one["metric"] for one in shown["versions"][1]["measured"]]
    heading, text, *_ = shown["card"]
    assert heading == {"tag": "h1", "children": ["Fruit"]}
    assert text == {"tag": "p", "children": ["Tells ", {"tag": "em", "children": ["fruit"]}, " from <b>metal</b>."]}
    assert server.ask("GET", "/catalogue/shop/fruit").json()["adapter"]["version"] == 2
    assert server.ask("GET", "/catalogue/mine").json()["versions"] == []
    for missing in ("shop/none", "shop/fruit?version=9", "other"):
        assert server.ask("GET", f"/catalogue/{missing}").status_code == 404


def test_one_that_was_loaded_has_a_card(tiny: Backbone) -> None:
    """Of what is known of it: as much as a hub would say, but for how it is had from there; also where there is no hub."""
    recipe, data = {"method": "lora", "epochs": 7}, DataFacts(name="rows.csv", rows=12)
    known: Any = {"metrics": {"val_accuracy": 0.75}, "recipe": recipe, "data": data}
    adapter = randomised(fresh(tiny, (LoRA(r=4, alpha=3.0),), seed=6, **known), 6)
    with served(tiny, {"plain": adapter}) as silent, served(tiny, {"plain": adapter}, telling=Told()) as alone:
        assert silent.ask("GET", "/catalogue/plain").json()["card"] is None
        shown = alone.ask("GET", "/catalogue/plain").json()
    about = shown["adapter"]
    assert (about["base"], about["task"], about["methods"], about["labels"]) == ("backbone", "classify", ["lora"], [*LABELS])
    assert 0 < about["size"] - 4 * adapter.parameters < 400  # float32, and the few numbers that are not trained
    assert (about["parameters"], about["metrics"]) == (adapter.parameters, {"val_accuracy": 0.75})
    card = said_in(shown["card"])
    for text in (f"lora on backbone for the task classify, 3 labels, {adapter.parameters:,} parameters", *LABELS):
        assert text in card
    assert "Trained on rows.csv, 12 rows" in card
    assert '"epochs": 7' in card
    assert "val_accuracy" in card
    assert f"fingerprint of its weights: {tiny.fingerprint}" in card
    assert "graftax hub pull" not in card
    assert "predictor" not in card


def said_in(tree: Any) -> str:
    """The text of a card's tree."""
    return tree if isinstance(tree, str) else "".join(map(said_in, tree["children"] if isinstance(tree, dict) else tree))


def test_a_leaderboard_of_what_fits(server: Served, hub: Hub) -> None:
    board = server.ask("GET", "/leaderboard/classify").json()
    assert [(one["place"], one["name"], one["version"]) for one in board["places"]] == [(1, "shop/fruit", 1)]
    assert board["metric"] == "accuracy"
    assert server.ask("GET", "/leaderboard/tag").json()["places"] == []
    assert server.ask("GET", "/leaderboard/classify", params={"data": "other rows"}).status_code == 404


def test_what_was_known_is_shown_while_the_hub_is_away(server: Served, hub: Hub, tmp_path: Path) -> None:
    folder = Path(hub.store.url)
    known = names(server)
    folder.rename(tmp_path / "away")
    try:
        server.service.hub._asked -= 10
        answer = server.ask("GET", "/catalogue").json()
        assert "there is no hub" in answer["hub"]["away"]
        assert [one["name"] for one in answer["adapters"]] == known
        assert server.ask("GET", "/traffic").json()["status"] == "degraded"
        assert server.ask("GET", "/catalogue/shop/fruit").json()["card_problem"]
    finally:
        (tmp_path / "away").rename(folder)
        server.service.hub._asked -= 10
    assert server.ask("GET", "/catalogue").json()["hub"] == {"away": None}


def test_traffic_is_what_was_asked(server: Served) -> None:
    """What only looks on is none."""
    before = server.ask("GET", "/traffic").json()
    server.post("/classify", model="mine", input="pear")
    server.post("/classify", model="none", input="pear")
    after = server.ask("GET", "/traffic").json()
    assert (after["answered"] - before["answered"], after["failed"] - before["failed"]) == (2, 1)
    assert after["tokens_read"] > before["tokens_read"]
    assert after["latency"]["requests"] >= 2
    assert 0 < after["latency"]["median"] <= after["latency"]["p95"]
    assert (after["lanes"], after["tiers"]["slots"], after["status"]) == (None, 2, "ready")


# -- the page itself ----------------------------------------------------------------------------------------------------------


def test_the_page_is_public_and_its_data_are_not(tiny: Backbone) -> None:
    with served(tiny, keys=(Key(hashlib.sha256(b"sesame").digest(), admin=False),)) as server:
        for path in PAGES:
            answer = server.ask("GET", path)
            assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff")
            assert "script-src 'self'; style-src 'self'" in answer.headers["content-security-policy"]
        for path in ("/catalogue", "/catalogue/mine", "/leaderboard/classify", "/traffic", "/page/../traffic"):
            assert server.ask("GET", path).status_code == 401
            assert server.ask("GET", path, headers={"authorization": "Bearer sesame"}).status_code in (200, 404)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No address of another host, no script and no style within the HTML; and whatever it names is there."""
    assert {"/", "/page/page.js", "/page/page.css"} <= {*PAGES}
    for file in WEB.iterdir():
        text = file.read_text("utf-8")
        assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}
        assert {*re.findall(r'from "\./([\w.]+)"', text)} <= {file.name for file in WEB.iterdir()}
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    html = (WEB / "index.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    assert {f"/{path}" for path in re.findall(r'(?:href|src)="(page/[^"]+)"', html)} <= {*PAGES}


TAGS = set(re.findall(r'"([a-z0-9 ]+)"\.split', (WEB / "elements.js").read_text("utf-8"))[0].split())
PIECES = st.sampled_from(
    ["<img src=x onerror=a()>", "[a](javascript:a())", "[b](https://e.org)", "![c](http://x)", "`", "```\n"]
)
PIECES |= st.sampled_from(
    ["\n\n", "# ", "- ", "1. ", "> ", "|", "|---|\n", "*", "**", "\\", "&lt;", "<!-- c -->", "---\n", "\t"]
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(PIECES | st.text(max_size=6), max_size=20).map("".join))
def test_a_card_becomes_what_the_page_makes_elements_of(text: str) -> None:
    """Texts, and tags that the page knows; a link leads to the web, and nothing else has an address."""

    def look(node: Any) -> None:
        if isinstance(node, str):
            return
        assert node["tag"] in TAGS
        assert set(node) <= {"tag", "children", "href"}
        assert ("href" in node) == (node["tag"] == "a")
        assert re.match("https?:", node.get("href", "http:"))
        for child in node["children"]:
            look(child)

    for tree in tree_of(text):
        look(tree)
