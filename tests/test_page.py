"""The page at /, clicked through in a browser: it shows what is there and what comes, asks several at once, and runs nothing
that tenants wrote."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import fresh, randomised
from conftest import PICTURES
from http_servers import Served, served, speaker
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from graftax import BitFit, Hub, LoRA, save_adapter
from graftax.hub.told import Told
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone
from graftax.serve.http.keys import Key
from graftax.store.store import Store

HOSTILE = """<img src=x onerror="document.title='taken'">"""
PATIENCE = 120_000  # ms: a program may be compiled on a busy machine
expect.set_options(timeout=PATIENCE)


@contextmanager
def opened(browser: Browser, url: str, *, expected: str = "nothing") -> Iterator[Page]:
    """A page, in which nothing goes wrong but what is expected to."""
    page, wrong = browser.new_page(), list[str]()
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(url)
    yield page
    page.close()
    assert [text for text in wrong if expected not in text] == []


def row(page: Page, name: str) -> Locator:
    return page.locator("#adapters > li").filter(has=page.get_by_role("link", name=name, exact=True))


def ask(page: Page, text: str, *models: str) -> list[Locator]:
    """The columns of some adapters in the playground, when all have answered."""
    page.get_by_role("link", name="Playground").click()
    columns = page.locator(".column")
    while columns.count() > len(models):
        page.get_by_label("Remove this column").first.click()
    while columns.count() < len(models):
        page.get_by_role("button", name="Add an adapter").click()
    for index, model in enumerate(models):
        columns.nth(index).get_by_label("Adapter, or the base").fill(model)
    page.locator("#text").fill(text)
    page.locator("#go").click()
    expect(page.locator("#go")).to_have_text("Ask")
    return [columns.nth(index) for index in range(len(models))]


# -- a language model's -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(teller: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub, and one more adapter that is not there yet."""
    made = tmp_path_factory.mktemp("voices")
    hub = Hub(made / "hub")
    for seed, name in enumerate(["sea", "law", "sky"]):
        save_adapter(speaker(teller, seed), made / name, teller)
    (made / "sea" / "README.md").write_text(f"# The sea\n\nIt says {HOSTILE} and [more](https://example.org), *slowly*.\n")
    hub.push("voices/sea", made / "law")
    hub.push("voices/sea", made / "sea", tags=["prod"])
    hub.push("voices/law", made / "law")
    return made


@pytest.fixture(scope="module")
def server(teller: Backbone, folder: Path) -> Iterator[Served]:
    store = Store(folder / "hub")
    with served(teller, store=store, telling=Told(store), lanes=4, slots=3) as there:
        there.service.residents.register(HOSTILE, speaker(teller, 7))
        yield there


def said_by(server: Served, model: str, text: str) -> str:
    messages: Any = [{"role": "user", "content": text}]
    answer = server.openai().chat.completions.create(model=model, messages=messages, max_tokens=12, temperature=0)
    return answer.choices[0].message.content or ""


def test_a_hub_is_looked_at_and_asked(browser: Browser, server: Served, folder: Path) -> None:
    hub, text = Hub(folder / "hub"), "What is the sea?"
    with opened(browser, server.url) as page:
        expect(page.locator("#adapters > li")).to_have_count(3)
        expect(page.locator("#base")).to_have_text("backbone")
        expect(row(page, "voices/sea")).to_contain_text("prod → 2")
        page.get_by_label("Search adapters").fill("law")
        expect(page.locator("#adapters > li")).to_have_count(1)
        page.get_by_label("Search adapters").fill("")
        expect(page.locator("#adapters > li")).to_have_count(3)

        page.get_by_role("link", name="voices/sea", exact=True).click()
        expect(page.locator(".card em")).to_have_text("slowly")
        expect(page.locator(".card a")).to_have_attribute("href", "https://example.org")
        expect(page.locator("#versions tbody tr")).to_have_count(2)

        page.get_by_role("link", name="Playground").click()
        page.get_by_label("Tokens").fill("12")
        for column, model in zip(ask(page, text, "voices/sea", "voices/law"), ("voices/sea", "voices/law"), strict=True):
            assert column.locator(".answer").text_content() == said_by(server, model, text)
            handle = server.service.residents.resolve(model)
            expect(column.locator(".who")).to_contain_text(f"{handle} sha256:{handle.digest[:12]}")
            expect(column.locator(".who")).to_contain_text("12 tokens")

        hub.push("voices/sky", folder / "sky")  # while the server runs, and nobody touches the page
        page.get_by_role("link", name="Catalogue").click()
        row(page, "voices/sky").get_by_text("Ask").click()
        expect(page.locator(".column")).to_have_count(3)
        *_, third = ask(page, text, "voices/sea", "voices/law", "voices/sky")
        assert third.locator(".answer").text_content() == said_by(server, "voices/sky", text)

        (before,) = ask(page, text, "voices/sea:prod")
        expect(before.locator(".who")).to_contain_text("voices/sea:2")
        hub.tag("voices/sea", "prod", 1)
        page.get_by_role("link", name="Catalogue").click()
        expect(row(page, "voices/sea")).to_contain_text("prod → 1")
        (after,) = ask(page, text, "voices/sea:prod")
        expect(after.locator(".who")).to_contain_text("voices/sea:1")

        page.get_by_role("link", name="Traffic").click()
        expect(page.locator("#tiers")).to_contain_text("3 of 3 slots")
        expect(page.locator("#tiers")).to_contain_text("voices/sky:1")


def test_what_tenants_write_is_text(browser: Browser, server: Served) -> None:
    """In names and cards, wherever they are shown; nor would the page's policy let it run."""
    with opened(browser, f"{server.url}/#/catalogue/voices/sea") as page:
        expect(page.locator(".card")).to_contain_text(HOSTILE)
        page.get_by_role("link", name=HOSTILE, exact=True).click()
        expect(page.locator("#detail h3")).to_contain_text(HOSTILE)
        (column,) = ask(page, "What?", HOSTILE)
        expect(column.locator(".who")).to_contain_text(HOSTILE)
        page.get_by_role("link", name="Traffic").click()
        expect(page.locator("#tiers")).to_contain_text(HOSTILE)
        assert page.locator("img:not(#preview)").count() == 0
        assert page.title() == "backbone · graftax"


def test_what_cannot_be_answered_is_said(browser: Browser, server: Served) -> None:
    with opened(browser, server.url, expected="404") as page:
        expect(page.locator("#base")).to_have_text("backbone")
        good, bad = ask(page, "What?", "voices/law", "voices/none")
        expect(bad.locator(".error")).to_contain_text("there is no model 'voices/none'")
        expect(good.locator(".who")).to_contain_text("voices/law:1")


# -- an encoder's -------------------------------------------------------------------------------------------------------------


def test_labels_and_their_probabilities(browser: Browser, tiny: Backbone) -> None:
    """Beside each other: an adapter of classes, whose labels may be anything, and one of tags."""
    with served(tiny, slots=2) as server:
        made = randomised(fresh(tiny, (LoRA(r=2, alpha=3.0),), seed=1, labels=(HOSTILE, "metal", "wood")), 1)
        server.service.residents.register("fruit", made)
        server.service.residents.register("words", randomised(fresh(tiny, (LoRA(r=2, alpha=3.0),), tokens=True, seed=3), 3))
        with opened(browser, server.url) as page:
            expect(row(page, "fruit")).to_contain_text(HOSTILE)
            classes, tags = ask(page, "a red apple", "fruit", "words")
            (answer,) = server.post("/classify", model="fruit", input="a red apple").json()["data"]
            expect(classes.locator(".best")).to_have_text(answer["label"])
            expect(classes.locator(".bars")).to_contain_text(f"{max(answer['probs']):.1%}")
            (answer,) = server.post("/v1/tag", model="words", input=[["a", "red", "apple"]]).json()["data"]
            words = [f"{word}{label}" for word, label in zip(["a", "red", "apple"], answer["labels"], strict=True)]
            expect(tags.locator(".words > span")).to_have_text(words)


def test_a_picture_is_asked(browser: Browser) -> None:
    """One that is chosen as a file; what is none is said, and asks nothing."""
    backbone = random_backbone(PICTURES["cifar_resnet"] | {"image_size": 8}, seed=7)
    pets = randomised(fresh(backbone, (BitFit(),), labels=("cat", "dog", HOSTILE)), 3)
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)).save(content, "PNG")
    png = content.getvalue()
    with served(backbone, {"pets": pets}) as server, opened(browser, server.url) as page:
        page.get_by_role("link", name="Playground").click()
        expect(page.locator("#text")).to_be_hidden()
        picture, wrong = page.get_by_label("One picture"), page.locator("#picture-wrong")
        picture.set_input_files({"name": "a.pdf", "mimeType": "application/pdf", "buffer": b"%PDF"})
        expect(wrong).to_have_text("a.pdf is no picture.")
        picture.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": png})
        expect(wrong).to_be_hidden()
        expect(page.get_by_alt_text("The picture that is asked: a.png")).to_have_js_property("naturalWidth", 8)
        page.locator(".column").get_by_label("Adapter, or the base").fill("pets")
        page.locator("#go").click()
        part = {"type": "input_image", "image_url": f"data:image/png;base64,{base64.b64encode(png).decode()}"}
        (answer,) = server.post("/v1/classify", model="pets", input=[part]).json()["data"]
        expect(page.locator(".column .best")).to_have_text(answer["label"])
        expect(page.locator(".column .bars")).to_contain_text(f"{max(answer['probs']):.1%}")


def test_a_key_is_asked_for_and_a_server_that_is_away_is_said(browser: Browser, tiny: Backbone) -> None:
    key = Key(hashlib.sha256(b"sesame").digest(), admin=False)
    with served(tiny, keys=(key,)) as server:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(server.url)
        page.get_by_label("This server asks for an API key").fill("pepper")
        page.keyboard.press("Enter")
        expect(page.locator("#key-wrong")).to_contain_text("the key is none of this server's")
        assert page.locator("#base").text_content() == ""
        page.get_by_label("This server asks for an API key").fill("sesame")
        page.keyboard.press("Enter")
        expect(page.locator("#base")).to_have_text("backbone")
        expect(page.locator("#adapters")).to_contain_text("No adapters are loaded")
        expect(page.locator("#key-form")).to_be_hidden()
        assert page.context.storage_state() == {"cookies": [], "origins": []}
    expect(page.locator("#away")).to_contain_text("The server does not answer")
    page.close()
